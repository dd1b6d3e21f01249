"""Cost of the sign flip with step-down max-T against the number of non-zero differences.

    python benchmarks/scaling.py [--json] [--plot FILE.png] [--permutations 2000]

Several widths, each at several densities, from sparse input. One straight line through the origin
and a cost for each feature (ordering and comparing) is fitted to all points at once, by relative
errors:

    seconds = a x non-zeros + b x features

A line's peer is the fitted value ('linear'), and at density .05 and .4 also the chunked
float32 BLAS product, single-step, whose cost does not depend on the zeros. Times are the best of
`--repeat` runs after a warm-up. Needs no model.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# A file beside this one bears the name of a standard module that other libraries import, so the
# folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import numpy as np  # noqa: E402
from lines import best, cost, show  # noqa: E402
from scipy import optimize, sparse  # noqa: E402

from affectlens.features import _kernels, stats  # noqa: E402

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
CHUNK = 500


@dataclass(frozen=True)
class Point:
    """One measurement."""

    width: int
    density: float
    n_nonzero: int
    seconds: float


def made(n_pairs: int, width: int, density: float) -> sparse.csc_array:
    """Normal differences at this density, without the dense array."""
    rng = np.random.default_rng(0)
    counts = rng.binomial(n_pairs, density, size=width)
    units = [rng.choice(n_pairs, k, replace=False) for k in counts]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    values = rng.standard_normal(int(indptr[-1]))
    rows = np.concatenate([np.sort(u) for u in units]).astype(np.int32)
    return sparse.csc_array((values, rows, indptr), shape=(n_pairs, width))


def blas(d: np.ndarray, n: int) -> None:
    """Counts and maxima by one product a chunk, in float32; p and single-step p."""
    rng = np.random.default_rng(0)
    norm = np.linalg.norm(d, axis=0)
    u = (d / np.where(norm > 0, norm, 1)).astype(np.float32)
    observed = np.abs(u.sum(axis=0))
    hits, top = np.zeros(d.shape[1]), []
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        signs = rng.integers(0, 2, (size, len(d)), dtype=np.int8).astype(np.float32) * 2 - 1
        sums = np.abs(signs @ u)
        hits += (sums >= observed).sum(axis=0)
        top.append(sums.max(axis=1))
    np.searchsorted(np.sort(np.concatenate(top)), observed)


def fitted(points: list[Point]) -> np.ndarray:
    """Seconds of the fitted line at every point; both costs at least 0."""
    seconds = np.array([p.seconds for p in points])
    cost = np.array([[p.n_nonzero, p.width] for p in points], dtype=float)
    found, _ = optimize.nnls(cost / seconds[:, None], np.ones(len(points)))
    return np.asarray(cost @ found)


def plot(
    path: Path, points: list[Point], line: np.ndarray, peers: dict[int, float], n: int
) -> None:
    """Seconds over non-zeros, straight and on log scales; PNG and SVG."""
    from affectlens.report.theme import FigureSpec, canvas, dress, legend, render

    title = f"Sign flip with step-down max-T, {n:,} flips: time goes with the non-zeros"

    def draw(theme, *, narrow: bool):  # type: ignore[no-untyped-def]
        figure = canvas(theme, title, narrow=narrow, height=6.6 if narrow else 3.9)
        panels = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        dress(panels[0], theme, subtitle="points: measured, best of runs; lines: one fit to all")
        dress(panels[1], theme, subtitle="the same on log scales, with dense BLAS")
        colours = (theme.blue, theme.red, theme.muted, theme.ink)
        for width, colour, marker in zip(peers, colours, "os^D", strict=False):
            at = [i for i, p in enumerate(points) if p.width == width]
            x = np.array([points[i].n_nonzero for i in at]) / 1e6
            for axes in panels:
                axes.plot(x, [points[i].seconds for i in at], marker, color=colour, markersize=4.5)
                axes.plot(x, line[at], "-", color=colour, label=f"{width:,} features")
            panels[1].plot(x, np.full(len(x), peers[width]), ":", color=colour)
            panels[1].annotate(
                "BLAS", (x[0], peers[width]), (0, 3), textcoords="offset points", color=colour
            )
        panels[0].set_xlim(left=0)
        panels[0].set_ylim(bottom=0)
        panels[1].set_xscale("log")
        panels[1].set_yscale("log")
        for axes in panels:
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
            axes.set_xlabel("non-zero differences (millions)")
            axes.set_ylabel("time (s)")
        legend(figure, panels[0], theme, narrow=narrow)
        return figure

    render(FigureSpec(path.stem, title, "", "", draw), path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a comparison")
    parser.add_argument("--plot", type=Path, help="PNG (and SVG) of time over non-zeros")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--widths", default="4096,16384,65536")
    parser.add_argument("--permutations", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    widths, n = [int(w) for w in args.widths.split(",")], args.permutations
    stats.sign_flip(np.random.default_rng(0).normal(size=(24, 10)), 100)
    points, peers = [], {}
    for width in widths:
        for density in DENSITIES:
            d = made(args.pairs, width, density)
            took = best(lambda d=d: stats.sign_flip(d, n), args.repeat)  # type: ignore[misc]
            points.append(Point(width, density, d.nnz, took))
        dense = d.toarray()
        peers[width] = best(lambda x=dense: blas(x, n), 1)  # type: ignore[misc]
    line = fitted(points)
    size = f"{args.pairs} pairs, {n} flips"
    rows = [
        cost(f"{p.width} features, {p.n_nonzero} non-zeros, {size} (peer: linear)", p.seconds, x)
        for p, x in zip(points, line, strict=True)
    ]
    for p in points:
        if p.density in (0.05, DENSITIES[-1]):
            name = f"{p.width} features at density {p.density:g}, {size} vs dense blas"
            rows.append(cost(name, p.seconds, peers[p.width]))
    for r in rows:
        show(r, as_json=args.json)
    if not args.json:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{_kernels.n_threads()} threads, best of {args.repeat}, load {load}")
    if args.plot:
        plot(args.plot, points, line, peers, n)


if __name__ == "__main__":
    main()
