"""Control arms: random latents matched to the chosen ones, and directions that need no SAE.

A random set has as many latents as the chosen one; each is drawn from the latents nearest to its
chosen partner in log firing rate and log mean activation (both on held-out text), so that rare is
compared with rare and strong with strong. For a clamp the random targets are then scaled by one
factor so that the written vector has the chosen one's norm.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from affectlens.data.errors import ConfigError

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
        ConfigError: fewer live latents are left than one set needs.
    """
    table = stats.set_index("feature").sort_index()
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
    return [_one_set(candidates, near, place, row, chosen, rng) for _ in range(n_sets)]


def _one_set(
    candidates: npt.NDArray[np.int64],
    near: npt.NDArray[np.float64],
    place: npt.NDArray[np.float64],
    row: dict[int, int],
    chosen: Sequence[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    taken: list[int] = []
    for feature in chosen:
        distance = np.linalg.norm(near - place[row[int(feature)]], axis=1)
        pool = [int(c) for c in candidates[np.argsort(distance, kind="stable")] if c not in taken]
        taken.append(int(rng.choice(pool[:_NEAREST])))
    return tuple(taken)


def clamp_targets(
    stats: pd.DataFrame, features: Sequence[int], strength: float
) -> npt.NDArray[np.float64]:
    """`strength` times each latent's largest held-out activation, [n_features]."""

    if stats.empty:
        raise ConfigError(
            "the search holds no firing statistics, which clamps and random controls need; search "
            "with a store of activations (`store=`, or --store on the command line)"
        )
    table = stats.set_index("feature")["max_active"]
    return strength * table.loc[list(features)].to_numpy(dtype=float)


def matched_targets(
    targets: npt.NDArray[np.float64],
    W_dec: Tensor,
    features: Sequence[int],
    reference: Sequence[int],
    reference_targets: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Scale `targets` so that their decoded sum has the norm of the reference's."""

    rows = W_dec.detach().double().cpu().numpy()
    wanted = np.linalg.norm(reference_targets @ rows[list(reference)])
    have = np.linalg.norm(targets @ rows[list(features)])
    return targets * (wanted / have) if have > 0 else targets


def unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`vector` at unit L2 norm; a zero vector stays zero."""
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
