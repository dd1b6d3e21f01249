"""What can be done to a residual stream: one frozen record for each kind of edit.

Specs are applied in the order they are given, in two steps. First all latent specs (`Ablate`,
`Clamp`, `MinClamp`, `Scale`, `SetRows`) act on the latents `z` that the SAE reads from the incoming
residual `x`; a later one sees what an earlier one wrote. Then all residual specs (`AddLatents`,
`AddDirection`, `ProjectOut`) act on `x` plus the change of the latents, again each on what the one
before it left. `PerRow` is replaced by the specs of each text, at its place in the order.

Clamping, clamping from below and addition are the three forms of AxBench (Wu et al. 2025,
arXiv:2501.17148); the projection is that of Arditi et al. 2024 (arXiv:2406.11717).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Vector = Sequence[float] | npt.NDArray[np.floating] | Tensor
"""Numbers [n] as a tuple, an array or a tensor."""
Table = Sequence[Sequence[float]] | npt.NDArray[np.floating] | Tensor
"""Numbers [n, m] as tuples, an array or a tensor."""


@dataclass(frozen=True)
class Ablate:
    """Set latents to zero."""

    features: tuple[int, ...]


@dataclass(frozen=True)
class Clamp:
    """Set latents to fixed values, one for each feature, in activation units.

    Clamping to the means over a corpus is mean ablation.
    """

    features: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class MinClamp:
    """Raise latents to at least these values, `max(z, value)`, in activation units."""

    features: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Scale:
    """Multiply latents by a factor; factor 1 changes nothing, 0 ablates."""

    features: tuple[int, ...]
    factor: float


@dataclass(frozen=True, eq=False)
class SetRows:
    """Set latents to values of their own in each text, such as the means of its matched neutral.

    Attributes:
        features: latents, n of them.
        rows: [n_texts, n] values in activation units, one row for each text of the batch. Inside
            a `PerRow`, one row.
    """

    features: tuple[int, ...]
    rows: Table


@dataclass(frozen=True)
class AddLatents:
    """Add the directions of latents, in units of the residual's norm.

    At each token `strength * ||x|| * unit(W_dec[feature])` is added for each feature, `x` being the
    residual that comes in. The latents' own values stay as they are.
    """

    features: tuple[int, ...]
    strengths: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class AddDirection:
    """Add a vector to the residual: the baseline that needs no SAE.

    Attributes:
        vector: [d_model].
        strength: factor.
        unit: "absolute" adds `strength * vector`; "residual_norm" adds
            `strength * ||x|| * unit(vector)`, `x` being the residual that comes in.
    """

    vector: Vector
    strength: float = 1.0
    unit: Literal["absolute", "residual_norm"] = "absolute"


@dataclass(frozen=True, eq=False)
class ProjectOut:
    """Remove the span of one or several directions [n, d_model] from the residual.

    Dependent directions count once: the span is what is removed.
    """

    vectors: Table


@dataclass(frozen=True)
class PerRow:
    """Specs of its own for each text of the batch: text i gets `rows[i]`, which may be empty.

    Kinds, features and strengths may differ, so that many arms share a batch, also in generation.
    """

    rows: tuple[tuple[Spec, ...], ...]


LatentSpec = Ablate | Clamp | MinClamp | Scale | SetRows
ResidualSpec = AddLatents | AddDirection | ProjectOut
Spec = LatentSpec | ResidualSpec | PerRow

LATENT_SPECS = (Ablate, Clamp, MinClamp, Scale, SetRows)
RESIDUAL_SPECS = (AddLatents, AddDirection, ProjectOut)


def feature_indices(spec: LatentSpec | AddLatents, d_sae: int) -> Indices:
    """The latents of a spec, int64 [n].

    Raises:
        ConfigError: none, one that is not a whole number, outside the SAE, or named twice.
    """
    kind = type(spec).__name__
    try:
        found = [operator.index(f) for f in spec.features]
    except TypeError as error:
        raise ConfigError(f"{kind}: a feature must be a whole number ({error})") from error
    if not found:
        raise ConfigError(f"{kind} names no feature; give at least one, or leave the spec out")
    for feature in found:
        if not 0 <= feature < d_sae:
            raise ConfigError(f"feature {feature} is outside the SAE: allowed are 0 to {d_sae - 1}")
    if len(set(found)) != len(found):
        twice = next(f for f in found if found.count(f) > 1)
        raise ConfigError(f"{kind} names feature {twice} twice; name each once, or use two specs")
    return np.array(found, dtype=np.int64)


def numbers(values: object, what: str, *, ndim: int | tuple[int, ...]) -> Floats:
    """Finite float32 numbers from a tuple, array or tensor.

    Raises:
        ConfigError: another number of dimensions, rows of unequal length, not numbers, or one
            that is infinite or not a number (in float32).
    """
    try:
        if isinstance(values, Tensor):
            array = values.detach().to("cpu", torch.float32).numpy()
        else:
            with np.errstate(over="ignore"):
                array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} must be numbers, in rows of equal length: {error}") from error
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if array.ndim not in allowed:
        raise ConfigError(
            f"{what} must have {' or '.join(map(str, allowed))} dimensions, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ConfigError(f"{what}: a value is infinite or not a number; all must be finite")
    return array


def one_each(values: object, what: str, n_features: int) -> Floats:
    """Finite numbers [n_features].

    Raises:
        ConfigError: another count, or see `numbers`.
    """
    array = numbers(values, what, ndim=1)
    if len(array) != n_features:
        raise ConfigError(
            f"{what}: {n_features} features but {len(array)} values; give one for each feature"
        )
    return array


def finite(value: float, what: str) -> float:
    """The number, if it is finite in float32.

    Raises:
        ConfigError: it is not.
    """
    return float(numbers(value, what, ndim=0))
