"""The stages as plain functions with keyword settings, for notebooks and scripts.

Each builds its stage's configuration from the keywords, so an unknown keyword is refused with the
nearest known name, and calls the same function as the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from affectlens.after_search import AfterSearch
from affectlens.data.activations import harvest as _harvest
from affectlens.data.config import HarvestConfig, StageConfig
from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.config import SearchConfig
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.search import SearchResult
from affectlens.features.search import search as _search
from affectlens.features.testable import untestable
from affectlens.features.text_means import text_statistics
from affectlens.features.validation_config import ControlsConfig
from affectlens.guard import ensure_checked, note
from affectlens.sae.model import SparseAutoencoder
from affectlens.stores import StoreOrFolder, opened
from affectlens.training.check import SAECheck, check_sae, with_nulls
from affectlens.training.config import TrainConfig
from affectlens.training.sweep import Grid, SweepResult
from affectlens.training.sweep import train_many as _train_many
from affectlens.training.trainer import train as _train
from affectlens.training.trainer import train_on as _train_on


def harvest(
    lm: LanguageModel,
    corpus: Corpus | str,
    *,
    out: str | Path,
    layer: int | Sequence[int] | None = None,
    avoid: Battery | None = None,
    quiet: bool = False,
    **settings: Any,
) -> ActivationStore:
    """Write a corpus' activations to `out` and open them.

    Args:
        lm: the model.
        corpus: a corpus or its name.
        out: folder of the store; an unfinished one of the same settings is resumed.
        layer: block output(s) to keep; default as in `HarvestConfig`.
        avoid: a battery whose texts must not occur in the corpus.
        quiet: no progress.
        **settings: fields of `HarvestConfig`.
    """
    if layer is not None:
        settings["layers"] = (layer,) if isinstance(layer, int) else tuple(layer)
    config = HarvestConfig.parse(settings, "harvest.")
    texts = load_corpus(corpus) if isinstance(corpus, str) else corpus
    return _harvest(lm, texts, config, Path(out), avoid=avoid.texts if avoid else (), quiet=quiet)


T = TypeVar("T")
C = TypeVar("C", bound=StageConfig)


def _many(values: T | Sequence[T]) -> tuple[T, ...]:
    """A single value counts as a list of one."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        return tuple(values)
    return (values,)


def train(
    store: StoreOrFolder,
    *,
    out: str | Path,
    lm: LanguageModel | None = None,
    quiet: bool = False,
    device: str = "cpu",
    **settings: Any,
) -> SparseAutoencoder:
    """Train an SAE on a store and save it to `out` in sae-lens' format.

    Args:
        store: activations, or their folder.
        out: folder of the SAE; an interrupted training of the same settings is resumed.
        lm: the model, for cross-entropy recovered; without it those metrics are left out.
        quiet: no progress.
        device: where to train.
        **settings: fields of `TrainConfig`, such as `arch`, `d_sae`, `k`; those of its parts as
            dictionaries, such as `watch={"patience": 3}`.
    """
    config = TrainConfig.parse(settings, "train.")
    return _train(opened(store), config, Path(out), lm=lm, quiet=quiet, device=device)


def train_on(
    batches: Iterable[Tensor],
    *,
    out: str | Path,
    d_in: int,
    heldout: Tensor,
    start: int = 0,
    metadata: Mapping[str, Any] | None = None,
    quiet: bool = False,
    device: str = "cpu",
    **settings: Any,
) -> SparseAutoencoder:
    """Train an SAE on any iterator of activations and save it to `out`.

    After an interruption hand over the batches from sample `samples_seen(out)` on, and that number
    as `start`.

    Args:
        batches: activations [b, d_in], finite or endless, batches of any sizes; they are copied.
        out: folder of the SAE.
        d_in: width of the activations.
        heldout: activations [n, d_in] that do not occur in `batches`, for the metrics.
        start: samples that come before the first batch.
        metadata: origin to record, such as `hook_name` and `model_name`.
        quiet: no progress.
        device: where to train.
        **settings: fields of `TrainConfig`.
    """
    config = TrainConfig.parse(settings, "train.")
    return _train_on(
        batches,
        config,
        Path(out),
        d_in=d_in,
        heldout=heldout,
        start=start,
        metadata=metadata,
        quiet=quiet,
        device=device,
    )


