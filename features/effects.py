"""Causal effect of chosen features on the emotion readout, beside its nulls.

1. Texts of the confirmation part only: ablations on an emotion's own clinical items ("all": on
every
   clinical item), clamps and scalings on every neutral and clinical item respectively.
2. For each emotion: the chosen features; the same number of random latents matched in firing rate,
mean
   activation and, for clamps, in the norm of the written vector; for clamps also a random direction
   and the difference of means of the discovery part, both added at the chosen edit's norm.
3. Effect = edited minus unedited readout per text; intervals by cluster bootstrap; verdicts in
`verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.data.stimuli import Battery, Pair
from affectlens.features.columns import EFFECT_COLUMNS
from affectlens.features.controls import clamp_targets, matched_targets, random_sets, unit
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.fit import require_fit
from affectlens.features.interventions import Ablate, AddDirection, Clamp, Scale, SetRows, Spec
from affectlens.features.measure import Measured, Meter, TextMeans, text_means
from affectlens.features.readouts import ALL, READOUT_WORDS, WordSets, readout_names, word_sets
from affectlens.features.results import EffectsSummary, write_table
from affectlens.features.selection import FeatureSet
from affectlens.features.stats import cluster_bootstrap
from affectlens.features.verdicts import Comparison, verdict_table
from affectlens.sae.model import SparseAutoencoder

SpecsFor = Callable[[int, int], Sequence[Spec]]


@dataclass(frozen=True, eq=False)
class EffectResult:
    """What the interventions did.

    Attributes:
        table: one row a condition (`EFFECT_COLUMNS`).
        verdicts: one row an emotion and intervention (`VERDICT_COLUMNS`).
        summary: how it was measured.
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    summary: EffectsSummary

    def write(self, run: Path) -> None:
        """Write the tables, then the summary, below the run folder."""
        write_table(self.table, run, "effects/effects")
        write_table(self.verdicts, run, "effects/verdicts")
        self.summary.write(run)


@dataclass(frozen=True)
class _Texts:
    """Texts of one kind, prepared for measurement."""

    pairs: tuple[Pair, ...]
    meter: Meter
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class _Arm:
    name: str
    set_index: int
    features: tuple[int, ...]
    specs: SpecsFor


