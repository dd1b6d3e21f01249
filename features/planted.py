"""A paired effect of known size, added to latents in which there is none.

The model. Let m be a latent's mean active value and t >= 0 its strength. In the clinical member an
active value x becomes x + t m. A silent one fires with probability 1 - exp(-t); it then takes a
value drawn from the latent's active values, plus t m. Neutral members stay as they are. Values
never fall below zero, and where t is small most zeros stay.

The strength is solved so that the d_z of the population is the wanted one. The population holds
each pair in both orientations (so that without effect d_z = 0), and every outcome of firing with
its probability: mean and variance have a closed form. A data set draws orientation, firing and
values at random, so its own d_z scatters about the wanted one, as it does in new data. (An effect
tuned to the d_z of the sample would leave that scatter out and make power look too good.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features.pair_data import Members
from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_DOUBLINGS = 40
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Planted:
    """Members with an effect in some latents.

    Attributes:
        members: all pairs and latents, with the effect.
        latents: columns that got it, ascending.
        strengths: t of each of them.
    """

    members: Members
    latents: Rows
    strengths: Array


def plant(
    members: Members,
    rows: Rows,
    d_z: float,
    n_latents: int,
    rng: np.random.Generator,
    swap: npt.NDArray[np.bool_],
) -> Planted:
    """Flip pairs, then add an effect to the clinical members of `rows` in random latents.

    Args:
        members: pairs as they were observed.
        rows: pairs that get the effect (all, or those of an emotion).
        d_z: of the population, above zero.
        n_latents: how many latents get it; fewer if fewer vary over `rows`.
        rng: which latents, and what fires.
        swap: [n_pairs] pairs whose members change places before the effect is added.

    Raises:
        StatisticsError: d_z is not above zero, or no pairs or latents are asked for.
    """
    if not 0 < d_z < np.inf or n_latents < 1 or not len(rows):
        raise StatisticsError(
            f"got d_z={d_z}, n_latents={n_latents}, {len(rows)} pairs; need d_z above 0 and at "
            "least one latent and pair"
        )
    active_somewhere = ((members.clinical > 0) | (members.neutral > 0)).any(axis=0)
    varying = np.flatnonzero((members.differences[rows] != 0).any(axis=0) & active_somewhere)
    latents = np.sort(rng.choice(varying, min(n_latents, len(varying)), replace=False))
    own = members.take(latents)
    strengths = solve_strength(Members(own.clinical[rows], own.neutral[rows]), own, d_z)
    flipped = members.swapped(swap)
    clinical = flipped.clinical.copy()
    for column, latent in enumerate(latents):
        active = _active_values(own, column)
        x = clinical[rows, latent]
        shift = strengths[column] * active.mean()
        fires = rng.random(len(rows)) < -np.expm1(-strengths[column])
        drawn = rng.choice(active, len(rows))
        silent = np.where(fires, drawn + shift, x)
        clinical[rows, latent] = np.where(x > 0, x + shift, silent)
    return Planted(Members(clinical, flipped.neutral), latents, strengths)


def solve_strength(members: Members, source: Members, d_z: float) -> Array:
    """Strengths [n_latents] at which the population d_z is `d_z`.

    Args:
        members: pairs that get the effect, columns that vary.
        source: pairs whose active values silent members take; the same columns.
        d_z: above zero. As t grows all fire alike and d_z grows without bound, so it is reached.
    """
    pools = [_active_values(source, j) for j in range(source.clinical.shape[1])]
    mean = np.array([p.mean() for p in pools])
    variance = np.array([p.var() for p in pools])
    high = np.ones(len(mean))
    for _ in range(_DOUBLINGS):
        short = population_d_z(members, mean, variance, high) < d_z
        if not short.any():
            break
        high = np.where(short, 2 * high, high)
    low = np.zeros(len(mean))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = population_d_z(members, mean, variance, middle) < d_z
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return high


def population_d_z(members: Members, mean: Array, variance: Array, strength: Array) -> Array:
    """d_z of the model: over both orientations of each pair and over what fires.

    Args:
        members: [n_pairs, n_latents].
        mean: [n_latents] mean active value.
        variance: [n_latents] variance of active values.
        strength: [n_latents] t.
    """
    x = np.concatenate([members.clinical, members.neutral])
    y = np.concatenate([members.neutral, members.clinical])
    fires = -np.expm1(-strength)
    shift = strength * mean
    lit = mean + shift - y
    first = np.where(x > 0, x + shift - y, fires * lit - (1 - fires) * y)
    squares = fires * (lit**2 + variance) + (1 - fires) * y**2
    second = np.where(x > 0, (x + shift - y) ** 2, squares)
    centre = first.mean(axis=0)
    spread = np.maximum(second.mean(axis=0) - centre**2, 0.0)
    return np.asarray(centre / np.sqrt(np.maximum(spread, np.finfo(float).tiny)))


def _active_values(members: Members, column: int) -> Array:
    both = np.concatenate([members.clinical[:, column], members.neutral[:, column]])
    return both[both > 0]
