"""The same place, read by TransformerLens: a check that our layer n is everyone's layer n.

TransformerLens is what the field names places by. Its bridge hooks the same Hugging Face module in
its own way, so equal numbers mean that the address language means the same here and there.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from affectlens.data.addresses import Address
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel


def bridge_of(lm: LanguageModel) -> Any:
    """A `TransformerBridge` around a copy of the model.

    A copy, because booting changes the blocks of the module it is given in place. It doubles the
    memory of the model while it lives.
    """
    from transformer_lens.model_bridge import TransformerBridge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TransformerBridge.boot_transformers(
            lm.name,
            hf_model=copy.deepcopy(lm.model),
            tokenizer=copy.deepcopy(lm.tokenizer),
            device=str(lm.device),
        )


def largest_difference(lm: LanguageModel, text: str) -> float:
    """Largest absolute difference of any block's output between our capture and the bridge's.

    Raises:
        StimulusError: an empty or too long text.
    """
    batch = lm.encode([text])
    names = [Address(layer, "resid_post").name for layer in range(lm.n_layers)]
    ours = capture(lm, names, batch)
    with torch.no_grad():
        _, cache = bridge_of(lm).run_with_cache(batch.input_ids)
    return max(float((ours[name] - cache[name]).abs().max()) for name in names)
