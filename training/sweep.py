"""Several SAEs from one store of activations: a grid of settings, one folder each, one table.

The SAEs are trained one after the other. Each reads the store for itself; the operating system
keeps what it has read in memory, and reading takes a small part of a step (see
benchmarks/reading.py), so a shared pass over the data would gain little.
"""

from __future__ import annotations

import csv
import io
import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affectlens.data.artifacts import atomic_path, clear_staged, folder_lock, read_json, write_json
from affectlens.data.errors import AffectLensError, ConfigError, MachineError
from affectlens.data.models import LanguageModel
from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae
from affectlens.sae.metrics import nearest_rows
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.config import K_READ_BY, TrainConfig
from affectlens.training.evaluate import Store
from affectlens.training.sources import resolve_hook
from affectlens.training.trackers import METRICS_LINES, read_lines
from affectlens.training.trainer import check_room, train

SWEEP_VERSION = 1

logger = logging.getLogger("affectlens")


@dataclass(frozen=True)
class Grid:
    """Values to combine; what is empty stays as the base configuration has it.

    Attributes:
        layers: block outputs.
        archs: architectures.
        d_saes: numbers of latents.
        ks: active latents; one SAE only for architectures that do not read k.
        seeds: seeds of weights and data order.
    """

    layers: tuple[int, ...] = ()
    archs: tuple[str, ...] = ()
    d_saes: tuple[int, ...] = ()
    ks: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()

    def configs(self, base: TrainConfig) -> list[TrainConfig]:
        """Every combination once, seeds last.

        Raises:
            ConfigError: a value that a configuration refuses.
        """
        out: list[TrainConfig] = []
        for layer, arch, d_sae, k, seed in itertools.product(
            self.layers or (base.layer,),
            self.archs or (base.arch,),
            self.d_saes or (base.d_sae,),
            self.ks or (base.k,),
            self.seeds or (base.seed,),
        ):
            own_k = k if arch in K_READ_BY else base.k
            changed = {"layer": layer, "arch": arch, "d_sae": d_sae, "k": own_k, "seed": seed}
            config = TrainConfig.parse(dict(base) | changed, "train.")
            if config not in out:
                out.append(config)
        return out


@dataclass(frozen=True)
class SweepResult:
    """One SAE of a sweep; the measures are None where it failed or was not measured.

    Attributes:
        name: its folder below the sweep's.
        hook_name: place of the residual.
        arch: architecture as trained.
        d_sae: number of latents.
        k: active latents asked for; None where the architecture does not read it.
        seed: seed.
        fvu: share of the held-out variance left unexplained.
        l0: active latents per held-out token.
        dead_share: share of latents that no held-out token activates.
        ce_recovered_mean: share of the loss rise under mean ablation that the SAE avoids.
        seconds: training time.
        tokens_per_s: activations trained on per second.
        error: why it failed; empty for a finished one.
    """

    name: str
    hook_name: str
    arch: str
    d_sae: int
    k: int | None
    seed: int
    fvu: float | None = None
    l0: float | None = None
    dead_share: float | None = None
    ce_recovered_mean: float | None = None
    seconds: float | None = None
    tokens_per_s: float | None = None
    error: str = ""


def named_configs(store: Store, base: TrainConfig, grid: Grid) -> dict[str, TrainConfig]:
    """Every combination of `grid`, by the name of its folder.

    Raises:
        ConfigError: a value of the grid is refused, or a layer is not in the store.
    """
    return {_name(config, resolve_hook(store, config)): config for config in grid.configs(base)}


def train_many(
    store: Store,
    base: TrainConfig,
    grid: Grid,
    out: Path,
    *,
    lm: LanguageModel | None = None,
    quiet: bool | None = None,
    device: str = "cpu",
) -> list[SweepResult]:
    """Train an SAE for every combination of `grid` and write `sweep.csv` and `sweep.json`.

    Finished ones are kept, an interrupted one is continued. One that fails is noted and the others
    still run. The tables are written anew after each.

    Args:
        store: activations, with held-out documents.
        base: settings that all share.
        grid: what varies.
        out: folder of the sweep; each SAE lies in `out/<name>`.
        lm: the model, for the loss-recovered metrics; may be left out.
        quiet: no progress.
        device: where to train.

    Raises:
        ConfigError: a value of the grid is refused, or a layer is not in the store.
        MachineError: one of the SAEs would not fit into memory or on the disk, so none is trained;
            or another process works on this sweep.
        KeyboardInterrupt: after Ctrl-C, once the running SAE's state is saved.
    """
    out = Path(out)
    named = named_configs(store, base, grid)
    done: list[SweepResult] = []
    overlaps: list[dict[str, Any]] = []
    with folder_lock(out):
        clear_staged(out, "sweep.csv")
        clear_staged(out, "sweep.json")
        _refuse_too_large(store, named, out, device)
        for i, (name, config) in enumerate(named.items(), 1):
            logger.info("%d of %d: %s", i, len(named), name)
            done.append(_train_one(store, config, out, name, lm=lm, quiet=quiet, device=device))
            overlaps += _new_overlaps(out, done, named)
            _write_tables(out, done, overlaps)
    return done


