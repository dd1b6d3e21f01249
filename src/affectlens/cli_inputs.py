"""What the commands load: models, SAEs, batteries, stores, and a run's own settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from affectlens.cli_arguments import Named
from affectlens.cli_options import Common
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.features.screen_config import By
from affectlens.run_config import RunConfig
from affectlens.run_folder import write_settings
from affectlens.run_state import CHECK_FILE

if TYPE_CHECKING:
    from affectlens.after_search import AfterSearch
    from affectlens.data.models import LanguageModel
    from affectlens.data.stimuli import Battery
    from affectlens.features.config import SearchConfig
    from affectlens.features.encoding import TokenActivations
    from affectlens.features.search import SearchResult
    from affectlens.features.selection import FeatureSet
    from affectlens.sae.model import SparseAutoencoder

DEFAULTS = RunConfig()


def made_with(run: Path) -> RunConfig:
    """The settings a run folder was made with; the defaults for a folder without."""
    path = run / "config.yaml"
    if not path.exists():
        return DEFAULTS
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); give --model and run again") from error
    return RunConfig.parse(loaded if isinstance(loaded, dict) else {})


def remember(run: Path, named: Named, made: RunConfig, search: SearchConfig) -> None:
    """Write down what a search by itself was made with, for the commands that follow in `run`.

    A folder that has its settings keeps them. Paths become absolute, so that the next command may
    be given anywhere.
    """
    if (run / "config.yaml").exists():
        return
    chosen = made.model_copy(
        update={
            "model": _lasting(named.model or made.model),
            "revision": named.revision or made.revision,
            "battery": _lasting(named.battery or made.battery),
            "sae": None if named.sae is None else _lasting(named.sae),
            "search": search,
        }
    )
    write_settings(run, chosen.resolved().model_dump(mode="json"))


def _lasting(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def allowed_misfits(names: list[str] | None, made: RunConfig) -> list[str]:
    """The misfits a call passes over: its own, else those of the run."""
    from affectlens.features.misfits import allowed_names

    return allowed_names(made.allow_misfit if names is None else names)


def known_misfits(names: list[str] | None) -> list[str] | None:
    """The names as they are; refuses unknown ones before anything is read.

    Raises:
        ConfigError: no misfit of that name, or one that nothing may pass over.
    """
    from affectlens.features.misfits import allowed_names

    return None if names is None else allowed_names(names)


def load_lm(
    name: str, revision: str | None, common: Common, dtype: str = DEFAULTS.dtype
) -> LanguageModel:
    """A language model on the device of the call."""
    from affectlens.data.models import load_model

    return load_model(name, revision=revision, device=common.device or "cpu", dtype=dtype)


def load_run_lm(
    name: str | None, revision: str | None, made: RunConfig, common: Common
) -> LanguageModel:
    """The named model, else the one the run was made with."""
    if name is None:
        return load_lm(made.model, revision or made.revision, common, made.dtype)
    return load_lm(name, revision, common, made.dtype)


def load_pairs(name: str | None, made: RunConfig, common: Common) -> Battery:
    """The named battery, else the run's; with `--limit` its first pairs."""
    from affectlens.data.stimuli import load_battery

    battery = load_battery(name or made.battery)
    return battery.select(limit=common.limit) if common.limit is not None else battery


def require_sae(name: str | None, run: Path) -> str:
    """The named SAE, else the one that lies in the run, else the one that the run was made with.

    Raises:
        ArtifactError: there is none.
    """
    if name is not None:
        return name
    if (run / "sae").is_dir():
        return str(run / "sae")
    made = made_with(run).sae
    if made is None:
        raise ArtifactError(f"{run / 'sae'} does not exist; train there or give --sae")
    return made


def load_run_sae(name: str | None, run: Path, common: Common) -> SparseAutoencoder:
    """The named SAE, else the run's (`require_sae`)."""
    from affectlens.sae.loading import load_sae_named

    return load_sae_named(require_sae(name, run), common.device or "cpu")


def open_store(store: Path | None, run: Path) -> Any:
    """The named store, else the run's, else None."""
    if store is None and not (run / "activations/manifest.json").exists():
        return None
    from affectlens.data.store import ActivationStore

    return ActivationStore.open(store or run / "activations")


