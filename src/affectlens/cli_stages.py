"""The stages up to a search, and the report: `harvest`, `train`, `search`, `report`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens import cli_train
from affectlens.cli_arguments import Misfits, Model, Named, Revision, Run
from affectlens.cli_inputs import (
    DEFAULTS,
    allowed_misfits,
    guard,
    load_lm,
    load_pairs,
    load_run_lm,
    load_run_sae,
    made_with,
    open_store,
    remember,
)
from affectlens.cli_options import Common, verb
from affectlens.data.config import HarvestConfig
from affectlens.data.errors import ConfigError
from affectlens.features.config import SearchConfig
from affectlens.run_config import RunConfig
from affectlens.training.config import TrainConfig

if TYPE_CHECKING:
    from affectlens.after_search import AfterSearch
    from affectlens.features.search import SearchResult
    from affectlens.features.validation_records import ControlsSummary


def register(app: typer.Typer) -> None:
    """Add the stage commands to the application."""
    verb(
        app,
        "harvest",
        config=HarvestConfig,
        limit="tokens of the corpus to use (sets --max-tokens)",
        examples="""affectlens harvest --out runs/a/activations
        affectlens harvest --corpus texts.jsonl --layers 10,15 --out acts --limit 20000""",
    )(harvest)
    verb(
        app,
        "train",
        config=TrainConfig,
        skip=cli_train.OWN_FIELDS,
        limit="activations to train on (sets --n-samples)",
        examples=cli_train.EXAMPLES,
    )(cli_train.train)
    verb(
        app,
        "search",
        config=SearchConfig,
        limit="first N pairs, spread over emotions",
        examples="""affectlens search runs/a
        affectlens search runs/a --null
        affectlens search runs/b --sae gpt2-small-res-jb:blocks.8.hook_resid_pre \\
          --model openai-community/gpt2 --battery mine.jsonl""",
    )(search)
    verb(app, "report", examples="affectlens report runs/a")(report)


def harvest(
    common: Common,
    settings: dict[str, Any],
    out: Annotated[Path, typer.Option(help="folder of the store", metavar="FOLDER")],
    model: Model = None,
    revision: Revision = None,
    dtype: Annotated[
        str, typer.Option(help="number format of the model's weights", metavar="NAME")
    ] = DEFAULTS.dtype,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            "--text",
            help=RunConfig.model_fields["corpus"].description,
            metavar="CORPUS",
        ),
    ] = DEFAULTS.corpus,
    avoid: Annotated[
        str,
        typer.Option(help="battery whose texts must not occur in the corpus", metavar="BATTERY"),
    ] = DEFAULTS.battery,
) -> None:
    """Write a corpus' activations to a folder; an unfinished one is resumed."""
    if common.limit is not None:
        settings["max_tokens"] = common.limit
    config = HarvestConfig.parse(settings)
    from affectlens.data.corpus import load_corpus
    from affectlens.data.stimuli import load_battery

    texts, battery = load_corpus(corpus), load_battery(avoid)
    lm = load_lm(model or DEFAULTS.model, revision, common, dtype)
    from affectlens.data.activations import harvest as harvest_stage

    store = harvest_stage(lm, texts, config, out, avoid=battery.texts, quiet=common.quiet)
    kept = {hook: store.n_kept(hook) for hook in store.hook_names}
    common.console.say(f"{store.n_rows:,} tokens of {len(texts.documents):,} documents in {out}")
    for hook, count in kept.items():
        common.console.say(f"  {hook}: {count:,} kept, {store.n_rows - count:,} masked")
    common.console.result({"store": out, "n_rows": store.n_rows, "n_kept": kept})


