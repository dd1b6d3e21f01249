"""Outcomes of arms to the effect table and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.features.cluster_t import cluster_mean
from affectlens.features.effect_arms import Arm, ArmBuilder, prompt_pair
from affectlens.features.effect_columns import EFFECT_COLUMNS
from affectlens.features.effect_study import EffectStudy
from affectlens.features.jobs import Measured
from affectlens.features.results import EffectsSummary

_BASE = {"chosen_no_error": "splice", "chosen_error_only": "error_only"}
"""Arms whose treatment of the SAE's error moves the readout by itself, and that base."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """An arm and what it did; `measured` is over `arm.rows`, in all columns of the readout."""

    arm: Arm
    measured: Measured


def effect_table(study: EffectStudy, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One row for each arm with the columns `EFFECT_COLUMNS`."""
    means = {
        _key(o, o.arm.name): float(o.measured.effect[:, study.column(o.arm.emotion)].mean())
        for o in outcomes
        if o.arm.name in _BASE.values()
    }
    rows = [_row(study, o, means) for o in outcomes]
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def _key(o: Outcome, name: str) -> tuple[str, str, float, str]:
    return o.arm.emotion, o.arm.intervention, o.arm.strength, name


def _row(
    study: EffectStudy, o: Outcome, means: dict[tuple[str, str, float, str], float]
) -> dict[str, object]:
    arm, column = o.arm, study.column(o.arm.emotion)
    effect = o.measured.effect[:, column]
    interval = cluster_mean(effect, arm.clusters)
    base = means.get(_key(o, _BASE.get(arm.name, arm.name)), 0.0) if arm.name in _BASE else 0.0
    if arm.name in _BASE.values():
        base = interval.estimate
    return {
        "emotion": arm.emotion,
        "intervention": arm.intervention,
        "arm": arm.name,
        "set_index": arm.set_index,
        "features": ",".join(map(str, arm.features)),
        "strength": arm.strength,
        "n_items": len(effect),
        "n_clusters": interval.n_clusters,
        "effect": interval.estimate,
        "effect_low": interval.low,
        "effect_high": interval.high,
        "net_effect": interval.estimate - base,
        "readout_unedited": float(arm.texts.meter.unedited[arm.rows, column].mean()),
        **_written(study, o),
        "n_edited_tokens": o.measured.tally.tokens,
        "hook_calls": o.measured.tally.calls,
        "kl": float(o.measured.kl.mean()),
        "reported": arm.reported,
    }


def _written(study: EffectStudy, o: Outcome) -> dict[str, float]:
    """Lengths of the change; rows of a text that differ in their suffix count apart."""
    if o.arm.prefix:
        return dict.fromkeys(("delta_norm", "delta_total", "norm_ratio"), float("nan"))
    tally, n_rows = o.measured.tally, len(o.arm.rows) * study.readout.n_suffixes
    ratio = tally.norm_sum / o.arm.wanted if o.arm.wanted > 0 else float("nan")
    return {
        "delta_norm": tally.mean_norm,
        "delta_total": tally.norm_sum / n_rows,
        "norm_ratio": ratio,
    }


def effects_summary(
    study: EffectStudy,
    builder: ArmBuilder,
    verdicts: pd.DataFrame,
    misfits: list[str],
    n_rows: int,
) -> EffectsSummary:
    """How the study was made, from its settings and what the readout says of itself."""
    config, sets = study.config, study.sets
    facts = study.readout.describe()
    wins = verdicts.groupby("intervention")["beats_random"].sum()
    family = verdicts[verdicts["p_family"] <= config.alpha].groupby("intervention").size()
    against = verdicts.groupby("intervention")["beats_controls"].sum()
    dropped = {e: list(w) for e, w in facts.get("dropped", {}).items() if w}
    several = len(config.controls.doses) > 1
    return EffectsSummary(
        emotions=[s.emotion for s in sets],
        interventions=list(config.interventions),
        features_per_emotion=max(len(s) for s in sets),
        n_random_sets=config.n_random_sets,
        clamp_strength=config.clamp_strength,
        scope=config.scope,
        templates=list(config.templates),
        readout=_readout_words(calibrated=study.readout.calibrated),
        alpha=config.alpha,
        selection=sets[0].chosen_by,
        n_beating_random={str(k): int(v) for k, v in wins.items()},
        dropped_words=dropped,
        seed=config.seed,
        misfits=misfits,
        arms=list(config.controls.arms),
        doses={k: list(builder.strengths(k)) for k in config.interventions},
        dose_rule=_dose_rule(study) if several else "one dose, set beforehand",
        n_tests=len(verdicts) if not several else _n_tests(builder, len(sets)),
        n_family={str(k): int(v) for k, v in family.items()},
        n_beating_controls={str(k): int(v) for k, v in against.items()},
        n_planned_rows=n_rows,
        n_pairs=len(study.confirm),
        missing_arms=builder.missing,
        prompts=_prompts(study),
        calibrated=study.readout.calibrated,
        words=config.measures.words,
    )


def _n_tests(builder: ArmBuilder, n_sets: int) -> int:
    kinds = builder.study.config.interventions
    return n_sets * int(np.sum([len(builder.strengths(kind)) for kind in kinds]))


def _readout_words(*, calibrated: bool) -> str:
    base = (
        "log-probability of the emotion's words minus the mean of the other emotions' (nats); "
        "'all': emotional words against calm words"
    )
    if not calibrated:
        return base
    return base + "; each word against its own probability after texts without content"


def _dose_rule(study: EffectStudy) -> str:
    return (
        "the dose with the largest effect in the predicted direction on "
        f"{len(study.dose_pairs)} pairs of the discovery part; effects "
        "and tests are of the confirmation part"
    )


def _prompts(study: EffectStudy) -> dict[str, list[str]]:
    """Emotion -> the sentence that names it and its twin; empty without that arm."""
    if "prompt" not in study.config.controls.arms:
        return {}
    names = {s.emotion: study.readout.names[study.column(s.emotion)] for s in study.sets}
    return {e: list(prompt_pair(study.lm, name)) for e, name in names.items()}
