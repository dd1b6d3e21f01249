"""The steering study: which arm makes the model write an emotion, and what it costs the text.

1. Arms for each emotion (`steering_arms`): latents by input side, by output side, by both, one
   latent, matched random sets, rival directions, shuffled labels, and instructions.
2. The model goes on with everyday scenes under every arm at every dose, without being told a
   target (but for the arms that are an instruction), with one random stream a scene.
3. A scorer that never saw the target reads the texts; concept, coherence and being on topic are
   joined as in AxBench (`steering_scores`).
4. Doses are chosen on one half of the scenes; curves, ranking, comparisons and wins are those of
   the other half (`steering_curves`, `steering_ranking`).

A stopped study leaves its finished batches in the run folder; the same call goes on from there and
ends with the same tables.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.data.artifacts import sha256_json
from affectlens.data.models import LanguageModel
from affectlens.data.scenarios import Scenarios
from affectlens.data.stimuli import Battery
from affectlens.features.effect_views import StudyViews
from affectlens.features.fit import require_fit
from affectlens.features.naming_rate import ANY, naming_words
from affectlens.features.readout_words import emotion_words
from affectlens.features.results import write_table
from affectlens.features.search import SearchResult
from affectlens.features.steering_curves import MARGIN, Condition, chosen_table, curves_table
from affectlens.features.steering_plan import StudyPlan, plan_study
from affectlens.features.steering_ranking import (
    ALPHA,
    Scored,
    comparison_table,
    ranking_table,
    wins_table,
)
from affectlens.features.steering_scores import METHOD, Scene, Yardstick, score_texts
from affectlens.features.steering_writing import (
    ASK,
    ASK_PLAIN,
    GO_ON,
    PARTIAL_FILE,
    PartialTexts,
    Written,
    study_prompt,
    write_texts,
)
from affectlens.features.study_config import SteeringStudyConfig
from affectlens.features.study_record import SteeringSummary
from affectlens.features.text_scoring import TextScorer, scorer_named
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.screened import Screen

logger = logging.getLogger("affectlens")


@dataclass(frozen=True, eq=False, repr=False)
class SteeringStudy(StudyViews):
    """What the study found; tables with the columns of `study_columns`."""

    texts: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame = field(repr=False)
    chosen: pd.DataFrame = field(repr=False)
    ranking: pd.DataFrame
    comparisons: pd.DataFrame = field(repr=False)
    wins: pd.DataFrame
    summary: SteeringSummary = field(repr=False)

    def write(self, run: Path) -> Path:
        """Write `steering/*` of a run folder, the record last; returns its path."""
        for name in ("texts", "curves", "chosen", "ranking", "comparisons", "wins"):
            write_table(getattr(self, name), Path(run), f"steering/{name}")
        return self.summary.write(Path(run))


def evaluate_steering(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: SteeringStudyConfig | None = None,
    *,
    screen: Screen | None = None,
    scorer: TextScorer | None = None,
    scenarios: Scenarios | None = None,
    out: Path | None = None,
    quiet: bool | None = False,
    allow_misfit: Sequence[str] = (),
) -> SteeringStudy:
    """Steer with every arm at every dose, score the texts, and rank the arms.

    What it costs is logged before the first text is written.

    Args:
        lm: the model.
        sae: the SAE that was searched.
        battery: the battery that was searched; only its discovery pairs are read.
        found: the search.
        config: emotions, arms, doses, scenarios, lengths.
        screen: the screen of that search, by default the one it holds; output-side arms need it.
        scorer: reader of emotions; by default the one that the settings name.
        scenarios: scenes to write about; by default those that the settings name.
        out: run folder; finished batches are kept and `steering/` tables are written there.
        quiet: no progress.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in the record.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: an arm without a screen, an unknown emotion or one without latents, no firing
            statistics, or another battery.
        StimulusError: too few scenarios for two halves, or a prompt that exceeds the context.
        MachineError: another study writes to this folder.
        HookError: an edit did not run.
    """
    config = config or SteeringStudyConfig()
    clock = _Clock()
    passed = require_fit(sae, lm, allow=allow_misfit)
    scorer = scorer if scorer is not None else scorer_named(config.scorer, device=str(lm.device))
    screen = screen if screen is not None else found.screen
    plan = plan_study(
        lm,
        sae,
        battery,
        found,
        config,
        screen=screen,
        labels=scorer.labels,
        scenarios=scenarios,
        quiet=quiet,
    )
    clock.lap("plan")
    logger.info("%s", plan.cost().line())
    path = None if out is None else Path(out) / PARTIAL_FILE
    with nullcontext() if path is None else PartialTexts.opened(path, plan.key) as kept:
        written = write_texts(
            lm, sae, plan.items, plan.sampling, config.batch_size, kept=kept, quiet=quiet
        )
        clock.lap("write")
        scored, yardstick = score_texts(
            lm, scorer, text_rows(plan, written), scenes_of(lm, plan),
            masked=naming_words(ANY) | chosen_by_words(screen), quiet=quiet,
        )  # fmt: skip
        clock.lap("score")
        result = _tables(plan, scored)
        clock.lap("tables")
        summary = replace(
            _summary(lm, sae, plan, scorer, scored, yardstick),
            n_resumed=0 if kept is None else kept.n_resumed,
            n_dropped_lines=0 if kept is None else kept.n_dropped,
            seconds=clock.laps,
            misfits=passed,
        )
        study = SteeringStudy(scored, **result, summary=summary)
        if out is not None:
            study.write(Path(out))
        if kept is not None:
            kept.remove()
    return study


def chosen_by_words(screen: Screen | None) -> frozenset[str]:
    """Words of the readout by which output-side latents were chosen, in lower case."""
    if screen is None:
        return frozenset()
    words = emotion_words(str(screen.summary.settings["words"]))
    return frozenset(word.lower() for own in words.values() for word in own)


def text_rows(plan: StudyPlan, written: Sequence[Written]) -> pd.DataFrame:
    """One row a condition and scenario, without scores."""
    n_select = len(plan.select.items)
    rows = []
    for condition in plan.conditions:
        for copy, place in product(range(plan.config.texts_per_scene), range(len(plan.scenarios))):
            scene, text = plan.scenarios[place], written[plan.rows[condition.key, place, copy]]
            rows.append(
                {
                    "emotion": condition.emotion,
                    "arm": condition.arm,
                    "set_index": condition.set_index,
                    "dose": condition.dose,
                    "scenario": scene.id,
                    "copy": copy,
                    "half": "select" if place < n_select else "report",
                    "text": text.text,
                    "n_edited_tokens": text.n_edited,
                    "delta_norm": text.norm,
                }
            )
    return pd.DataFrame(rows)


def scenes_of(lm: LanguageModel, plan: StudyPlan) -> dict[str, Scene]:
    """Each scenario's prompt without instruction beside that of the next one of another theme."""
    scenes = plan.scenarios
    prompts = [study_prompt(lm, s.prompt(plan.config.valence), "") for s in scenes]
    out = {}
    for place, scene in enumerate(scenes):
        after = [(place + step) % len(scenes) for step in range(1, len(scenes))]
        other = next((i for i in after if scenes[i].theme != scene.theme), after[0])
        out[scene.id] = Scene(prompts[place], prompts[other])
    return out


