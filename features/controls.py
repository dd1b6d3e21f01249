"""Control latents and directions.

A random set has as many latents as the chosen one; each is drawn from the latents nearest to its
chosen partner in log firing rate and log mean activation (both on held-out text), so that rare is
compared with rare and strong with strong. Of many sets drawn so, those are kept whose edit writes a
change of nearest to the chosen one's length on the texts measured; what is left of the difference
is taken away by scaling the edit (`effect_arms`).

Directions need no SAE. The difference of means and the dense probe are fitted to the discovery part
alone, and so are the coordinates of the residual ("neurons") and the latents selected on pairs with
shuffled labels. All selections use the search's own contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL
from affectlens.features.design import PairDesign, Part
from affectlens.features.logistic import fit_logistic, principal_axes
from affectlens.features.probes import Numbers
from affectlens.features.simple_directions import Ranked, rank_columns

Array = npt.NDArray[np.float64]

_NEAREST = 50
_FLOOR = 1e-6


def random_sets(
    stats: pd.DataFrame,
    chosen: Sequence[int],
    exclude: Collection[int],
    n_sets: int,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """Draw matched random latent sets.

    Args:
        stats: one row a latent (`STATS_COLUMNS`).
        chosen: latents to match, in order.
        exclude: latents that may not be drawn (those chosen for any contrast).
        n_sets: how many sets.
        rng: source of randomness.

    Returns:
        `n_sets` tuples, the i-th latent of each matched to `chosen[i]`.

    Raises:
        ConfigError: no statistics, or fewer live latents are left than one set needs.
    """
    table = _require_stats(stats).set_index("feature").sort_index()
    place = np.log10(table[["firing_rate", "mean_active"]].to_numpy(dtype=float) + _FLOOR)
    place = place / np.maximum(place.std(axis=0), _FLOOR)
    index = table.index.to_numpy()
    free = (table["firing_rate"].to_numpy() > 0) & ~np.isin(index, list(exclude))
    if int(free.sum()) < len(chosen):
        raise ConfigError(
            f"only {int(free.sum())} live latents are left for random controls but a set needs "
            f"{len(chosen)}; choose fewer features or a wider SAE"
        )
    candidates, near = index[free], place[free]
    row = {int(f): i for i, f in enumerate(index)}
    pools = []
    for feature in chosen:
        distance = np.linalg.norm(near - place[row[int(feature)]], axis=1)
        # A set holds each latent once, so a pool needs that many more than are looked at.
        nearest = np.argsort(distance, kind="stable")[: _NEAREST + len(chosen)]
        pools.append(candidates[nearest])
    return [_one_set(pools, rng) for _ in range(n_sets)]


def _one_set(pools: Sequence[npt.NDArray[np.int64]], rng: np.random.Generator) -> tuple[int, ...]:
    taken: list[int] = []
    for nearest in pools:
        pool = [int(c) for c in nearest if c not in taken]
        taken.append(int(rng.choice(pool[:_NEAREST])))
    return tuple(taken)


def nearest_in_norm(
    candidates: Sequence[tuple[int, ...]],
    norm_of: Callable[[tuple[int, ...]], float],
    wanted: float,
    n_sets: int,
) -> list[tuple[int, ...]]:
    """The `n_sets` candidates whose written length is nearest to `wanted`, by ratio.

    Each set once as far as they reach; ties by order of drawing.
    """
    distinct = list(dict.fromkeys(candidates))
    away = np.array([_log_ratio(norm_of(c), wanted) for c in distinct])
    best = [distinct[i] for i in np.argsort(away, kind="stable")[:n_sets]]
    return best + list(candidates[: n_sets - len(best)])


def _log_ratio(have: float, wanted: float) -> float:
    if wanted <= 0 or have <= 0:
        return 0.0 if have == wanted else float("inf")
    return abs(float(np.log(have / wanted)))


def clamp_targets(stats: pd.DataFrame, features: Sequence[int], strength: float) -> Array:
    """`strength` times each latent's largest held-out activation, [n_features].

    Raises:
        ConfigError: no statistics, a latent without any, or one that never fired there.
    """
    table = _require_stats(stats).set_index("feature")["max_active"]
    missing = [int(f) for f in features if f not in table.index]
    if missing:
        raise ConfigError(
            f"the search has no firing statistics of latent {missing[0]}; they belong to another "
            "SAE: search again with this one"
        )
    largest = table.loc[list(features)].to_numpy(dtype=float)
    dead = [int(f) for f, top in zip(features, largest, strict=True) if not top > 0]
    if dead:
        raise ConfigError(
            f"latent {', '.join(map(str, dead))} never fired on held-out text, so a clamp in "
            "units of its maximum is not defined: leave it out of the set, clamp it to a value of "
            "your own with `affectlens.clamped`, or harvest more text"
        )
    return strength * largest


def corpus_means(stats: pd.DataFrame, features: Sequence[int]) -> Array:
    """Mean activation over held-out tokens, firing rate x mean when active, [n_features].

    Raises:
        ConfigError: no statistics.
    """
    table = _require_stats(stats).set_index("feature").loc[list(features)]
    return np.asarray(table["firing_rate"] * table["mean_active"], dtype=float)


def _require_stats(stats: pd.DataFrame) -> pd.DataFrame:
    if stats.empty:
        raise ConfigError(
            "the search holds no firing statistics, which clamps and random controls need; search "
            "with a store of activations (`store=`, or --store on the command line)"
        )
    return stats


def matched_targets(
    targets: Array,
    W_dec: Tensor,
    features: Sequence[int],
    reference: Sequence[int],
    reference_targets: Array,
) -> Array:
    """Scale `targets` so that their decoded sum has the norm of the reference's."""
    rows = W_dec.detach().double().cpu().numpy()
    wanted = np.linalg.norm(reference_targets @ rows[list(reference)])
    have = np.linalg.norm(targets @ rows[list(features)])
    return targets * (wanted / have) if have > 0 else targets