class _Study:
    """Everything that is shared between the emotions of one run."""

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        sets: Sequence[FeatureSet],
        battery: Battery,
        config: InterveneConfig,
    ) -> None:
        self.lm, self.sae, self.config = lm, sae, config
        self.words: WordSets = word_sets(lm, READOUT_WORDS)
        unread = [s.emotion for s in sets if s.emotion not in readout_names(self.words)]
        if unread:
            raise ConfigError(
                f"there is no readout for {', '.join(map(repr, unread))}: the effect of an edit is "
                f"read for {', '.join(readout_names(self.words))} only"
            )
        parts = sets[0].parts
        self.confirm = tuple(p for p in battery.pairs if parts.get(p.cluster) == "confirmation")
        self.discover = tuple(p for p in battery.pairs if parts.get(p.cluster) == "discovery")
        if not self.confirm or not self.discover:
            raise ConfigError(
                f"the search split names {len(parts)} clusters, of which this battery holds "
                f"{len(self.discover)} discovery and {len(self.confirm)} confirmation pairs; "
                "use the battery that was searched"
            )
        if config.max_pairs is not None:
            places = {p.cluster for p in self.confirm}
            self.confirm = battery.select(clusters=places, limit=config.max_pairs).pairs
        self.stats = sets[0].stats
        self.excluded = {f for s in sets for f in s}
        self.neutral_means = text_means(lm, sae, [p.neutral.text for p in self.confirm])
        self.directions = self._difference_of_means(sets)
        self._texts: dict[tuple[str, str], _Texts] = {}

    def _difference_of_means(
        self, sets: Sequence[FeatureSet]
    ) -> dict[str, npt.NDArray[np.float64]]:
        clinical: TextMeans = text_means(
            self.lm, self.sae, [p.clinical.text for p in self.discover]
        )
        neutral = text_means(self.lm, self.sae, [p.neutral.text for p in self.discover])
        difference = (clinical.resid - neutral.resid).astype(np.float64)
        own = {s.emotion: [s.emotion in (ALL, p.emotion) for p in self.discover] for s in sets}
        return {e: unit(difference[np.array(rows)].mean(0)) for e, rows in own.items()}

    def texts(self, emotion: str, intervention: str) -> _Texts:
        """Texts on which an emotion's intervention is measured; each prepared once."""
        own = intervention.startswith("ablate") and emotion != ALL
        kind = "neutral" if intervention == "clamp" else "clinical"
        key = (kind, emotion if own else ALL)
        if key not in self._texts:
            pairs = tuple(p for p in self.confirm if not own or p.emotion == emotion)
            members = [p.neutral if kind == "neutral" else p.clinical for p in pairs]
            meter = Meter(
                self.lm,
                self.sae,
                [m.text for m in members],
                self.words,
                self.config.templates,
                batch_size=self.config.batch_size,
            )
            self._texts[key] = _Texts(pairs, meter, tuple(p.cluster for p in pairs))
        return self._texts[key]

    def specs(
        self,
        intervention: str,
        features: tuple[int, ...],
        texts: _Texts,
        targets: npt.NDArray[np.float64],
    ) -> SpecsFor:
        """The spec of one intervention on one feature set."""
        if intervention == "ablate_zero":
            return lambda _start, _stop: [Ablate(features)]
        if intervention == "scale":
            return lambda _start, _stop: [Scale(features, self.config.scale_factor)]
        if intervention == "clamp":
            values = tuple(float(v) for v in targets)
            return lambda _start, _stop: [Clamp(features, values)]
        place = {p.clinical.id: i for i, p in enumerate(self.confirm)}
        own = self.neutral_means.latents[[place[p.clinical.id] for p in texts.pairs]]
        rows = tuple(tuple(float(v) for v in row) for row in own[:, list(features)])
        return lambda start, stop: [SetRows(features, rows[start:stop])]


def intervene(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    battery: Battery,
    config: InterveneConfig | None = None,
    *,
    out: Path | None = None,
    quiet: bool = False,
    allow_misfit: Sequence[str] = (),
) -> EffectResult:
    """Measure what the chosen features do to the emotion readout, against matched controls.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: one set or several, from `SearchResult.top` of one search.
        battery: the battery that was searched; only its confirmation part is measured.
        config: interventions, number of random sets, templates, seed.
        out: run folder to write `effects/` tables to.
        quiet: no progress.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in the summary.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: an empty feature set, another battery, or no live controls.
        HookError: an edit did not run.
    """
    config = config or InterveneConfig()
    sets = [features] if isinstance(features, FeatureSet) else list(features)
    if not sets or any(len(s) == 0 for s in sets):
        empty = [s.emotion for s in sets if len(s) == 0]
        raise ConfigError(f"no features to intervene on for {empty or 'any emotion'}")
    passed = require_fit(sae, lm, allow=allow_misfit)
    study = _Study(lm, sae, sets, battery, config)
    rows: list[dict[str, object]] = []
    comparisons: list[Comparison] = []
    jobs = [(s, i) for s in sets for i in config.interventions]
    with track(len(jobs) * (config.n_random_sets + 1), "edits", "intervene", quiet=quiet) as bar:
        for chosen, intervention in jobs:
            new, comparison = _one_study(study, chosen, intervention, bar.update)
            rows += new
            comparisons.append(comparison)
    verdicts = verdict_table(
        comparisons,
        alpha=config.alpha,
        n_permutations=config.n_permutations,
        n_bootstrap=config.n_bootstrap,
        seed=config.seed,
    )
    table = pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))
    result = EffectResult(table, verdicts, _summary(study, sets, verdicts, passed))
    if out is not None:
        result.write(Path(out))
    return result


