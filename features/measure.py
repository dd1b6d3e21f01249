"""Run a model with an intervention over prepared texts and read the emotion words.

The residual at the edited layer does not depend on the edit, so it is captured once and every
condition runs only the blocks above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.hooks import capture, edit, resume_from
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.features.interventions import EditTally, Scope, Spec, residual_edit
from affectlens.features.readouts import (
    ReadoutBatch,
    WordSets,
    readout_batches,
    readout_names,
    readout_scores,
)
from affectlens.sae.model import SparseAutoencoder

SpecsFor = Callable[[int, int], Sequence[Spec]]
"""Specs for the texts start..stop of a measurement (they differ only for per-row specs)."""


@dataclass(frozen=True)
class Measured:
    """One condition over all texts.

    Attributes:
        effect: [n_texts, n_readouts] edited minus unedited readout (nats).
        kl: [n_texts] KL(unedited || edited) of the next token at the readout (nats).
        tally: calls, edited tokens and norms.
    """

    effect: npt.NDArray[np.float64]
    kl: npt.NDArray[np.float64]
    tally: EditTally


@dataclass(frozen=True)
class _Prepared:
    part: ReadoutBatch
    resid: Tensor | None
    logp: Tensor
    readout: npt.NDArray[np.float64]


class Meter:
    """Texts prepared once (encoded, residual captured, unedited readout), measured many times."""

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        texts: Sequence[str],
        sets: WordSets,
        templates: Sequence[str],
        *,
        batch_size: int = 16,
    ) -> None:
        self._lm, self._sae, self._sets = lm, sae, sets
        self.n_texts, self.n_templates = len(texts), len(templates)
        self.names = readout_names(sets)
        address = Address.parse(sae.info.hook_name)
        self._layer = address.layer if address.site == "resid_post" else address.layer - 1
        self._parts = [
            self._prepare(part) for part in readout_batches(lm, texts, templates, batch_size)
        ]
        self.unedited = self._gather([p.readout for p in self._parts])

    @torch.inference_mode()
    def _prepare(self, part: ReadoutBatch) -> _Prepared:
        resid = None
        if self._layer >= 0:
            name = Address(self._layer, "resid_post").name
            resid = capture(self._lm, [name], part.batch)[name]
        logits = self._logits(part, resid)
        return _Prepared(
            part, resid, torch.log_softmax(logits.double(), -1), readout_scores(logits, self._sets)
        )

    def _logits(self, part: ReadoutBatch, resid: Tensor | None) -> Tensor:
        if resid is None:
            return self._lm.forward_logits(part.batch, last_only=True)
        with resume_from(self._lm, self._layer, resid):
            return self._lm.forward_logits(part.batch, last_only=True)

    @torch.inference_mode()
    def measure(self, specs_for: SpecsFor, scope: Scope = "content") -> Measured:
        """Measure one condition.

        Raises:
            HookError: the edit did not run.
            ConfigError: a spec is invalid.
        """
        effects, kls, total = [], [], EditTally()
        for prepared in self._parts:
            part = prepared.part
            edit_fn, tally = residual_edit(self._sae, specs_for(part.start, part.stop), scope)
            with edit(self._lm, {self._sae.info.hook_name: edit_fn}):
                logits = self._logits(part, prepared.resid)
            logp = torch.log_softmax(logits.double(), -1)
            effects.append(readout_scores(logits, self._sets) - prepared.readout)
            kl = (prepared.logp.exp() * (prepared.logp - logp)).sum(-1)
            kls.append(kl.cpu().numpy()[:, None])
            total.calls += tally.calls
            total.tokens += tally.tokens
            total.norm_sum += tally.norm_sum
        return Measured(self._gather(effects), self._gather(kls)[:, 0], total)

    def _gather(self, values: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        out = np.zeros((self.n_texts, values[0].shape[1]))
        for prepared_part, value in zip(self._part_ranges(), values, strict=True):
            out[prepared_part] += value
        return out / self.n_templates

    def _part_ranges(self) -> list[slice]:
        return [slice(p.part.start, p.part.stop) for p in self._parts]


@dataclass(frozen=True)
class TextMeans:
    """Means over each text's unmasked tokens.

    Attributes:
        resid: [n_texts, d_model] residual at the SAE's hook.
        latents: [n_texts, d_sae] activations.
    """

    resid: npt.NDArray[np.float32]
    latents: npt.NDArray[np.float32]


@torch.inference_mode()
def text_means(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], *, batch_size: int = 16
) -> TextMeans:
    """Mean residual and mean latent activations of each text over its unmasked tokens."""
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    hook = sae.info.hook_name
    resids, latents = [], []
    for start in range(0, len(texts), batch_size):
        batch = lm.encode(list(texts[start : start + batch_size]))
        x = capture(lm, [hook], batch)[hook].float()
        keep = rule.keep(x, batch.positions, batch.attention_mask)[..., None].float()
        count = keep.sum(1).clamp(min=1)
        resids.append(((x * keep).sum(1) / count).cpu().numpy())
        latents.append(((sae.encode(x) * keep).sum(1) / count).cpu().numpy())
    return TextMeans(np.concatenate(resids), np.concatenate(latents))


@torch.inference_mode()
def text_statistics(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], *, batch_size: int = 16
) -> pd.DataFrame:
    """Firing statistics of every latent over the unmasked tokens of `texts` (`STATS_COLUMNS`).

    For searches without a store of corpus activations; a few thousand tokens rank latents coarsely.
    """
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    hook = sae.info.hook_name
    n_tokens = 0
    fired, total, largest = (torch.zeros(sae.d_sae, dtype=torch.float64) for _ in range(3))
    for start in range(0, len(texts), batch_size):
        batch = lm.encode(list(texts[start : start + batch_size]))
        x = capture(lm, [hook], batch)[hook].float()
        z = sae.encode(x[rule.keep(x, batch.positions, batch.attention_mask)]).double().cpu()
        n_tokens += len(z)
        fired += (z > 0).sum(0)
        total += z.sum(0)
        largest = torch.maximum(largest, z.amax(0))
    return pd.DataFrame(
        {
            "feature": np.arange(sae.d_sae),
            "firing_rate": (fired / max(n_tokens, 1)).numpy(),
            "mean_active": (total / fired.clamp(min=1)).numpy(),
            "max_active": largest.numpy(),
        }
    )
