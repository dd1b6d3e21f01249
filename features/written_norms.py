"""What an edit of latents would write, worked out from stored activations without a forward pass.

Controls are chosen and scaled by the length of the change that they write to the very tokens that
are measured. For latents F at a token with activations z and wanted values z', that is the norm of
d W_dec[F] with d = z' - z, computed as the square root of d G d^T with the Gram matrix G of the
rows, so that a candidate set costs about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.data.models import Batch, LanguageModel
from affectlens.features.readouts import Readout
from affectlens.features.scopes import NamedScope
from affectlens.features.text_means import kept_tokens, read_rows
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
NewValues = Callable[[Array, Rows], Array]
"""Takes activations [n_tokens, n_features] and the text of each token; returns wanted ones."""


@dataclass(frozen=True, eq=False)
class TokenLatents:
    """Activations at every token that an edit may change.

    Attributes:
        z: CSC [n_tokens, d_sae].
        resid: [n_tokens, d_model].
        text: [n_tokens] text of each token.
        scale: [n_tokens] factor on decoded changes (1 unless the SAE normalises at run time).
        rows: decoder [d_sae, d_model].
    """

    z: sparse.csc_array
    resid: npt.NDArray[np.float32]
    text: Rows
    scale: Array
    rows: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Tokens that may be edited."""
        return len(self.text)

    def only(self, texts: Rows) -> TokenLatents:
        """The tokens of some texts."""
        kept = np.flatnonzero(np.isin(self.text, texts))
        z = sparse.csc_array(sparse.csr_array(self.z)[kept])
        return TokenLatents(z, self.resid[kept], self.text[kept], self.scale[kept], self.rows)

    def of(self, features: Sequence[int]) -> Array:
        """Activations [n_tokens, n_features]."""
        return np.asarray(self.z[:, list(features)].toarray(), dtype=np.float64)

    def total(self, features: Sequence[int], new: NewValues) -> float:
        """Lengths of a change of latents, summed over tokens.

        Raises:
            ConfigError: it is not finite.
        """
        old = self.of(features)
        rows = self.rows[list(features)].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            change = new(old, self.text) - old
            squares = ((change @ (rows @ rows.T)) * change).sum(axis=1)
            total = float(np.sqrt(np.maximum(squares, 0.0)) @ self.scale)
        if not np.isfinite(total):
            raise ConfigError(
                "the intervention writes a change that is not finite; use a smaller strength"
            )
        return total

    def total_norm(self) -> float:
        """Lengths of the residual, summed over tokens."""
        return float(np.linalg.norm(self.resid.astype(np.float64), axis=1).sum())

    def total_projected(self, features: Sequence[int]) -> float:
        """Lengths of the residual within the span of decoder rows, summed over tokens."""
        rows = self.rows[list(features)].astype(np.float64)
        _, spread, axes = np.linalg.svd(rows, full_matrices=False)
        axes = axes[spread > 1e-6 * spread.max(initial=1e-30)]
        return float(np.linalg.norm(self.resid.astype(np.float64) @ axes.T, axis=1).sum())


@torch.inference_mode()
def token_latents(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    readout: Readout,
    scope: NamedScope = "content",
    *,
    batch_size: int = 16,
) -> TokenLatents:
    """Encode the tokens that an edit of these texts with their readout suffixes may change.

    With scope "generated" there are none, since nothing is generated.
    """
    prepared = readout.rows(lm, texts)
    parts: list[tuple[sparse.csr_array, Tensor, Tensor, Rows]] = []
    for places, x, batch in read_rows(lm, sae, prepared.rows, batch_size):
        keep = _editable(sae, x, batch, scope)
        kept = x[keep]
        z = sparse.csr_array(sae.encode(kept).double().cpu().numpy())
        text = np.array(places)[keep.nonzero()[:, 0].cpu().numpy()] // prepared.n_suffixes
        parts.append((z, kept.cpu(), sae.output_scale(kept).flatten().cpu(), text))
    return TokenLatents(
        sparse.csc_array(sparse.vstack([p[0] for p in parts])),
        torch.cat([p[1] for p in parts]).numpy(),
        np.concatenate([p[3] for p in parts]).astype(np.int64),
        torch.cat([p[2] for p in parts]).double().numpy(),
        sae.W_dec.detach().float().cpu().numpy(),
    )


def _editable(sae: SparseAutoencoder, x: Tensor, batch: Batch, scope: NamedScope) -> Tensor:
    """Tokens [b, s] that an edit of this scope may change while a text is read."""
    real = batch.attention_mask.to(x.device)
    keep = real if scope == "all" else kept_tokens(sae, x, batch)
    if scope == "generated":
        return torch.zeros_like(keep)
    if scope == "last":
        return keep & ~torch.nn.functional.pad(real[:, 1:], (0, 1))
    return keep