def latent_overlap(a: SparseAutoencoder, b: SparseAutoencoder, *, threshold: float = 0.7) -> float:
    """Share of the latents of `a` that `b` has too: a decoder row of cosine above `threshold`.

    Two SAEs of other seeds share the latents that the data dictates (Paulo and Belrose 2025,
    arXiv:2501.16615). Memory: a few million cosines, whatever the sizes.

    Args:
        a: its latents are counted.
        b: its latents are searched.
        threshold: smallest cosine that counts as the same direction.

    Raises:
        SAEError: the SAEs read residuals of different widths.
    """
    return float((nearest_rows(a.W_dec, b.W_dec).cosine > threshold).double().mean())


def _name(config: TrainConfig, hook: str) -> str:
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(\w+)", hook)
    site = "" if found is None or found[2] == "post" else f"-{found[2]}"
    place = f"l{found[1]}{site}" if found else re.sub(r"\W+", "-", hook)
    k = f"-k{config.k}" if config.arch in K_READ_BY else ""
    return f"{place}-{config.arch}-{config.d_sae}{k}-s{config.seed}"


def _refuse_too_large(store: Store, named: dict[str, TrainConfig], out: Path, device: str) -> None:
    """Look at the room for every SAE before the first takes its hours."""
    for name, config in named.items():
        if (out / name / "cfg.json").exists():
            continue
        n_rows = store.n_kept(resolve_hook(store, config), "train")
        try:
            check_room(config, out / name, store.d_model, n_rows, device)
        except ConfigError:
            # Settings that do not go together are told by their own run; the others still train.
            continue
        except MachineError as error:
            raise MachineError(f"{name}: {error}; no SAE of this sweep was trained") from error


def _train_one(
    store: Store,
    config: TrainConfig,
    out: Path,
    name: str,
    *,
    lm: LanguageModel | None,
    quiet: bool | None,
    device: str,
) -> SweepResult:
    about = SweepResult(
        name,
        resolve_hook(store, config),
        config.arch,
        config.d_sae,
        config.k if config.arch in K_READ_BY else None,
        config.seed,
    )
    try:
        train(store, config, out / name, lm=lm, quiet=quiet, device=device)
        return SweepResult(**asdict(about) | _measured(out / name))
    except (AffectLensError, SAEError, MemoryError, RuntimeError, OSError) as error:
        logger.warning("%s failed: %s", name, error)
        return SweepResult(**asdict(about) | {"error": str(error) or type(error).__name__})


def _measured(folder: Path) -> dict[str, Any]:
    metrics = read_json(folder / "metrics.json")
    names = ("fvu", "l0", "dead_share", "ce_recovered_mean")
    lines = read_lines(folder / METRICS_LINES)
    end: dict[str, Any] = next((line for line in reversed(lines) if "end" in line), {})
    return {
        **{name: metrics[name] for name in names},
        "seconds": end.get("seconds"),
        "tokens_per_s": end.get("tokens_per_s"),
    }


def _new_overlaps(
    out: Path, done: Sequence[SweepResult], named: dict[str, TrainConfig]
) -> list[dict[str, Any]]:
    """The last SAE against each earlier one that differs in the seed only, both directions."""
    *earlier, last = done
    if last.error:
        return []
    config = named[last.name]
    pairs = []
    for other in earlier:
        if other.error or config.model_copy(update={"seed": other.seed}) != named[other.name]:
            continue
        a, b = load_sae(out / other.name), load_sae(out / last.name)
        for x, y, share in (
            (other.name, last.name, latent_overlap(a, b)),
            (last.name, other.name, latent_overlap(b, a)),
        ):
            pairs.append({"a": x, "b": y, "share_of_a_in_b": round(share, 6)})
    return pairs


def _write_tables(
    out: Path, done: Sequence[SweepResult], overlaps: Sequence[dict[str, Any]]
) -> None:
    rows = [asdict(result) for result in done]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_path(out / "sweep.csv") as staged:
        staged.write_text(text.getvalue(), encoding="utf-8")
    write_json(
        out / "sweep.json",
        {"format_version": SWEEP_VERSION, "results": rows, "overlaps": list(overlaps)},
    )