def train_many(
    store: StoreOrFolder,
    *,
    out: str | Path,
    layers: int | Sequence[int] = (),
    archs: str | Sequence[str] = (),
    d_saes: int | Sequence[int] = (),
    ks: int | Sequence[int] = (),
    seeds: int | Sequence[int] = (),
    lm: LanguageModel | None = None,
    quiet: bool = False,
    device: str = "cpu",
    **settings: Any,
) -> list[SweepResult]:
    """Train an SAE for every combination of the given values, each in a folder below `out`.

    `out` also gets `sweep.csv` and `sweep.json`. Finished SAEs are kept; one that fails has its
    `error` set and the others still run.

    Args:
        store: activations, or their folder.
        out: folder of the sweep.
        layers: block output(s); like all five lists, empty means the default or the setting.
        archs: architectures.
        d_saes: numbers of latents.
        ks: active latents.
        seeds: seeds.
        lm: the model, for cross-entropy recovered.
        quiet: no progress.
        device: where to train.
        **settings: fields of `TrainConfig` that all SAEs share.
    """
    base = TrainConfig.parse(settings, "train.")
    grid = Grid(_many(layers), _many(archs), _many(d_saes), _many(ks), _many(seeds))
    return _train_many(opened(store), base, grid, Path(out), lm=lm, quiet=quiet, device=device)


def search(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    *,
    store: StoreOrFolder | None = None,
    out: str | Path | None = None,
    lexical_warning: str = "",
    controls: bool | Mapping[str, Any] = True,
    screen: bool | Mapping[str, Any] = True,
    allow_misfit: Sequence[str] = (),
    **settings: Any,
) -> SearchResult:
    """Search the SAE for features that tell emotional vignettes from their neutral twins.

    What was retained goes through the lexical controls, and every latent through the screen of what
    it does to the output; both take longer than the search itself. A search that keeps no pairs
    for confirmation, or retains nothing, has `controls` None.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: matched pairs.
        store: activations, for firing statistics and contexts of the features. Without one the
            statistics that match random controls come from the battery's own texts.
        out: run folder to write `search/` to.
        lexical_warning: the warning of the battery's lexical card (`audit(battery).warning`).
        controls: put the retained latents through the lexical controls (`al.lexical_controls`);
            its settings may be given as a dictionary, such as `{"n_texts": 200}`.
        screen: estimate, and for the leading ones measure, what latents do to the emotion readout
            (`al.screen`); its settings may be given as a dictionary. With False the columns
            `attribution` and `output_score` are empty.
        allow_misfit: misfits of SAE, model and store to pass over, by name
            (`features.misfits.MISFITS`). The SAE is checked on the model first, once.
        **settings: fields of `SearchConfig`.
    """
    config = SearchConfig.parse(settings, "search.")
    of_controls = _settings(ControlsConfig, "controls.", given=controls, seed=config.seed)
    of_screen = _settings(ScreenConfig, "screen.", given=screen, seed=config.seed)
    store = None if store is None else opened(store)
    ensure_checked(sae, lm, store)
    found = _search(
        lm, sae, battery, config, store=store, lexical_warning=lexical_warning,
        allow_misfit=allow_misfit,
    )  # fmt: skip
    if store is None:
        found = replace(found, stats=text_statistics(lm, sae, battery.texts))
    after = AfterSearch(lm, sae, battery, found, config, found.encoded)
    if of_screen is not None:
        after = replace(after, found=after.screened(of_screen))
    if of_controls is not None and "controls" not in untestable(found.summary):
        checked = after.controls(of_controls)
        after = replace(after, found=replace(after.found, controls=checked))
    if out is not None:
        after.found.write(Path(out))
    return after.found


def _settings(kind: type[C], where: str, *, given: bool | Mapping[str, Any], seed: int) -> C | None:
    """Settings of a stage that may be left out: None for False, defaults for True."""
    if given is False:
        return None
    return kind.parse({"seed": seed, **(given if isinstance(given, Mapping) else {})}, where)


def sae_check(
    sae: SparseAutoencoder,
    *,
    lm: LanguageModel | None = None,
    store: StoreOrFolder | None = None,
    corpus: Corpus | str | None = None,
    nulls: Sequence[str] = (),
    null_samples: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> SAECheck:
    """Check whether an SAE fits a model and activations, is any good, and is better than nothing.

    What does not fit is a line of the result, not an error.

    Args:
        sae: the SAE.
        lm: the model; without a store, held-out text of a corpus is read through it.
        store: activations to measure on.
        corpus: text for a check without a store and for nulls; by default the embedded one.
        nulls: SAEs to train where there is nothing to find ("random-model", "embedding"); slow.
        null_samples: activations to train each null on; the SAE's own number by default.
        max_tokens: tokens to measure.
        seed: seed of the nulls.
        quiet: no progress.

    Raises:
        ConfigError: an unknown null, or nulls without a model.
    """
    from affectlens.training.null_names import check_names

    names = check_names(nulls)
    if names and lm is None:
        raise ConfigError("nulls are trained on a model's activations; give lm")
    texts = load_corpus(corpus) if isinstance(corpus, str) else corpus
    store = None if store is None else opened(store)
    found = check_sae(sae, lm, store, corpus=texts, max_tokens=max_tokens)
    note(sae, found)
    if not names or lm is None or found.verdict == "misfit":
        return found
    from affectlens.training.nulls import train_nulls

    more: dict[str, Any] = {"n_samples": null_samples, "seed": seed, "quiet": quiet}
    return with_nulls(found, train_nulls(sae, lm, names, store=store, corpus=texts, **more))
