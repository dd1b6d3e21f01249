"""Interventions on SAE latents: frozen specs, and the one place that turns them into a residual
edit.

An intervention writes `x + decode(z_new) - decode(z)`: the difference of two decodes, so what the
SAE does not reconstruct stays in the stream untouched (the "error term" of Marks et al. 2024,
Sparse Feature Circuits). Where nothing changes, nothing is written, so an empty spec, a clamp to a
latent's own value and strength 0 leave the logits bit-equal.

Masked tokens (position 0 and norm outliers, by the rule stored with the SAE) are never edited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.hooks import EditContext, EditFn, edit
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.features.fit import require_fit
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.splice import latent_delta

Scope = Literal["content", "prompt", "generated", "last"]


@dataclass(frozen=True)
class Ablate:
    """Set latents to zero."""

    features: tuple[int, ...]

    def new_values(self, z: Tensor) -> Tensor:
        """Zeros shaped like `z` [b, s, n_features]."""
        return torch.zeros_like(z)


@dataclass(frozen=True)
class Clamp:
    """Set latents to fixed activations (`values`, one a feature, in activation units)."""

    features: tuple[int, ...]
    values: tuple[float, ...]

    def new_values(self, z: Tensor) -> Tensor:
        """The values, broadcast to `z` [b, s, n_features]."""
        return torch.tensor(self.values, dtype=z.dtype, device=z.device).expand_as(z)


@dataclass(frozen=True)
class SetRows:
    """Set latents to a value of their own in each row, such as the matched neutral's mean.

    `rows` has one tuple a text of the batch, each with one value a feature.
    """

    features: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]

    def new_values(self, z: Tensor) -> Tensor:
        """Row values [b, 1, n_features] broadcast over positions."""
        if len(self.rows) != z.shape[0]:
            raise ArtifactError(
                f"SetRows holds {len(self.rows)} rows but the batch has {z.shape[0]} texts; "
                "give one row of values for each text"
            )
        return torch.tensor(self.rows, dtype=z.dtype, device=z.device)[:, None, :].expand_as(z)


@dataclass(frozen=True)
class Scale:
    """Multiply latents by a factor; factor 1 changes nothing, 0 ablates."""

    features: tuple[int, ...]
    factor: float

    def new_values(self, z: Tensor) -> Tensor:
        """`factor * z`."""
        return z * self.factor


LatentSpec = Ablate | Clamp | SetRows | Scale


@dataclass(frozen=True)
class AddDirection:
    """Add a fixed vector to the residual: the baseline that needs no SAE. `vector` is [d_model]."""

    vector: tuple[float, ...]


Spec = LatentSpec | AddDirection


@dataclass
class EditTally:
    """What an intervention did: calls, tokens changed and the summed L2 norm of the changes.

    `misfits` holds what was passed over although the SAE does not fit the model.
    """

    calls: int = 0
    tokens: int = 0
    norm_sum: float = 0.0
    misfits: list[str] = field(default_factory=list)

    @property
    def mean_norm(self) -> float:
        """Mean L2 norm of the change per edited token; 0 if none was edited."""
        return self.norm_sum / self.tokens if self.tokens else 0.0


@dataclass
class _ResidualEdit:
    """Callable for `data.hooks.edit`: applies specs in order to one residual stream."""

    sae: SparseAutoencoder
    specs: tuple[Spec, ...]
    scope: Scope
    tally: EditTally = field(default_factory=EditTally)

    def __call__(self, resid: Tensor, context: EditContext) -> Tensor | None:
        """Return the edited residual [b, s, d_model], or None where nothing changes."""
        self.tally.calls += 1
        where = self._where(resid, context)
        if not self.specs or not bool(where.any()):
            return None
        delta = self._delta(resid)
        changed = (delta != 0).any(-1) & where
        if not bool(changed.any()):
            return None
        norms = delta[changed].float().norm(dim=-1)
        if not bool(torch.isfinite(norms).all()):
            raise ConfigError(
                "the intervention writes a value that is not finite; use a smaller strength"
            )
        self.tally.tokens += int(changed.sum())
        self.tally.norm_sum += float(norms.sum())
        return torch.where(changed[..., None], resid + delta.to(resid.dtype), resid)

    def _where(self, resid: Tensor, context: EditContext) -> Tensor:
        rule = MaskRule(skip_first=self.sae.info.skip_first, norm_limit=self.sae.info.norm_limit)
        keep = rule.keep(resid, context.positions, context.attention)
        if self.scope == "content":
            return keep
        if self.scope == "last":
            last = torch.zeros_like(keep)
            index = torch.where(context.attention, context.positions, -1).argmax(-1)
            last[torch.arange(keep.shape[0], device=keep.device), index] = True
            return keep & last
        return keep if context.phase == self.scope else torch.zeros_like(keep)

    def _delta(self, resid: Tensor) -> Tensor:
        delta = torch.zeros_like(resid, dtype=torch.float32)
        latent_specs = [s for s in self.specs if not isinstance(s, AddDirection)]
        if latent_specs:
            # Only the edited latents are carried on: at a million latents a copy of all would be
            # the largest tensor of the pass.
            touched = sorted({f for spec in latent_specs for f in spec.features})
            features = torch.tensor(touched, device=resid.device)
            x = resid.float()
            before = self.sae.encode(x)[..., features]
            after = before.clone()
            for spec in latent_specs:
                place = torch.searchsorted(features, torch.tensor(spec.features, device=x.device))
                after[..., place] = spec.new_values(after[..., place])
            delta = latent_delta(self.sae, after - before, features, x)
        for added in self.specs:
            if isinstance(added, AddDirection):
                delta = delta + torch.tensor(added.vector, device=delta.device)
        return delta


def residual_edit(
    sae: SparseAutoencoder, specs: Sequence[Spec], scope: Scope = "content"
) -> tuple[EditFn, EditTally]:
    """Build the edit for `data.hooks.edit` and the tally it fills.

    Args:
        sae: the autoencoder whose latents are edited; its mask rule decides which tokens.
        specs: applied in the given order; a later spec sees what an earlier one wrote.
        scope: "content" every unmasked token; "prompt" or "generated" only those; "last" only
            the last token of each forward pass.

    Raises:
        ConfigError: a feature index outside the SAE, values that do not match, or not finite.
    """
    for spec in specs:
        _check_spec(spec, sae)
    worker = _ResidualEdit(sae, tuple(specs), scope)
    return worker, worker.tally


def _check_spec(spec: Spec, sae: SparseAutoencoder) -> None:
    numbers: Sequence[float]
    if isinstance(spec, AddDirection):
        if len(spec.vector) != sae.d_in:
            raise ConfigError(
                f"the direction has {len(spec.vector)} entries but the residual has {sae.d_in}"
            )
        numbers = spec.vector
    else:
        for feature in spec.features:
            if not 0 <= feature < sae.d_sae:
                raise ConfigError(
                    f"feature {feature} is outside the SAE: allowed are 0 to {sae.d_sae - 1}"
                )
        if isinstance(spec, Clamp):
            numbers = spec.values
            if len(spec.values) != len(spec.features):
                raise ConfigError(
                    f"{len(spec.features)} features but {len(spec.values)} values; give one each"
                )
        elif isinstance(spec, Scale):
            numbers = (spec.factor,)
        elif isinstance(spec, SetRows):
            numbers = [v for row in spec.rows for v in row]
            if any(len(row) != len(spec.features) for row in spec.rows):
                raise ConfigError("each row of SetRows needs one value for each feature")
        else:
            numbers = ()
    if not all(abs(v) < float("inf") for v in numbers):
        raise ConfigError("an intervention value is infinite or not a number")


@contextlib.contextmanager
def applied(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    specs: Sequence[Spec],
    *,
    scope: Scope = "content",
    allow_misfit: Sequence[str] = (),
) -> Iterator[EditTally]:
    """Apply interventions to every forward pass and generation inside the block.

    Args:
        lm: the model.
        sae: its autoencoder.
        specs: what is done, in this order.
        scope: which tokens are edited, see `residual_edit`.
        allow_misfit: misfits to pass over, see `fit.require_fit`; the tally records them.

    Yields:
        The tally of calls, edited tokens and norms, filled as the model runs.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: a spec is invalid.
        HookError: the block ended without one forward pass through the edited layer.
    """
    passed = require_fit(sae, lm, allow=allow_misfit)
    edit_fn, tally = residual_edit(sae, specs, scope)
    tally.misfits = passed
    with edit(lm, {sae.info.hook_name: edit_fn}):
        yield tally


@contextlib.contextmanager
def clamped(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    values: Mapping[int, float],
    *,
    scope: Scope = "content",
    allow_misfit: Sequence[str] = (),
) -> Iterator[EditTally]:
    """Clamp latents to fixed activations while the block runs, in forward and in generation.

    Args:
        lm: the model.
        sae: its autoencoder.
        values: activation for each latent, in the SAE's activation units.
        scope: which tokens are edited, see `residual_edit`.
        allow_misfit: misfits to pass over, see `applied`.
    """
    spec = Clamp(tuple(int(f) for f in values), tuple(float(v) for v in values.values()))
    with applied(lm, sae, [spec], scope=scope, allow_misfit=allow_misfit) as tally:
        yield tally
