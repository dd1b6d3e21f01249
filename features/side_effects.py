"""What interventions cost on ordinary text: KL to the unedited model and loss of prediction.

Each document is read once up to the SAE's hook. Every edit is then applied to the stored residual
and only the blocks above the hook are run, on those documents that it changes; where it changes
nothing, both costs are exactly 0. Values are kept by document, since the document is what was
sampled: resample documents, never tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.hooks import EditContext, EditFn, capture
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch
from affectlens.features.interventions import residual_edit
from affectlens.features.jobs import Job, JobPlan, rows_of
from affectlens.features.resumed import goes_on_from, layer_of
from affectlens.sae.model import SparseAutoencoder

Indices = npt.NDArray[np.int64]

__all__ = ["SIDE_EFFECT_COLUMNS", "side_effects"]

SIDE_EFFECT_COLUMNS: dict[str, str] = {
    "job": "name of the edit, or its place in the list",
    "document": "index of the document in the texts that were given",
    "n_tokens": "tokens predicted: all but the first; means are over these",
    "ce": "mean cross-entropy of the unedited model (nats per token); NaN without a token",
    "ce_increase": "edited minus unedited cross-entropy; exactly 0 if nothing was changed",
    "kl": "mean KL(unedited || edited) of the next token (nats per token); exactly 0 likewise",
    "n_edited": "tokens that were changed",
    "delta_norm": "mean L2 norm of the change of these tokens; 0 if none was changed",
}
"""Columns of `side_effects`, in order."""


@dataclass(frozen=True)
class _Part:
    """Documents run together: their indices, tokens, stored residual and unedited prediction."""

    documents: Indices
    batch: Batch
    resid: Tensor
    logits: Tensor

    def context(self, rows: Tensor) -> EditContext:
        return EditContext(self.batch.positions[rows], self.batch.attention_mask[rows], "prompt")

    def take(self, rows: Tensor) -> Batch:
        width = int(self.batch.lengths[rows].max())
        return Batch(
            self.batch.input_ids[rows, :width],
            self.batch.attention_mask[rows, :width],
            self.batch.positions[rows, :width],
        )


@torch.inference_mode()
def side_effects(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    jobs: Mapping[str, Job] | Sequence[Job],
    texts: Sequence[str],
    *,
    batch_size: int = 4,
    done: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Measure what edits do to the prediction of plain text; the SAE must fit (`fit.require_fit`).

    Args:
        lm: the model.
        sae: its autoencoder.
        jobs: the edits, by name or in a list; per-row specs have one row for each text, or for
            each of `Job.texts`.
        texts: documents, whole: none is cut.
        batch_size: documents run together. A batch holds its unedited logits, about
            4 * batch_size * tokens * d_vocab bytes, twice.
        done: called with 1 after each job and batch of documents.

    Returns:
        One row for each job and document, jobs in the given order, with `SIDE_EFFECT_COLUMNS`.

    Raises:
        ConfigError: no job, a batch size below 1, or a job that does not fit the SAE or the texts.
        StimulusError: no text, an empty one, or one longer than the context.
    """
    named = _named(jobs)
    if isinstance(texts, str) or not len(texts):
        raise StimulusError("side effects need a list of at least one text")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    plans = {name: JobPlan(job, sae, len(texts), 0) for name, job in named.items()}
    rows: dict[tuple[str, int], dict[str, object]] = {}
    for part in _parts(lm, sae, texts, batch_size):
        for name, plan in plans.items():
            rows |= _measured(lm, sae, part, name, plan)
            if done is not None:
                done(1)
    order = [(name, int(d)) for name, plan in plans.items() for d in plan.texts]
    return pd.DataFrame([rows[key] for key in order], columns=list(SIDE_EFFECT_COLUMNS))


