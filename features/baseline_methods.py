"""Scores of every method on pairs that it was not fitted to; item i belongs to pair i % n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.features.baseline_columns import RANDOM_METHODS, REFERENCE
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL
from affectlens.features.design import PairDesign, Part
from affectlens.features.heldout_scores import HeldOut, Target, usable_folds
from affectlens.features.pooled_residuals import PooledResidual
from affectlens.features.probes import (
    Numbers,
    Probe,
    Representation,
    Words,
    deal,
    linked,
    nested_probes,
)
from affectlens.features.simple_directions import (
    Ranked,
    column_scores,
    difference_of_means,
    random_scores,
    rank_columns,
)
from affectlens.features.validation_config import BaselineConfig

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
EvaluatedOn = Literal["confirmation", "folds"]

TOP = 5
"""Latents in 'sae_top5' and 'sae_probe_5'."""


@dataclass(frozen=True, eq=False)
class PairItems:
    """Everything that methods may see of the pairs.

    Attributes:
        design: the pairs; its row indices are not used.
        residuals: the stream, [2 n_pairs, d_model] at each place, low to high.
        latents: pooled latents [2 n_pairs, n_latents], those that are active anywhere.
        latent_ids: [n_latents] their index in the SAE.
        documents: [2 n_pairs] words of each text.
        random_residual: the stream at the SAE's place in a model with random weights, if any.
    """

    design: PairDesign
    residuals: tuple[PooledResidual, ...]
    latents: npt.NDArray[np.float32]
    latent_ids: Rows
    documents: tuple[tuple[str, ...], ...]
    random_residual: PooledResidual | None = None

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.design)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Which pairs are fitted and which tested.

    Attributes:
        on: 'confirmation' or 'folds'.
        folds: [n_pairs] fold in which a pair is tested; -1 for never.
        train: [n_folds, n_pairs] pairs that each fold is fitted and chosen on.
        groups: [n_pairs] clusters, joined where they share a text.
        n_left_out: pairs neither fitted nor tested, because a copy of their text is on the other
            side.
    """

    on: EvaluatedOn
    folds: Rows
    train: Mask
    groups: tuple[str, ...]
    n_left_out: int


@dataclass(frozen=True)
class MethodKey:
    """A method at a layer (None: no layer, or chosen inside) for a target."""

    method: str
    layer: int | None
    target: str


@dataclass(frozen=True, eq=False)
class Scored:
    """Held-out scores of all methods.

    Attributes:
        held_out: scores by method, layer and target.
        folds: target -> [n_pairs] folds in which it can be fitted and tested, -1 elsewhere.
        chosen_layers: target -> the layer chosen in each fold.
        chosen_latents: target -> SAE indices of the best latents of each fold.
    """

    held_out: Mapping[MethodKey, HeldOut]
    folds: Mapping[str, Rows]
    chosen_layers: Mapping[str, tuple[int, ...]]
    chosen_latents: Mapping[str, tuple[tuple[int, ...], ...]]


def targets_of(design: PairDesign) -> tuple[Target, ...]:
    """'all', and each emotion where there are several."""
    emotions = np.asarray(design.emotions, dtype=object)
    names = [e for e in design.order if (emotions == e).any()]
    every = Target(ALL, np.ones(len(design), dtype=bool), against_neutral=True)
    if len(names) < 2:
        return (every,)
    return (every, *(Target(e, emotions == e, against_neutral=False) for e in names))


def confirmation(
    design: PairDesign, parts: Mapping[str, Part], texts: Sequence[str]
) -> Evaluation | None:
    """Fit on discovery clusters, test on confirmation clusters; None where either has no pair.

    Args:
        design: the pairs.
        parts: the search's split.
        texts: [2 n_pairs] texts; confirmation pairs with a text that is also in discovery are left
            out and counted.
    """
    n = len(design)
    train = np.array([parts[c] == "discovery" for c in design.clusters])
    known = {texts[i] for i in range(2 * n) if train[i % n]}
    copied = np.array([texts[i] in known or texts[n + i] in known for i in range(n)])
    tested = ~train & ~copied
    if not train.any() or not tested.any():
        return None
    groups = tuple(linked(design.clusters, texts[:n], texts[n:]))
    folds = np.where(tested, 0, -1).astype(np.int64)
    return Evaluation("confirmation", folds, train[None], groups, int((~train & copied).sum()))


def cross_validation(
    design: PairDesign, texts: Sequence[str], n_folds: int, seed: int
) -> Evaluation | None:
    """Every cluster is tested once; None with a single group of clusters.

    Clusters that share a text (of [2 n_pairs] `texts`) stay together.
    """
    n = len(design)
    groups = tuple(linked(design.clusters, texts[:n], texts[n:]))
    folds = deal(groups, design.emotions, n_folds, seed)
    names = np.unique(folds)
    if len(names) < 2:
        return None
    return Evaluation("folds", folds, np.array([folds != f for f in names]), groups, 0)