def guard(sae: SparseAutoencoder, lm: LanguageModel, store: Any, *, run: Path | None) -> None:
    """Check the SAE on the model; `run` is the folder it belongs to, which keeps the check."""
    from affectlens.guard import ensure_checked

    ensure_checked(sae, lm, store, file=run / CHECK_FILE if run is not None else None)


def require_search(run: Path) -> None:
    """Refuse a folder that was not searched.

    Raises:
        ArtifactError: it holds no search.
    """
    if not (run / "search/search.json").exists():
        raise ArtifactError(f"{run} holds no search; run `affectlens search {run}` first")


@dataclass(frozen=True)
class Loaded:
    """What the commands after a search work on.

    Attributes:
        after: the search with model, SAE and battery.
        store: the activations; None where absent.
        made: what the run was made with.
        allowed: misfits of SAE and model that the call passes over.
    """

    after: AfterSearch
    store: Any
    made: RunConfig
    allowed: list[str] = field(default_factory=list)


def load_searched(
    run: Path,
    named: Named,
    common: Common,
    *,
    found: SearchResult | None = None,
    store: Path | None = None,
    misfits: list[str] | None = None,
    stage: str = "",
) -> Loaded:
    """A run's search with the model, SAE and battery it was made with.

    Args:
        run: the run's folder.
        named: what was named instead of the run's own.
        common: global options; `limit` is that of the pairs.
        found: the search, where it was read already.
        store: folder of activations instead of the run's own.
        misfits: misfits to pass over; by default those of the run and of its search.
        stage: what `features.testable` calls the stage that follows.

    Raises:
        ConfigError: the search leaves `stage` nothing to do.
        ArtifactError: no search, or not of this SAE.
        SAEError: the SAE does not fit this model.
    """
    from affectlens.after_search import AfterSearch
    from affectlens.features.fit import require_fit
    from affectlens.features.stored import require_searched
    from affectlens.features.testable import untestable

    found = read_run_search(run) if found is None else found
    reason = untestable(found.summary).get(stage)
    if reason:
        raise ConfigError(f"{run}: {reason}")
    made = made_with(run)
    allowed = allowed_misfits(misfits, made)
    pairs = load_pairs(named.battery, made, common)
    sae, encoded = load_searched_sae(named.sae, run, found, common)
    texts = open_store(store, run)
    lm = load_run_lm(named.model, named.revision, made, common)
    guard(sae, lm, texts, run=None if named.sae else run)
    if misfits is None:
        allowed = sorted({*allowed, *require_searched(found, sae)})
    require_fit(sae, lm, allow=allowed)
    found = replace(found, encoded=encoded)
    after = AfterSearch(lm, sae, pairs, found, found.settings, encoded, common.quiet)
    return Loaded(after, texts, made, allowed)


def read_run_search(run: Path) -> SearchResult:
    """The search of a run's folder.

    Raises:
        ArtifactError: it holds none.
    """
    require_search(run)
    from affectlens.features.stored import read_search

    return read_search(run)


def load_searched_sae(
    name: str | None, run: Path, found: SearchResult, common: Common
) -> tuple[SparseAutoencoder, TokenActivations | None]:
    """The named SAE, else the run's, with the battery as the search read it, if the run keeps it.

    Raises:
        ArtifactError: the search was not of this SAE.
    """
    from affectlens.features.stored import ENCODED_FILE, read_encoded, require_searched

    encoded = read_encoded(run) if (run / ENCODED_FILE).exists() else None
    sae = load_run_sae(name, run, common)
    require_searched(found, sae, encoded=encoded)
    return sae, encoded


def choose(
    run: Path, emotions: list[str] | None, n: int, by: By = "input"
) -> tuple[SearchResult, list[FeatureSet]]:
    """A run's search, and its best features of the given or of all contrasts."""
    found = read_run_search(run)
    sets = [found.top(name, n, by=by) for name in (emotions or found.contrasts)]
    sets = [chosen for chosen in sets if len(chosen)]
    if not sets:
        raise ConfigError(
            f"the search in {run} has no feature for {', '.join(emotions or found.contrasts)}"
        )
    return found, sets
