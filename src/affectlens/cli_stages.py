"""The stages one by one: `harvest`, `train`, `search`, `intervene`, `steer`, `report`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from affectlens.cli_options import Common, verb
from affectlens.data.config import HarvestConfig
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.pipeline import RunConfig
from affectlens.training.config import TrainConfig

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.data.stimuli import Battery
    from affectlens.features.search import SearchResult
    from affectlens.features.selection import FeatureSet
    from affectlens.sae.model import SparseAutoencoder

_DEFAULTS = RunConfig()
Run = Annotated[Path, typer.Argument(help="run folder", metavar="RUN")]
Model = Annotated[
    str | None,
    typer.Option(help="name, hub id, folder or GGUF file  [default: the run's]", metavar="MODEL"),
]
Revision = Annotated[
    str | None, typer.Option(help="pinned revision of a hub model", metavar="REVISION")
]
BatteryName = Annotated[
    str | None,
    typer.Option("--battery", help="name, file or folder  [default: the run's]", metavar="BATTERY"),
]
Sae = Annotated[
    str | None,
    typer.Option(help="SAE folder, or RELEASE:ID of sae-lens  [default: RUN/sae]", metavar="SAE"),
]
Emotions = Annotated[
    list[str] | None,
    typer.Option("--emotion", help="only this emotion, or 'all' (repeatable)", metavar="NAME"),
]


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
        limit="activations to train on (sets --n-samples)",
        examples="""affectlens train runs/a/activations --out runs/a/sae
        affectlens train acts --out sae --arch batchtopk --d-sae 2048 --k 16 --no-model""",
    )(train)
    verb(
        app,
        "search",
        config=SearchConfig,
        limit="first N pairs, spread over emotions",
        examples="""affectlens search runs/a
        affectlens search runs/b --sae gpt2-small-res-jb:blocks.8.hook_resid_pre \\
          --model openai-community/gpt2 --battery mine.jsonl""",
    )(search)
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
        limit="first N prompts",
        examples="""affectlens steer runs/a --emotion grief
        affectlens steer runs/a --prompts "The day began like any other." --strengths 0.5,2""",
    )(steer)
    verb(app, "report", examples="affectlens report runs/a")(report)


def harvest(
    common: Common,
    settings: dict[str, Any],
    out: Annotated[Path, typer.Option(help="folder of the store", metavar="FOLDER")],
    model: Model = None,
    revision: Revision = None,
    dtype: Annotated[
        str, typer.Option(help="number format of the model's weights", metavar="NAME")
    ] = _DEFAULTS.dtype,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            "--text",
            help=RunConfig.model_fields["corpus"].description,
            metavar="CORPUS",
        ),
    ] = _DEFAULTS.corpus,
    avoid: Annotated[
        str,
        typer.Option(help="battery whose texts must not occur in the corpus", metavar="BATTERY"),
    ] = _DEFAULTS.battery,
) -> None:
    """Write a corpus' activations to a folder; an unfinished one is resumed."""
    if common.limit is not None:
        settings["max_tokens"] = common.limit
    config = HarvestConfig.parse(settings)
    from affectlens.data.corpus import load_corpus
    from affectlens.data.stimuli import load_battery

    texts, battery = load_corpus(corpus), load_battery(avoid)
    lm = _load_model(model or _DEFAULTS.model, revision, common, dtype)
    from affectlens.data.activations import harvest as harvest_stage

    store = harvest_stage(lm, texts, config, out, avoid=battery.texts, quiet=common.quiet)
    kept = {hook: store.n_kept(hook) for hook in store.hook_names}
    common.console.say(f"{store.n_rows:,} tokens of {len(texts.documents):,} documents in {out}")
    for hook, count in kept.items():
        common.console.say(f"  {hook}: {count:,} kept, {store.n_rows - count:,} masked")
    common.console.result({"store": out, "n_rows": store.n_rows, "n_kept": kept})


