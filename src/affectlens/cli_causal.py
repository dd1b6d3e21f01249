"""What the found features do: `screen`, `intervene` and `steer`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from affectlens import cli_study
from affectlens.cli_arguments import ChosenBy, Emotions, Misfits, Named, Run
from affectlens.cli_inputs import choose, known_misfits, load_searched
from affectlens.cli_options import Common, verb
from affectlens.data.errors import ConfigError
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.study_config import SteeringStudyConfig


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    verb(
        app,
        "screen",
        config=ScreenConfig,
        limit="first N pairs, where the search took so many",
        examples="""affectlens screen runs/a
        affectlens screen runs/a --n-top 50 --n-random 100""",
    )(screen)
    verb(
        app,
        "intervene",
        config=InterveneConfig,
        limit="first N pairs, spread over emotions",
        examples="""affectlens intervene runs/a
        affectlens intervene runs/a --emotion grief --interventions ablate_zero""",
    )(intervene)
    verb(
        app,
        "steer",
        config=SteerConfig,
        skip=("emotions", "features_per_emotion"),
        limit="first N prompts; with --evaluate, N scenarios",
        examples="""affectlens steer runs/a --emotion grief
        affectlens steer runs/a --prompts "The day began like any other." --strengths 0.5,2
        affectlens steer runs/a --evaluate --limit 12 --doses 0.2,0.4""",
    )(steer)


def _of_study(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the study among those given to `steer`.

    Raises:
        ConfigError: one that only the shown texts have.
    """
    shared = set(SteeringStudyConfig.model_fields) & set(SteerConfig.model_fields)
    others = set(settings) - shared - {"study"}
    if others:
        raise ConfigError(
            f"steer --evaluate takes no {', '.join(sorted(others))}; they set the texts that "
            "`affectlens steer` shows without it"
        )
    return {n: v for n, v in settings.items() if n in shared} | settings.get("study", {})


def screen(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
) -> None:
    """Estimate what every latent does to the emotion readout, and measure it for some."""
    config = ScreenConfig.parse(settings)
    found = load_searched(run, named, common, stage="screen").after.screened(config)
    found.write_screen(run)
    assert found.screen is not None
    names = ["contrast", "intervention", "estimator", "sample", "n", "pearson", "spearman", "slope"]
    common.console.frame(found.screen.agreement, names)
    common.console.say(f"tables: {run / 'search/screen.csv'}, screen_agreement.csv, features.csv")
    common.console.result({"run": run, "summary": asdict(found.screen.summary)})


def intervene(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
    emotion: Emotions = None,
    by: ChosenBy = "input",
    allow_misfit: Misfits = None,
) -> None:
    """Ablate and clamp the found features, and measure the emotion readout against controls."""
    config = InterveneConfig.parse(settings)
    misfits = known_misfits(allow_misfit)
    found, chosen = choose(run, emotion, config.features_per_emotion, by)
    loaded = load_searched(run, named, common, found=found, misfits=misfits)
    from affectlens.features.effects import intervene as intervene_stage
    from affectlens.features.readout_check import check_readout

    lm, sae, pairs, _ = loaded.after.inputs
    check_readout(lm, pairs, config, out=run)
    more: dict[str, Any] = {"out": run, "quiet": common.quiet, "allow_misfit": loaded.allowed}
    result = intervene_stage(lm, sae, chosen, pairs, config, **more)
    rows = result.verdicts.to_dict("records")
    names = ["emotion", "intervention", "direction", "effect", "random_mean", "p_holm"]
    names.append("beats_random")
    common.console.frame(result.verdicts, names)
    common.console.say(f"effects: {run / 'effects'}")
    common.console.result({"run": run, "verdicts": rows, "summary": asdict(result.summary)})


def steer(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
    emotion: Emotions = None,
    features: Annotated[
        int, typer.Option(min=1, help="best features clamped together", metavar="N")
    ] = InterveneConfig().features_per_emotion,
    by: ChosenBy = "input",
    allow_misfit: Misfits = None,
) -> None:
    """Write texts with the found features clamped, beside the unedited model's."""
    if settings.pop("evaluate", False):
        wanted = {"features_per_emotion": features, **_of_study(settings)}
        cli_study.evaluate(common, wanted, run, named, emotion, allow_misfit)
        return
    config = SteerConfig.parse(settings)
    if common.limit is not None:
        config = config.model_copy(update={"prompts": config.prompts[: common.limit]})
    misfits = known_misfits(allow_misfit)
    found, chosen = choose(run, emotion, features, by)
    # The limit is that of prompts.
    of_pairs = replace(common, limit=None)
    loaded = load_searched(run, named, of_pairs, found=found, misfits=misfits)
    from affectlens.features.steering import steer as steer_stage

    lm, sae, _, _ = loaded.after.inputs
    more: dict[str, Any] = {"out": run, "quiet": common.quiet, "allow_misfit": loaded.allowed}
    rows = steer_stage(lm, sae, chosen, config, **more)
    for row in rows:
        common.console.say(f"\n[{row.emotion}, {row.arm}, strength {row.strength:g}]")
        common.console.say(f"{row.prompt} |{row.text}")
    common.console.say(f"\ntexts: {run / 'effects/generations.jsonl'}")
    common.console.result({"run": run, "generations": [asdict(row) for row in rows]})
