"""Specs compiled once into constant tensors, so that a step of generation costs a few small ops.

Every latent spec is `z -> max(factor * z + offset, floor)` on some latents, and every residual spec
is an addition or a projection. Texts with specs of their own become rows of the same tensors; a
text without a spec gets the identity, whatever the others get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.features.spec_ops import Addition, LatentOp, Projection, programs_of, row_count
from affectlens.features.specs import Floats, Indices, Spec
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.reading import LatentReader, reads_by_feature
from affectlens.sae.splice import decoded_change

ErrorTerm = Literal["keep", "drop", "only"]

_LARGEST_TABLE = 2**24
"""Decoder entries held for latents that differ between texts; past it all texts share one table."""

_LARGEST_ENCODE = 2**26
"""Latents encoded at a time, over all tokens; the few that are edited are all that is kept."""

_FULL_READ = 4
"""Past one latent in so many, all are encoded."""


@dataclass(frozen=True)
class _LatentPlan:
    """Latents read, changed and written: n of them, r = 1 or one row for each text.

    `features` is [n] or [r, n], `directions` [n, d] or [r, n, d], `named` [r, 1, n]; each step is
    (factor, offset, floor) as [3, r, 1, n]. `reader` reads the latents of all texts, and `places`
    are those of `features` among them.
    """

    features: Tensor
    directions: Tensor
    named: Tensor
    steps: tuple[Tensor, ...]
    reader: LatentReader | None
    places: Tensor

    def changed(self, before: Tensor) -> Tensor:
        """The values [b, s, n] that take the place of `before`."""
        after = before
        for factor, offset, floor in self.steps:
            after = torch.maximum(after * factor + offset, floor)
        return after

    def difference(self, sae: SparseAutoencoder, x: Tensor) -> Tensor:
        """New values less the latents of `x` [b, s, d], on n latents."""
        if self.reader is not None:
            read = self.reader(x)
            before = _pick(read.values, self.places)
            difference = self.changed(before) - before
            small = (difference != 0) & (difference.abs() <= _pick(read.rounding, self.places))
            # A change as small as the rounding of a partial read may be none: to be told in full.
            if not bool((small | _pick(read.at_edge, self.places)).any()):
                return difference
        before = self._encoded(sae, x)
        return self.changed(before) - before

    def _encoded(self, sae: SparseAutoencoder, x: Tensor) -> Tensor:
        """The latents from a full encode, a few texts at a time where it would be large."""
        n = max(1, _LARGEST_ENCODE // (x.shape[1] * sae.d_sae))
        parts = []
        for start in range(0, len(x), n):
            here = slice(start, start + n)
            features = self.features if self.features.ndim == 1 else self.features[here]
            parts.append(_pick(sae.encode(x[here]), features))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pick(values: Tensor, places: Tensor) -> Tensor:
    if places.ndim == 1:
        return values[..., places]
    return values.gather(-1, places[:, None, :].expand(-1, values.shape[1], -1))


@dataclass(frozen=True)
class _ResidualStep:
    """Additions [r, 1, d] and then a projection on an orthonormal basis [r, k, d]."""

    absolute: Tensor | None
    per_norm: Tensor | None
    basis: Tensor | None

    def change(self, x: Tensor, delta: Tensor) -> Tensor:
        """`delta` with the step's own change added, all [b, s, d]."""
        if self.absolute is not None:
            delta = delta + self.absolute
        if self.per_norm is not None:
            delta = delta + x.norm(dim=-1, keepdim=True) * self.per_norm
        if self.basis is not None:
            delta = delta - ((x + delta) @ self.basis.mT) @ self.basis
        return delta


@dataclass(frozen=True)
class EditPlan:
    """What specs come to for one SAE.

    Attributes:
        n_rows: texts that the batch must have; None for any number.
    """

    sae: SparseAutoencoder
    error: ErrorTerm
    n_rows: int | None
    latents: _LatentPlan | None
    residual: tuple[_ResidualStep, ...]

    @property
    def writes(self) -> bool:
        """Whether there is anything to do."""
        return self.latents is not None or bool(self.residual) or self.error != "keep"

    def delta(self, x: Tensor) -> Tensor:
        """The change of the residual `x`, both float32 [batch, seq, d_model]."""
        delta = self._latent_change(x)
        for step in self.residual:
            delta = step.change(x, delta)
        return delta

    def _latent_change(self, x: Tensor) -> Tensor:
        named = self.latents
        if self.error == "keep":
            if named is None:
                return torch.zeros_like(x)
            return self._write(named, named.difference(self.sae, x), x)
        if self.error == "drop":
            z, read = self.sae.encode_and_reconstruct(x)
            delta = read - x
        else:
            z = self.sae.encode(x)
            delta = -decoded_change(self.sae, z, self.sae.W_dec, x)
        if named is None:
            return delta
        before = _pick(z, named.features)
        after = named.changed(before)
        if self.error == "only":
            # All latents are gone already, so a named one is written whole.
            return delta + self._write(named, torch.where(named.named, after, 0.0), x)
        return delta + self._write(named, after - before, x)

    def _write(self, named: _LatentPlan, difference: Tensor, x: Tensor) -> Tensor:
        return decoded_change(self.sae, difference, named.directions, x)


