"""Specs as the few operations they consist of, for each text of a batch.

Every latent spec is `z -> max(factor * z + offset, floor)` on some latents, and every residual spec
is an addition or a projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from affectlens.data.errors import ConfigError
from affectlens.features.specs import (
    LATENT_SPECS,
    RESIDUAL_SPECS,
    Ablate,
    AddLatents,
    Clamp,
    Floats,
    Indices,
    LatentSpec,
    MinClamp,
    PerRow,
    ProjectOut,
    ResidualSpec,
    Scale,
    SetRows,
    Spec,
    feature_indices,
    finite,
    numbers,
    one_each,
)
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class LatentOp:
    """Some latents [n], and factor, offset and floor of each as [3, n]."""

    features: Indices
    coefficients: Floats


@dataclass(frozen=True)
class Addition:
    """What is added as it is, and what is added times the residual's norm, both [d_model]."""

    absolute: Floats
    per_norm: Floats

    def __add__(self, other: Addition) -> Addition:
        """Both additions at once."""
        # What overflows here is found when the edit writes it.
        with np.errstate(over="ignore", invalid="ignore"):
            return Addition(self.absolute + other.absolute, self.per_norm + other.per_norm)


@dataclass(frozen=True)
class Projection:
    """An orthonormal basis [k, d_model] of what is removed."""

    basis: Floats


Op = LatentOp | Addition | Projection


def row_count(specs: Sequence[Spec]) -> int | None:
    """Texts that the batch must have; None for any number.

    Raises:
        ConfigError: no row, or specs made for different numbers of texts.
    """
    counts = sorted({len(s.rows) for s in specs if isinstance(s, PerRow | SetRows)})
    if not counts:
        return None
    if len(counts) > 1 or counts[0] == 0:
        raise ConfigError(
            f"PerRow and SetRows need one row for each text of the batch, got {counts} rows"
        )
    return counts[0]


def programs_of(specs: Sequence[Spec], sae: SparseAutoencoder, n_rows: int) -> list[list[Op]]:
    """The ops of each text, in the order of the specs.

    Raises:
        ConfigError: a spec that does not fit the SAE, or is not finite.
    """
    programs: list[list[Op]] = [[] for _ in range(n_rows)]
    for spec in specs:
        if isinstance(spec, PerRow):
            _spread(spec, sae, programs)
        elif isinstance(spec, SetRows):
            features = feature_indices(spec, sae.d_sae)
            for program, values in zip(programs, _row_values(spec, len(features)), strict=True):
                program.append(_set_to(features, values))
        else:
            op = _op(spec, sae)
            for program in programs:
                program.append(op)
    return programs


def _spread(spec: PerRow, sae: SparseAutoencoder, programs: list[list[Op]]) -> None:
    made: dict[int, Op] = {}  # arms often share one spec object between texts
    for index, (row, program) in enumerate(zip(spec.rows, programs, strict=True)):
        if not isinstance(row, list | tuple):
            raise ConfigError(
                f"PerRow needs a tuple of specs for each text, got {type(row).__name__} for "
                f"text {index}; write (spec,)"
            )
        for inner in row:
            if id(inner) not in made:
                try:
                    made[id(inner)] = _op(inner, sae)
                except ConfigError as error:
                    raise ConfigError(f"PerRow, text {index}: {error}") from error
            program.append(made[id(inner)])


def _op(spec: Spec, sae: SparseAutoencoder) -> Op:
    if isinstance(spec, LATENT_SPECS):
        return _latent_op(spec, feature_indices(spec, sae.d_sae))
    if isinstance(spec, RESIDUAL_SPECS):
        return _residual_op(spec, sae)
    if isinstance(spec, PerRow):
        raise ConfigError("a PerRow cannot lie inside a PerRow; give each text one tuple of specs")
    raise ConfigError(f"{spec!r} is not a spec; see affectlens.features.specs")


