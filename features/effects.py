"""Causal effect of chosen features on the emotion readout, beside everything it must beat.

1. Texts of the confirmation part only: what takes features away is tried on an emotion's own
   clinical items ("all": on every one), patches on its own neutral items, what turns them up on
   every neutral item, scalings on every clinical one.
2. For each emotion and intervention the arms of `effect_arms`, all on the same texts, batched
   together by one meter for each side of the pairs.
3. Effect = edited minus unedited readout per text; intervals by cluster bootstrap; verdicts in
   `verdicts`; `mediation`, `effect_matrix` and `damage` tell what else the features do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.data.corpus import load_corpus
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.data.stimuli import Battery
from affectlens.features.columns import TABLES
from affectlens.features.contrasts import ALL
from affectlens.features.damage import DamageArm, damage_table, neutral_texts
from affectlens.features.effect_arms import Arm, ArmBuilder
from affectlens.features.effect_matrix import Cell, matrix_table
from affectlens.features.effect_study import EffectStudy, Rows, Texts
from affectlens.features.effect_tables import Outcome, effect_table, effects_summary
from affectlens.features.effect_views import EffectViews
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.fit import require_fit
from affectlens.features.interventions import EditTally
from affectlens.features.jobs import Job, Measured
from affectlens.features.mediation import Mediation
from affectlens.features.readouts import readout_of
from affectlens.features.results import EffectsSummary, write_table
from affectlens.features.selection import FeatureSet
from affectlens.features.verdicts import (
    PROMPTS,
    Comparison,
    dose_table,
    predicted_sign,
    verdict_table,
)
from affectlens.sae.model import SparseAutoencoder

logger = logging.getLogger("affectlens")
Done = Callable[[int], object]


def _empty(name: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(TABLES[name]))


@dataclass(frozen=True, eq=False, repr=False)
class EffectResult(EffectViews):
    """What the interventions did; a table that was not asked for is empty.

    Attributes:
        table: one row a condition (`EFFECT_COLUMNS`).
        verdicts: one row an emotion and intervention (`VERDICT_COLUMNS`).
        summary: how it was measured.
        doses: one row a dose (`DOSE_COLUMNS`).
        mediation: shares that run through the features (`MEDIATION_COLUMNS`).
        matrix: edited against read emotions (`EFFECT_MATRIX_COLUMNS`).
        damage: equivalence on neutral documents (`DAMAGE_COLUMNS`).
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    summary: EffectsSummary
    doses: pd.DataFrame = field(default_factory=lambda: _empty("effects/doses"))
    mediation: pd.DataFrame = field(default_factory=lambda: _empty("effects/mediation"))
    matrix: pd.DataFrame = field(default_factory=lambda: _empty("effects/matrix"))
    damage: pd.DataFrame = field(default_factory=lambda: _empty("effects/damage"))

    def write(self, run: Path) -> None:
        """Write the tables, then the summary, below the run folder."""
        write_table(self.table, run, "effects/effects")
        write_table(self.verdicts, run, "effects/verdicts")
        write_table(self.doses, run, "effects/doses")
        write_table(self.mediation, run, "effects/mediation")
        write_table(self.matrix, run, "effects/matrix")
        write_table(self.damage, run, "effects/damage")
        self.summary.write(run)


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
    """Measure what the chosen features do to the emotion readout, against its controls.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: one set or several, from `SearchResult.top` of one search.
        battery: the battery that was searched; only its confirmation part is measured.
        config: interventions, arms, doses, what is read beside, seed.
        out: run folder to write `effects/` tables to.
        quiet: no progress.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in the summary.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: an empty feature set or one of another SAE, an emotion that cannot be read,
            another battery, no confirmation part, no live controls, a clamp of a latent that never
            fired, or a strength that overflows.
    """
    config = config or InterveneConfig()
    sets = [features] if isinstance(features, FeatureSet) else list(features)
    passed = require_fit(sae, lm, allow=allow_misfit)
    study = EffectStudy(lm, sae, sets, battery, config)
    run = _Run(study, quiet=quiet)
    result = run.result(passed)
    if out is not None:
        result.write(Path(out))
    return result


