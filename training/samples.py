"""Tokens to check an SAE on: held-out rows of a store, or a short capture from a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.data.activations import length_batches
from affectlens.data.addresses import Address
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import Corpus, held_out, load_corpus, windows
from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule, norm_limit, token_norms
from affectlens.data.models import LanguageModel

_HARVEST = HarvestConfig()
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Sample:
    """Residuals of real tokens at one place, masked ones included.

    Attributes:
        hook: the place, by the name it has in the store or the model.
        origin: where the tokens come from, in words.
        acts: float32 [n, d_model].
        keep: bool [n], False on masked tokens.
        first: bool [n], True on the first token of a window.
        rule: the rule behind `keep`.
        windows: token ids of text from the same place, for cross-entropy.
    """

    hook: str
    origin: str
    acts: Tensor
    keep: Tensor
    first: Tensor
    rule: MaskRule
    windows: list[tuple[int, ...]]

    @property
    def content(self) -> Tensor:
        """The rows that are not masked, [n_kept, d_model]."""
        return self.acts[self.keep]

    def kept_by(self, rule: MaskRule) -> Tensor:
        """Which tokens another rule keeps, bool [n]."""
        keep = torch.ones_like(self.keep)
        if rule.skip_first:
            keep &= ~self.first
        if rule.norm_limit is not None:
            keep &= token_norms(self.acts) <= rule.norm_limit
        return keep


def sample_store(store: Any, hook: str, max_tokens: int, max_ce_tokens: int) -> Sample:
    """Held-out rows of a store at one of its hooks.

    Raises:
        ArtifactError: nothing is held out.
    """
    rows = store.heldout(hook, max_tokens, kept_only=False)
    return Sample(
        hook=hook,
        origin="held-out tokens of the store",
        acts=rows.acts,
        keep=torch.as_tensor(np.asarray(rows.keep), dtype=torch.bool),
        first=torch.from_numpy(np.asarray(rows.position) == 0),
        rule=store.mask_rule(hook),
        windows=[w.token_ids for w in store.token_windows("heldout", max_ce_tokens)],
    )


def sample_model(
    lm: LanguageModel, hook: str, max_tokens: int, *, corpus: Corpus | None = None
) -> Sample:
    """Run a model over held-out documents of a corpus; by default the embedded one.

    The mask is what a harvest would make of these tokens: first tokens, and norms above ten times
    the median.
    """
    corpus = heldout_corpus(corpus or load_corpus())
    length = min(_HARVEST.context_length, lm.context_length)
    text = [w.token_ids for w in windows(corpus, lm, length, max_tokens).windows]
    acts = read_rows(lm, [hook], text)[Address.parse(hook).name]
    first = torch.cat([torch.arange(len(w)) == 0 for w in text])
    rule, keep = content_rule(acts, first)
    return Sample(
        hook=Address.parse(hook).name,
        origin=f"held-out documents of the corpus {corpus.name!r}, read through {lm.name}",
        acts=acts,
        keep=keep,
        first=first,
        rule=rule,
        windows=text,
    )


def content_rule(acts: Tensor, first: Tensor) -> tuple[MaskRule, Tensor]:
    """The mask that a harvest would make of these tokens, and which it keeps, bool [n]."""
    norms = token_norms(acts)
    limit = norm_limit(norms[~first], _HARVEST.outlier_factor)
    return MaskRule(norm_limit=limit), ~first & (norms <= limit)


def heldout_corpus(corpus: Corpus) -> Corpus:
    """The documents of a corpus that no training here has seen; all, if there is but one."""
    marks = held_out([document.id for document in corpus.documents])
    kept = tuple(d for d, mark in zip(corpus.documents, marks, strict=True) if mark)
    return replace(corpus, documents=kept or corpus.documents)


def read_rows(
    lm: LanguageModel, hooks: Sequence[str], text: Sequence[tuple[int, ...]]
) -> dict[str, Tensor]:
    """Residuals of all tokens in order at several places, float32 [n, d_model] on the CPU."""
    names = [Address.parse(hook).name for hook in hooks]
    lengths = [len(w) for w in text]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    acts = {name: torch.empty(int(starts[-1]), lm.d_model) for name in names}
    for batch in length_batches(lengths, _TOKENS_AT_ONCE):
        found = capture(lm, list(names), lm.pad([text[i] for i in batch]))
        for name, resid in found.items():
            for row, i in enumerate(batch):
                acts[name][starts[i] : starts[i + 1]] = resid[row, : lengths[i]].float().cpu()
    return acts