def _tables(plan: StudyPlan, scored: pd.DataFrame) -> dict[str, pd.DataFrame]:
    config = plan.config
    curves = curves_table(scored)
    sets: dict[Condition, tuple[Sequence[int], str]] = {
        (c.emotion, c.arm, c.set_index): (c.features, c.matched_to) for c in plan.conditions
    }
    chosen = chosen_table(scored, curves, sets)
    at_doses = Scored.of(scored, chosen, own_random=config.dose_unit != "residual_norm")
    comparisons = comparison_table(at_doses, config.n_permutations, config.seed)
    return {
        "curves": curves,
        "chosen": chosen,
        "ranking": ranking_table(at_doses, chosen),
        "comparisons": comparisons,
        "wins": wins_table(comparisons),
    }


def _summary(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    plan: StudyPlan,
    scorer: TextScorer,
    scored: pd.DataFrame,
    yardstick: Yardstick,
) -> SteeringSummary:
    config, name = plan.config, plan.select.name.rpartition("/")[0]
    share = config.dose_unit == "residual_norm"
    norms: dict[str, dict[str, float]] = {}
    for (emotion, dose), norm in plan.norms.items():
        norms.setdefault(emotion, {})[f"{dose:g}"] = norm
    features: dict[str, dict[str, list[int]]] = {}
    for c in plan.conditions:
        if c.features:
            arm = f"random {c.set_index}" if c.arm == "random" else c.arm
            features.setdefault(c.emotion, {})[arm] = list(c.features)
    return SteeringSummary(
        model=lm.name,
        model_fingerprint=lm.fingerprint,
        sae_sha256=sae.info.sha256,
        settings=config.model_dump(mode="json"),
        emotions=[own.emotion for own in plan.arms],
        left_out=dict(plan.left_out),
        features=features,
        reference="" if share else plan.arms[0].reference_arm,
        norms=norms,
        scenarios=name,
        scenarios_sha256=sha256_json([plan.select.sha256, plan.report.sha256]),
        scenarios_licence=plan.select.licence,
        n_select=len(plan.select.items),
        n_report=len(plan.report.items),
        go_on=GO_ON,
        ask=ASK,
        ask_plain=ASK_PLAIN,
        chat=bool(lm.tokenizer.chat_template),
        scorer=scorer.card(),
        method=METHOD,
        unedited_perplexity=yardstick.fluency.perplexity,
        unedited_new=yardstick.fluency.new,
        unedited_readable=yardstick.readable,
        unedited_gain=yardstick.gain,
        on_topic_measured=yardstick.gain > 0,
        n_conditions=len(plan.conditions),
        n_texts=len(scored),
        n_written=len(plan.items),
        n_empty=int((scored["text"].str.strip() == "").sum()),
        margin=MARGIN,
        alpha=ALPHA,
    )


class _Clock:
    """Seconds of each part, in the order in which they end."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