def _one_study(
    study: _Study, chosen: FeatureSet, intervention: str, done: Callable[[int], None]
) -> tuple[list[dict[str, object]], Comparison]:
    config, texts = study.config, study.texts(chosen.emotion, intervention)
    column = texts.meter.names.index(chosen.emotion)
    names = sorted(texts.meter.names)
    draw = np.random.default_rng([config.seed, 2, names.index(chosen.emotion)])
    targets = clamp_targets(study.stats, chosen, config.clamp_strength)
    arms = [
        _Arm("chosen", 0, tuple(chosen), study.specs(intervention, tuple(chosen), texts, targets)),
    ]
    randoms = random_sets(study.stats, chosen, study.excluded, config.n_random_sets, draw)
    for index, features in enumerate(randoms):
        own = clamp_targets(study.stats, features, config.clamp_strength)
        scaled = matched_targets(own, study.sae.W_dec, features, tuple(chosen), targets)
        arms.append(
            _Arm("random", index, features, study.specs(intervention, features, texts, scaled))
        )
    measured: list[Measured] = []
    for arm in arms:
        measured.append(texts.meter.measure(arm.specs, config.scope))
        done(1)
    if intervention == "clamp":
        extra = _direction_arms(study, chosen.emotion, measured[0].tally.mean_norm, draw)
        arms += extra
        measured += [texts.meter.measure(a.specs, config.scope) for a in extra]
    rows = [
        _row(study, chosen.emotion, intervention, arm, texts, m, column)
        for arm, m in zip(arms, measured, strict=True)
    ]
    comparison = Comparison(
        chosen.emotion,
        intervention,
        measured[0].effect[:, column],
        np.stack([m.effect[:, column] for m in measured[1 : 1 + len(randoms)]]),
        texts.clusters,
    )
    return rows, comparison


def _direction_arms(
    study: _Study, emotion: str, norm: float, rng: np.random.Generator
) -> list[_Arm]:
    arms = []
    directions = {
        "random_direction": unit(rng.standard_normal(study.lm.d_model)),
        "diff_of_means": study.directions[emotion],
    }
    for name, direction in directions.items():
        spec = AddDirection(tuple(float(v) for v in norm * direction))
        arms.append(_Arm(name, 0, (), _always(spec)))
    return arms


def _always(spec: Spec) -> SpecsFor:
    return lambda _start, _stop: [spec]


def _row(
    study: _Study,
    emotion: str,
    intervention: str,
    arm: _Arm,
    texts: _Texts,
    measured: Measured,
    column: int,
) -> dict[str, object]:
    effect = measured.effect[:, column]
    interval = cluster_bootstrap(
        effect, texts.clusters, study.config.n_bootstrap, study.config.seed
    )
    strength = {"clamp": study.config.clamp_strength, "scale": study.config.scale_factor}
    return {
        "emotion": emotion,
        "intervention": intervention,
        "arm": arm.name,
        "set_index": arm.set_index,
        "features": ",".join(map(str, arm.features)),
        "strength": strength.get(intervention, 0.0),
        "n_items": len(effect),
        "n_clusters": len(set(texts.clusters)),
        "effect": float(effect.mean()),
        "effect_low": interval.low,
        "effect_high": interval.high,
        "readout_unedited": float(texts.meter.unedited[:, column].mean()),
        "delta_norm": measured.tally.mean_norm,
        "n_edited_tokens": measured.tally.tokens,
        "hook_calls": measured.tally.calls,
        "kl": float(measured.kl.mean()),
    }


def _summary(
    study: _Study, sets: Sequence[FeatureSet], verdicts: pd.DataFrame, misfits: list[str]
) -> EffectsSummary:
    config = study.config
    wins = verdicts.groupby("intervention")["beats_random"].sum()
    return EffectsSummary(
        emotions=[s.emotion for s in sets],
        interventions=list(config.interventions),
        features_per_emotion=max(len(s) for s in sets),
        n_random_sets=config.n_random_sets,
        clamp_strength=config.clamp_strength,
        scope=config.scope,
        templates=list(config.templates),
        readout="log-probability of the emotion's words minus the mean of the other emotions' "
        "(nats); 'all': emotional words against calm words",
        alpha=config.alpha,
        selection=sets[0].chosen_by,
        n_beating_random={str(k): int(v) for k, v in wins.items()},
        dropped_words={e: list(w) for e, w in study.words.dropped.items() if w},
        seed=config.seed,
        misfits=misfits,
    )
