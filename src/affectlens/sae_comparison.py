"""One SAE's findings set beside those of other SAEs: seeds, widths, designs and layers.

All SAEs read the battery in one pass over the model, since most of the time goes into the model's
blocks. Each is then searched with the same settings, split and permutations, and every latent that
the first search retained is looked for in the others (`features.stability`).

A latent that recurs says little without how many recur at all, so the same is done for tested
latents of the first SAE whatever their result: what the retained ones have beyond that is theirs.
Other searches are not corrected for there being several of them; none of their findings is claimed.

Memory: the weights of the SAEs that share a pass, at most `HELD_BYTES` or one SAE, and their
entries (see `features.encoding`). SAEs beyond that are loaded later and cost a pass of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from affectlens.data.errors import ConfigError, HookError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.comparison import Searched, against, mean_l0, own_rows
from affectlens.features.comparison_columns import COMPARISON_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign, split_clusters
from affectlens.features.encode import encode_battery
from affectlens.features.encoding import TokenActivations
from affectlens.features.fit import require_fit
from affectlens.features.pooling import pool, reading_for
from affectlens.features.results import write_table
from affectlens.features.search import SearchResult, search_activations
from affectlens.features.search_tables import joined
from affectlens.features.validity_columns import STABILITY_COLUMNS
from affectlens.result_views import ComparisonViews
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

logger = logging.getLogger("affectlens")

OWN = "this SAE"
"""Name of the first SAE in the tables."""

HELD_BYTES = 4 * 2**30
"""Most bytes of weights of SAEs that share a pass over the model; a single SAE may be larger."""

_SETTINGS = (
    "pooling",
    "suffix",
    "min_items",
    "n_permutations",
    "unit",
    "unit_emotion",
    "alpha",
    "seed",
)
"""What a search records of its settings."""


class LoadedOnDemand(Mapping[str, SparseAutoencoder]):
    """SAEs by name, each loaded anew when it is asked for and not kept here.

    Args:
        places: name -> what `load` takes.
        load: gives the SAE of a place.
    """

    def __init__(self, places: Mapping[str, str], load: Callable[[str], SparseAutoencoder]) -> None:
        self._places, self._load = dict(places), load

    def __getitem__(self, name: str) -> SparseAutoencoder:
        """Load one."""
        return self._load(self._places[name])

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ComparisonViews):
    """An SAE beside others.

    Attributes:
        table: one row an SAE and contrast, the SAE itself first (`COMPARISON_COLUMNS`).
        stability: one row a retained latent, contrast and other SAE (`STABILITY_COLUMNS`).
        skipped: other SAEs that were left out, with the reason.
        n_passes: passes over the model.
    """

    table: pd.DataFrame = field(repr=False)
    stability: pd.DataFrame = field(repr=False)
    skipped: Mapping[str, str]
    n_passes: int

    def write(self, run: Path) -> Path:
        """Write `validity/stability` and `validity/comparison`; returns the latter's path."""
        write_table(self.stability, run, "validity/stability")
        return write_table(self.table, run, "validity/comparison")


