"""Compiled kernels of the sparse backend: selection, decode, weight gradients, Adam.

Only k of d_sae latents act on a row, so all but the encoder's product is sparse. With S the active
latents of a row, r = relu, and L nested widths (one but for Matryoshka):

    h = (x - b_dec) W_enc + b_enc                         dense, BLAS, a chunk of rows at a time
    TopK: S = the k largest h |W_dec| of a row            (decoder norms count in the choice only;
    BatchTopK: S = the k n largest r(h) |W_dec| of n rows  they cancel in the value)
    e_l = sum over S below width l of r(h) W_dec - (x - b_dec)
    g_l = 2/n (e_l + ... + e_L)                           gradient for latents of level l
    dW_dec[j] = sum over rows with j in S of r(h_j) g
    dh_j = g . W_dec[j] where h_j > 0
    dW_enc[:, j] = sum of dh_j (x - b_dec);  db_enc[j] = sum of dh_j
    db_dec = sum of g_1 - W_enc db_enc

Active latents are entries in row order: row i owns `bounds[i]:bounds[i + 1]` of `latents` and
`values`. Sums over a latent's rows run in row order whatever the number of threads, so results
repeat exactly.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]
_F64 = NDArray[np.float64]
_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]

_FAST = {"nnan", "nsz", "reassoc", "contract"}


@numba.njit(parallel=True, cache=True, fastmath=True)
def decode_errors(
    bounds: _I64,
    latents: _I32,
    values: _F32,
    decoder: _F32,
    centred: _F32,
    widths: _I64,
    errors: _F32,
    losses: _F64,
) -> None:
    """Reconstruction minus input for every nested width, from the rows' entries.

    Args:
        bounds: where the rows' entries lie.
        latents: indices of the entries.
        values: their activations; entries of value 0 are passed over.
        decoder: rows [d_sae, d_in].
        centred: input minus the decoder's bias [n, d_in].
        widths: rising, the last d_sae [L].
        errors: overwritten [L, n, d_in].
        losses: overwritten with the squared error of each row, summed over widths [n].
    """
    n, d_in = centred.shape
    for row in numba.prange(n):
        total = np.float64(0)
        low = 0
        for level in range(len(widths)):
            high = widths[level]
            if level == 0:
                for i in range(d_in):
                    errors[0, row, i] = -centred[row, i]
            else:
                for i in range(d_in):
                    errors[level, row, i] = errors[level - 1, row, i]
            for entry in range(bounds[row], bounds[row + 1]):
                value = values[entry]
                latent = latents[entry]
                if value != 0 and low <= latent < high:
                    for i in range(d_in):
                        errors[level, row, i] += value * decoder[latent, i]
            squared = np.float32(0)
            for i in range(d_in):
                squared += errors[level, row, i] * errors[level, row, i]
            total += squared
            low = high
        losses[row] = total


@numba.njit(cache=True)
def group_by_latent(
    bounds: _I64, latents: _I32, values: _F32, d_sae: int
) -> tuple[_I64, _I32, _F32]:
    """The entries that are not zero ordered by latent, then row.

    Returns:
        Starts [d_sae + 1], and rows and values of the entries: those of latent j lie at
        starts[j]:starts[j + 1].
    """
    starts = np.zeros(d_sae + 1, np.int64)
    for entry in range(bounds[0], bounds[-1]):
        if values[entry] != 0:
            starts[latents[entry] + 1] += 1
    for latent in range(d_sae):
        starts[latent + 1] += starts[latent]
    rows = np.empty(starts[d_sae], np.int32)
    sorted_values = np.empty(starts[d_sae], np.float32)
    cursor = starts[:-1].copy()
    for row in range(len(bounds) - 1):
        for entry in range(bounds[row], bounds[row + 1]):
            if values[entry] != 0:
                at = cursor[latents[entry]]
                rows[at] = row
                sorted_values[at] = values[entry]
                cursor[latents[entry]] += 1
    return starts, rows, sorted_values


@numba.njit(parallel=True, cache=True, fastmath=True)
def add_gradients(
    starts: _I64,
    rows: _I32,
    values: _F32,
    targets: _I64,
    levels: _I64,
    decoder: _F32,
    centred: _F32,
    gradients: _F32,
    d_decoder: _F32,
    d_encoder: _F32,
    d_bias: _F32,
) -> None:
    """Add what grouped entries contribute to the weights' gradients.

    Args:
        starts: where each group's entries lie [m + 1].
        rows: row of each entry.
        values: activation of each entry.
        targets: latent of each group [m].
        levels: which of `gradients` a latent receives [d_sae].
        decoder: rows [d_sae, d_in].
        centred: input minus the decoder's bias [n, d_in].
        gradients: of the loss for the reconstruction [L, n, d_in].
        d_decoder: added to [d_sae, d_in].
        d_encoder: added to [d_sae, d_in], the encoder's gradient transposed.
        d_bias: added to [d_sae].
    """
    d_in = decoder.shape[1]
    for group in numba.prange(len(starts) - 1):
        latent = targets[group]
        level = levels[latent]
        bias = np.float32(0)
        for at in range(starts[group], starts[group + 1]):
            row = rows[at]
            value = values[at]
            slope = np.float32(0)
            for i in range(d_in):
                slope += gradients[level, row, i] * decoder[latent, i]
            for i in range(d_in):
                d_decoder[latent, i] += value * gradients[level, row, i]
                d_encoder[latent, i] += slope * centred[row, i]
            bias += slope
        d_bias[latent] += bias


@numba.njit(parallel=True, cache=True, fastmath=True)
def squared_norm(rows: _F32, out: _F64) -> None:
    """Write the squared norm of each row [n, d] to `out` [n]."""
    for row in numba.prange(rows.shape[0]):
        total = np.float32(0)
        for i in range(rows.shape[1]):
            total += rows[row, i] * rows[row, i]
        out[row] = total


@numba.njit(parallel=True, cache=True, fastmath=True)
def remove_parallel(gradient: _F32, weights: _F32, out: _F64) -> None:
    """Take each row's part along its weights out of `gradient`; squared norms left go to `out`."""
    for row in numba.prange(weights.shape[0]):
        dot = np.float32(0)
        length = np.float32(1e-30)
        for i in range(weights.shape[1]):
            dot += gradient[row, i] * weights[row, i]
            length += weights[row, i] * weights[row, i]
        along = dot / length
        total = np.float32(0)
        for i in range(weights.shape[1]):
            left = gradient[row, i] - along * weights[row, i]
            gradient[row, i] = left
            total += left * left
        out[row] = total