def _named(jobs: Mapping[str, Job] | Sequence[Job]) -> dict[str, Job]:
    named = dict(jobs) if isinstance(jobs, Mapping) else {str(i): job for i, job in enumerate(jobs)}
    if not named:
        raise ConfigError("no job was given; give at least one edit (its specs may be empty)")
    for name, job in named.items():
        if not isinstance(job, Job):
            raise ConfigError(
                f"job {name!r} is {type(job).__name__}; write Job([spec, ...]) from "
                "affectlens.features.jobs"
            )
    return named


def _parts(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], batch_size: int
) -> Iterator[_Part]:
    hook = sae.info.hook_name
    rows = [lm.token_ids(t, label=f"document {i}") for i, t in enumerate(texts)]
    order = np.argsort([len(r) for r in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        documents = order[start : start + batch_size]
        batch = lm.pad([rows[i] for i in documents])
        resid = capture(lm, [hook], batch)[hook]
        yield _Part(documents, batch, resid, _logits(lm, hook, batch, resid))


def _logits(lm: LanguageModel, hook: str, batch: Batch, resid: Tensor) -> Tensor:
    """float32 [b, s, d_vocab] from the residual at the hook on."""
    with goes_on_from(lm, layer_of(hook), resid):
        return lm.forward_logits(batch, last_only=False)


def _measured(
    lm: LanguageModel, sae: SparseAutoencoder, part: _Part, name: str, plan: JobPlan
) -> dict[tuple[str, int], dict[str, object]]:
    """The rows of one job for the documents of a part."""
    at, job = plan.row[part.documents], plan.job
    mine = np.flatnonzero(at >= 0)
    if not len(mine):
        return {}
    documents = part.documents[mine]
    specs = job.specs(documents) if callable(job.specs) else rows_of(job.specs, at[mine])
    function, tally = residual_edit(sae, specs, job.scope, job.error)
    after = _edited_logits(lm, sae.info.hook_name, part, torch.from_numpy(mine), function)
    tokens = np.zeros(len(mine)) if tally.row_tokens is None else tally.row_tokens
    norms = np.zeros(len(mine)) if tally.row_norms is None else tally.row_norms
    out: dict[tuple[str, int], dict[str, object]] = {}
    for k, (row, document) in enumerate(zip(mine.tolist(), documents.tolist(), strict=True)):
        n = int(part.batch.lengths[row]) - 1
        ce, increase, kl = _costs(part.logits[row], after.get(k), part.batch.input_ids[row], n)
        out[name, document] = {
            "job": name,
            "document": document,
            "n_tokens": n,
            "ce": ce,
            "ce_increase": increase,
            "kl": kl,
            "n_edited": int(tokens[k]),
            "delta_norm": float(norms[k] / tokens[k]) if tokens[k] else 0.0,
        }
    return out


def _edited_logits(
    lm: LanguageModel, hook: str, part: _Part, mine: Tensor, function: EditFn
) -> dict[int, Tensor]:
    """Logits [seq, d_vocab] of those of the documents `mine` that the edit changes, by place."""
    resid = part.resid[mine]
    edited = function(resid, part.context(mine))
    if edited is None:
        return {}
    changed = (edited != resid).flatten(1).any(1).nonzero()[:, 0]
    batch = part.take(mine[changed])
    logits = _logits(lm, hook, batch, edited[changed][:, : batch.input_ids.shape[1]])
    return dict(zip(changed.tolist(), logits, strict=True))


def _costs(before: Tensor, after: Tensor | None, ids: Tensor, n: int) -> tuple[float, float, float]:
    """Cross-entropy, its increase and KL over the `n` predicted tokens of a document."""
    if n == 0:
        return math.nan, 0.0 if after is None else math.nan, 0.0 if after is None else math.nan
    wanted = ids[1 : n + 1, None]
    logp = before[:n].double().log_softmax(-1)
    loss = -float(logp.gather(1, wanted).mean())
    if after is None:
        return loss, 0.0, 0.0
    logq = after[:n].double().log_softmax(-1)
    kl = (logp.exp() * (logp - logq)).sum(-1).mean()
    return loss, -float(logq.gather(1, wanted).mean()) - loss, float(kl)
