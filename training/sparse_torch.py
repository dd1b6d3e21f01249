"""The sparse backend for GPUs: sae-lens' gradients of the TopK family, in torch and Triton.

The formulas are those of `kernels`. Only the encoder's product is dense. What follows works on
entries: E = n k pairs (row, latent), each with its activation, in row order.

1. h = (x - b_dec) W_enc + b_enc, a chunk of rows at a time; `torch.topk` of h |W_dec| (TopK: k of
   each row; BatchTopK and Matryoshka: the int(k n) largest of relu(h) |W_dec| in the batch).
2. The reconstruction of a row and nested level is a sum over a segment of entries, `sparse_decode`.
3. The gradient of an activation is a dot product, `entry_dots`.
4. Entries sorted by latent (a stable sort) make both weight gradients sums over segments again, of
   rows of the error and of the input: `sparse_decode` once more. Nothing is added by atomics, so
   results repeat exactly on one machine.

On a GPU with Triton these sums and dots are the kernels of `triton_kernels`; elsewhere they are
`embedding_bag` and gathered products of torch.

Memory beside parameters, gradients and Adam's moments: the hidden layer n x d_sae exists only for a
chunk of rows, `CHUNK_NUMBERS` numbers, up to three times that while many latents are dead. (Also
for BatchTopK, which carries its k n candidates from chunk to chunk.) The errors of L nested levels
are n L d_in numbers, held twice; an entry takes about 100 bytes while entries are sorted. The
auxiliary loss adds n min(n_dead, d_in / 2) entries, or a few arrays of n n_dead numbers where most
dead latents act (n_dead <= 2 d_in). The encoder's gradient is held twice. In all, memory grows with
n (L d_in + k), and with d_sae only as the weights do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.training.memory import CHUNK_NUMBERS
from affectlens.training.sparse_ops import (
    ActiveEntries,
    WeightGradients,
    entries_of_rows,
    sparse_decode,
    weight_gradients,
)
from affectlens.training.steps import StepResult, TorchAdam, nested_widths

_DENSE_SHARE = 0.25
"""Share of the dead latents active on a row from which dense products are the faster ones."""
_ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk")


@dataclass(frozen=True)
class _DeadActs:
    """Pre-activations of the dead latents that the auxiliary loss uses."""

    values: Tensor
    """[n, k]."""
    places: Tensor | None
    """int64 [n, k]: which of the dead latents; None: all of them in order."""


class SparseTorchBackend:
    """Gradients and Adam for a sae-lens TopK, BatchTopK or Matryoshka BatchTopK training SAE.

    The running threshold of the batch architectures is not updated; it is measured after training.

    Args:
        sae: on any device with torch's `embedding_bag`, in float32 (float64 takes the torch path),
            with activations rescaled by decoder norms. It stays on its device.
        unit_rows: keep decoder rows at norm one, the gradient's part along them removed.

    Raises:
        ConfigError: an architecture or setting whose gradients are not these.
    """

    def __init__(self, sae: Any, *, unit_rows: bool = False) -> None:
        _refuse_others(sae.cfg)
        self.sae = sae
        self.aux_coefficient = float(sae.cfg.aux_loss_coefficient)
        self._adam = TorchAdam(sae, unit_rows=unit_rows)
        self._by_row = sae.cfg.architecture() == "topk"
        device, d_sae = sae.W_dec.device, sae.cfg.d_sae
        widths = nested_widths(sae)
        self._starts = torch.tensor([0, *widths[:-1]], device=device)
        latents = torch.arange(d_sae, device=device)
        self._levels = torch.searchsorted(self._starts, latents, right=True) - 1

    @torch.no_grad()
    def gradients(self, rows: Tensor, dead: Tensor, sparsity: float = 1.0) -> StepResult:  # noqa: ARG002
        """See `steps.Backend.gradients`; `rows` are centred in place."""
        sae = self.sae
        sae.zero_grad(set_to_none=True)
        centred = rows.sub_(sae.b_dec)
        norms = sae.W_dec.norm(dim=-1)
        chosen = dead.nonzero().flatten() if self.aux_coefficient else dead[:0].long()
        active, dead_acts = self._select(centred, norms, chosen)
        errors = self._errors(active, centred)
        loss = errors.square().sum() / len(rows)
        residual = -errors[:, -1] if len(chosen) else None
        for level in range(errors.shape[1] - 2, -1, -1):
            errors[:, level] += errors[:, level + 1]
        gradient = errors.mul_(2 / len(rows))
        weights = weight_gradients(active, sae.W_dec, gradient.flatten(0, 1), centred, relu=True)
        if dead_acts is not None and residual is not None:
            extra, added = self._auxiliary(dead_acts, chosen, residual, centred)
            loss += extra
            weights.decoder.index_add_(0, chosen, added.decoder)
            weights.encoder.index_add_(0, chosen, added.encoder)
            weights.bias.index_add_(0, chosen, added.bias)
        sae.W_dec.grad = weights.decoder
        # The optimiser's fused kernels want the gradient in the layout of the parameter.
        sae.W_enc.grad = torch.empty_like(sae.W_enc).copy_(weights.encoder.T)
        sae.b_enc.grad = weights.bias
        sae.b_dec.grad = gradient[:, 0].sum(0) - sae.W_enc @ weights.bias
        return StepResult(float(loss), _fired(active, sae.cfg.d_sae))

    def update(self, lr: float) -> None:
        """See `steps.Backend.update`."""
        self._adam.update(lr)

    def state(self) -> dict[str, Tensor]:
        """See `steps.Backend.state`; the same tensors as of the dense torch backend."""
        return self._adam.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `steps.Backend.restore`; the tensors may lie on another device."""
        device = self.sae.W_dec.device
        self._adam.restore({name: tensor.to(device) for name, tensor in state.items()})

    def _select(
        self, centred: Tensor, norms: Tensor, chosen: Tensor
    ) -> tuple[ActiveEntries, _DeadActs | None]:
        """The active entries, and the acts of the dead latents `chosen` if there are any."""
        sae = self.sae
        step = max(1, CHUNK_NUMBERS // sae.cfg.d_sae)
        best: list[tuple[Tensor, Tensor]] = []
        dead_acts: list[_DeadActs] = []
        for start in range(0, len(centred), step):
            hidden = torch.addmm(sae.b_enc, centred[start : start + step], sae.W_enc)
            if len(chosen):
                dead_acts.append(_strongest_dead(hidden, norms, chosen, sae.cfg.d_in // 2))
            keys = hidden.mul_(norms)
            if self._by_row:
                best.append(keys.topk(int(sae.cfg.k), sorted=False))
            else:
                wanted = int(sae.cfg.k * len(centred))
                found = _largest(keys.relu_().flatten(), wanted)
                best = [_merged(best, found, start * sae.cfg.d_sae, wanted)]
            del hidden, keys
        keys, places = (torch.cat(parts) for parts in zip(*best, strict=True))
        # A row of norm zero has key zero and must not give 0 / 0.
        norms = norms.clamp_min(torch.finfo(norms.dtype).tiny)
        if self._by_row:
            active = entries_of_rows(places, keys.relu_() / norms[places])
        else:
            active = self._batch_entries(keys, places, norms, len(centred))
        return active, _joined(dead_acts) if dead_acts else None

    def _batch_entries(self, keys: Tensor, places: Tensor, norms: Tensor, n: int) -> ActiveEntries:
        """Entries at `places` of the flattened hidden layer [n * d_sae].

        In rising order of place the entries of a row are in order of latent, so those of one
        nested level are neighbours.
        """
        d_sae, n_levels = self.sae.cfg.d_sae, len(self._starts)
        places, order = places.sort()
        rows = places.div(d_sae, rounding_mode="floor")
        latents = places - rows * d_sae
        first = torch.arange(n, device=places.device)[:, None] * d_sae + self._starts
        end = first.new_full((1,), n * d_sae)
        return ActiveEntries(
            latents=latents,
            values=keys[order] / norms[latents],
            rows=rows,
            slots=rows * n_levels + self._levels[latents],
            offsets=torch.searchsorted(places, torch.cat((first.flatten(), end))),
        )

    def _errors(self, active: ActiveEntries, centred: Tensor) -> Tensor:
        """Reconstruction minus input for every nested level [n, L, d_in]."""
        parts = sparse_decode(active.latents, active.values, self.sae.W_dec, active.offsets)
        errors = parts.view(len(centred), -1, centred.shape[1])
        errors[:, 0] -= centred
        for level in range(1, errors.shape[1]):
            errors[:, level] += errors[:, level - 1]
        return errors

    def _auxiliary(
        self, acts: _DeadActs, chosen: Tensor, residual: Tensor, centred: Tensor
    ) -> tuple[Tensor, WeightGradients]:
        """The loss of the strongest dead latents that fit the residual, and its gradients."""
        n, d_in = residual.shape
        limit = d_in // 2
        weight = self.aux_coefficient * min(len(chosen) / limit, 1.0)
        decoder = self.sae.W_dec[chosen]
        if acts.places is not None and limit < _DENSE_SHARE * len(chosen):
            entries = entries_of_rows(acts.places, acts.values)
            decoded = sparse_decode(entries.latents, entries.values, decoder, entries.offsets)
            difference = decoded.sub_(residual)
            gradient = difference * (2 * weight / n)
            weights = weight_gradients(entries, decoder, gradient, centred, relu=False)
        else:
            dense = _scattered(acts.values, acts.places, len(chosen))
            difference = (dense @ decoder).sub_(residual)
            gradient = difference * (2 * weight / n)
            slopes = gradient @ decoder.T
            if acts.places is not None:
                slopes = _scattered(slopes.gather(1, acts.places), acts.places, len(chosen))
            weights = WeightGradients(dense.T @ gradient, slopes.T @ centred, slopes.sum(0))
        return difference.square().sum() * (weight / n), weights


def _largest(keys: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """The `wanted` largest of `keys` [m], or all of them, and their places."""
    values, places = keys.topk(min(wanted, len(keys)), sorted=False)
    return values, places


def _merged(
    before: list[tuple[Tensor, Tensor]], found: tuple[Tensor, Tensor], start: int, wanted: int
) -> tuple[Tensor, Tensor]:
    """The `wanted` largest of the earlier chunks' and of one more, whose places begin at `start`.

    Exact: what is among the largest of all is among the largest of its chunk.
    """
    keys, places = found[0], found[1] + start
    if not before:
        return keys, places
    keys, places = torch.cat((before[0][0], keys)), torch.cat((before[0][1], places))
    keys, kept = _largest(keys, wanted)
    return keys, places[kept]


def _strongest_dead(hidden: Tensor, norms: Tensor, chosen: Tensor, limit: int) -> _DeadActs:
    """The acts of the `limit` latents of `chosen` with the largest hidden * norm, or of all."""
    acts = hidden[:, chosen]
    if len(chosen) <= limit:
        return _DeadActs(acts, None)
    places = (acts * norms[chosen]).topk(limit, sorted=False).indices
    return _DeadActs(acts.gather(1, places), places)


def _joined(parts: list[_DeadActs]) -> _DeadActs:
    places = [part.places for part in parts if part.places is not None]
    values = torch.cat([part.values for part in parts])
    return _DeadActs(values, torch.cat(places) if places else None)


def _scattered(values: Tensor, places: Tensor | None, width: int) -> Tensor:
    """Values [n, k] at their places in rows of zeros [n, width]; without places, as they are."""
    if places is None:
        return values
    return values.new_zeros(len(values), width).scatter_(1, places, values)


def _fired(active: ActiveEntries, d_sae: int) -> Tensor:
    """bool [d_sae]: latents with a positive value."""
    # Entries that are off all write to a place beyond the end, so nothing waits for the device.
    fired = torch.zeros(d_sae + 1, dtype=torch.bool, device=active.latents.device)
    fired.index_fill_(0, active.latents.masked_fill(active.values <= 0, d_sae), value=True)
    return fired[:-1]


def _refuse_others(cfg: Any) -> None:
    name = cfg.architecture()
    if name not in _ARCHITECTURES:
        raise ConfigError(
            f"the sparse torch backend trains {', '.join(_ARCHITECTURES)}, not {name}; use the "
            "backend 'sae_lens'"
        )
    wanted = {
        "rescale_acts_by_decoder_norm": True,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "use_matryoshka_aux_loss": False,
    }
    for setting, value in wanted.items():
        found = getattr(cfg, setting, value)
        if found != value:
            raise ConfigError(
                f"{setting} is {found!r}; the sparse torch backend needs {value!r}, the backend "
                "'sae_lens' takes any"
            )
