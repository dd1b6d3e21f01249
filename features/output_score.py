"""Output score: does a latent, added to a neutral text, bring out the tokens that it promotes?

After Arad, Mueller and Belinkov 2025 (arXiv:2505.20063). On a neutral opening the latent's decoder
row, `strength` times its largest activation, is added at the last token (the SAE's error stays).
Among the tokens that the row promotes most through the unembedding (`logit_lens`) the likeliest
has rank r (0 is the top of the vocabulary of V tokens) and probability p of coming next; the score
is (1 - r / V) p, averaged over openings. Latents of high output score steer; latents that fire on
emotional text, which the search finds, need not.

Their input score is the share of a latent's strongest contexts whose peak token is among the same
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.features.logit_lens import Lens, lenses, unembedding
from affectlens.features.results import Context
from affectlens.features.resumed import Branches, Stored, last_logits, layer_of
from affectlens.sae.model import SparseAutoencoder

SCORE_COLUMNS = ("output_score", "output_rank", "output_probability")

PREFIXES: tuple[str, ...] = (
    "The shop on the corner opens at",
    "On the table there was a",
    "My neighbour told me that the",
    "The report from last year says that",
    "In the next room, someone was",
    "The bus to the station stops",
    "At the end of the street you will find",
    "The second page of the form asks for",
    "A man with a grey coat said that he",
    "When the meeting was over, they",
    "The box in the hall holds",
    "It was about noon when she",
    "The new road runs along the",
    "We looked at the map and",
    "The window faces a",
    "According to the notice on the door, the",
    "He picked up the phone and",
    "The recipe begins with",
    "This morning the postman brought",
    "The child pointed at the",
    "After the lecture the students",
    "The train was standing at platform four and",
    "Her answer to the question was",
    "I think that the",
    "The first thing they noticed was",
    "On Thursday the two of them",
    "The letter was addressed to",
    "From the top of the stairs one could see",
    "The people in the waiting room were",
    "Before he left, he put the",
    "The machine in the cellar makes",
    "What she wrote in the notebook was",
)
"""Openings of sentences about everyday things that go on in any direction; our own."""


@dataclass(frozen=True, eq=False)
class OutputScores:
    """Output scores of some latents.

    Attributes:
        table: one row a latent: `feature` and `SCORE_COLUMNS`, means over openings.
        promoted: latent -> the tokens whose rank and probability were read.
        n_prefixes: openings used.
        n_masked: openings left out, because the SAE's mask leaves out their last token.
    """

    table: pd.DataFrame
    promoted: Mapping[int, Lens]
    n_prefixes: int
    n_masked: int

    @classmethod
    def none(cls) -> OutputScores:
        """Scores of no latent."""
        return cls(pd.DataFrame(columns=["feature", *SCORE_COLUMNS], dtype=float), {}, 0, 0)


@torch.inference_mode()
def output_scores(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: Sequence[int],
    maxima: Sequence[float],
    *,
    strength: float = 10.0,
    prefixes: Sequence[str] = PREFIXES,
    n_tokens: int = 20,
    batch_size: int = 128,
) -> OutputScores:
    """Score latents by what they bring out on neutral openings; see the module.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: latents.
        maxima: largest activation of each, above 0.
        strength: what is added at the last token, in units of the maxima.
        prefixes: openings.
        n_tokens: tokens that count as promoted.
        batch_size: latents in one forward pass.

    Raises:
        ConfigError: a latent that never fires, no opening left, or a strength that overflows.
        ModelError: a model whose unembedding cannot be read.
    """
    never = [f for f, top in zip(features, maxima, strict=True) if not top > 0]
    if never:
        raise ConfigError(
            f"latents {never[:5]} never fire on held-out text, so there is no unit to add them in; "
            "leave them out"
        )
    rows = sae.W_dec[list(features)]
    promoted = dict(zip(features, lenses(unembedding(lm), rows, n_tokens), strict=True))
    opened, n_masked = _openings(lm, sae, prefixes)
    layer = layer_of(sae.info.hook_name)
    branched = layer >= 0 and _branches_agree(lm, layer, opened[0])
    parts = []
    for start in range(0, len(features), batch_size):
        some = features[start : start + batch_size]
        size = torch.tensor(maxima[start : start + batch_size], dtype=torch.float32)
        write = strength * size.to(rows)[:, None] * rows[start : start + batch_size]
        tokens = torch.tensor([[t.token for t in promoted[f].promoted] for f in some])
        values = [
            _scored(opening.logits(lm, layer, write, branched=branched), tokens)
            for opening in opened
        ]
        parts.append(torch.stack(values).mean(0).cpu().numpy())
    table = pd.DataFrame(np.concatenate(parts) if parts else None, columns=list(SCORE_COLUMNS))
    table.insert(0, "feature", np.array(features, dtype=np.int64))
    return OutputScores(table, promoted, len(opened), n_masked)


def input_scores(promoted: Mapping[int, Lens], contexts: Sequence[Context]) -> dict[int, float]:
    """Share of each latent's contexts whose peak token is among those that it promotes.

    Latents without a context are left out.
    """
    peaks: dict[int, list[str]] = {}
    for context in contexts:
        peaks.setdefault(context.feature, []).append(context.tokens[context.peak])
    found = {}
    for feature, lens in promoted.items():
        if feature in peaks:
            texts = {token.text for token in lens.promoted}
            found[feature] = float(np.mean([peak in texts for peak in peaks[feature]]))
    return found


@dataclass(frozen=True, eq=False)
class _Opening:
    """Tokens of an opening, its residual [n_tokens, d_model], and what the SAE scales writes by."""

    tokens: tuple[int, ...]
    resid: Tensor
    scale: Tensor

    def logits(self, lm: LanguageModel, layer: int, write: Tensor, *, branched: bool) -> Tensor:
        """Logits [n, d_vocab] after `write` [n, d_model] was added at the last token.

        Only the last token differs between latents, so the others are run once where the model
        allows it.
        """
        shared, end = self.tokens[:-1], self.tokens[-1:]
        before = self.resid[:-1].float()
        ends = self.resid[-1].float() + write * self.scale
        if branched:
            stored = Stored(Branches(shared, (end,) * len(ends)), torch.cat([before, ends]))
            return last_logits(lm, layer, [stored])[0]
        one = Branches(shared, (end,))
        each = [Stored(one, torch.cat([before, x[None]])) for x in ends]
        return last_logits(lm, layer, each)[:, 0]


def _openings(
    lm: LanguageModel, sae: SparseAutoencoder, prefixes: Sequence[str]
) -> tuple[list[_Opening], int]:
    """The openings, and how many were left out because the mask leaves out their last token."""
    if not prefixes:
        raise ConfigError("the output score needs at least one opening")
    batch = lm.encode(list(prefixes))
    resid = capture(lm, [sae.info.hook_name], batch)[sae.info.hook_name]
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    keep = rule.keep(resid, batch.positions, batch.attention_mask)
    found = []
    for ids, mask, x, kept in zip(batch.input_ids, batch.attention_mask, resid, keep, strict=True):
        if bool(kept[mask][-1]):
            here = x[mask]
            found.append(_Opening(tuple(ids[mask].tolist()), here, sae.output_scale(here[-1])))
    if not found:
        raise ConfigError(
            f"the SAE's mask leaves out the last token of all {len(prefixes)} openings; give "
            "openings of several tokens"
        )
    return found, len(prefixes) - len(found)


def _branches_agree(lm: LanguageModel, layer: int, opening: _Opening) -> bool:
    """Whether ends that are run beside each other give the logits of rows run one by one.

    Seen on one opening with two ends, one of them turned round. A family may refuse the mask that
    this takes, or leave out part of it.
    """
    write = torch.stack([torch.zeros_like(opening.resid[-1]), -2 * opening.resid[-1]]).float()
    apart = opening.logits(lm, layer, write, branched=False)
    try:
        beside = opening.logits(lm, layer, write, branched=True)
    except Exception:  # noqa: BLE001 - whatever a family does here, rows still run alone
        return False
    between = (apart[0] - apart[1]).abs().max()
    return bool((apart - beside).abs().max() <= 1e-3 * between)


def _scored(logits: Tensor, tokens: Tensor) -> Tensor:
    """Score, rank and probability [n, 3] of the likeliest of each row's `tokens` [n, n_tokens]."""
    total = torch.logsumexp(logits, -1)
    if not bool(torch.isfinite(total).all()):
        raise ConfigError(
            "adding the latents gives logits that are not finite; use a smaller output_strength"
        )
    best = logits.gather(1, tokens.to(logits.device)).amax(1)
    rank = (logits > best[:, None]).sum(1).double()
    probability = (best - total).double().exp()
    return torch.stack([(1 - rank / logits.shape[1]) * probability, rank, probability], -1)
