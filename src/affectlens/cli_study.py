"""What stands behind `steer --evaluate`: the steering study of a run, and how it is shown."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.cli_arguments import Named
from affectlens.cli_inputs import load_searched
from affectlens.cli_options import Common
from affectlens.data.errors import ConfigError
from affectlens.features.study_config import SteeringStudyConfig

if TYPE_CHECKING:
    import pandas as pd

    from affectlens.console import Console
    from affectlens.features.screened import Screen
    from affectlens.features.steering_study import SteeringStudy

_SHOWN = (
    "rank",
    "arm",
    "overall",
    "overall_low",
    "overall_high",
    "concept",
    "coherence",
    "on_topic",
    "naming",
    "delta_norm",
)
SCREEN_FILE = "search/screen.json"


def evaluate(
    common: Common,
    settings: dict[str, Any],
    run: Path,
    named: Named,
    emotions: list[str] | None = None,
    allow_misfit: list[str] | None = None,
) -> None:
    """Run the steering study of a searched and screened run, and show what came out.

    Args:
        common: global options; `--limit` is the number of scenarios.
        settings: fields of `SteeringStudyConfig` that were given.
        run: run folder; finished batches and `steering/` are kept there.
        named: model, battery and SAE that were given; None stands for the run's own.
        emotions: only these.
        allow_misfit: misfits to pass over; None for the run's.

    Raises:
        ConfigError: bad settings, or an arm needs a screen that the run does not hold.
        ArtifactError: the run holds no search.
    """
    given = dict(settings)
    if emotions is not None:
        given["emotions"] = tuple(emotions)
    if common.limit is not None:
        given["n_scenarios"] = common.limit
    config = SteeringStudyConfig.parse(given)
    # The limit is that of scenarios: the battery must be the one that was searched.
    of_pairs = replace(common, limit=None)
    loaded = load_searched(run, named, of_pairs, misfits=allow_misfit, stage="study")
    from affectlens.features.steering_study import evaluate_steering

    study = evaluate_steering(
        *loaded.after.inputs,
        config,
        screen=_screen(run, config),
        out=run,
        quiet=common.quiet,
        allow_misfit=loaded.allowed,
    )
    show(study, run, common.console)


def _screen(run: Path, config: SteeringStudyConfig) -> Screen | None:
    from affectlens.features.screened import read_screen
    from affectlens.features.steering_arms import SCREENED

    if (run / SCREEN_FILE).exists():
        return read_screen(run)
    needing = [arm for arm in config.arms if arm in SCREENED]
    if needing:
        raise ConfigError(
            f"{run} holds no screen, by which the arms {', '.join(needing)} choose latents; run "
            f"`affectlens screen {run}` first, or give --arms without them"
        )
    return None


def show(study: SteeringStudy, run: Path, console: Console) -> None:
    """Ranking, wins against the stated bar whatever they are, and where the tables lie."""
    s = study.summary
    console.frame(study.ranking, _SHOWN)
    console.say(
        f"\nmeans over {len(s.emotions)} emotion(s) and {s.n_report} scenarios that did not choose "
        f"the doses; overall: {s.method['overall']}"
    )
    for line in verdict_lines(study.wins, s.alpha):
        console.say(line)
    if not s.on_topic_measured:
        console.say("unedited texts do not depend on their prompts, so on_topic says nothing here")
    for emotion, reason in s.left_out.items():
        console.say(f"{emotion} was left out: {reason}")
    console.say(f"tables: {run / 'steering'}")
    console.result(
        {
            "run": run,
            "summary": asdict(s),
            "ranking": study.ranking.to_dict("records"),
            "wins": study.wins.to_dict("records"),
        }
    )


def verdict_lines(wins: pd.DataFrame, alpha: float) -> list[str]:
    """One sentence for each output-side choice: how often it wins, and whether that is enough."""
    lines = []
    masked = wins[wins["score"] != "overall"].set_index("arm")["wins"].to_dict()
    for row in wins[wins["score"] == "overall"].to_dict("records"):
        which = f" ({row['emotions'].replace(',', ', ')})" if row["emotions"] else ""
        reached = "reached" if row["reached"] else "not reached"
        n = masked.get(row["arm"])
        lines.append(
            f"{row['arm']} beats sae_input and every random set in {row['wins']} of "
            f"{row['n_emotions']} emotions{which} at a corrected level of {alpha:g}; the stated "
            f"bar of {row['bar']} is {reached}"
            + (f"; in {n} by scores without emotion words" if n is not None else "")
        )
        if row["min_p_holm"] > alpha:
            lines.append(
                f"{row['arm']}: nothing could be found, since the smallest corrected p of this "
                f"design is {row['min_p_holm']:.2g}; use more scenarios or fewer emotions"
            )
    return lines or ["no output-side choice was compared with sae_input and random sets"]