def score_all(
    items: PairItems,
    evaluation: Evaluation,
    config: BaselineConfig,
    search_config: SearchConfig,
    *,
    ranks: Mapping[str, Ranked] | None = None,
) -> Scored:
    """Fit, choose and score every method in every fold.

    Args:
        items: the pairs.
        evaluation: the folds.
        config: folds, penalties, seed.
        search_config: how columns are ranked and filtered.
        ranks: columns of `latents` that the search found on the discovery part; without them,
            latents are ranked anew in every fold.

    Raises:
        StatisticsError: a value is not finite, or a probe does not converge.
    """
    return _Scorer(items, evaluation, config, search_config, ranks).run()


class _Scorer:
    def __init__(
        self,
        items: PairItems,
        evaluation: Evaluation,
        config: BaselineConfig,
        search_config: SearchConfig,
        ranks: Mapping[str, Ranked] | None,
    ) -> None:
        self.items, self.evaluation, self.config = items, evaluation, config
        self.search_config, self.ranks = search_config, ranks
        self.n = items.n_pairs
        self.words = Words(items.documents)
        self.targets = targets_of(items.design)
        self.folds = {t.name: self._folds_of(t) for t in self.targets}
        self.scores: dict[MethodKey, Array] = {}
        self.used: dict[MethodKey, list[float]] = {}
        self.layers: dict[str, list[int]] = {t.name: [] for t in self.targets}
        self.latents: dict[str, list[tuple[int, ...]]] = {t.name: [] for t in self.targets}

    def run(self) -> Scored:
        for fold, train in enumerate(self.evaluation.train):
            self._sae(fold, train)
            self._residuals(fold, train)
            self._random_weights(fold, train)
            n_terms = self.words.n_terms(np.tile(train, 2))
            strengths = self.config.word_strengths
            self._probe(fold, train, "tfidf_words", None, self.words, n_terms, strengths)
        held_out = {k: HeldOut(s, float(np.mean(self.used[k]))) for k, s in self.scores.items()}
        return Scored(
            held_out,
            self.folds,
            {name: tuple(v) for name, v in self.layers.items()},
            {name: tuple(v) for name, v in self.latents.items()},
        )

    def _folds_of(self, target: Target) -> Rows:
        """Folds in which a target has both classes to fit and to test."""
        folds = usable_folds(target, self.evaluation.folds)
        for fold, train in enumerate(self.evaluation.train):
            own = target.own[train]
            if not own.any() or (own.all() and not target.against_neutral):
                folds[folds == fold] = -1
        return folds

    def _live(self, fold: int) -> list[Target]:
        return [t for t in self.targets if (self.folds[t.name] == fold).any()]

    def _add(self, fold: int, key: MethodKey, scores: Array, n_used: float) -> None:
        """Keep scores [2 n_pairs] or [n_repeats, 2 n_pairs] of the pairs tested in a fold."""
        scores = np.atleast_2d(scores)
        if key not in self.scores:
            self.scores[key] = np.full((len(scores), self.n, 2), np.nan)
            self.used[key] = []
        rows = np.flatnonzero(self.folds[key.target] == fold)
        self.scores[key][:, rows, 0] = scores[:, rows]
        self.scores[key][:, rows, 1] = scores[:, self.n + rows]
        self.used[key].append(n_used)

    def _classes(self, target: Target, train: Mask) -> tuple[Mask, Mask]:
        """Positive items and items that may be fitted, [2 n_pairs] each."""
        if target.against_neutral:
            return np.arange(2 * self.n) < self.n, np.tile(train, 2)
        none = np.zeros(self.n, dtype=bool)
        return np.concatenate([target.own, none]), np.concatenate([train, none])

    def _sae(self, fold: int, train: Mask) -> None:
        values = self.items.latents
        active = (values[np.tile(train, 2)] > 0).sum(axis=0)
        tested = np.flatnonzero(active >= self.search_config.min_items)
        ranks = self.ranks
        if ranks is None:
            ranks = self._ranked(values, tested, train, both_signs=False)
        for target in self._live(fold):
            best = ranks.get(target.name, Ranked(np.zeros(0, np.int64), np.zeros(0))).first(TOP)
            self.latents[target.name].append(tuple(int(i) for i in self._ids(best)))
            _, fitted = self._classes(target, train)
            for method, chosen in ((REFERENCE, best.first(1)), ("sae_top5", best)):
                scores = column_scores(values, chosen, fitted)
                key = MethodKey(method, None, target.name)
                self._add(fold, key, scores, len(chosen.columns))
            five = Numbers(values[:, best.columns])
            self._probe_one(fold, train, "sae_probe_5", five, target)
        every = Numbers(values[:, tested])
        self._probe(fold, train, "sae_probe", None, every, len(tested), self.config.strengths)

    def _ids(self, ranked: Ranked) -> Rows:
        return np.asarray(self.items.latent_ids[ranked.columns])

    def _ranked(
        self, values: npt.NDArray[np.float32], columns: Rows, train: Mask, *, both_signs: bool
    ) -> dict[str, Ranked]:
        design = self.items.design
        parts: dict[str, Part] = {
            c: "discovery" if used else "confirmation"
            for c, used in zip(design.clusters, train, strict=True)
        }
        return rank_columns(
            values[: self.n],
            values[self.n :],
            columns,
            design,
            parts,
            self.search_config,
            both_signs=both_signs,
            n_best=TOP,
        )

    def _residuals(self, fold: int, train: Mask) -> None:
        probes: dict[str, list[tuple[int, Probe]]] = {t.name: [] for t in self._live(fold)}
        for residual in self.items.residuals:
            self._directions(fold, train, residual.place.layer, residual.values)
            for name, probe in self._dense(fold, train, "dense_probe", residual).items():
                probes[name].append((residual.place.layer, probe))
        for name, by_layer in probes.items():
            if by_layer:
                layer, probe = min(by_layer, key=lambda pair: pair[1].loss)
                self.layers[name].append(layer)
                key = MethodKey("dense_probe_chosen_layer", None, name)
                self._add(fold, key, probe.scores, self.items.residuals[0].values.shape[1])

    def _random_weights(self, fold: int, train: Mask) -> None:
        residual = self.items.random_residual
        if residual is None:
            return
        probe, means = RANDOM_METHODS
        self._dense(fold, train, probe, residual)
        for target in self._live(fold):
            scores = difference_of_means(residual.values, *self._classes(target, train))
            key = MethodKey(means, residual.place.layer, target.name)
            self._add(fold, key, scores, residual.values.shape[1])

    def _dense(
        self, fold: int, train: Mask, method: str, residual: PooledResidual
    ) -> dict[str, Probe]:
        values, strengths = residual.values, self.config.strengths
        layer, n_used = residual.place.layer, values.shape[1]
        return self._probe(fold, train, method, layer, Numbers(values), n_used, strengths)

    def _directions(
        self, fold: int, train: Mask, layer: int, values: npt.NDArray[np.float32]
    ) -> None:
        columns = np.arange(values.shape[1])
        ranks = self._ranked(values, columns, train, both_signs=True)
        for target in self._live(fold):
            positive, fitted = self._classes(target, train)
            best = ranks[target.name].first(1)
            random = random_scores(values, positive, fitted, self.config.n_random, self.config.seed)
            means = difference_of_means(values, positive, fitted)
            neuron = column_scores(values, best, fitted)
            for method, scores, used in (
                ("difference_of_means", means, len(columns)),
                ("single_neuron", neuron, len(best.columns)),
                ("random_direction", random, len(columns)),
            ):
                self._add(fold, MethodKey(method, layer, target.name), scores, used)

    def _probe(
        self,
        fold: int,
        train: Mask,
        method: str,
        layer: int | None,
        x: Representation,
        n_used: int,
        strengths: Sequence[float],
    ) -> dict[str, Probe]:
        """Probes of all targets; those of emotions share their training items and their work."""
        live = self._live(fold)
        found: dict[str, Probe] = {}
        for same in (
            [t for t in live if t.against_neutral],
            [t for t in live if not t.against_neutral],
        ):
            for target, probe in zip(same, self._nested(x, same, train, strengths), strict=True):
                if probe is not None:
                    found[target.name] = probe
                    self._add(fold, MethodKey(method, layer, target.name), probe.scores, n_used)
        return found

    def _probe_one(self, fold: int, train: Mask, method: str, x: Numbers, target: Target) -> None:
        (probe,) = self._nested(x, [target], train, self.config.strengths)
        scores = np.zeros(2 * self.n) if probe is None else probe.scores
        self._add(fold, MethodKey(method, None, target.name), scores, x.values.shape[1])

    def _nested(
        self, x: Representation, targets: Sequence[Target], train: Mask, strengths: Sequence[float]
    ) -> list[Probe | None]:
        if not targets:
            return []
        classes = [self._classes(t, train) for t in targets]
        return nested_probes(
            x,
            np.array([positive for positive, _ in classes]),
            classes[0][1],
            self.evaluation.groups * 2,
            self.items.design.emotions * 2,
            strengths=strengths,
            n_inner=self.config.n_inner,
            seed=self.config.seed,
        )
