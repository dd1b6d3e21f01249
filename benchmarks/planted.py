"""Planted effects: what the search finds and what it claims wrongly, beside named peers.

    python benchmarks/planted.py [--json] [--plot FILE.png] [--sets 40]
    python benchmarks/planted.py --encoded RUN/search/encoded.h5 --pooling suffix --battery NAME

Every data set holds pairs of texts without effect: simulated, or those of an encoded battery with
members changing places by a coin for each cluster. An effect of known d_z is then added to 20
latents (`features.planted`), on all pairs or on those of one emotion, and every method says which
latents it would report. Recall is the share of the 20 that it reports, FDR the share of others
among those it reports (0 if it reports none), both averaged over data sets; at d_z 0 nothing is
planted, and FDR is the share of data sets in which anything is reported.

Simulated activations are zero-inflated (a latent is active in 2 to 50% of the texts), correlated
between latents, and pairs of a cluster share a part of their difference. The measured intraclass
correlation of the differences is printed. The embedded battery has a median of about .01.

Ours: max-T and BH on the discovery part, 'confirmed' on both parts; 'max-T, no split' uses all
clusters at once; 'max-T over pairs' takes pairs for independent (not the default).

Peers get all pairs, and take 'clinical against neutral' (for one emotion: its own against the
others') as is usual:
    unpaired t, BH          Welch's t of the texts; scipy ttest_ind, false_discovery_control
    paired t, BH            t of the pair differences, clusters ignored
    t of clusters, BH       t of cluster means of the differences
    Wilcoxon, Bonferroni    signed ranks (one emotion: Mann-Whitney) of the differences
    AUROC above .6          or below .4, of the texts, without a test
    top 20 by mean          largest differences of mean activation; it is told how many there are

A line's peer is held against ours of the same kind: BH against BH, Bonferroni against max-T, what
has no test against 'confirmed'. The methods are in planted_methods.py. Needs no model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

# A file beside this one bears the name of a standard module that other libraries import, so the
# folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import numpy as np  # noqa: E402
from planted_methods import ALPHA, N_PLANTED, OURS, PEERS, ours, peers  # noqa: E402
from scipy import special  # noqa: E402

from affectlens.data.stimuli import load_battery  # noqa: E402
from affectlens.features import null_data, stats  # noqa: E402
from affectlens.features.config import SearchConfig  # noqa: E402
from affectlens.features.contrasts import ALL  # noqa: E402
from affectlens.features.design import PairDesign  # noqa: E402
from affectlens.features.encoding import TokenActivations  # noqa: E402
from affectlens.features.inversion import binomial_limits  # noqa: E402
from affectlens.features.pair_data import Members, PairData, as_sparse  # noqa: E402
from affectlens.features.planted import plant  # noqa: E402
from affectlens.features.pooling import pool  # noqa: E402

EMOTIONS = 8
N_LATENTS = 400
MIN_TEXTS = 4
PLANTED = "planted d_z"


@dataclass(frozen=True)
class Setting:
    """One kind of data set."""

    effect: float = 0.5
    n_clusters: int = 48
    size: int = 4
    shared: float = 0.3
    contrast: str = ALL


@dataclass(frozen=True)
class Axis:
    """Settings along which one thing varies; `at` are the values shown."""

    title: str
    label: str
    settings: tuple[Setting, ...]
    at: tuple[float, ...]


@dataclass
class Point:
    """What came of one setting."""

    axis: Axis
    at: float
    icc: float
    n_sets: int
    recall: dict[str, float] = field(default_factory=dict)
    fdr: dict[str, float] = field(default_factory=dict)


def simulated_axes() -> list[Axis]:
    base = Setting()
    one = replace(base, contrast="e0")
    effects, strong = (0.0, 0.2, 0.35, 0.5, 0.8, 1.2), (0.0, 0.5, 0.8, 1.2, 1.6, 2.4)
    sizes, clusters, shares = (1, 2, 4, 8), (16, 24, 48, 96), (0.0, 0.3, 0.6, 0.9)
    return [
        effect_axis(base, effects),
        Axis(
            "48 clusters, d_z 0.5: more pairs a cluster",
            "pairs",
            tuple(replace(base, size=s) for s in sizes),
            tuple(48.0 * s for s in sizes),
        ),
        Axis(
            "192 pairs, d_z 0.5: more clusters",
            "clusters",
            tuple(replace(base, n_clusters=c, size=192 // c) for c in clusters),
            clusters,
        ),
        Axis(
            "192 pairs, d_z 0.5: pairs of a cluster alike",
            "intraclass correlation of the differences",
            tuple(replace(base, shared=s) for s in shares),
            shares,
        ),
        effect_axis(one, strong),
    ]


def encoded_axes(n_clusters: int, size: int) -> list[Axis]:
    base = Setting(n_clusters=n_clusters, size=size)
    sizes = sorted({1, max(1, size // 2), size})
    kept = [round(n_clusters * share) for share in (1 / 3, 2 / 3, 1.0)]
    return [
        effect_axis(base, (0.0, 0.2, 0.35, 0.5, 0.8, 1.2)),
        Axis(
            "d_z 0.5: more pairs a cluster",
            "pairs",
            tuple(replace(base, size=s) for s in sizes),
            tuple(float(n_clusters * s) for s in sizes),
        ),
        Axis(
            "d_z 0.5: more clusters",
            "clusters",
            tuple(replace(base, n_clusters=c) for c in kept),
            tuple(float(c) for c in kept),
        ),
        effect_axis(replace(base, contrast="one"), (0.0, 0.5, 0.8, 1.2, 1.6, 2.4)),
    ]


def effect_axis(base: Setting, effects: tuple[float, ...]) -> Axis:
    where = "all pairs" if base.contrast == ALL else "the pairs of one emotion"
    title = f"{base.n_clusters * base.size} pairs, {base.n_clusters} clusters: on {where}"
    settings = tuple(replace(base, effect=e) for e in effects)
    return Axis(title, PLANTED, settings, effects)


def simulated(setting: Setting, rng: np.random.Generator) -> tuple[PairDesign, Members]:
    """Pairs without effect.

    A latent is the part of a normal number above its own threshold. The number is the sum of what
    a cluster's texts share, what those of one side share in a cluster, and the text's own, of
    which ten factors are common to all latents.
    """
    names = [f"e{c % EMOTIONS}/{c // EMOTIONS}" for c in range(setting.n_clusters)]
    clusters = np.repeat(np.arange(setting.n_clusters), setting.size)
    n = len(clusters)
    design = PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        tuple(names[c].split("/")[0] for c in clusters),
        tuple(names[c] for c in clusters),
        tuple(f"e{i}" for i in range(EMOTIONS)),
    )
    loadings = rng.normal(size=(10, N_LATENTS))
    loadings *= np.sqrt(0.3) / np.linalg.norm(loadings, axis=0)
    rates = np.geomspace(0.02, 0.5, N_LATENTS)
    topic = rng.normal(size=(setting.n_clusters, N_LATENTS))
    sides = []
    for _ in range(2):
        own = rng.normal(size=(n, 10)) @ loadings + np.sqrt(0.7) * rng.normal(size=(n, N_LATENTS))
        side = rng.normal(size=(setting.n_clusters, N_LATENTS))
        mixed = np.sqrt(setting.shared) * side[clusters] + np.sqrt(1 - setting.shared) * own
        number = np.sqrt(0.3) * topic[clusters] + np.sqrt(0.7) * mixed
        sides.append(np.maximum(number - special.ndtri(1 - rates), 0.0))
    return design, Members(*sides)


def from_encoded(
    path: Path, pooling: str, battery: str
) -> tuple[PairDesign, Callable[[Setting, np.random.Generator], tuple[PairDesign, Members]]]:
    """The design of an encoded battery, and what draws pairs and latents of it."""
    pooled = pool(TokenActivations.read(path), pooling)  # type: ignore[arg-type]
    design = PairDesign.from_battery(load_battery(battery), pooled.item_ids)
    values = as_sparse(pooled.values)

    def draw(setting: Setting, rng: np.random.Generator) -> tuple[PairDesign, Members]:
        share = setting.n_clusters / len(set(design.clusters))
        own = null_data.subsampled(design, share, setting.size, rng)
        data = PairData.of(values, own, SearchConfig())
        return data.design, data.drawn(N_LATENTS, rng)

    return design, draw


def planted(
    setting: Setting, design: PairDesign, members: Members, rng: np.random.Generator
) -> tuple[str, Members, np.ndarray]:
    """The contrast, the members with the effect, and which latents have it."""
    target = ALL
    if setting.contrast != ALL:
        target = str(rng.choice(sorted(set(design.emotions))))
    swap = null_data.swaps(design, "cluster", rng)
    true = np.zeros(members.clinical.shape[1], dtype=bool)
    if not setting.effect:
        return target, members.swapped(swap), true
    rows = np.arange(len(design))
    if target != ALL:
        rows = np.flatnonzero(np.asarray(design.emotions, dtype=object) == target)
    made = plant(members, rows, setting.effect, N_PLANTED, rng, swap)
    true[made.latents] = True
    return target, made.members, true


def measure(axis: Axis, number: int, draw: Callable, n_sets: int, key: int) -> Point:
    """Every method on every data set of one setting."""
    setting = axis.settings[number]
    recall: dict[str, list[float]] = {}
    fdr: dict[str, list[float]] = {}
    alike = []
    for i in range(n_sets):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([key, number, i])))
        design, members = draw(setting, rng)
        active = (members.clinical > 0).sum(axis=0) + (members.neutral > 0).sum(axis=0)
        keep = active >= MIN_TEXTS
        members = Members(members.clinical[:, keep], members.neutral[:, keep])
        if setting.size > 1:
            alike.append(np.nanmean(stats.icc(members.differences, design.clusters).value))
        target, made, true = planted(setting, design, members, rng)
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            # SciPy warns of latents that do not vary, whose p is NaN.
            warnings.simplefilter("ignore")
            found = ours(target, made, design, i) | peers(target, made, design)
        for name, reported in found.items():
            recall.setdefault(name, []).append((reported & true).sum() / max(true.sum(), 1))
            fdr.setdefault(name, []).append((reported & ~true).sum() / max(reported.sum(), 1))
    icc = float(np.mean(alike)) if alike else float("nan")
    at = icc if axis.label.startswith("intraclass") else axis.at[number]
    point = Point(axis, at, icc, n_sets)
    point.recall = {k: float(np.mean(v)) for k, v in recall.items()}
    point.fdr = {k: float(np.mean(v)) for k, v in fdr.items()}
    return point


def as_lines(point: Point) -> list[dict[str, object]]:
    """One line a peer and measure; the ratio is None where ours is 0."""
    lines = []
    nothing = point.axis.label == PLANTED and not point.at
    for peer, own in PEERS.items():
        for kind, values in (("recall", point.recall), ("FDR", point.fdr)):
            if kind == "recall" and nothing:
                continue
            mine, other = values[own], values[peer]
            where = f"{point.axis.title}; {point.axis.label} {point.at:.3g}"
            lines.append(
                {
                    "name": f"{kind}, {where}: {own} vs {peer}",
                    "ours": round(mine, 4),
                    "peer": round(other, 4),
                    "ratio": round(other / mine, 2) if mine else None,
                    "unit": "share",
                }
            )
    return lines


def as_table(points: list[Point]) -> str:
    """Recall / FDR of every method along one axis; ! where the lower 95% limit of FDR is high."""
    lines = [points[0].axis.title, f"  {'recall / FDR':<22}"]
    lines[1] += "".join(f"{p.at:>14.3g}" for p in points) + f"   {points[0].axis.label}"
    for name in (*OURS, *PEERS):
        cells = []
        for p in points:
            high = binomial_limits(p.fdr[name] * p.n_sets, p.n_sets).low > ALPHA
            cells.append(f"{p.recall[name]:.2f} / {p.fdr[name]:.2f}{'!' if high else ' '}")
        lines.append(f"  {name:<22}" + "".join(f"{c:>14}" for c in cells))
    alike = ", ".join(f"{p.icc:.2f}" for p in points)
    return "\n".join([*lines, f"  intraclass correlation: {alike}", ""])


def plot(path: Path, rows: list[list[Point]], source: str, n_sets: int) -> None:
    """Recall on the left, FDR on the right, a row for each thing that varies; PNG and SVG."""
    from affectlens.report.theme import FigureSpec, canvas, dress, legend, render

    title = f"Planted effects found and falsely reported: {source}, {n_sets} sets a point"
    wrong = "false share of what is reported; line: .05"

    def draw(theme, *, narrow: bool):  # type: ignore[no-untyped-def]
        figure = canvas(theme, title, narrow=narrow, height=1.4 + 2.05 * len(rows))
        grid = figure.subplots(len(rows), 2, squeeze=False, sharey=True)
        styles = {
            "max-T": (theme.blue, "-", "o"),
            "BH": (theme.blue, "--", "s"),
            "confirmed": (theme.blue, ":", "D"),
            "t of clusters, BH": (theme.muted, "-", "P"),
            "Wilcoxon, Bonferroni": (theme.red, ":", "v"),
            "paired t, BH": (theme.red, "-", "^"),
            "unpaired t, BH": (theme.red, "--", "<"),
            "AUROC above .6": (theme.faint, "--", "x"),
            "top 20 by mean": (theme.faint, "-", "+"),
        }
        for (left, right), points in zip(grid, rows, strict=True):
            axis, at = points[0].axis, [p.at for p in points]
            for axes, kind in ((left, "recall"), (right, "fdr")):
                dress(axes, theme, subtitle=axis.title if kind == "recall" else wrong)
                for name, (colour, line, marker) in styles.items():
                    y = [getattr(p, kind)[name] for p in points]
                    # Nothing is planted at 0, so there is no recall.
                    keep = [
                        not (kind == "recall" and p.axis.label == PLANTED and not p.at)
                        for p in points
                    ]
                    axes.plot(
                        np.array(at)[keep],
                        np.array(y)[keep],
                        line,
                        color=colour,
                        marker=marker,
                        markersize=3.6,
                        linewidth=1.4,
                        label=("ours: " if name in OURS else "") + name,
                    )
                axes.set_ylim(-0.03, 1.05)
                axes.set_ylabel("recall" if kind == "recall" else "FDR")
                axes.set_xlabel(axis.label)
                axes.tick_params(labelleft=True)
                if axis.label in ("pairs", "clusters"):
                    axes.set_xscale("log")
                    axes.set_xticks(at, [f"{x:g}" for x in at])
                    axes.minorticks_off()
                if kind == "fdr":
                    axes.axhline(ALPHA, color=theme.ink, linewidth=0.8)
            left.set_xlim(right.get_xlim())
        legend(figure, grid[0, 0], theme, narrow=narrow)
        return figure

    render(FigureSpec(path.stem, title, "", "", draw), path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a comparison")
    parser.add_argument("--plot", type=Path, help="PNG (and SVG) of recall and FDR")
    parser.add_argument("--sets", type=int, default=40, help="data sets a point")
    parser.add_argument("--encoded", type=Path, help="encoded battery instead of simulated texts")
    parser.add_argument("--pooling", default="suffix", help="how it is pooled")
    parser.add_argument("--battery", default="affectlens-vignettes", help="which battery it is")
    args = parser.parse_args()
    start = time.perf_counter()
    draw, axes, source = simulated, simulated_axes(), "simulated activations"
    if args.encoded:
        design, draw = from_encoded(args.encoded, args.pooling, args.battery)
        n_clusters = len(set(design.clusters))
        axes = encoded_axes(n_clusters, len(design) // n_clusters)
        source = f"activations of {args.battery}, pooling {args.pooling}"
    rows = []
    for key, axis in enumerate(axes):
        points = [measure(axis, i, draw, args.sets, key) for i in range(len(axis.settings))]
        rows.append(points)
        if args.json:
            for point in points:
                print("\n".join(json.dumps(line) for line in as_lines(point)), flush=True)
        else:
            print(as_table(points), flush=True)
    if not args.json:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{source}, {args.sets} data sets a point, {N_PLANTED} planted latents of about")
        print(f"{N_LATENTS}; '!': lower 95% limit of FDR above {ALPHA}")
        print(f"{time.perf_counter() - start:.0f} s, load {load}")
    if args.plot:
        plot(args.plot, rows, source, args.sets)


if __name__ == "__main__":
    main()