@numba.njit(parallel=True, cache=True, fastmath=_FAST)
def adam(
    weights: _F32,
    gradient: _F32,
    mean: _F32,
    square: _F32,
    clip: float,
    step_size: float,
    correction: float,
    betas: tuple[float, float],
    eps: float,
    unit_rows: bool,  # noqa: FBT001 - compiled functions take no keywords
) -> None:
    """Adam (Kingma and Ba 2015) on rows [n, d] in one pass, then norm one if `unit_rows`.

    Args:
        weights: changed in place.
        gradient: of the loss; multiplied by `clip`.
        mean: first moment, changed in place.
        square: second moment, changed in place.
        clip: factor of the gradient clipping.
        step_size: learning rate over 1 - beta1^t.
        correction: square root of 1 - beta2^t.
        betas: decay of the moments.
        eps: added to the denominator.
        unit_rows: bring the rows back to norm one.
    """
    keep1, keep2 = np.float32(betas[0]), np.float32(betas[1])
    add1, add2 = np.float32(1 - betas[0]), np.float32(1 - betas[1])
    factor, size = np.float32(clip), np.float32(step_size)
    scale, tiny = np.float32(1 / correction), np.float32(eps)
    for row in numba.prange(weights.shape[0]):
        total = np.float32(0)
        for i in range(weights.shape[1]):
            g = gradient[row, i] * factor
            m = keep1 * mean[row, i] + add1 * g
            v = keep2 * square[row, i] + add2 * g * g
            mean[row, i] = m
            square[row, i] = v
            w = weights[row, i] - size * m / (np.sqrt(v) * scale + tiny)
            weights[row, i] = w
            total += w * w
        if unit_rows:
            shrink = np.float32(1) / np.sqrt(total)
            for i in range(weights.shape[1]):
                weights[row, i] *= shrink
