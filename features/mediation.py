"""How much of the difference between clinical and neutral texts runs through a set of latents?

m(...) is the mean readout of an emotion over its own confirmation pairs, S the set:

    necessity     (m(clinical) - m(clinical, S at neutral values)) / (m(clinical) - m(neutral))
    sufficiency   (m(neutral, S at clinical values) - m(neutral)) / (m(clinical) - m(neutral))
    faithfulness  (m(S clinical, all others neutral) - m(empty)) / (m(full) - m(empty))
    completeness  (m(S neutral, all others clinical) - m(empty)) / (m(full) - m(empty))
    remainder     (m(empty) - m(neutral)) / (m(clinical) - m(neutral))
    reconstruction_share, error_share
                  the difference between clinical and neutral texts where the SAE's error is dropped
                  from both, or is all that is left of both, over m(clinical) - m(neutral)

full is the clinical text untouched, empty the same with every latent neutral (Marks et al. 2024,
Sparse Feature Circuits, arXiv:2403.19647). A faithful set has 1, a complete one 0. The remainder is
what the error carries and what latents carry by their order over tokens; it bounds the former from
above only if order adds nothing negative. The two shares look at them apart, in streams that the
model never saw in training, and need not add up.

Texts of a pair differ in length, so the partner's value is a mean over its tokens. In the first
two measures the latents of S are set to it at every token. Setting all latents so would leave one
vector repeated, and the model with nothing to read (on SmolLM2 at layer 15 a KL of 5.4 nats at the
readout); in faithfulness, completeness and remainder each latent is therefore moved by the
difference of its two means, `x + sum_f (mean' - mean)_f W_dec[f]`, which keeps how it varies over
tokens (0.05 nats).

Ratios are of means, with Fieller's intervals over clusters (`cluster_t`). Where the denominator
cannot be told from 0, or there are too few clusters to tell, the ratio says nothing: it is NaN, and
the row says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.cluster_t import cluster_mean, cluster_ratio
from affectlens.features.controls import random_sets
from affectlens.features.effect_columns import FEWEST_CLUSTERS, MEDIATION_COLUMNS
from affectlens.features.effect_study import EffectStudy, Rows
from affectlens.features.jobs import Job, SpecsFor
from affectlens.features.selection import FeatureSet
from affectlens.features.specs import AddDirection, PerRow, SetRows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with its interval; all NaN but the parts where `reason` is not empty."""

    value: float
    low: float
    high: float
    numerator: float
    denominator: float
    denominator_low: float
    denominator_high: float
    reason: str


def ratio_of_means(numerator: Array, denominator: Array, clusters: Sequence[str]) -> Ratio:
    """Ratio of the means of two quantities of the same items; see `cluster_t`.

    Args:
        numerator: [n_items].
        denominator: [n_items].
        clusters: [n_items].
    """
    below, share = (
        cluster_mean(denominator, clusters),
        cluster_ratio(numerator, denominator, clusters),
    )
    parts = (float(numerator.mean()), below.estimate, below.low, below.high)
    nothing = (float("nan"),) * 3
    if below.n_clusters < FEWEST_CLUSTERS:
        why = (
            f"{below.n_clusters} clusters, below {FEWEST_CLUSTERS}: the denominator has no interval"
        )
        return Ratio(*nothing, *parts, why)
    if math.isnan(share.estimate):
        why = f"the denominator cannot be told from 0 ({below.low:.3g} to {below.high:.3g})"
        return Ratio(*nothing, *parts, why)
    return Ratio(share.estimate, share.low, share.high, *parts, "")


@dataclass(frozen=True, eq=False)
class _Set:
    arm: str
    index: int
    features: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Asked:
    """One emotion's jobs: on clinical texts, then on neutral ones, by set."""

    emotion: str
    rows: Rows
    sets: tuple[_Set, ...]
    clinical: tuple[Job, ...]
    neutral: tuple[Job, ...]


