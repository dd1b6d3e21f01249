"""Interventions on a residual stream through an SAE: the one place that turns specs into an edit.

An intervention writes `x + decode(z_new) - decode(z)`: the difference of two decodes, so what the
SAE does not reconstruct stays in the stream untouched (the "error term" of Marks et al. 2024,
Sparse Feature Circuits). Where nothing changes, nothing is written, so an empty spec, a clamp to a
latent's own value and strength 0 leave the logits bit-equal.

Masked tokens (position 0 and norm outliers, by the rule stored with the SAE) are never edited,
unless the scope is "all". What can be done, and in which order, is told in `specs`; where, in
`scopes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError, ModelError
from affectlens.data.hooks import EditContext, EditFn, edit
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.features.edit_plan import EditPlan, ErrorTerm, compile_specs
from affectlens.features.fit import require_fit
from affectlens.features.scopes import Scope, check_scope, in_scope
from affectlens.features.specs import Clamp, Spec
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class Intervention:
    """What is done to one residual stream.

    Attributes:
        sae: whose latents are edited; it names the place, and its mask rule the tokens.
        specs: in order, see `specs`.
        scope: which tokens, see `scopes.Scope`.
        error: what becomes of the part of the stream that the SAE does not reconstruct. "keep"
            leaves it. "drop" removes it: edited tokens become `decode(z_new)`. "only" leaves
            nothing else: `x - decode(z) + decode(0)`, with the latents that a spec names put back
            at what the specs make of their own values (so `Scale(features, 1)` keeps just those).
            Residual specs then act on the result.
    """

    sae: SparseAutoencoder
    specs: Sequence[Spec]
    scope: Scope = "content"
    error: ErrorTerm = "keep"


@dataclass
class EditTally:
    """What an intervention did.

    Attributes:
        calls: passes through the edited place.
        tokens: tokens changed.
        norm_sum: summed L2 norm of the changes.
        masked: tokens of the scope that the mask rule left out.
        row_tokens, row_norms: tokens and norm_sum of text i of the batch, float64 [batch], so that
            arms which share a batch are counted apart. Batches of several sizes are summed by
            index. None before the first call.
        misfits: what was passed over although the SAE does not fit the model.
    """

    calls: int = 0
    tokens: int = 0
    norm_sum: float = 0.0
    masked: int = 0
    row_tokens: npt.NDArray[np.float64] | None = None
    row_norms: npt.NDArray[np.float64] | None = None
    misfits: list[str] = field(default_factory=list)

    @property
    def mean_norm(self) -> float:
        """Mean L2 norm of the change per edited token; 0 if none was edited."""
        return self.norm_sum / self.tokens if self.tokens else 0.0

    def add(self, tokens: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]) -> None:
        """Count one call, by tokens and summed norms of each text [batch]."""
        self.calls += 1
        self.tokens += int(tokens.sum())
        self.norm_sum += float(norms.sum())
        self.row_tokens = _summed(self.row_tokens, tokens)
        self.row_norms = _summed(self.row_norms, norms)


def _summed(
    total: npt.NDArray[np.float64] | None, added: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    out = np.zeros(max(len(added), 0 if total is None else len(total)))
    out[: len(added)] += added
    if total is not None:
        out[: len(total)] += total
    return out


@dataclass
class _ResidualEdit:
    """Callable for `data.hooks.edit`: applies a plan to one residual stream."""

    plan: EditPlan
    scope: Scope
    tally: EditTally = field(default_factory=EditTally)
    # Lengths of the prompts being continued; positions from the end count from there.
    lengths: Tensor | None = None

    def __call__(self, resid: Tensor, context: EditContext) -> Tensor | None:
        """Return the edited residual [b, s, d_model], or None where nothing changes."""
        self._check(resid)
        if context.phase == "prompt":
            self.lengths = context.attention.sum(-1)
        where = self._where(resid, context)
        if not self.plan.writes or not bool(where.any()):
            self.tally.add(*np.zeros((2, resid.shape[0])))
            return None
        x = resid.to(self.plan.sae.device, torch.float32)
        delta = self.plan.delta(x)
        edited = (x + delta).to(resid.device, resid.dtype)
        changed = (edited != resid).any(-1) & where
        norms = torch.where(changed, delta.detach().norm(dim=-1).to(resid.device), 0.0)
        _check_finite(resid, edited, norms, changed)
        self.tally.add(changed.sum(-1).double().cpu().numpy(), norms.double().sum(-1).cpu().numpy())
        if not bool(changed.any()):
            return None
        return torch.where(changed[..., None], edited, resid)

    def _check(self, resid: Tensor) -> None:
        n_rows = self.plan.n_rows
        if n_rows is not None and n_rows != resid.shape[0]:
            raise ConfigError(
                f"the intervention holds {n_rows} rows but the batch has {resid.shape[0]} texts; "
                "give one row of values or specs for each text"
            )
        if resid.shape[-1] != self.plan.sae.d_in:
            raise SAEError(
                f"got a residual of width {resid.shape[-1]}, this SAE reads "
                f"d_in={self.plan.sae.d_in}; it belongs to another model or layer"
            )

    def _where(self, resid: Tensor, context: EditContext) -> Tensor:
        wanted = in_scope(self.scope, context, self.lengths)
        if self.scope == "all":
            return wanted
        info = self.plan.sae.info
        rule = MaskRule(skip_first=info.skip_first, norm_limit=info.norm_limit)
        where = wanted & rule.keep(resid, context.positions, context.attention)
        self.tally.masked += int((wanted & ~where).sum())
        return where


def _check_finite(x: Tensor, edited: Tensor, norms: Tensor, changed: Tensor) -> None:
    bad = changed & ~(torch.isfinite(norms) & torch.isfinite(edited).all(-1))
    if not bool(bad.any()):
        return
    row, token = (int(i) for i in bad.nonzero()[0])
    if not bool(torch.isfinite(x[row, token]).all()):
        raise ModelError(
            "the residual stream holds infinite or NaN values before the intervention; load the "
            "model with dtype='float32' or 'bfloat16'"
        )
    raise ConfigError(
        f"the intervention writes a value that is not finite in {edited.dtype} (text {row} of the "
        "batch); use a smaller strength"
    )


def residual_edit(
    sae: SparseAutoencoder,
    specs: Sequence[Spec],
    scope: Scope = "content",
    error: ErrorTerm = "keep",
) -> tuple[EditFn, EditTally]:
    """Build the edit for `data.hooks.edit` and the tally it fills.

    Gradients take the change of the latents for a constant.

    Args:
        sae: the autoencoder whose latents are edited; its mask rule decides which tokens.
        specs: what is done, in this order; see `specs`.
        scope: which tokens, see `scopes.Scope`.
        error: what becomes of the SAE's reconstruction error, see `Intervention`.

    Raises:
        ConfigError: a feature index outside the SAE, values that do not match, or not finite; an
            unknown scope. While the model runs: a batch with another number of texts than the
            specs have rows, a position outside a text, a result that is not finite.
    """
    check_scope(scope)
    worker = _ResidualEdit(compile_specs(specs, sae, error), scope)
    return worker, worker.tally


@contextlib.contextmanager
def applied(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    specs: Sequence[Spec],
    *,
    scope: Scope = "content",
    error: ErrorTerm = "keep",
    allow_misfit: Sequence[str] = (),
) -> Iterator[EditTally]:
    """Apply interventions to every forward pass and generation inside the block.

    Args:
        lm: the model.
        sae: its autoencoder.
        specs: what is done, in this order.
        scope: which tokens are edited, see `scopes.Scope`.
        error: what becomes of the SAE's reconstruction error, see `Intervention`.
        allow_misfit: misfits to pass over, see `fit.require_fit`; the tally records them.

    Yields:
        The tally of calls, edited tokens and norms, filled as the model runs.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: a spec is invalid, see `residual_edit`.
        HookError: the block ended without one forward pass through the edited layer.
    """
    one = Intervention(sae, specs, scope, error)
    with intervened(lm, [one], allow_misfit=allow_misfit) as tallies:
        yield tallies[0]


@contextlib.contextmanager
def intervened(
    lm: LanguageModel,
    interventions: Sequence[Intervention],
    *,
    allow_misfit: Sequence[str] = (),
) -> Iterator[tuple[EditTally, ...]]:
    """Apply interventions of several SAEs, at one or several layers, at the same time.

    Those at one hook run in the given order, each on what the one before it wrote. Those at
    several hooks run in the order of the model, whatever the given one.

    Args:
        lm: the model.
        interventions: at least one.
        allow_misfit: misfits to pass over, see `fit.require_fit`; the tallies record them.

    Yields:
        One tally for each intervention, in the given order.

    Raises:
        ConfigError: no intervention, or an invalid one; see `residual_edit`.
        SAEError: an SAE does not fit the model.
        HookError: the block ended without a forward pass through an edited layer.
    """
    if not interventions:
        raise ConfigError("no intervention was given; give at least one (its specs may be empty)")
    tallies: list[EditTally] = []
    at: dict[str, list[EditFn]] = {}
    for given in interventions:
        passed = require_fit(given.sae, lm, allow=allow_misfit)
        function, tally = residual_edit(given.sae, given.specs, given.scope, given.error)
        tally.misfits = passed
        tallies.append(tally)
        at.setdefault(Address.parse(given.sae.info.hook_name).name, []).append(function)
    with edit(lm, {name: _in_turn(functions) for name, functions in at.items()}):
        yield tuple(tallies)


def _in_turn(functions: Sequence[EditFn]) -> EditFn:
    def run(resid: Tensor, context: EditContext) -> Tensor | None:
        changed: Tensor | None = None
        for function in functions:
            new = function(resid if changed is None else changed, context)
            changed = changed if new is None else new
        return changed

    return functions[0] if len(functions) == 1 else run


@contextlib.contextmanager
def clamped(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    values: Mapping[int, float],
    *,
    scope: Scope = "content",
    error: ErrorTerm = "keep",
    allow_misfit: Sequence[str] = (),
) -> Iterator[EditTally]:
    """Clamp latents to fixed activations while the block runs, in forward and in generation.

    Args:
        lm: the model.
        sae: its autoencoder.
        values: activation for each latent, in the SAE's activation units.
        scope: which tokens are edited, see `scopes.Scope`.
        error: what becomes of the SAE's reconstruction error, see `Intervention`.
        allow_misfit: misfits to pass over, see `applied`.
    """
    spec = Clamp(tuple(values), tuple(values.values()))
    with applied(lm, sae, [spec], scope=scope, error=error, allow_misfit=allow_misfit) as tally:
        yield tally