def unit(vector: Array) -> Array:
    """`vector` at unit L2 norm; a zero vector stays zero."""
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


@dataclass(frozen=True, eq=False)
class PairMeans:
    """Means over the tokens of discovery pairs: [n_pairs, d_model] and [n_pairs, d_sae]."""

    clinical_resid: npt.NDArray[np.float32]
    neutral_resid: npt.NDArray[np.float32]
    clinical_latents: npt.NDArray[np.float32]
    neutral_latents: npt.NDArray[np.float32]
    design: PairDesign

    def own(self, emotion: str) -> npt.NDArray[np.bool_]:
        """[n_pairs] pairs of an emotion; all of them for 'all'."""
        return np.array([emotion in (ALL, e) for e in self.design.emotions])


def difference_of_means(means: PairMeans, emotion: str) -> Array:
    """Unit direction [d_model] from own neutrals to own clinical texts; zero without own pairs."""
    own = means.own(emotion)
    if not own.any():
        return np.zeros(means.clinical_resid.shape[1])
    difference = means.clinical_resid[own] - means.neutral_resid[own]
    return unit(difference.mean(0, dtype=np.float64))


def probe_direction(means: PairMeans, emotion: str) -> Array:
    """Unit direction [d_model] of a logistic probe, own clinical texts against own neutrals.

    L2-penalised with C = 1 on standardised means (scikit-learn's objective, see `probes`), the
    weights put back into the stream's units. Zero without own pairs.
    """
    own = means.own(emotion)
    if not own.any():
        return np.zeros(means.clinical_resid.shape[1])
    raw = np.concatenate([means.clinical_resid[own], means.neutral_resid[own]]).astype(float)
    train = np.ones(len(raw), dtype=bool)
    labels = np.arange(len(raw)) < own.sum()
    x = Numbers(raw).prepared(train)
    scores = fit_logistic(principal_axes(x, train), labels[None], [1.0])[0, 0]
    # Scores are an affine function of the rows; the penalty keeps the weights in their span.
    weights = np.linalg.lstsq(x - x.mean(0), scores - scores.mean(), rcond=None)[0]
    spread = raw.std(axis=0)
    return unit(np.where(spread > 0, weights / np.where(spread > 0, spread, 1.0), 0.0))


def neuron_directions(
    means: PairMeans, n_of: Mapping[str, int], config: SearchConfig
) -> dict[str, Array]:
    """For each emotion the difference of means on its best coordinates alone, unit [d_model].

    Args:
        means: discovery pairs.
        n_of: emotion -> how many coordinates.
        config: settings of the search, whose contrast ranks them, either sign.
    """
    width = means.clinical_resid.shape[1]
    ranked = _ranked(
        means.clinical_resid, means.neutral_resid, np.arange(width), means, config, both_signs=True,
        n_best=max(n_of.values()),
    )  # fmt: skip
    out = {}
    for emotion, n in n_of.items():
        full = difference_of_means(means, emotion)
        best = ranked.get(emotion, _NONE).columns[:n]
        vector = np.zeros(width)
        vector[best] = full[best]
        out[emotion] = unit(vector)
    return out


def ranked_latents(
    means: PairMeans, live: npt.NDArray[np.int64], config: SearchConfig, n_best: int
) -> dict[str, tuple[int, ...]]:
    """For each emotion its best rising latents among `live` by the search's contrast."""
    found = _ranked(
        means.clinical_latents, means.neutral_latents, live, means, config, both_signs=False,
        n_best=n_best,
    )  # fmt: skip
    return {
        emotion: tuple(int(c) for c, s in zip(r.columns, r.signs, strict=True) if s > 0)
        for emotion, r in found.items()
    }


def shuffled_selections(
    means: PairMeans,
    live: npt.NDArray[np.int64],
    config: SearchConfig,
    n_best: int,
    n_shuffles: int,
    rng: np.random.Generator,
) -> list[dict[str, tuple[int, ...]]]:
    """The same selection after the members of pairs were exchanged in a random half of clusters."""
    names = sorted(set(means.design.clusters))
    out = []
    for _ in range(n_shuffles):
        turned = dict(zip(names, rng.integers(2, size=len(names)).astype(bool), strict=True))
        swap = np.array([turned[c] for c in means.design.clusters])[:, None]
        clinical = np.where(swap, means.neutral_latents, means.clinical_latents)
        neutral = np.where(swap, means.clinical_latents, means.neutral_latents)
        exchanged = PairMeans(
            means.clinical_resid, means.neutral_resid, clinical, neutral, means.design
        )
        out.append(ranked_latents(exchanged, live, config, n_best))
    return out


_NONE = Ranked(np.zeros(0, dtype=np.int64), np.zeros(0))


def _ranked(
    clinical: npt.NDArray[np.float32],
    neutral: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.int64],
    means: PairMeans,
    config: SearchConfig,
    *,
    both_signs: bool,
    n_best: int,
) -> dict[str, Ranked]:
    parts: dict[str, Part] = dict.fromkeys(means.design.clusters, "discovery")
    return rank_columns(
        clinical, neutral, candidates, means.design, parts, config, both_signs=both_signs,
        n_best=n_best,
    )  # fmt: skip