def train(
    common: Common,
    settings: dict[str, Any],
    store: Annotated[Path, typer.Argument(help="folder of the activations", metavar="STORE")],
    out: Annotated[Path, typer.Option(help="folder of the SAE", metavar="FOLDER")],
    model: Annotated[
        str | None,
        typer.Option(
            help="model for cross-entropy recovered  [default: the store's]", metavar="MODEL"
        ),
    ] = None,
    no_model: Annotated[  # noqa: FBT002
        bool, typer.Option("--no-model", help="leave cross-entropy recovered out")
    ] = False,
) -> None:
    """Train an SAE on stored activations; an interrupted training is resumed."""
    if common.limit is not None:
        settings["n_samples"] = common.limit
    config = TrainConfig.parse(settings)
    from affectlens.data.store import ActivationStore
    from affectlens.training.trainer import train as train_stage

    opened = ActivationStore.open(store)
    lm = None
    if not no_model:
        made = opened.provenance["model"]
        revision = made.get("revision") if not model and made.get("kind") == "hub" else None
        lm = _load_model(model or made["name"], revision, common)
    device = common.device or "cpu"
    sae = train_stage(opened, config, out, lm=lm, quiet=common.quiet, device=device)
    from affectlens.data.artifacts import read_json

    metrics = read_json(out / "metrics.json")
    shown = {k: v for k, v in metrics.items() if k != "history"}
    common.console.table(["measure", "value"], [[k, v] for k, v in shown.items()])
    common.console.say(f"SAE: {out}")
    common.console.result({"sae": out, "sha256": sae.fingerprint, "metrics": shown})


def search(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    model: Model = None,
    revision: Revision = None,
    battery: BatteryName = None,
    sae: Sae = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="activations, for contexts  [default: RUN/activations if there]", metavar="FOLDER"
        ),
    ] = None,
) -> None:
    """Search the SAE for features that tell emotional texts from their neutral twins."""
    config = SearchConfig.parse(settings)
    made = _made(run)
    pairs = _load_battery(battery, made, common)
    loaded = _load_sae(sae, run, common)
    texts = _open_store(store, run)
    lm = _load_run_model(model, revision, made, common)
    from affectlens.features.contextual import static_means
    from affectlens.features.lexical import AuditConfig, audit
    from affectlens.features.search import search as search_stage

    card = audit(pairs, AuditConfig(seed=config.seed), static=static_means(lm, pairs))
    run.mkdir(parents=True, exist_ok=True)
    card.write(run / "battery/audit.json")
    found = search_stage(
        lm, loaded, pairs, config, out=run, store=texts, lexical_warning=card.warning
    )
    _show_search(found, run, common)


def intervene(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    model: Model = None,
    revision: Revision = None,
    battery: BatteryName = None,
    sae: Sae = None,
    emotion: Emotions = None,
) -> None:
    """Ablate and clamp the found features, and measure the emotion readout against controls."""
    config = InterveneConfig.parse(settings)
    made = _made(run)
    chosen = _choose(run, emotion, config.features_per_emotion)
    pairs = _load_battery(battery, made, common)
    loaded = _load_sae(sae, run, common)
    lm = _load_run_model(model, revision, made, common)
    from affectlens.features.effects import intervene as intervene_stage
    from affectlens.features.readout_check import check_readout

    check_readout(lm, pairs, config, out=run)
    result = intervene_stage(lm, loaded, chosen, pairs, config, out=run, quiet=common.quiet)
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
) -> None:
    """Write texts with the found features clamped, beside the unedited model's."""
    config = SteerConfig.parse(settings)
    if common.limit is not None:
        config = config.model_copy(update={"prompts": config.prompts[: common.limit]})
    made = _made(run)
    chosen = _choose(run, emotion, features)
    loaded = _load_sae(sae, run, common)
    lm = _load_run_model(model, revision, made, common)
    from affectlens.features.steering import steer as steer_stage

    rows = steer_stage(lm, loaded, chosen, config, out=run, quiet=common.quiet)
    for row in rows:
        common.console.say(f"\n[{row.emotion}, {row.arm}, strength {row.strength:g}]")
        common.console.say(f"{row.prompt} |{row.text}")
    common.console.say(f"\ntexts: {run / 'effects/generations.jsonl'}")
    common.console.result({"run": run, "generations": [asdict(row) for row in rows]})