def compare_saes(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    others: Mapping[str, SparseAutoencoder],
    config: SearchConfig | None = None,
    *,
    encoded: TokenActivations | None = None,
    allow_misfit: Sequence[str] = (),
    out: Path | None = None,
    quiet: bool | None = None,
) -> Comparison:
    """Search other SAEs as this one was searched, and look there for what it retained.

    An SAE whose weights are those of this one, or of an earlier one, is left out.

    Args:
        lm: the model that all SAEs read.
        sae: the SAE.
        battery: the matched pairs it was searched with.
        found: its search.
        others: the other SAEs by name; `LoadedOnDemand` holds a few at a time.
        config: settings of the search; the same as made `found`.
        encoded: the battery under `sae` as the search read it; that of `found` by default, or
            encoded here.
        allow_misfit: misfits of the others to pass over, see `fit.require_fit`.
        out: run folder; tables are written below `out/validity` if given.
        quiet: see `data.progress.track`.

    Raises:
        ConfigError: no other SAE, or a search of other pairs, latents or settings.
        ArtifactError: `encoded` is of another SAE, or was read in another way.
        SAEError, HookError: an SAE reads another model, width or layer; the message names it.
    """
    config = config or found.settings
    encoded = encoded if encoded is not None else found.encoded
    _check_search(sae, battery, found, config)
    if encoded is not None:
        encoded.require(sae.info.sha256, reading_for(config.pooling, config))
    skipped: dict[str, str] = {}
    own, tables, frames, n_passes = None, [], [], 0
    for group in _groups(lm, sae, others, allow_misfit, skipped):
        saes = [other.sae for other in group]
        reading = saes if encoded is not None else [sae, *saes]
        label = f" for {len(reading)} SAEs"
        read = list(encode_battery(lm, reading, battery, config, label=label, quiet=quiet))
        del reading
        n_passes += 1
        if encoded is None:
            encoded, *read = read
        if own is None:
            pooled = pool(encoded, config.pooling)
            own = Searched(OWN, sae, pooled, mean_l0(encoded), found)
            tables.append(own_rows(own))
        # Emptied, so that these weights are gone before the next ones are loaded.
        saes.clear()
        while group:
            stable, table = against(own, _search(group.pop(0), read.pop(0), battery, config))
            frames.append(stable)
            tables.append(table)
    if own is None:
        raise ConfigError(
            "no other SAE to compare with; "
            + ("; ".join(f"{n}: {why}" for n, why in skipped.items()) or "none was given")
        )
    result = Comparison(
        joined(tables, COMPARISON_COLUMNS), joined(frames, STABILITY_COLUMNS), skipped, n_passes
    )
    if out is not None:
        result.write(Path(out))
    return result


def _check_search(
    sae: SparseAutoencoder, battery: Battery, found: SearchResult, config: SearchConfig
) -> None:
    s = found.summary
    if (s.battery_sha256, s.n_features) != (battery.sha256, sae.d_sae):
        raise ConfigError(
            f"the search is of battery {s.battery!r} ({s.battery_sha256[:12]}) and {s.n_features} "
            f"latents; got battery {battery.name!r} ({battery.sha256[:12]}) and an SAE with "
            f"{sae.d_sae}. Give what was searched, or search again"
        )
    differ = [n for n in _SETTINGS if getattr(found.settings, n) != getattr(config, n)]
    clusters = [p.cluster for p in battery.pairs]
    emotions = [p.emotion for p in battery.pairs]
    if split_clusters(clusters, emotions, config.confirmation_share, config.seed) != dict(
        found.parts
    ):
        differ.append("confirmation_share")
    if differ:
        raise ConfigError(
            f"the search was made with other settings: {', '.join(differ)}; give the same ones "
            "(`found.settings`), so that the SAEs differ in nothing else"
        )


@dataclass(frozen=True, eq=False)
class _Fitting:
    """An SAE that reads this model, with the misfits that were passed over."""

    name: str
    sae: SparseAutoencoder
    misfits: str


def _groups(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    others: Mapping[str, SparseAutoencoder],
    allow: Sequence[str],
    skipped: dict[str, str],
) -> Iterator[list[_Fitting]]:
    """SAEs that share a pass; what is left out goes into `skipped`."""
    seen = {sae.fingerprint: OWN}
    held: list[_Fitting] = []
    size = 0
    for name in others:
        loaded = others[name]
        if loaded.fingerprint in seen:
            skipped[name] = f"the same weights as {seen[loaded.fingerprint]}"
            logger.info("%s is left out: %s", name, skipped[name])
            continue
        seen[loaded.fingerprint] = name
        more = sum(4 * tensor.numel() for tensor in loaded.sae.parameters())
        if held and size + more > HELD_BYTES:
            yield held
            held, size = [], 0
        held.append(_Fitting(name, loaded, _fit(name, loaded, lm, allow)))
        size += more
        del loaded
    if held:
        yield held


def _fit(name: str, sae: SparseAutoencoder, lm: LanguageModel, allow: Sequence[str]) -> str:
    try:
        return "; ".join(require_fit(sae, lm, allow=allow))
    except (SAEError, HookError) as error:
        raise type(error)(f"SAE {name!r} cannot be compared: {error}") from error


def _search(
    one: _Fitting, encoded: TokenActivations, battery: Battery, config: SearchConfig
) -> Searched:
    pooled = pool(encoded, config.pooling)
    found = search_activations(
        pooled.values,
        PairDesign.from_battery(battery, pooled.item_ids),
        config,
        battery=battery.name,
        battery_sha256=battery.sha256,
    )
    return Searched(one.name, one.sae, pooled, mean_l0(encoded), found, one.misfits)
