"""What the found features do: `screen`, `intervene` and `steer`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from affectlens import cli_study
from affectlens.cli_arguments import (
    BatteryName,
    ChosenBy,
    Emotions,
    Misfits,
    Model,
    Revision,
    Run,
    Sae,
)
from affectlens.cli_inputs import (
    Named,
    allowed_misfits,
    choose,
    guard,
    load_pairs,
    load_run_lm,
    load_searched,
    load_searched_sae,
    made_with,
    open_store,
)
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
    model: Model = None,
    revision: Revision = None,
    battery: BatteryName = None,
    sae: Sae = None,
) -> None:
    """Estimate what every latent does to the emotion readout, and measure it for some."""
    config = ScreenConfig.parse(settings)
    named = Named(model, revision, battery, sae)
    loaded = load_searched(run, named, common, stage="screen")
    found = loaded.after.screened(config)
    found.write_screen(run)
    assert found.screen is not None
    agreement = found.screen.agreement
    names = ["contrast", "intervention", "estimator", "sample", "n", "pearson", "spearman", "slope"]
    common.console.table(names, [list(row) for row in agreement[names].itertuples(index=False)])
    common.console.say(f"tables: {run / 'search/screen.csv'}, screen_agreement.csv, features.csv")
    common.console.result({"run": run, "summary": asdict(found.screen.summary)})


def intervene(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    model: Model = None,
    revision: Revision = None,
    battery: BatteryName = None,
    sae: Sae = None,
    emotion: Emotions = None,
    by: ChosenBy = "input",
    allow_misfit: Misfits = None,
) -> None:
    """Ablate and clamp the found features, and measure the emotion readout against controls."""
    config = InterveneConfig.parse(settings)
    made = made_with(run)
    allowed = allowed_misfits(allow_misfit, made)
    found, chosen = choose(run, emotion, config.features_per_emotion, by)
    pairs = load_pairs(battery, made, common)
    loaded, _ = load_searched_sae(sae, run, found, common)
    lm = load_run_lm(model, revision, made, common)
    guard(loaded, lm, open_store(None, run), run=None if sae else run)
    from affectlens.features.effects import intervene as intervene_stage
    from affectlens.features.readout_check import check_readout

    check_readout(lm, pairs, config, out=run)
    more: dict[str, Any] = {"out": run, "quiet": common.quiet, "allow_misfit": allowed}
    result = intervene_stage(lm, loaded, chosen, pairs, config, **more)
    rows = result.verdicts.to_dict("records")
    names = ["emotion", "intervention", "direction", "effect", "random_mean", "p_holm"]
    names.append("beats_random")
    common.console.table(names, [[row[name] for name in names] for row in rows])
    common.console.say(f"effects: {run / 'effects'}")
    common.console.result({"run": run, "verdicts": rows, "summary": asdict(result.summary)})


def steer(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    model: Model = None,
    revision: Revision = None,
    sae: Sae = None,
    emotion: Emotions = None,
    features: Annotated[
        int, typer.Option(min=1, help="best features clamped together", metavar="N")
    ] = InterveneConfig().features_per_emotion,
    by: ChosenBy = "input",
    allow_misfit: Misfits = None,
) -> None:
    """Write texts with the found features clamped, beside the unedited model's."""
    if settings.pop("evaluate", False):
        named = Named(model, revision, None, sae)
        wanted = {"features_per_emotion": features, **_of_study(settings)}
        cli_study.evaluate(common, wanted, run, named, emotion, allow_misfit)
        return
    config = SteerConfig.parse(settings)
    if common.limit is not None:
        config = config.model_copy(update={"prompts": config.prompts[: common.limit]})
    made = made_with(run)
    allowed = allowed_misfits(allow_misfit, made)
    found, chosen = choose(run, emotion, features, by)
    loaded, _ = load_searched_sae(sae, run, found, common)
    lm = load_run_lm(model, revision, made, common)
    guard(loaded, lm, open_store(None, run), run=None if sae else run)
    from affectlens.features.steering import steer as steer_stage

    more: dict[str, Any] = {"out": run, "quiet": common.quiet, "allow_misfit": allowed}
    rows = steer_stage(lm, loaded, chosen, config, **more)
    for row in rows:
        common.console.say(f"\n[{row.emotion}, {row.arm}, strength {row.strength:g}]")
        common.console.say(f"{row.prompt} |{row.text}")
    common.console.say(f"\ntexts: {run / 'effects/generations.jsonl'}")
    common.console.result({"run": run, "generations": [asdict(row) for row in rows]})