def report(common: Common, run: Run) -> None:
    """Build the report of a run folder again from its result files."""
    from affectlens.report import build_report, findings

    page = build_report(run)
    main = findings(run)
    for number, finding in enumerate(main, start=1):
        common.console.say(f"{number}. {finding}")
    common.console.say(f"report: {page}")
    common.console.result({"report": page, "findings": main})


def load_sae_named(name: str, device: str) -> SparseAutoencoder:
    """An SAE from a folder or from 'RELEASE:ID' of the sae-lens registry."""
    from affectlens.sae.loading import load_sae

    release, colon, sae_id = name.partition(":")
    if colon and not Path(name).exists():
        return load_sae(release, sae_id, device=device)
    return load_sae(name, device=device)


def _made(run: Path) -> RunConfig:
    """The settings a run folder was made with; the defaults for a folder without."""
    path = run / "config.yaml"
    if not path.exists():
        return _DEFAULTS
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); give --model and run again") from error
    return RunConfig.parse(loaded if isinstance(loaded, dict) else {})


def _load_model(
    name: str, revision: str | None, common: Common, dtype: str = _DEFAULTS.dtype
) -> LanguageModel:
    from affectlens.data.models import load_model

    return load_model(name, revision=revision, device=common.device or "cpu", dtype=dtype)


def _load_run_model(
    name: str | None, revision: str | None, made: RunConfig, common: Common
) -> LanguageModel:
    if name is None:
        return _load_model(made.model, revision or made.revision, common, made.dtype)
    return _load_model(name, revision, common, made.dtype)


def _load_battery(name: str | None, made: RunConfig, common: Common) -> Battery:
    from affectlens.data.stimuli import load_battery

    battery = load_battery(name or made.battery)
    return battery.select(limit=common.limit) if common.limit is not None else battery


def _load_sae(name: str | None, run: Path, common: Common) -> SparseAutoencoder:
    if name is None and not (run / "sae").is_dir():
        raise ArtifactError(f"{run / 'sae'} does not exist; train there or give --sae")
    return load_sae_named(name or str(run / "sae"), common.device or "cpu")


def _open_store(store: Path | None, run: Path) -> Any:
    if store is None and not (run / "activations/manifest.json").exists():
        return None
    from affectlens.data.store import ActivationStore

    return ActivationStore.open(store or run / "activations")


def _choose(run: Path, emotions: list[str] | None, n: int) -> list[FeatureSet]:
    if not (run / "search/search.json").exists():
        raise ArtifactError(f"{run} holds no search; run `affectlens search {run}` first")
    from affectlens.features.stored import read_search

    found = read_search(run)
    sets = [found.top(name, n) for name in (emotions or found.contrasts)]
    sets = [chosen for chosen in sets if len(chosen)]
    if not sets:
        raise ConfigError(
            f"the search in {run} has no feature for {', '.join(emotions or found.contrasts)}"
        )
    return sets


def _show_search(found: SearchResult, run: Path, common: Common) -> None:
    s = found.summary
    console = common.console
    console.table(
        [
            "contrast",
            "q <= alpha",
            "FWER <= alpha",
            "retained",
            "confirmed",
            "smallest p",
        ],
        [
            [
                name,
                s.n_significant_q[name],
                s.n_significant_fwer[name],
                s.n_retained[name],
                s.n_confirmed[name],
                s.min_p[name],
            ]
            for name in found.contrasts
        ],
    )
    console.say(
        f"\n{s.n_tested:,} of {s.n_features:,} features tested, {s.n_tests_family:,} tests in the "
        f"family; smallest effect found with 80% power: d_z {s.min_detectable_d_z:.2f}"
    )
    if s.lexical_warning:
        console.say(s.lexical_warning)
    console.say(f"tables: {run / 'search'}")
    console.result({"run": run, "summary": asdict(s)})