def compile_specs(
    specs: Sequence[Spec], sae: SparseAutoencoder, error: ErrorTerm = "keep"
) -> EditPlan:
    """Check specs and turn them into tensors on the SAE's device.

    Raises:
        ConfigError: a spec that does not fit the SAE or is not finite, or specs made for
            different numbers of texts.
    """
    if error not in ("keep", "drop", "only"):
        raise ConfigError(f"unknown error term {error!r}; allowed are 'keep', 'drop', 'only'")
    if not isinstance(specs, Sequence):
        raise ConfigError(
            f"specs must be a list of specs, got {type(specs).__name__}; write [spec]"
        )
    n_rows = row_count(specs)
    programs = programs_of(specs, sae, n_rows or 1)
    latents = [[op for op in ops if isinstance(op, LatentOp)] for ops in programs]
    residual = [[op for op in ops if not isinstance(op, LatentOp)] for ops in programs]
    return EditPlan(sae, error, n_rows, _latent_plan(latents, sae), _residual_steps(residual, sae))


def _latent_plan(
    programs: Sequence[Sequence[LatentOp]], sae: SparseAutoencoder
) -> _LatentPlan | None:
    if not any(programs):
        return None
    named = [_union(ops) for ops in programs]
    table = _table(named, sae.d_in)
    shared = len(table) == 1
    columns = [table[0]] * len(programs) if shared else named
    is_named = np.zeros((len(programs), table.shape[1]), bool)
    for row, (own, wanted) in enumerate(zip(columns, named, strict=True)):
        is_named[row, np.searchsorted(own, wanted)] = True
    features = torch.from_numpy(table[0] if shared else table).to(sae.device)
    union = torch.unique(features)
    partly = reads_by_feature(sae) and len(union) * _FULL_READ < sae.d_sae
    return _LatentPlan(
        features=features,
        directions=sae.W_dec[features],
        named=torch.from_numpy(is_named)[:, None].to(sae.device),
        steps=tuple(
            torch.from_numpy(step)[:, :, None].to(sae.device)
            for step in _latent_steps(programs, columns, table.shape[1])
        ),
        reader=LatentReader(sae, union) if partly else None,
        places=torch.searchsorted(union, features),
    )


def _latent_steps(
    programs: Sequence[Sequence[LatentOp]], columns: Sequence[Indices], width: int
) -> list[Floats]:
    """Arrays [3, r, width] of factor, offset and floor.

    The n-th op on a latent goes to step n, so ops on different latents do not wait for each other.
    """
    identity = np.array([1.0, 0.0, -np.inf], np.float32)[:, None, None]
    steps: list[Floats] = []
    for row, (ops, own) in enumerate(zip(programs, columns, strict=True)):
        done = np.zeros(width, np.int64)
        for op in ops:
            places = np.searchsorted(own, op.features)
            for step in np.unique(done[places]):
                if step == len(steps):
                    steps.append(np.tile(identity, (1, len(programs), width)))
                here = done[places] == step
                steps[step][:, row, places[here]] = op.coefficients[:, here]
            done[places] += 1
    return steps


def _union(ops: Sequence[LatentOp]) -> Indices:
    if not ops:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate([op.features for op in ops]))


def _table(named: Sequence[Indices], d_model: int) -> Indices:
    """Sorted features of each text [r, n], padded; or [1, n] of all where that is smaller."""
    union = np.unique(np.concatenate(named))
    widest = max(map(len, named))
    if len(union) == widest or len(named) * widest * d_model > _LARGEST_TABLE:
        return union[None]
    table = np.zeros((len(named), widest), np.int64)
    for row, features in zip(table, named, strict=True):
        row[: len(features)] = features
    return table


def _residual_steps(
    programs: Sequence[Sequence[Addition | Projection]], sae: SparseAutoencoder
) -> tuple[_ResidualStep, ...]:
    """Additions up to the next projection are one step; texts do not wait for each other."""
    grouped = [_grouped(ops, sae.d_in) for ops in programs]
    steps = []
    for index in range(max(map(len, grouped))):
        parts = [g[index] if index < len(g) else _nothing(sae.d_in) for g in grouped]
        widest = max(len(p.basis) for _, p in parts)
        arrays = (
            np.stack([a.absolute for a, _ in parts])[:, None],
            np.stack([a.per_norm for a, _ in parts])[:, None],
            np.stack([np.pad(p.basis, ((0, widest - len(p.basis)), (0, 0))) for _, p in parts]),
        )
        found = [torch.from_numpy(a).to(sae.device) if a.any() else None for a in arrays]
        if any(tensor is not None for tensor in found):
            steps.append(_ResidualStep(*found))
    return tuple(steps)


def _grouped(ops: Sequence[Addition | Projection], d: int) -> list[tuple[Addition, Projection]]:
    steps: list[tuple[Addition, Projection]] = []
    for op in ops:
        if not steps or len(steps[-1][1].basis):
            steps.append(_nothing(d))
        added, removed = steps[-1]
        steps[-1] = (added, op) if isinstance(op, Projection) else (added + op, removed)
    return steps


def _nothing(d: int) -> tuple[Addition, Projection]:
    zeros = np.zeros(d, np.float32)
    return Addition(zeros, zeros), Projection(np.zeros((0, d), np.float32))