class Mediation:
    """Plans and evaluates the measures of every emotion, so that all share batches.

    Args:
        study: what is shared.
    """

    def __init__(self, study: EffectStudy) -> None:
        self.study = study
        self._asked = [self._ask(chosen) for chosen in study.sets]

    @property
    def n_rows(self) -> int:
        """Texts that will be run, once for each job."""
        return sum(len(a.rows) * (len(a.clinical) + len(a.neutral)) for a in self._asked)

    @property
    def n_jobs(self) -> int:
        """Jobs that will be measured."""
        return sum(len(a.clinical) + len(a.neutral) for a in self._asked)

    def table(self, done: Callable[[int], object] | None = None) -> pd.DataFrame:
        """Measure and return the table `MEDIATION_COLUMNS`."""
        clinical, neutral = self.study.texts("clinical"), self.study.texts("neutral")
        above = clinical.meter.measure_many([j for a in self._asked for j in a.clinical], done)
        below = neutral.meter.measure_many([j for a in self._asked for j in a.neutral], done)
        first, second = iter(above), iter(below)
        rows: list[dict[str, Any]] = []
        for a in self._asked:
            column = self.study.column(a.emotion)
            up = [next(first).effect[:, column] for _ in a.clinical]
            down = [next(second).effect[:, column] for _ in a.neutral]
            full = clinical.meter.unedited[a.rows, column]
            rows += list(self._rows(a, full, neutral.meter.unedited[a.rows, column], up, down))
        return pd.DataFrame(rows, columns=list(MEDIATION_COLUMNS))

    def _ask(self, chosen: FeatureSet) -> _Asked:
        rows = self.study.texts("clinical").rows(chosen.emotion)
        sets = tuple(self._sets(chosen))
        texts = [int(r) for r in rows]
        scope = self.study.config.scope
        alone = [Job([], scope, error=e, texts=texts) for e in ("drop", "only")]
        everything = self._shift(rows, None)
        clinical = [*alone, self._job(self._add(everything, rows), rows)]
        for one in sets:
            own = np.array(one.features)
            shift = self._shift(rows, own)
            clinical.append(self._job(self._set(own, self.study.neutral_means.latents), rows))
            clinical.append(self._job(self._add(shift, rows), rows))
            clinical.append(self._job(self._add(everything - shift, rows), rows))
        neutral = [
            self._job(self._set(np.array(s.features), self.study.clinical_means.latents), rows)
            for s in sets
        ]
        return _Asked(chosen.emotion, rows, sets, tuple(clinical), (*alone, *neutral))

    def _sets(self, chosen: FeatureSet) -> Iterator[_Set]:
        config, own = self.study.config, tuple(chosen)
        yield _Set("chosen", 0, own)
        if config.measures.mediation_random:
            rng = np.random.default_rng([config.seed, 7, self.study.column(chosen.emotion)])
            drawn = random_sets(
                self.study.stats, own, self.study.excluded, config.measures.mediation_random, rng
            )
            yield from (_Set("random", i, s) for i, s in enumerate(drawn))
        sizes = [n for n in config.measures.set_sizes if n != len(own)]
        if sizes:
            found = self.study.ranked.get(chosen.emotion, ())
            ranked = [*own, *(f for f in found if f not in own)]
            for n in sizes:
                if n <= len(ranked):
                    yield _Set("ranked", 0, tuple(ranked[:n]))

    def _job(self, specs: SpecsFor, rows: Rows) -> Job:
        return Job(specs, self.study.config.scope, texts=[int(r) for r in rows])

    def _set(self, own: Rows, means: npt.NDArray[np.float32]) -> SpecsFor:
        features = tuple(int(f) for f in own)
        return lambda texts: [SetRows(features, means[np.ix_(texts, own)])]

    def _shift(self, rows: Rows, which: Rows | None) -> Array:
        """What moving latents (all for None) to the neutrals' means writes, [n_rows, d_model]."""
        study, columns = self.study, slice(None) if which is None else which
        move = study.neutral_means.latents[rows] - study.clinical_means.latents[rows]
        decoder = study.sae.W_dec.detach().float().cpu().numpy()
        return np.asarray(move[:, columns] @ decoder[columns], dtype=np.float64)

    def _add(self, added: Array, rows: Rows) -> SpecsFor:
        place = {int(r): i for i, r in enumerate(rows)}
        return lambda texts: [PerRow(tuple((AddDirection(added[place[int(t)]]),) for t in texts))]

    def _rows(
        self, a: _Asked, full: Array, low: Array, up: Sequence[Array], down: Sequence[Array]
    ) -> Iterator[dict[str, Any]]:
        """Rows of one emotion; `full` and `low` are the unedited readouts of both sides."""
        gap, empty, whole = full - low, up[2], _Set("all", 0, ())
        yield self._row(a, "remainder", whole, gap + empty, gap)
        for i, measure in enumerate(("reconstruction_share", "error_share")):
            yield self._row(a, measure, whole, gap + up[i] - down[i], gap)
        for i, one in enumerate(a.sets):
            set_, moved, kept = up[3 + 3 * i : 6 + 3 * i]
            yield self._row(a, "necessity", one, -set_, gap)
            yield self._row(a, "sufficiency", one, down[2 + i], gap)
            yield self._row(a, "faithfulness", one, kept - empty, -empty)
            yield self._row(a, "completeness", one, moved - empty, -empty)

    def _row(
        self, a: _Asked, measure: str, one: _Set, numerator: Array, denominator: Array
    ) -> dict[str, Any]:
        clusters = self.study.texts("clinical").clusters(a.rows)
        r = ratio_of_means(numerator, denominator, clusters)
        return {
            "emotion": a.emotion,
            "measure": measure,
            "arm": one.arm,
            "set_index": one.index,
            "n_features": len(one.features) or self.study.sae.d_sae,
            "value": r.value,
            "value_low": r.low,
            "value_high": r.high,
            "numerator": r.numerator,
            "denominator": r.denominator,
            "denominator_low": r.denominator_low,
            "denominator_high": r.denominator_high,
            "n_items": len(numerator),
            "n_clusters": len(set(clusters)),
            "reason": r.reason,
        }