class _Run:
    """One run: plan, measure, evaluate."""

    def __init__(self, study: EffectStudy, *, quiet: bool) -> None:
        self.study, self.config, self.quiet = study, study.config, quiet
        self.builder = ArmBuilder(study)
        self.discovery: dict[tuple[str, str], dict[float, float]] = {}
        self.n_dose_texts = 0

    def result(self, passed: list[str]) -> EffectResult:
        """Measure everything that was asked for."""
        study, config = self.study, self.config
        reported = self._choose_doses()
        arms = [
            arm
            for chosen in study.sets
            for kind in config.interventions
            for arm in self.builder.arms(chosen, kind, reported[chosen.emotion, kind])
        ]
        mediation = Mediation(study) if config.measures.mediation else None
        rest = self._rest_jobs(arms)
        n_rows = self._planned(arms, rest, mediation)
        n_jobs = len({id(a.job) for a in arms if a.job is not None})
        n_jobs += sum(len(rows) > 0 for _, rows in rest)
        n_jobs += mediation.n_jobs if mediation else 0
        with track(n_jobs, "edits", "intervene", quiet=self.quiet) as bar:
            outcomes = self._measure(arms, bar.update)
            elsewhere = self._measure_rest(rest, bar.update)
            through = mediation.table(bar.update) if mediation else _empty("effects/mediation")
        comparisons = self._comparisons(outcomes)
        settings = {"n_permutations": config.n_permutations, "seed": config.seed}
        verdicts = verdict_table(comparisons, alpha=config.alpha, **settings)
        return EffectResult(
            effect_table(study, outcomes),
            verdicts,
            effects_summary(study, self.builder, verdicts, passed, n_rows),
            dose_table(comparisons, **settings),
            through,
            self._matrix(outcomes, elsewhere),
            self._damage(outcomes),
        )

    def _choose_doses(self) -> dict[tuple[str, str], float]:
        """The reported dose of every emotion and intervention, chosen on discovery texts."""
        found: dict[tuple[str, str], float] = {}
        asked: list[tuple[str, str, float, Texts, Job]] = []
        for chosen in self.study.sets:
            for kind in self.config.interventions:
                strengths = self.builder.strengths(kind)
                found[chosen.emotion, kind] = strengths[0]
                if len(strengths) == 1:
                    continue
                texts = self.study.dose_texts("clinical" if kind == "scale" else "neutral")
                for strength in strengths:
                    specs = self.builder.chosen_edit(kind, strength, texts).specs(tuple(chosen))
                    job = Job(specs, self.config.scope)
                    asked.append((chosen.emotion, kind, strength, texts, job))
        self.n_dose_texts = sum(len(texts.pairs) for *_, texts, _ in asked)
        measured = measure_together([(texts, job) for *_, texts, job in asked])
        for (emotion, name, strength, _, _), one in zip(asked, measured, strict=True):
            effect = float(one.effect[:, self.study.column(emotion)].mean())
            self.discovery.setdefault((emotion, name), {})[strength] = effect
        for (emotion, name), effects in self.discovery.items():
            signed = {s: predicted_sign(name, s) * e for s, e in effects.items()}
            found[emotion, name] = max(signed, key=lambda s: signed[s])
        return found

    def _planned(
        self, arms: Sequence[Arm], rest: Sequence[tuple[Arm, Rows]], mediation: Mediation | None
    ) -> int:
        """Forward rows at most; rows that an edit leaves as they are will not be run."""
        texts = sum({id(a.job): len(a.rows) for a in arms if a.job is not None}.values())
        texts += sum(len(rows) for _, rows in rest) + (mediation.n_rows if mediation else 0)
        prompts = {(a.texts.side, a.prefix): len(a.rows) for a in arms if a.prefix}
        texts += sum(prompts.values()) + self.n_dose_texts
        n = texts * self.study.readout.n_suffixes
        logger.info("intervene: at most %s rows from the edited layer on", f"{n:,}")
        return n

    def _measure(self, arms: Sequence[Arm], done: Done) -> list[Outcome]:
        edits = [(a.texts, a.job) for a in arms if a.job is not None]
        found = iter(measure_together(edits, done))
        prompted: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        outcomes = []
        for arm in arms:
            if arm.job is not None:
                measured = next(found)
            elif arm.prefix:
                measured = self._prompted(arm, prompted)
            else:
                n = len(arm.rows)
                nothing = np.zeros((n, len(self.study.readout.names)))
                measured = Measured(nothing, np.zeros(n), EditTally(), n_run=0, n_skipped=0)
            outcomes.append(Outcome(arm, measured))
        return outcomes

    def _prompted(self, arm: Arm, known: dict[tuple[str, str], dict[int, np.ndarray]]) -> Measured:
        """Readout of texts with a sentence before them, minus that without; each run once."""
        cache = known.setdefault((arm.texts.side, arm.prefix), {})
        new = [int(r) for r in arm.rows if int(r) not in cache]
        if new:
            pairs, side = arm.texts.pairs, arm.texts.side
            texts = [arm.prefix + getattr(pairs[r], side).text for r in new]
            read = readout_of(
                self.study.lm, texts, self.study.readout, batch_size=self.config.batch_size
            )
            cache |= dict(zip(new, read, strict=True))
        effect = np.stack([cache[int(r)] for r in arm.rows]) - arm.texts.meter.unedited[arm.rows]
        nothing = np.full(len(effect), np.nan)
        return Measured(effect, nothing, EditTally(), n_run=0, n_skipped=0)

    def _rest_jobs(self, arms: Sequence[Arm]) -> list[tuple[Arm, Rows]]:
        """The chosen edits of the matrix on the texts that are not the emotion's own."""
        emotions = [s.emotion for s in self.study.sets if s.emotion != ALL]
        if not self.config.measures.matrix or len(emotions) < 2:
            return []
        chosen = [a for a in arms if a.name == "chosen" and a.reported and a.emotion != ALL]
        return [(a, np.setdiff1d(np.arange(len(a.texts.pairs)), a.rows)) for a in chosen]

    def _measure_rest(
        self, rest: Sequence[tuple[Arm, Rows]], done: Done
    ) -> dict[tuple[str, str], np.ndarray]:
        """(intervention, edited) -> effects on the rest, [n_rest, n_names]."""
        some = [(a, rows) for a, rows in rest if len(rows)]
        jobs = []
        for arm, rows in some:
            assert arm.job is not None  # the chosen arm edits
            texts = [int(r) for r in rows]
            jobs.append((arm.texts, Job(arm.job.specs, arm.job.scope, texts=texts)))
        measured = measure_together(jobs, done)
        found = {
            (a.intervention, a.emotion): m.effect for (a, _), m in zip(some, measured, strict=True)
        }
        nothing = np.zeros((0, len(self.study.readout.names)))
        return {(a.intervention, a.emotion): nothing for a, _ in rest} | found

    def _matrix(
        self, outcomes: Sequence[Outcome], rest: dict[tuple[str, str], np.ndarray]
    ) -> pd.DataFrame:
        tables = []
        for kind in dict.fromkeys(kind for kind, _ in rest):
            chosen = [
                o
                for o in outcomes
                if o.arm.name == "chosen" and o.arm.reported
                and (kind, o.arm.emotion) in rest and o.arm.intervention == kind
            ]  # fmt: skip
            cells: dict[tuple[str, str], Cell] = {}
            for o in chosen:
                texts = o.arm.texts
                whole = np.zeros((len(texts.pairs), o.measured.effect.shape[1]))
                whole[o.arm.rows] = o.measured.effect
                others = np.setdiff1d(np.arange(len(whole)), o.arm.rows)
                whole[others] = rest[kind, o.arm.emotion]
                for read in (c.arm.emotion for c in chosen):
                    rows = self.study.rows(read, kind, texts)
                    effect = whole[rows, self.study.column(read)]
                    cells[o.arm.emotion, read] = Cell(effect, texts.clusters(rows))
            sign = predicted_sign(kind, chosen[0].arm.strength)
            tables.append(
                matrix_table(
                    kind,
                    sign,
                    cells,
                    n_permutations=self.config.n_permutations,
                    seed=self.config.seed,
                )
            )
        return pd.concat(tables, ignore_index=True) if tables else _empty("effects/matrix")

    def _comparisons(self, outcomes: Sequence[Outcome]) -> list[Comparison]:
        """One for each emotion, intervention and dose; none without random sets."""
        groups: dict[tuple[str, str, float], list[Outcome]] = {}
        for o in outcomes:
            key = (o.arm.emotion, o.arm.intervention, o.arm.strength)
            groups.setdefault(key, []).append(o)
        found = []
        for (emotion, kind, strength), group in groups.items():
            column = self.study.column(emotion)
            random = [o.measured.effect[:, column] for o in group if o.arm.name == "random"]
            if not random:
                continue
            chosen = next(o for o in group if o.arm.name == "chosen")
            others: dict[str, list[float]] = {}
            for o in group:
                if o.arm.name in _CONTROLS:
                    mean = float(o.measured.effect[:, column].mean())
                    others.setdefault(o.arm.name, []).append(mean)
            found.append(
                Comparison(
                    emotion,
                    kind,
                    chosen.measured.effect[:, column],
                    np.stack(random),
                    chosen.arm.clusters,
                    strength,
                    chosen.arm.reported,
                    others,
                    float(chosen.measured.kl.mean()),
                    self.discovery.get((emotion, kind), {}).get(strength, float("nan")),
                )
            )
        return found

    def _damage(self, outcomes: Sequence[Outcome]) -> pd.DataFrame:
        """Chosen features, first random set and splice on neutral documents."""
        measures, scope = self.config.measures, self.config.scope
        if not measures.damage_documents:
            return _empty("effects/damage")
        texts = neutral_texts(
            self.study.lm, load_corpus(), measures.damage_documents, measures.damage_tokens,
            self.config.seed,
        )  # fmt: skip
        labels = {"emotion": "", "intervention": "", "arm": "splice", "strength": 0.0}
        arms = [DamageArm(labels, Job([], scope, error="drop"))]
        for o in outcomes:
            a = o.arm
            if a.reported and a.name in ("chosen", "random") and a.set_index == 0:
                specs = a.edit.on_any_text(a.features, a.factor)
                labels = {
                    "emotion": a.emotion,
                    "intervention": a.intervention,
                    "arm": a.name,
                    "strength": a.strength,
                }
                arms.append(DamageArm(labels, Job(specs, scope)))
        n_batches = len(arms) * -(-len(texts) // 4)
        with track(n_batches, "batches", "damage", quiet=self.quiet) as bar:
            return damage_table(
                self.study.lm, self.study.sae, texts, arms, measures.margin_kl,
                measures.margin_ce, done=bar.update,
            )  # fmt: skip


_CONTROLS = (
    "random_direction", "shuffled_labels", "diff_of_means", "dense_probe", "neurons", *PROMPTS,
)  # fmt: skip


def measure_together(
    edits: Sequence[tuple[Texts, Job]], done: Done | None = None
) -> list[Measured]:
    """Measure jobs of several meters, one call for each, in the order given.

    A job that is there more than once is measured once.
    """
    found: dict[int, Measured] = {}
    for meter in {id(texts.meter): texts.meter for texts, _ in edits}.values():
        own = {id(job): job for texts, job in edits if texts.meter is meter}
        found |= dict(zip(own, meter.measure_many(list(own.values()), done), strict=True))
    return [found[id(job)] for _, job in edits]
