"""Permutation tests: ours against SciPy, against chunked BLAS, and against their own definition.

    python benchmarks/statistics.py [--json] [--pairs 192] [--features 24576]

Sign flips give step-down max-T; the BLAS peers give single-step max-T, which is less work, and one
gives step-down as well. Compilation is left out: each of our functions runs once on a small input
first. SciPy runs on few features and permutations and its time is scaled up in proportion (its cost
is linear in both); the line says so in its name. Times are the best of `--repeat` runs, those of
slow peers of one. The peer of "allowed" lines is a limit. Time over non-zeros: `scaling.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# This file bears the name of a standard module that other libraries import, so the folder is looked
# through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import numpy as np  # noqa: E402
from lines import Line, best, cost, show  # noqa: E402
from scipy import sparse  # noqa: E402
from scipy import stats as scipy_stats  # noqa: E402

from affectlens.features import _kernels, stats  # noqa: E402
from affectlens.features.cluster_flip import cluster_flip  # noqa: E402
from affectlens.features.config import SearchConfig  # noqa: E402
from affectlens.features.design import PairDesign  # noqa: E402
from affectlens.features.search import search_activations  # noqa: E402

EMOTIONS = 8
DOMAINS = 6
DENSITY = 0.05
INTERVAL_FEATURES, N_RESAMPLES, INTERVAL_SECONDS = 5000, 2000, 10.0
SCIPY_FEATURES, SCIPY_PERMUTATIONS = 16, 1000
WIDE_SECONDS, WIDE_GIGABYTES = 60.0, 4.0
SEARCH_ITEMS, SEARCH_DENSITY, SEARCH_SECONDS = 480, 0.01, 300.0


def in_turn(calls: list[Callable[[], object]], repeat: int) -> list[float]:
    """The best time of each, run by turns so that all meet the same load of the machine."""
    rounds = [[best(call, 1) for call in calls] for _ in range(repeat)]
    return [min(times) for times in zip(*rounds, strict=True)]


def unit_columns(d: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(d, axis=0)
    return (d / np.where(norm > 0, norm, 1)).astype(np.float32)


def blas_sign_flip(d: np.ndarray, n: int, chunk: int = 500, *, step_down: bool = False) -> None:
    """p and max-T p with one matrix product a chunk, in float32, without copies."""
    rng = np.random.default_rng(0)
    u = unit_columns(d)
    observed = np.abs(u.sum(axis=0))
    order = np.argsort(observed)
    u, observed = np.ascontiguousarray(u[:, order]), observed[order]
    hits, successive = np.zeros(d.shape[1]), np.zeros(d.shape[1])
    above, room = [], np.empty((chunk, d.shape[1]), dtype=np.float32)
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        signs = rng.integers(0, 2, (size, len(d)), dtype=np.int8).astype(np.float32) * 2 - 1
        sums = np.matmul(signs, u, out=room[:size])
        np.abs(sums, out=sums)
        hits += (sums >= observed).sum(axis=0)
        if step_down:
            np.maximum.accumulate(sums, axis=1, out=sums)
            successive += (sums >= observed).sum(axis=0)
        above.append(sums.max(axis=1))
    ordered = np.sort(np.concatenate(above))
    n - np.searchsorted(ordered, observed)


def blas_labels(d: np.ndarray, labels: np.ndarray, n: int, chunk: int = 500) -> None:
    """Single-step max-T for every emotion against the others, one product a chunk shared by all."""
    rng = np.random.default_rng(0)
    u = unit_columns(d - d.mean(axis=0))
    names = sorted(set(labels))
    own = np.array([labels == name for name in names], dtype=np.float32)
    observed = np.abs(own @ u)
    hits, top = np.zeros(observed.shape), []
    room = np.empty((chunk, d.shape[1]), dtype=np.float32)
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        orders = rng.permuted(np.tile(np.arange(len(d)), (size, 1)), axis=1)
        sums = np.matmul(own[0][orders], u, out=room[:size])
        np.abs(sums, out=sums)
        for i in range(len(own)):
            hits[i] += (sums >= observed[i]).sum(axis=0)
        top.append(sums.max(axis=1))
    np.sort(np.concatenate(top))


def scipy_sign_flip(d: np.ndarray, n: int) -> float:
    """Seconds for the whole array, scaled up from a part of it."""
    part = d[:, :SCIPY_FEATURES]

    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis)

    start = time.perf_counter()
    scipy_stats.permutation_test(
        (part,),
        mean,
        permutation_type="samples",
        n_resamples=SCIPY_PERMUTATIONS,
        batch=200,
        vectorized=True,
        axis=0,
        rng=np.random.default_rng(0),
    )
    took = time.perf_counter() - start
    return took * d.shape[1] / part.shape[1] * n / SCIPY_PERMUTATIONS


def scipy_labels(d: np.ndarray, labels: np.ndarray, n: int) -> float:
    """Seconds for all emotions and features, scaled up from one emotion and a part."""
    own = labels == labels[0]
    a, b = d[own][:, :SCIPY_FEATURES], d[~own][:, :SCIPY_FEATURES]

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis) - y.mean(axis=axis)

    start = time.perf_counter()
    scipy_stats.permutation_test(
        (a, b),
        difference,
        n_resamples=SCIPY_PERMUTATIONS,
        batch=200,
        vectorized=True,
        axis=0,
        rng=np.random.default_rng(0),
    )
    took = time.perf_counter() - start
    scale = d.shape[1] / SCIPY_FEATURES * n / SCIPY_PERMUTATIONS
    return took * scale * len(set(labels))


def make(n_pairs: int, n_features: int) -> tuple[np.ndarray, np.ndarray, PairDesign]:
    """Pooled activations like an SAE's, labels, and a balanced design.

    Differences of the pairs are non-zero in about `DENSITY` of the entries.
    """
    rng = np.random.default_rng(0)
    shape = (2 * n_pairs, n_features)
    fires = rng.random(shape, dtype=np.float32) < 1 - np.sqrt(1 - DENSITY)
    pooled = rng.standard_exponential(shape, dtype=np.float32) * fires
    design = balanced(n_pairs)
    return pooled, np.array(design.emotions), design


def balanced(n_pairs: int) -> PairDesign:
    """Pairs of `EMOTIONS` emotions in `DOMAINS` clusters each; clinical members come first."""
    emotions = [f"emotion{i % EMOTIONS}" for i in range(n_pairs)]
    clusters = [f"{e}/{i // EMOTIONS % DOMAINS}" for i, e in enumerate(emotions)]
    return PairDesign(
        np.arange(n_pairs),
        np.arange(n_pairs, 2 * n_pairs),
        tuple(f"p{i}" for i in range(n_pairs)),
        tuple(emotions),
        tuple(clusters),
        tuple(sorted(set(emotions))),
    )


def make_sparse(n_pairs: int, n_features: int, density: float) -> sparse.csc_array:
    """Differences with exactly this share of non-zeros, built without the dense array."""
    rng = np.random.default_rng(0)
    count = round(n_pairs * n_features * density)
    # Positions by column; jitter within equal steps gives distinct, sorted places.
    step = n_pairs * n_features / count
    place = ((np.arange(count) + rng.random(count)) * step).astype(np.int64)
    place = np.unique(place)
    indptr = np.searchsorted(place, np.arange(n_features + 1) * n_pairs)
    units = (place % n_pairs).astype(np.int32)
    values = rng.standard_normal(len(place), dtype=np.float32)
    return sparse.csc_array((values, units, indptr), shape=(n_pairs, n_features))


def warm_up() -> None:
    x, labels = np.random.default_rng(0).normal(size=(24, 10)), [f"{i % 3}" for i in range(24)]
    stats.sign_flip(x, 100)
    stats.label_permutation(x, labels, n_permutations=100)
    cluster_flip(x, labels, 100)
    for statistic in ("mean", "d_z"):
        stats.cluster_intervals(x, labels, statistic, "studentised", 100)  # type: ignore[arg-type]


def wide(n_pairs: int, n_features: int, n: int) -> list[Line]:
    """Time and peak memory of the process; to be called before anything large is made."""
    d = make_sparse(n_pairs, n_features, DENSITY)
    took = best(lambda: stats.sign_flip(d, n), 1)
    name = f"sign flip, sparse input {n_pairs}x{n_features}x{n}"
    peak = peak_gigabytes()
    return [
        cost(f"{name} (peer: allowed)", took, WIDE_SECONDS),
        cost(f"{name}, peak memory (peer: allowed)", peak, WIDE_GIGABYTES, "GB"),
    ]


def wide_search(n_features: int, n: int) -> list[Line]:
    """A whole search of sparse activations: every contrast, table and interval.

    Firing rates of latents are log-normal, as those of SAEs are about. The peak is that of the
    process so far.
    """
    rng = np.random.default_rng(0)
    spread = 1.5
    rates = rng.lognormal(np.log(SEARCH_DENSITY) - spread**2 / 2, spread, n_features)
    columns = np.repeat(np.arange(n_features), rng.binomial(SEARCH_ITEMS, np.minimum(rates, 1.0)))
    rows = rng.integers(0, SEARCH_ITEMS, len(columns))
    values = rng.standard_exponential(len(columns), dtype=np.float32)
    shape = (SEARCH_ITEMS, n_features)
    pooled = sparse.csc_array((values, (rows, columns)), shape=shape)
    pooled.sum_duplicates()
    design, config = balanced(SEARCH_ITEMS // 2), SearchConfig(n_permutations=n)
    start = time.perf_counter()
    tested = search_activations(pooled, design, config).summary.n_tested
    took = time.perf_counter() - start
    name = f"whole search, sparse {SEARCH_ITEMS}x{n_features}x{n}, {tested} tested"
    return [
        cost(f"{name} (peer: allowed)", took, SEARCH_SECONDS),
        cost(f"{name}, peak memory (peer: allowed)", peak_gigabytes(), WIDE_GIGABYTES, "GB"),
    ]


def intervals(n_pairs: int) -> list[Line]:
    """Cluster-bootstrap intervals of many features."""
    x = np.random.default_rng(0).normal(size=(n_pairs, INTERVAL_FEATURES))
    labels = [f"{i // 4}" for i in range(n_pairs)]
    lines = []
    for method in ("bca", "studentised"):
        took = best(lambda m=method: stats.cluster_intervals(x, labels, "d_z", m, N_RESAMPLES), 1)  # type: ignore[misc]
        name = f"{method} intervals of d_z {n_pairs}x{INTERVAL_FEATURES}x{N_RESAMPLES}"
        lines.append(cost(f"{name} (peer: allowed)", took, INTERVAL_SECONDS))
    return lines


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [s for s in status.read_text().splitlines() if s.startswith("VmHWM")]
        return int(line.split()[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def definition(d: np.ndarray, n: int) -> float:
    """Seconds of the NumPy definition; its results must be ours."""
    start = time.perf_counter()
    want = stats.sign_flip(d, n, backend="numpy")
    took = time.perf_counter() - start
    found = stats.sign_flip(d, n)
    for field in ("p", "p_fwer", "p_single_step"):
        if not np.array_equal(getattr(found, field), getattr(want, field)):
            raise SystemExit(f"{field} differs from the NumPy definition")
    return took


def compare(n_pairs: int, n_features: int, n: int, repeat: int) -> list[Line]:
    pooled, labels, design = make(n_pairs, n_features)
    d = stats.paired_differences(pooled[:n_pairs], pooled[n_pairs:])
    size = f"{n_pairs}x{n_features}x{n}"
    thin = sparse.csc_array(d)
    flip, from_sparse, label, cluster, blas_flip, blas_step, blas_label = in_turn(
        [
            lambda: stats.sign_flip(d, n),
            lambda: stats.sign_flip(thin, n),
            lambda: stats.label_permutation(d, list(labels), n_permutations=n),
            lambda: cluster_flip(d, design.clusters, n),
            lambda: blas_sign_flip(d, n),
            lambda: blas_sign_flip(d, n, step_down=True),
            lambda: blas_labels(d, labels, n),
        ],
        repeat,
    )
    config = SearchConfig(n_permutations=n, unit="pair")
    whole = best(lambda: search_activations(pooled, design, config), 1)
    scipy_flip, scipy_label = scipy_sign_flip(d, n), scipy_labels(d, labels, n)
    return [
        cost(f"sign flip {size} vs blas, single-step", flip, blas_flip),
        cost(f"sign flip {size}, sparse input vs blas, single-step", from_sparse, blas_flip),
        cost(f"sign flip {size} vs blas, step-down", flip, blas_step),
        cost(f"sign flip {size} vs scipy (scaled up)", flip, scipy_flip),
        cost(f"sign flip {size} vs its definition, equal counts", flip, definition(d, n)),
        cost(f"{EMOTIONS} emotions {size} vs blas, single-step", label, blas_label),
        cost(f"{EMOTIONS} emotions {size} vs scipy (scaled up)", label, scipy_label),
        cost(f"cluster flip {size} vs blas of plain flips", cluster, blas_flip),
        cost(f"whole search {size} vs scipy tests alone", whole, scipy_flip + scipy_label),
        cost(f"whole search {size} vs blas tests alone", whole, blas_flip + blas_label),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a comparison")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--features", type=int, default=24_576)
    parser.add_argument("--wide", type=int, default=1_000_000, help="features of the sparse run")
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    if not args.json:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{_kernels.n_threads()} threads, best of {args.repeat}, load {load}")
    warm_up()
    lines = wide(args.pairs, args.wide, args.permutations)
    lines += wide_search(args.wide, args.permutations)
    lines += intervals(args.pairs)
    lines += compare(args.pairs, args.features, args.permutations, args.repeat)
    for line in lines:
        show(line, as_json=args.json)


if __name__ == "__main__":
    main()
