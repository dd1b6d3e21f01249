"""Why an emotion's test errs where only means are equal: its spread, and what Welch's t would do.

Called by `calibration.py --equal-spread N` and `--welch N`. Data sets are those of the null
'spread_cluster': each emotion's mean is taken from its pairs, then a coin is tossed for each
cluster. Every data set has a random key of its own.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from affectlens.features import null_data, stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, run_contrasts
from affectlens.features.pair_data import PairData
from affectlens.features.permutation_draws import subset_draws
from affectlens.features.planted import plant

ALPHA = 0.05
SPREAD_LATENTS, WELCH_LATENTS = 500, 300
N_FLIPS, N_ARRANGEMENTS = 1999, 999
PLANTED, N_PLANTED = 1.2, 20
TINY = 1e-9
"""Keeps variances of latents that do not differ above 0, relative to their sum of squares."""
Array = npt.NDArray[np.float64]


def one_spread(differences: Array, emotions: Sequence[str]) -> Array:
    """Every emotion's differences [n_pairs, n_latents] scaled to the latent's root mean square."""
    made, labels = differences.copy(), np.asarray(emotions, dtype=object)
    whole = np.sqrt((differences**2).mean(axis=0))
    for emotion in set(emotions):
        own = labels == emotion
        rms = np.sqrt((differences[own] ** 2).mean(axis=0))
        made[own] *= np.where(rms > 0, whole / np.where(rms > 0, rms, 1), 0)
    return made


def equal_spread(data: PairData, n_sets: int) -> dict[str, tuple[float, float]]:
    """Emotion -> family-wise error with every emotion's own spread, and with one spread."""
    wrong: dict[str, list[tuple[bool, bool]]] = {}
    for k in range(n_sets):
        rng = np.random.default_rng([k, 7])
        x = data.drawn(SPREAD_LATENTS, rng).differences
        x = null_data.centred(x, data.design.emotions)
        sign = np.where(null_data.swaps(data.design, "cluster", rng), -1.0, 1.0)[:, None]
        config = SearchConfig(n_permutations=N_FLIPS, seed=k)
        both = [
            {
                c.name: bool((c.p_fwer <= ALPHA).any())
                for c in run_contrasts(made * sign, data.design, data.parts, config)
            }
            for made in (x, one_spread(x, data.design.emotions))
        ]
        for name in both[0]:
            if name != ALL:
                wrong.setdefault(name, []).append((both[0][name], both[1][name]))
    rates = {name: np.mean(found, axis=0) for name, found in sorted(wrong.items())}
    return {name: (float(own), float(one)) for name, (own, one) in rates.items()}


def largest_t(means: Array, own: npt.NDArray[np.bool_], drawn: Array, *, welch: bool) -> Array:
    """Single-step max-T p [n_latents] of own clusters against the others.

    Args:
        means: [n_clusters, n_latents] means of the differences.
        own: [n_clusters].
        drawn: [n_arrangements, n_clusters], 1.0 where a cluster counts as own.
        welch: studentise by both groups instead of by the pooled variance.
    """
    n, rest = own.sum(), (~own).sum()
    x = means - means.mean(axis=0)
    floor = TINY * (x**2).sum(axis=0) + np.finfo(float).tiny

    def statistic(weights: Array) -> Array:
        sums, squares = weights @ x, weights @ x**2
        other, other_squares = x.sum(axis=0) - sums, (x**2).sum(axis=0) - squares
        here = np.maximum(squares - sums**2 / n, 0)
        there = np.maximum(other_squares - other**2 / rest, 0)
        if welch:
            variance = here / (n - 1) / n + there / (rest - 1) / rest
        else:
            variance = (here + there) / (n + rest - 2) * (1 / n + 1 / rest)
        return np.asarray(np.abs(sums / n - other / rest) / np.sqrt(np.maximum(variance, floor)))

    observed = statistic(own[None].astype(float))[0]
    top = np.concatenate([statistic(part).max(axis=1) for part in np.array_split(drawn, 8)])
    return np.asarray((1 + (top[:, None] >= observed - TINY).sum(axis=0)) / (1 + len(top)))


def welch(data: PairData, n_sets: int) -> dict[str, tuple[float, float]]:
    """Kind of t -> mean error rate over the emotions, recall of an effect on one emotion."""
    design, labels = data.design, np.asarray(data.design.emotions, dtype=object)
    rows = design.rows(data.parts, "discovery")
    clusters = [design.clusters[i] for i in rows]
    owner = dict(zip(design.clusters, design.emotions, strict=True))
    emotions = np.array([owner[c] for c in sorted(set(clusters))], dtype=object)
    names = sorted(set(design.emotions))
    size = int((emotions == names[0]).sum())
    drawn = subset_draws(len(emotions), size, N_ARRANGEMENTS, 1).rows(0, N_ARRANGEMENTS)
    arranged = drawn.astype(float)
    found: dict[str, tuple[list[bool], list[float]]] = {"pooled": ([], []), "Welch": ([], [])}
    for k in range(n_sets):
        rng = np.random.default_rng([k, 9])
        members = data.drawn(WELCH_LATENTS, rng)
        swap = null_data.swaps(design, "cluster", rng)
        sign = np.where(swap, -1.0, 1.0)[:, None]
        nothing = null_data.centred(members.differences, design.emotions) * sign
        target = str(rng.choice(names))
        made = plant(
            members,
            np.flatnonzero(labels == target),
            PLANTED,
            N_PLANTED,
            np.random.default_rng([k, 0]),
            swap,
        )
        null = stats.cluster_means(nothing[rows], clusters)
        effect = stats.cluster_means(made.members.differences[rows], clusters)
        for kind, (wrong, recall) in found.items():
            both = kind == "Welch"
            for name in names:
                p = largest_t(null, emotions == name, arranged, welch=both)
                wrong.append(bool((p <= ALPHA).any()))
            p = largest_t(effect, emotions == target, arranged, welch=both)
            recall.append(float((p[made.latents] <= ALPHA).mean()))
    return {k: (float(np.mean(w)), float(np.mean(r))) for k, (w, r) in found.items()}


def report(pooling: str, data: PairData, n_equal: int, n_welch: int) -> str:
    """What was asked for as Markdown; 0 data sets leave a table out."""
    lines = []
    if n_equal:
        lines = [f"| {pooling}, {n_equal} data sets | own spread | one spread |", "|---|---|---|"]
        rates = equal_spread(data, n_equal).items()
        lines += [f"| {name} | {own:.2f} | {one:.2f} |" for name, (own, one) in rates]
    if n_welch:
        head = f"| {pooling}, {n_welch} data sets | error rate | recall of d_z {PLANTED} |"
        lines += [*([""] if lines else []), head, "|---|---|---|"]
        kinds = welch(data, n_welch).items()
        lines += [f"| {kind} t | {wrong:.2f} | {recall:.2f} |" for kind, (wrong, recall) in kinds]
    return "\n".join(lines)
