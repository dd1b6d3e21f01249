"""The sweep behind the default SAE: the tables and the picture of docs/default-sae.md.

    python scripts/default_sweep.py STORE --out FOLDER [--docs docs] [--no-model]

STORE holds residuals of several layers (`affectlens harvest --layers 9,15,21 --out STORE`).
Finished SAEs are kept, so an interrupted sweep goes on where it stopped. On two cores a sample
takes about 40 microseconds at d_sae 4,608; the whole sweep is some 30 million samples.
"""

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from affectlens.data.artifacts import atomic_path, read_json
from affectlens.data.models import LanguageModel, load_model
from affectlens.data.store import ActivationStore
from affectlens.report.figures_sweep import write_sweep_figure
from affectlens.training.config import Arch, TrainConfig
from affectlens.training.sweep import Grid, SweepResult, train_many

MIDDLE = 15
PARTS: dict[str, tuple[str, Grid, Sequence[dict[str, Any]]]] = {
    "pareto": (
        "Sparsity, architecture and layer",
        Grid(layers=(9, MIDDLE, 21), archs=("topk", "batchtopk"), ks=(16, 32, 64)),
        [{}],
    ),
    "seeds": ("Seeds", Grid(layers=(MIDDLE,), seeds=(0, 1)), [{}]),
    "width": ("Width", Grid(layers=(MIDDLE,), d_saes=(2304, 9216)), [{}]),
    "rate": (
        "Learning rate",
        Grid(layers=(MIDDLE,)),
        [{"lr": lr} for lr in (1e-3, 2e-3, 5e-3)],
    ),
    "samples": (
        "Number of samples",
        Grid(layers=(MIDDLE,)),
        [{"n_samples": n} for n in (250_000, 500_000, 2_000_000)],
    ),
    "architecture": (
        "All architectures after 250,000 samples",
        Grid(layers=(MIDDLE,), archs=get_args(Arch)),
        [{"n_samples": 250_000}],
    ),
}


def run_part(
    name: str, store: ActivationStore, out: Path, lm: LanguageModel | None
) -> tuple[list[tuple[dict[str, Any], SweepResult]], list[dict[str, Any]]]:
    """Train one part; pairs of changed settings and result, and the overlaps between seeds."""
    _, grid, variants = PARTS[name]
    rows: list[tuple[dict[str, Any], SweepResult]] = []
    overlaps: list[dict[str, Any]] = []
    for changed in variants:
        label = "-".join(f"{key}-{value:g}" for key, value in changed.items())
        folder = out / name / label if label else out / name
        config = TrainConfig.parse(changed)
        rows += [(changed, r) for r in train_many(store, config, grid, folder, lm=lm, quiet=True)]
        overlaps += read_json(folder / "sweep.json")["overlaps"]
    return rows, overlaps


def table(rows: Iterable[tuple[dict[str, Any], SweepResult]]) -> str:
    """A Markdown table of results."""
    lines = []
    for changed, r in rows:
        own = ", ".join(f"{key} {value:g}" for key, value in changed.items())
        cells = [f"`{r.name}`" + (f", {own}" if own else "")]
        cells += [number(r.fvu, 3), number(r.l0, 1), number(r.dead_share, 3)]
        cells += [number(r.ce_recovered_mean, 3), number(r.seconds, 0)]
        lines.append("| " + " | ".join(cells) + " |")
    head = "| SAE | FVU | L0 | dead | CE recovered | seconds |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def number(value: float | None, digits: int) -> str:
    """A number as text; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Train all parts and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="folder that gets default-sae.png")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--no-model", action="store_true", help="leave CE recovered out")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = ActivationStore.open(options.store)
    lm = None if options.no_model else load_model(store.provenance["model"]["name"])
    text = ""
    for name in options.parts.split(","):
        rows, overlaps = run_part(name, store, options.out, lm)
        text += f"## {PARTS[name][0]}\n\n{table(rows)}\n"
        for pair in overlaps:
            text += (
                f"`{pair['a']}` in `{pair['b']}`: {pair['share_of_a_in_b']:.1%} of the latents\n"
            )
        with atomic_path(options.out / "tables.md") as staged:
            staged.write_text(text, encoding="utf-8")
        if name == "pareto":
            picture = write_sweep_figure([asdict(r) for _, r in rows], options.out)
            if options.docs and picture:
                (options.docs / "default-sae.png").write_bytes(picture.read_bytes())
    print(text)


if __name__ == "__main__":
    main()
