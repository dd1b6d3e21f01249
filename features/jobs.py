"""One condition to measure, checked against the texts, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.interventions import EditTally, residual_edit
from affectlens.features.prepared_texts import TextBlock
from affectlens.features.scopes import Scope
from affectlens.features.specs import Ablate, PerRow, Scale, SetRows, Spec
from affectlens.features.stored_rows import StoredRows
from affectlens.sae.model import SparseAutoencoder

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SpecsFor = Callable[[Indices], Sequence[Spec]]
"""Specs for some texts, given their indices in the meter: per-row specs hold a row for each."""


@dataclass(frozen=True, eq=False)
class Job:
    """One condition to measure.

    Attributes:
        specs: what is done, in this order; `SetRows` and `PerRow` hold a row for each text of the
            job. Or a function that gives the specs for some texts of the job, called with their
            indices in the meter, int64 [n].
        scope: which tokens are edited. The prompt is the text with its suffix.
        error: what becomes of the SAE's error, see `interventions.Intervention`.
        texts: indices of the texts that are measured, each once; None for all.
    """

    specs: Sequence[Spec] | SpecsFor
    scope: Scope = "content"
    error: ErrorTerm = "keep"
    texts: Sequence[int] | Indices | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """One condition over the texts of its job, in their order.

    Attributes:
        effect: [n, n_names] edited minus unedited readout (nats; scales in their own units).
        kl: [n] KL(unedited || edited) of the next token, averaged over the readout's templates
            (nats).
        tally: calls of the edit, edited tokens and norms, summed over suffixes; `row_tokens` and
            `row_norms` are [n], one a text.
        n_run: rows (a text with one suffix) that were run.
        n_skipped: rows that the edit left as they are, which were not run.
    """

    effect: Floats
    kl: Floats
    tally: EditTally
    n_run: int
    n_skipped: int


@dataclass(frozen=True, eq=False)
class EditedTexts:
    """Some texts of a block after an edit.

    Attributes:
        places: of the texts in their block, [n].
        resid: [n, n_suffixes, seq, d_model], right padded.
        changed: [n, n_suffixes], rows that differ from what is stored.
        alike: [n, n_suffixes], rows whose shared beginning is that of the text's first row.
    """

    places: Indices
    resid: Tensor
    changed: npt.NDArray[np.bool_]
    alike: npt.NDArray[np.bool_]


class JobPlan:
    """A job whose texts and specs were checked, and the arrays its results are added to.

    Attributes:
        texts: indices of its texts, [n].
        row: for each text of the meter its place in the results, -1 for those not measured.
        effect, kl, n_run, n_skipped: as in `Measured`.

    Raises:
        ConfigError: a text outside the meter or named twice, specs that are no sequence or do not
            fit the SAE, or per-row specs with another number of rows than texts.
    """

    def __init__(self, job: Job, sae: SparseAutoencoder, n_texts: int, n_names: int) -> None:
        self.job = job
        self.texts = _checked_texts(job.texts, n_texts)
        n = len(self.texts)
        if not callable(job.specs):
            _check_specs(job.specs, n)
            # Made again for every part of the texts; here so that nothing wrong is passed over.
            residual_edit(sae, job.specs, job.scope, job.error)
        self.row = np.full(n_texts, -1)
        self.row[self.texts] = np.arange(n)
        self.effect, self.kl = np.zeros((n, n_names)), np.zeros(n)
        self.n_run = self.n_skipped = self._calls = 0
        self._tokens, self._norms = np.zeros(n), np.zeros(n)

    def n_measured_in(self, block: TextBlock) -> int:
        """How many texts of a block this job measures."""
        return int((self.row[block.texts] >= 0).sum())

    def apply(self, block: TextBlock, rows: StoredRows) -> EditedTexts | None:
        """The edit on the stored rows of those texts of a block that it may change."""
        places = self._not_silent(np.flatnonzero(self.row[block.texts] >= 0), rows)
        if not len(places):
            return None
        specs = self._specs(block.texts[places])
        into = self.row[block.texts[places]]
        parts = []
        for at, owner in rows.calls(places):
            edit, tally = residual_edit(
                rows.sae, rows_of(specs, owner), self.job.scope, self.job.error
            )
            edited = rows.edited(edit, at)
            parts.append(rows.resid[at] if edited is None else edited)
            self._count(tally, into[owner])
        resid = torch.cat(parts).unflatten(0, (len(places), rows.n_suffixes))
        return EditedTexts(places, resid, *rows.compared(resid, places))

    def _not_silent(self, places: Indices, rows: StoredRows) -> Indices:
        """Leave out texts on which no latent fires that the specs could make smaller or larger."""
        features = _acts_only_on(self.job)
        if features is None or not len(places):
            return places
        fires = rows.fires(features)[places]
        self.n_skipped += int((~fires).sum()) * rows.n_suffixes
        kept: Indices = places[fires]
        return kept

    def _specs(self, texts: Indices) -> Sequence[Spec]:
        if not callable(self.job.specs):
            return rows_of(self.job.specs, self.row[texts])
        specs = self.job.specs(texts)
        _check_specs(specs, len(texts))
        return specs

    def _count(self, tally: EditTally, into: Indices) -> None:
        self._calls += tally.calls
        if tally.row_tokens is not None and tally.row_norms is not None:
            np.add.at(self._tokens, into, tally.row_tokens)
            np.add.at(self._norms, into, tally.row_norms)

    def measured(self) -> Measured:
        """The results."""
        tally = EditTally(
            calls=self._calls,
            tokens=int(self._tokens.sum()),
            norm_sum=float(self._norms.sum()),
            row_tokens=self._tokens,
            row_norms=self._norms,
        )
        return Measured(self.effect, self.kl, tally, self.n_run, self.n_skipped)


def rows_of(specs: Sequence[Spec], rows: Indices) -> tuple[Spec, ...]:
    """The specs for some of the texts: `SetRows` and `PerRow` keep these rows, in this order."""
    return tuple(_rows_of(spec, rows) for spec in specs)


def _rows_of(spec: Spec, rows: Indices) -> Spec:
    if isinstance(spec, PerRow):
        return PerRow(tuple(spec.rows[i] for i in rows))
    if isinstance(spec, SetRows):
        table: Any = spec.rows
        if isinstance(table, Tensor):
            return replace(spec, rows=table[torch.from_numpy(rows).to(table.device)])
        if isinstance(table, np.ndarray):
            return replace(spec, rows=table[rows])
        return replace(spec, rows=tuple(table[i] for i in rows))
    return spec


def _acts_only_on(job: Job) -> list[int] | None:
    """Latents outside of whose support the job changes nothing; None if there are no such."""
    if callable(job.specs) or job.error != "keep":
        return None
    if not all(isinstance(spec, Ablate | Scale) for spec in job.specs):
        return None
    return sorted({f for spec in job.specs for f in spec.features})  # type: ignore[union-attr]


def _checked_texts(texts: Sequence[int] | Indices | None, n_texts: int) -> Indices:
    if texts is None:
        return np.arange(n_texts)
    given = np.asarray(texts)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise ConfigError(
            f"a job's texts must be a list of at least one whole number, got {texts!r}; leave it "
            "out for all texts"
        )
    outside = given[(given < 0) | (given >= n_texts)]
    if outside.size:
        raise ConfigError(
            f"text {outside[0]} is not among the {n_texts} texts of this meter: allowed are 0 to "
            f"{n_texts - 1}"
        )
    if len(np.unique(given)) < len(given):
        raise ConfigError("a job names a text twice; name each text once")
    return given.astype(np.int64)


def _check_specs(specs: object, n_texts: int) -> None:
    if isinstance(specs, str) or not isinstance(specs, Sequence):
        raise ConfigError(
            f"a job needs a sequence of specs, such as [Ablate((3,))], or a function that gives "
            f"one, got {specs!r}"
        )
    for spec in specs:
        if isinstance(spec, PerRow | SetRows) and len(spec.rows) != n_texts:
            raise ConfigError(
                f"{type(spec).__name__} holds {len(spec.rows)} rows for {n_texts} texts; give one "
                "row for each text of the job"
            )
