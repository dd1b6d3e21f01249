"""What a language model shows of itself at a prompt and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.data.errors import ModelError
from affectlens.display.cards import Card, Shown

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel


class ModelViews(Shown):
    """Card of a language model."""

    def _card(self) -> Card:
        lm = cast("LanguageModel", self)
        try:
            blocks = f"{lm.n_layers} blocks"
        except ModelError:
            blocks = "no single list of blocks"
        source = lm.source
        facts = {
            "class": type(lm.model).__name__,
            "size": f"{blocks}, {lm.d_model:,} wide, {lm.d_vocab:,} logits, "
            f"context of {lm.context_length:,} tokens",
            "runs on": f"{lm.device}, {str(lm.dtype).removeprefix('torch.')}",
            "read from": " ".join(s for s in (source.kind, source.path, source.revision) if s),
        }
        calls = {
            'lm.generate("The day began")': "text",
            'al.harvest(lm, "default", layer=n, out="acts")': "activations to train an SAE on",
        }
        return Card("LanguageModel", lm.name, facts, calls=calls)
