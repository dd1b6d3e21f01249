"""What to add to a residual so that some latents take new values.

The change is the difference of two decodes (Marks et al. 2024, circuit-tracer's replacement model),
so the SAE's reconstruction error stays in the stream. For an affine decoder the difference is
`(z_new - z) @ W_dec`; it is computed over the changed latents alone, hence exactly zero where
nothing changed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder


@torch.no_grad()
def splice_delta(
    sae: SparseAutoencoder, z: Tensor, z_new: Tensor, x: Tensor | None = None
) -> Tensor:
    """The change of the residual [..., d_in] (float32) that turns latents `z` into `z_new`.

    Args:
        z: activations [..., d_sae] as `sae.encode` gave them.
        z_new: wanted activations, same shape.
        x: the residual [..., d_in]; needed only by SAEs that normalise their input at run time.

    Raises:
        SAEError: the shapes differ, or `x` is needed and absent.
    """
    if z.shape != z_new.shape or z.shape[-1] != sae.d_sae:
        raise SAEError(
            f"latents {tuple(z.shape)} and {tuple(z_new.shape)} must both be [..., {sae.d_sae}]"
        )
    difference = z_new.to(torch.float32) - z.to(torch.float32)
    changed = (difference != 0).flatten(0, -2).any(0).nonzero().flatten()
    return latent_delta(sae, difference[..., changed], changed, x)


@torch.no_grad()
def latent_delta(
    sae: SparseAutoencoder, difference: Tensor, features: Tensor, x: Tensor | None = None
) -> Tensor:
    """The same for a few latents: `difference` [..., n] over `features` [n] (long).

    Raises:
        SAEError: `x` is needed and absent.
    """
    return decoded_change(sae, difference, sae.W_dec[features], x)


@torch.no_grad()
def decoded_change(
    sae: SparseAutoencoder, difference: Tensor, rows: Tensor, x: Tensor | None = None
) -> Tensor:
    """The same with the decoder rows [..., n, d_in] given, which may differ between texts.

    Raises:
        SAEError: `x` is needed and absent.
    """
    delta = difference.to(torch.float32) @ rows
    if not sae.normalises_at_run_time:
        return delta
    if x is None:
        raise SAEError(
            f"this SAE normalises its input ({sae.sae.cfg.normalize_activations}): pass the "
            "residual x, because the size of the write depends on it"
        )
    return delta * sae.output_scale(x)
