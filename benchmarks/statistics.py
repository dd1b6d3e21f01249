"""Permutation tests: ours against SciPy and against chunked BLAS in NumPy.

    python benchmarks/statistics.py [--json] [--pairs 192] [--features 4608] [--permutations 10000]

Compilation is left out: each of our functions runs once on a small input first. SciPy runs on few
features and permutations and its time is scaled up in proportion (its cost is linear in both); the
line says so in its name. Times are the best of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# This file bears the name of a standard module that other libraries import.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
from scipy import stats as scipy_stats  # noqa: E402

from affectlens.features import _kernels, stats  # noqa: E402
from affectlens.features.config import SearchConfig  # noqa: E402
from affectlens.features.design import PairDesign  # noqa: E402
from affectlens.features.search import search_activations  # noqa: E402

EMOTIONS = 8
DOMAINS = 6
SCIPY_FEATURES, SCIPY_PERMUTATIONS = 16, 1000


@dataclass(frozen=True)
class Line:
    name: str
    ours: float
    peer: float
    unit: str = "s"

    def as_dict(self) -> dict[str, object]:
        ratio = round(self.peer / self.ours, 2)
        ours, peer = round(self.ours, 4), round(self.peer, 4)
        return {"name": self.name, "ours": ours, "peer": peer, "ratio": ratio, "unit": self.unit}


def best(call: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def blas_sign_flip(d: np.ndarray, n: int, chunk: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """p and max-T p with one matrix product a chunk, in float32."""
    rng = np.random.default_rng(0)
    u = (d / np.linalg.norm(d, axis=0)).astype(np.float32)
    observed = np.abs(u.sum(axis=0))
    hits, above = np.zeros(d.shape[1]), []
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        signs = rng.integers(0, 2, (size, len(d))).astype(np.float32) * 2 - 1
        sums = np.abs(signs @ u)
        hits += (sums >= observed).sum(axis=0)
        above.append(sums.max(axis=1))
    ordered = np.sort(np.concatenate(above))
    return (1 + hits) / (1 + n), (1 + n - np.searchsorted(ordered, observed)) / (1 + n)


def blas_labels(d: np.ndarray, labels: np.ndarray, n: int, chunk: int = 500) -> np.ndarray:
    """p for every emotion against the others, one product a chunk and emotion, in float32."""
    rng = np.random.default_rng(0)
    u = d - d.mean(axis=0)
    u = (u / np.linalg.norm(u, axis=0)).astype(np.float32)
    names = sorted(set(labels))
    own = np.array([labels == name for name in names], dtype=np.float32)
    observed = np.abs(own @ u)
    hits, top = np.zeros(observed.shape), []
    for start in range(0, n, chunk):
        orders = rng.permuted(np.tile(np.arange(len(d)), (min(chunk, n - start), 1)), axis=1)
        for i, row in enumerate(own):
            sums = np.abs(row[orders] @ u)
            hits[i] += (sums >= observed[i]).sum(axis=0)
            top.append(sums.max(axis=1))
    return (1 + hits) / (1 + n)


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
    """Sparse pooled activations like an SAE's, labels, and a balanced design."""
    rng = np.random.default_rng(0)
    shape = (2 * n_pairs, n_features)
    pooled = (rng.exponential(1, shape) * (rng.random(shape) < 0.2)).astype(np.float32)
    emotions = [f"emotion{i % EMOTIONS}" for i in range(n_pairs)]
    clusters = [f"{e}/{i // EMOTIONS % DOMAINS}" for i, e in enumerate(emotions)]
    design = PairDesign(
        np.arange(n_pairs),
        np.arange(n_pairs, 2 * n_pairs),
        tuple(f"p{i}" for i in range(n_pairs)),
        tuple(emotions),
        tuple(clusters),
        tuple(sorted(set(emotions))),
    )
    return pooled, np.array(emotions), design


def compare(n_pairs: int, n_features: int, n: int, repeat: int) -> list[Line]:
    pooled, labels, design = make(n_pairs, n_features)
    d = stats.paired_differences(pooled[:n_pairs], pooled[n_pairs:])
    size = f"{n_pairs}x{n_features}x{n}"
    stats.sign_flip(d[:, :10], 100)
    stats.label_permutation(d[:, :10], list(labels), n_permutations=100)
    flip = best(lambda: stats.sign_flip(d, n), repeat)
    label = best(lambda: stats.label_permutation(d, list(labels), n_permutations=n), repeat)
    config = SearchConfig(n_permutations=n, unit="pair")
    whole = best(lambda: search_activations(pooled, design, config), repeat)
    blas_flip = best(lambda: blas_sign_flip(d, n), repeat)
    blas_label = best(lambda: blas_labels(d, labels, n), 1)
    scipy_flip, scipy_label = scipy_sign_flip(d, n), scipy_labels(d, labels, n)
    return [
        Line(f"sign flip {size} vs scipy (scaled up)", flip, scipy_flip),
        Line(f"sign flip {size} vs numpy blas", flip, blas_flip),
        Line(f"{EMOTIONS} emotions {size} vs scipy (scaled up)", label, scipy_label),
        Line(f"{EMOTIONS} emotions {size} vs numpy blas", label, blas_label),
        Line(f"whole search {size} vs scipy tests alone", whole, scipy_flip + scipy_label),
        Line(f"whole search {size} vs numpy blas tests alone", whole, blas_flip + blas_label),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a comparison")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--features", type=int, default=4608)
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    lines = compare(args.pairs, args.features, args.permutations, args.repeat)
    if not args.json:
        print(f"{_kernels.n_threads()} threads, best of {args.repeat}, seconds")
    for line in lines:
        row = line.as_dict()
        if args.json:
            print(json.dumps(row))
        else:
            print(
                f"{row['name']:<58} ours {row['ours']:>9}  peer {row['peer']:>10}  x{row['ratio']}"
            )


if __name__ == "__main__":
    main()