def search(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
    store: Annotated[
        Path | None,
        typer.Option(
            help="activations, for contexts  [default: RUN/activations if there]", metavar="FOLDER"
        ),
    ] = None,
    controls: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--controls/--no-controls", help="put what is retained through the lexical controls"
        ),
    ] = True,
    screen: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--screen/--no-screen", help="estimate what every latent does to the model's output"
        ),
    ] = True,
    null: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--null",
            help="instead, repeat the search of RUN where the answer is known and show its error "
            "rates and power; `affectlens calibrate` has the settings",
        ),
    ] = False,
    allow_misfit: Misfits = None,
) -> None:
    """Search the SAE for features that tell emotional texts from their neutral twins."""
    if null:
        _calibrate(run, named.battery, settings, common)
        return
    config = SearchConfig.parse(settings)
    made = made_with(run)
    allowed = allowed_misfits(allow_misfit, made)
    pairs = load_pairs(named.battery, made, common)
    loaded = load_run_sae(named.sae, run, common)
    texts = open_store(store, run)
    lm = load_run_lm(named.model, named.revision, made, common)
    guard(loaded, lm, texts, run=None if named.sae else run)
    from affectlens.features.contextual import static_means
    from affectlens.features.lexical import AuditConfig, audit
    from affectlens.features.search import search as search_stage

    card = audit(pairs, AuditConfig(seed=config.seed), static=static_means(lm, pairs))
    run.mkdir(parents=True, exist_ok=True)
    card.write(run / "battery/audit.json")
    found = search_stage(
        lm,
        loaded,
        pairs,
        config,
        out=run,
        store=texts,
        lexical_warning=card.warning,
        allow_misfit=allowed,
    )
    from affectlens.after_search import AfterSearch

    remember(run, named, made, config)
    after = AfterSearch(lm, loaded, pairs, found, config, found.encoded, common.quiet)
    if screen:
        found = _screened(after, run, common)
    summary = _controlled(after, run, common) if controls else None
    _show_search(found, summary, run, common)


def _controlled(after: AfterSearch, run: Path, common: Common) -> ControlsSummary | None:
    from affectlens.features.testable import untestable
    from affectlens.features.validation_config import ControlsConfig

    reason = untestable(after.found.summary).get("controls")
    if reason:
        common.console.say(f"no lexical controls: {reason}")
        return None
    checked = after.controls(ControlsConfig(seed=after.settings.seed))
    checked.write(run)
    return checked.summary


def _screened(after: AfterSearch, run: Path, common: Common) -> SearchResult:
    from affectlens.features.screen_config import ScreenConfig

    if not len(after.found.stats):
        common.console.say(
            "no screen: clamps are measured in units of each latent's maximum on held-out text; "
            "harvest activations and give --store"
        )
        return after.found
    found = after.screened(ScreenConfig(seed=after.settings.seed))
    found.write(run)
    return found


def _calibrate(run: Path, battery: str | None, settings: dict[str, Any], common: Common) -> None:
    from affectlens.cli_validation import show_calibration
    from affectlens.features.validation_config import CalibrationConfig

    if set(settings) - {"seed"}:
        raise ConfigError(
            f"--null repeats the search of {run} as it was made; it takes no "
            f"{', '.join(sorted(set(settings) - {'seed'}))}. Search again with other settings "
            "first, or give settings of the calibration to `affectlens calibrate`"
        )
    show_calibration(run, battery, CalibrationConfig.parse(settings), common)


def report(common: Common, run: Run) -> None:
    """Build the report of a run folder again from its result files."""
    from affectlens.report import build_report, findings

    page = build_report(run)
    main = findings(run)
    for number, finding in enumerate(main, start=1):
        common.console.say(f"{number}. {finding}")
    common.console.say(f"report: {page}")
    common.console.result({"report": page, "findings": main})


def _show_search(
    found: SearchResult, controls: ControlsSummary | None, run: Path, common: Common
) -> None:
    s, classes = found.summary, controls.classes if controls else {}
    console = common.console
    console.table(
        [
            "contrast",
            "q <= alpha",
            "FWER <= alpha",
            "retained",
            "confirmed",
            "over all contrasts",
            "contextual",
            "smallest p",
            "smallest d_z",
        ],
        [
            [
                name,
                s.n_significant_q[name],
                s.n_significant_fwer[name],
                s.n_retained[name],
                s.n_confirmed[name],
                s.n_confirmed_family.get(name),
                classes.get(name, {}).get("contextual"),
                s.min_p[name],
                s.min_detectable.get(name),
            ]
            for name in found.contrasts
        ],
    )
    console.say(
        f"\n{s.n_tested:,} of {s.n_features:,} features tested, {s.n_tests_family:,} tests in the "
        f"family; smallest d_z: found in discovery with 80% power"
    )
    for line in s.limits():
        console.say(line)
    if s.lexical_warning:
        console.say(s.lexical_warning)
    console.say(f"tables: {run / 'search'}")
    console.result(
        {"run": run, "summary": asdict(s), "controls": asdict(controls) if controls else None}
    )
