"""Control latents and directions.

A random set has as many latents as the chosen one; each is drawn from the latents nearest to its
chosen partner in log firing rate and log mean activation (both on held-out text), so that rare is
compared with rare and strong with strong. Of many sets drawn so, those are kept whose edit writes a
change of nearest to the chosen one's length on the texts measured; what is left of the difference
is taken away by scaling the edit (`effect_arms`).

Directions need no SAE. The difference of means and the dense probe are fitted to the discovery part
alone, and so are the coordinates of the residual ("neurons") and the latents selected on pairs with
shuffled labels. All selections use the contrast of the search with the search's own settings.
Latents are selected from the activations that the search pooled. Directions and neurons are of mean
residuals over a text's own tokens, whatever the pooling, since that is where they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Pair
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, run_contrasts
from affectlens.features.design import PairDesign, Part
from affectlens.features.encoding import TokenActivations
from affectlens.features.logistic import fit_logistic, principal_axes
from affectlens.features.null_data import relabelled, swaps
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.pooling import pool
from affectlens.features.probes import Numbers
from affectlens.features.simple_directions import FEWEST, rank_columns
from affectlens.features.text_means import text_means
from affectlens.sae.model import SparseAutoencoder

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
    """Mean residuals over the tokens of both members of discovery pairs, [n_pairs, d_model]."""

    clinical_resid: npt.NDArray[np.float32]
    neutral_resid: npt.NDArray[np.float32]
    design: PairDesign

    def own(self, emotion: str) -> npt.NDArray[np.bool_]:
        """[n_pairs] pairs of an emotion; all of them for 'all'."""
        return np.array([emotion in (ALL, e) for e in self.design.emotions])


def pair_means(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    pairs: Sequence[Pair],
    *,
    batch_size: int = 16,
) -> PairMeans:
    """Read some pairs of a battery at the SAE's hook."""
    members = [m.text for p in pairs for m in (p.clinical, p.neutral)]
    resid = text_means(lm, sae, members, batch_size=batch_size).resid
    n = np.arange(len(pairs))
    design = PairDesign(
        n,
        n,
        tuple(p.id for p in pairs),
        tuple(p.emotion for p in pairs),
        tuple(p.cluster for p in pairs),
        tuple(battery.emotions),
    )
    return PairMeans(resid[::2], resid[1::2], design)


def difference_of_means(means: PairMeans, emotion: str) -> Array:
    """Unit direction [d_model] from own neutrals to own clinical texts; zero without own pairs."""
    own = means.own(emotion)
    if not own.any():
        return np.zeros(means.clinical_resid.shape[1])
    difference = means.clinical_resid[own] - means.neutral_resid[own]
    return unit(difference.mean(0, dtype=np.float64))


def probe_direction(means: PairMeans, emotion: str) -> Array:
    """Unit direction [d_model] of a logistic probe, own clinical texts against all other texts.

    The others are the clinical texts of other emotions and all neutrals, as a probe is trained in
    AxBench (Wu et al. 2025, arXiv:2501.17148). The fit is that of every probe here: L2-penalised
    with C = 1 on standardised coordinates, classes of equal total weight (`logistic`); the weights
    are put back into the stream's units. Zero without own pairs.
    """
    own = means.own(emotion)
    if not own.any():
        return np.zeros(means.clinical_resid.shape[1])
    raw = np.concatenate([means.clinical_resid, means.neutral_resid]).astype(float)
    labels = np.concatenate([own, np.zeros(len(own), dtype=bool)])
    train = np.ones(len(raw), dtype=bool)
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
    width, design = means.clinical_resid.shape[1], means.design
    parts: dict[str, Part] = dict.fromkeys(design.clusters, "discovery")
    ranked = rank_columns(
        means.clinical_resid, means.neutral_resid, np.arange(width), design, parts, config,
        both_signs=True, n_best=max(n_of.values()),
    )  # fmt: skip
    out = {}
    for emotion, n in n_of.items():
        vector = np.zeros(width)
        if emotion in ranked:
            best = ranked[emotion].first(n).columns
            vector[best] = difference_of_means(means, emotion)[best]
        out[emotion] = unit(vector)
    return out


def live_latents(stats: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Latents that fired on held-out text, ascending."""
    return np.sort(stats.loc[stats["max_active"] > 0, "feature"].to_numpy(dtype=np.int64))


def searched_pairs(encoded: TokenActivations, battery: Battery, settings: SearchConfig) -> PairData:
    """Encoded pairs as a search with these settings would pool, split and filter them."""
    pooled = pool(encoded, settings.pooling)
    design = PairDesign.from_battery(battery, pooled.item_ids)
    return PairData.of(as_sparse(pooled.values), design, settings)


def ranked_latents(
    data: PairData, live: npt.NDArray[np.int64], config: SearchConfig
) -> dict[str, tuple[int, ...]]:
    """For each contrast the latents that rise on it, best first: the choice of `SearchResult.top`.

    Args:
        data: the pairs; only those of the discovery part are looked at.
        live: latents that may be chosen; of these, those that `data` would test.
        config: settings of the search.
    """
    return _rising(data, data.design, np.ones(len(data.design)), live, config)


def shuffled_selections(
    data: PairData,
    live: npt.NDArray[np.int64],
    config: SearchConfig,
    n_shuffles: int,
    rng: np.random.Generator,
) -> list[dict[str, tuple[int, ...]]]:
    """`ranked_latents` on labels that mean nothing, `n_shuffles` times.

    Clusters are dealt their emotions anew, and a coin for each swaps the members of its pairs, so
    the same choice is made from the same activations with nothing to find.
    """
    out = []
    for _ in range(n_shuffles):
        dealt = relabelled(data, "cluster", rng)
        signs = np.where(swaps(dealt, "cluster", rng), -1.0, 1.0)
        out.append(_rising(data, dealt, signs, live, config))
    return out


def _rising(
    data: PairData, design: PairDesign, signs: Array, live: npt.NDArray[np.int64],
    config: SearchConfig,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    columns = np.intersect1d(data.tested, live)
    if not len(columns):
        return {}
    differences = sparse.csc_array(sparse.diags_array(signs) @ data.differences(columns))
    fewer = config.model_copy(update={"n_permutations": FEWEST})
    out = {}
    for contrast in run_contrasts(differences, design, data.parts, fewer):
        effects, best = contrast.discovery, np.argsort(contrast.rank)
        rising = best[((effects.specificity > 0) & (effects.mean_diff > 0))[best]]
        out[contrast.name] = tuple(int(f) for f in columns[rising])
    return out