def _latent_op(spec: LatentSpec, features: Indices) -> LatentOp:
    n = len(features)
    if isinstance(spec, Ablate):
        return _set_to(features, np.zeros(n, np.float32))
    if isinstance(spec, Clamp):
        return _set_to(features, one_each(spec.values, "Clamp", n))
    if isinstance(spec, MinClamp):
        return _latent(features, 1.0, 0.0, one_each(spec.values, "MinClamp", n))
    if isinstance(spec, Scale):
        return _latent(features, finite(spec.factor, "Scale: the factor"), 0.0, -np.inf)
    rows = _row_values(spec, n)
    if len(rows) != 1:
        raise ConfigError(f"SetRows inside a PerRow needs one row, got {len(rows)}; use Clamp")
    return _set_to(features, rows[0])


def _set_to(features: Indices, values: Floats) -> LatentOp:
    return _latent(features, 0.0, values, -np.inf)


def _latent(
    features: Indices, factor: float, offset: Floats | float, floor: Floats | float
) -> LatentOp:
    coefficients = np.empty((3, len(features)), np.float32)
    for row, value in zip(coefficients, (factor, offset, floor), strict=True):
        row[:] = value
    return LatentOp(features, coefficients)


def _row_values(spec: SetRows, n_features: int) -> Floats:
    rows = numbers(spec.rows, "SetRows", ndim=2)
    if rows.shape[1] != n_features:
        raise ConfigError(
            f"SetRows: {n_features} features but rows of {rows.shape[1]} values; give one value "
            "for each feature in each row"
        )
    return rows


def _residual_op(spec: ResidualSpec, sae: SparseAutoencoder) -> Addition | Projection:
    zeros = np.zeros(sae.d_in, np.float32)
    if isinstance(spec, AddLatents):
        features = feature_indices(spec, sae.d_sae)
        strengths = one_each(spec.strengths, "AddLatents", len(features))
        rows = sae.W_dec[torch.from_numpy(features).to(sae.device)].cpu().numpy()
        return Addition(zeros, strengths @ _units(rows, "AddLatents: a decoder row"))
    if isinstance(spec, ProjectOut):
        vectors = np.atleast_2d(numbers(spec.vectors, "ProjectOut", ndim=(1, 2)))
        if not vectors.size:
            raise ConfigError("ProjectOut holds no direction; give at least one")
        _check_width(vectors.shape[1], sae.d_in)
        return Projection(_basis(vectors))
    vector = numbers(spec.vector, "AddDirection", ndim=1)
    _check_width(len(vector), sae.d_in)
    strength = np.float32(finite(spec.strength, "AddDirection: the strength"))
    if spec.unit == "absolute":
        with np.errstate(over="ignore"):
            return Addition(numbers(vector * strength, "AddDirection", ndim=1), zeros)
    if spec.unit == "residual_norm":
        return Addition(zeros, strength * _units(vector[None], "AddDirection: the vector")[0])
    raise ConfigError(
        f"AddDirection: unknown unit {spec.unit!r}; allowed are 'absolute' and 'residual_norm'"
    )


def _check_width(found: int, d_model: int) -> None:
    if found != d_model:
        raise ConfigError(f"the direction has {found} entries but the residual has {d_model}")


def _units(vectors: Floats, what: str) -> Floats:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ConfigError(f"{what} is zero and has no direction; leave it out")
    return (wide / norms).astype(np.float32)


def _basis(vectors: Floats) -> Floats:
    """An orthonormal basis [k, d] of the span; k is the rank as NumPy's `matrix_rank` counts it."""
    units = _units(vectors, "ProjectOut: a direction").astype(np.float64)
    _, sizes, rows = np.linalg.svd(units, full_matrices=False)
    kept = sizes > sizes[0] * max(units.shape) * np.finfo(np.float32).eps
    return np.ascontiguousarray(rows[kept], dtype=np.float32)
