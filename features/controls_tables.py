"""From the activations that the lexical controls need to their tables; no model is run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import Retest, retest
from affectlens.features.controls_columns import (
    CONTROLS_COLUMNS,
    GRAIN_COLUMNS,
    STRICT_COLUMNS,
)
from affectlens.features.design import PairDesign
from affectlens.features.effect_share import (
    EffectShare,
    effect,
    effect_share,
    sides,
    standardised,
)
from affectlens.features.encoding import TokenActivations
from affectlens.features.feature_classes import Evidence, Verdict, WordFree, classify
from affectlens.features.lexical_share import LexicalFit
from affectlens.features.pair_data import Members
from affectlens.features.search_tables import joined
from affectlens.features.shared_tokens import APPLIES_NOT, SharedTokens
from affectlens.features.shuffle_control import ShuffleControl, shuffle_control
from affectlens.features.strict_pairs import StrictPairs, StrictTest, strict_tests
from affectlens.features.validation_config import ControlsConfig, Grain
from affectlens.features.word_mass import TokenWords, mass_shares, token_shares

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Columns = dict[str, object]


@dataclass(frozen=True, eq=False)
class Shuffled:
    """One grain: `rows` are the pairs with another order, `values` [n_shuffles, n_rows, n]."""

    rows: Rows
    values: Members


@dataclass(frozen=True, eq=False)
class ControlInputs:
    """What the controls of all contrasts are computed from; n latents, columns in their order.

    Attributes:
        latents: [n] every latent that some contrast retained, sorted.
        design: the pairs that are tested; its rows index the items of `encoded`.
        encoded: token activations of both members.
        words: the word of each token of `encoded`.
        original: pooled activations [n_pairs, n] of both members.
        shuffled: the same on shuffled texts, by grain.
        fit: regression of the latents on words.
        predicted: [n_pairs, n] clinical minus neutral as predicted from words.
        shared: differences on shared tokens; None where all texts are read at the same tokens.
        strict: differences on strict batteries.
    """

    latents: Rows
    design: PairDesign
    encoded: TokenActivations
    words: TokenWords
    original: Members
    shuffled: Mapping[Grain, Shuffled]
    fit: LexicalFit
    predicted: Array
    shared: SharedTokens | None
    strict: Sequence[StrictPairs]


@dataclass(frozen=True, eq=False)
class ControlTables:
    """`table` (`CONTROLS_COLUMNS`), `grains` (`GRAIN_COLUMNS`) and `strict` (`STRICT_COLUMNS`)."""

    table: pd.DataFrame
    grains: pd.DataFrame
    strict: pd.DataFrame


def control_tables(
    found: pd.DataFrame,
    inputs: ControlInputs,
    config: ControlsConfig,
    search_config: SearchConfig,
) -> ControlTables:
    """Test every retained latent of every contrast, and class it.

    Args:
        found: the table of a search (`FEATURE_COLUMNS`).
        inputs: activations; must hold every retained latent.
        config: settings of the controls.
        search_config: settings of the tests.

    Raises:
        StatisticsError: an activation is not finite.
    """
    retained = found[found["retained"]]
    parts = [
        _Contrast(str(name), rows, inputs, config, search_config).tables()
        for name, rows in retained.groupby("contrast", sort=False)
    ]
    return ControlTables(
        joined([p.table for p in parts], CONTROLS_COLUMNS),
        joined([p.grains for p in parts], GRAIN_COLUMNS),
        joined([p.strict for p in parts], STRICT_COLUMNS),
    )


@dataclass(frozen=True, eq=False)
class _Result:
    """A test of some columns, in arrays over all of them: NaN for the others."""

    effect: Array
    p: Array
    p_holm: Array


class _Contrast:
    """The controls of one contrast's retained latents."""

    def __init__(
        self,
        name: str,
        rows: pd.DataFrame,
        inputs: ControlInputs,
        config: ControlsConfig,
        search_config: SearchConfig,
    ) -> None:
        self.name, self.inputs, self.config, self.search = name, inputs, config, search_config
        self.features = rows["feature"].to_numpy(dtype=np.int64)
        self.confirmed = rows["confirmed"].to_numpy(dtype=bool)
        self.columns = np.searchsorted(inputs.latents, self.features)
        self.original = inputs.original.take(self.columns)
        self.d = self.original.differences
        self.design = inputs.design
        self.own = sides(name, self.design).own
        self.effect = effect(self.d, name, self.design)
        self.standardised = standardised(self.d, name, self.design)

    def tables(self) -> ControlTables:
        grains = [self._shuffle(grain) for grain in self.config.grains]
        words = grains[self.config.grains.index("words")]
        predicted = self.inputs.predicted[:, self.columns]
        told = np.isfinite(self.inputs.fit.r2[self.columns])
        share = self._share(predicted, told)
        residual = self._result(self.d - predicted, self.design, told)
        shared = self._shared()
        strict = strict_tests(self.name, self._strict_pairs(), self.standardised, self.search)
        holds = self._holds(strict)
        verdicts = self._verdicts(words, residual, shared, share, holds)
        table = {
            "contrast": self.name,
            "feature": self.features,
            "confirmed": self.confirmed,
            "class": [v.kind for v in verdicts],
            "why": [v.why for v in verdicts],
            "strict": holds,
            "n_pairs": len(self.own),
            "effect": self.effect,
            "d": self.standardised,
            **_spread("kept", words.share),
            **_test_columns("did", self._of(words.did)),
            "off_distribution": words.off_distribution,
            "r2": self.inputs.fit.r2[self.columns],
            "n_active": self.inputs.fit.n_active[self.columns],
            **_spread("predicted", share),
            **_test_columns("residual", residual),
            **self._shared_columns(shared),
            **self._mass(),
        }
        return ControlTables(
            pd.DataFrame(table),
            pd.concat([self._grain_rows(g) for g in grains], ignore_index=True),
            joined([self._strict_rows(t) for t in strict], STRICT_COLUMNS),
        )

    def _shuffle(self, grain: Grain) -> ShuffleControl:
        shuffled = self.inputs.shuffled[grain]
        rows = shuffled.rows
        return shuffle_control(
            Members(self.original.clinical[rows], self.original.neutral[rows]),
            shuffled.values.take(self.columns),
            self.name,
            self.design.take(rows),
            self.search,
            grain=grain,
            n_excluded=len(self.design) - len(rows),
            n_bootstrap=self.config.n_bootstrap,
            seed=self.config.seed,
        )

    def _share(self, part: Array, told: npt.NDArray[np.bool_]) -> EffectShare:
        share = effect_share(
            part,
            self.d,
            self.name,
            self.design,
            self.search,
            n=self.config.n_bootstrap,
            seed=self.config.seed,
        )
        return EffectShare(
            np.where(told, share.share, np.nan),
            np.where(told, share.low, np.nan),
            np.where(told, share.high, np.nan),
            share.n_units,
        )

    def _result(
        self, differences: Array, design: PairDesign, columns: npt.NDArray[np.bool_]
    ) -> _Result:
        """Test some columns; which ones must not depend on labels, for they are Holm's family."""
        found = None
        if len(design) and columns.any():
            found = retest(differences[:, columns], self.name, design, self.search)
        return self._of(found, columns)

    def _of(self, test: Retest | None, columns: npt.NDArray[np.bool_] | None = None) -> _Result:
        out = [np.full(len(self.features), np.nan) for _ in range(3)]
        if test is not None:
            where = np.ones(len(self.features), dtype=bool) if columns is None else columns
            for array, values in zip(
                out, (test.effects.specificity, test.p, test.p_holm), strict=True
            ):
                array[where] = values
        return _Result(*out)

    def _shared(self) -> _Result | None:
        shared = self.inputs.shared
        if shared is None:
            return None
        every = np.ones(len(self.features), dtype=bool)
        d = shared.differences[np.ix_(shared.rows, self.columns)]
        return self._result(d, self.design.take(shared.rows), every)

    def _shared_columns(self, result: _Result | None) -> Columns:
        shared = self.inputs.shared
        if shared is None or result is None:
            nothing = _Result(*(np.full(len(self.features), np.nan) for _ in range(3)))
            status, n_pairs, n_types = APPLIES_NOT, 0, float("nan")
        else:
            nothing = result
            status = "not testable" if np.isnan(result.p).all() else "tested"
            types = shared.n_types[self.own]
            n_pairs = int((types > 0).sum())
            n_types = float(types[types > 0].mean()) if n_pairs else float("nan")
        return {
            "shared_status": status,
            "shared_n_pairs": n_pairs,
            "shared_n_types": n_types,
            **_test_columns("shared", nothing),
        }

    def _mass(self) -> Columns:
        inputs, own = self.inputs, self.design.take(self.own)
        emotion = own_lexicon().index.keys()
        mass = mass_shares(inputs.encoded, inputs.words, own, self.features, emotion)
        even = token_shares(inputs.encoded, inputs.words, own, emotion)
        out: Columns = {}
        for prefix, shares in (("mass", mass), ("tokens", even)):
            out[f"{prefix}_only_clinical"] = _wide(shares.only_clinical, len(self.features))
            out[f"{prefix}_more_clinical"] = _wide(shares.more_clinical, len(self.features))
            out[f"{prefix}_only_neutral"] = _wide(shares.only_neutral, len(self.features))
            out[f"{prefix}_more_neutral"] = _wide(shares.more_neutral, len(self.features))
            out[f"{prefix}_emotion"] = _wide(shares.emotion, len(self.features))
        return out

    def _verdicts(
        self,
        words: ShuffleControl,
        residual: _Result,
        shared: _Result | None,
        predicted: EffectShare,
        holds: list[str],
    ) -> list[Verdict]:
        did, r2 = self._of(words.did), self.inputs.fit.r2[self.columns]
        found = []
        for i in range(len(self.features)):
            evidence = Evidence(
                confirmed=bool(self.confirmed[i]),
                effect=float(self.effect[i]),
                shuffle=_tested(did, i),
                residual=_tested(residual, i),
                shared=None if shared is None else _tested(shared, i),
                r2=float(r2[i]),
                kept=float(words.share.share[i]),
                kept_low=float(words.share.low[i]),
                predicted=float(predicted.share[i]),
                predicted_low=float(predicted.low[i]),
                off_distribution=bool(words.off_distribution[i]),
                strict=bool(holds[i]),
            )
            found.append(classify(evidence, alpha=self.search.alpha, max_r2=self.config.max_r2))
        return found

    def _strict_pairs(self) -> list[StrictPairs]:
        return [
            StrictPairs(b.battery, b.differences[:, self.columns], b.design)
            for b in self.inputs.strict
        ]

    def _holds(self, tests: Sequence[StrictTest]) -> list[str]:
        return [
            ", ".join(t.battery for t in tests if t.outcome[i] == "holds")
            for i in range(len(self.features))
        ]

    def _grain_rows(self, g: ShuffleControl) -> pd.DataFrame:
        none = np.full(len(self.features), np.nan)
        return pd.DataFrame(
            {
                "contrast": self.name,
                "feature": self.features,
                "grain": g.grain,
                "n_shuffles": g.n_shuffles,
                "n_pairs": g.n_pairs,
                "n_excluded": g.n_excluded,
                "effect": g.effect,
                "effect_shuffled": g.effect_shuffled,
                "mean_diff": g.mean_diff,
                "mean_diff_shuffled": g.mean_diff_shuffled,
                **_spread("kept", g.share),
                **_test_columns("did", self._of(g.did)),
                "did_d_z": none if g.did is None else g.did.effects.d_z,
                "min_p": float("nan") if g.did is None else g.did.min_p,
                "firing_original": g.firing_original,
                "firing_shuffled": g.firing_shuffled,
                "off_distribution": g.off_distribution,
            }
        )

    def _strict_rows(self, test: StrictTest) -> pd.DataFrame:
        found = test.test
        result = self._of(found)
        none = np.full(len(self.features), np.nan)
        return pd.DataFrame(
            {
                "contrast": self.name,
                "feature": self.features,
                "battery": test.battery,
                "n_pairs": 0 if found is None else found.n_pairs,
                "n_units": 0 if found is None else found.n_units,
                "effect": result.effect,
                "d": test.standardised,
                "auroc_paired": none if found is None else found.effects.auroc_paired,
                "p": result.p,
                "p_holm": test.p_holm,
                "min_p": float("nan") if found is None else found.min_p,
                "min_detectable": test.min_detectable,
                "found_d": self.standardised,
                "outcome": list(test.outcome),
            }
        )


def _tested(result: _Result, i: int) -> WordFree:
    return WordFree(float(result.effect[i]), float(result.p_holm[i]))


def _wide(values: Array, n: int) -> Array:
    return np.broadcast_to(values, n)


def _spread(name: str, share: EffectShare) -> Columns:
    return {name: share.share, f"{name}_low": share.low, f"{name}_high": share.high}


def _test_columns(name: str, result: _Result) -> Columns:
    return {name: result.effect, f"{name}_p": result.p, f"{name}_p_holm": result.p_holm}
