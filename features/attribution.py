"""First-order effect of every latent on a readout: one backward pass a text ranks them all.

Let m be a readout of a text, x_t the residual at the SAE's hook, g_t = dm / dx_t, and W_f the
decoder row of latent f. Setting f from z_tf to z'_tf on every unmasked token changes m, to first
order, by

    sum_t (z'_tf - z_tf) s_t g_t . W_f,

s_t being 1 but for SAEs that normalise their input (attribution patching: Nanda 2023; Syed,
Rager and Conmy 2023, arXiv:2310.10348; of SAE latents Marks et al. 2024, arXiv:2403.19647).
Integrated gradients replace g_t by its mean along the straight path on which all latents go from z
to z' together (Sundararajan, Taly and Yan 2017; Marks et al. with 10 steps), here at the middles of
n equal steps. Summed over latents they give the effect of changing all of them at once, up to the
error of the steps; they do not thereby give that of one latent alone better.

Gradients are taken from the stored residual through the blocks above it. Only active latents enter
a sum over tokens, and targets that are the same on all tokens need the summed gradient alone, so
the largest array is [n_texts, d_sae] and a million latents are possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch
from affectlens.features.readouts import Readout
from affectlens.features.resumed import goes_on_from, layer_of
from affectlens.sae.model import SparseAutoencoder

_MAX_ENTRIES = 1 << 25
"""Entries of a dense array made on the way, at most (128 MiB of float32)."""


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """First-order effects on one readout of each text (nats).

    Attributes:
        ablate: [n_texts, d_sae], sparse: effect of setting a latent to 0.
        pull: float64 [n_texts, d_model], gradient summed over unmasked tokens: a latent set to the
            constant c has the effect c * pull . W_dec[f] + ablate.
        scale: float64 [n_texts], mean over unmasked tokens of what a decoder row is multiplied
            with when it is written.
    """

    ablate: sparse.csr_array
    pull: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    def mean_ablate(self, texts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Mean over some texts of the effect of setting each latent to 0, [d_sae].

        NaN over no texts.
        """
        if not len(texts):
            return np.full(self.ablate.shape[1], np.nan)
        return np.asarray(self.ablate[texts].sum(axis=0)).ravel() / len(texts)

    def mean_set(
        self,
        sae: SparseAutoencoder,
        values: npt.NDArray[np.floating],
        texts: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Mean over some texts of the effect of setting each latent to a value, [d_sae].

        NaN over no texts.

        Args:
            sae: the SAE.
            values: [d_sae], the same for every text, or [n_texts, d_sae], the same on every token.
            texts: indices of the texts.
        """
        if not len(texts):
            return np.full(sae.d_sae, np.nan)
        pull = self.pull[texts] if values.ndim == 2 else self.pull[texts].sum(0, keepdims=True)
        rows = np.atleast_2d(values[texts] if values.ndim == 2 else values)
        total = np.empty(sae.d_sae)
        step = max(_MAX_ENTRIES // max(len(pull), sae.d_in), 1)
        for start in range(0, sae.d_sae, step):
            part = slice(start, min(start + step, sae.d_sae))
            along = pull @ sae.W_dec[part].double().cpu().numpy().T
            total[part] = (along * rows[:, part]).sum(0)
        return total / len(texts) + self.mean_ablate(texts)


def attribute(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    readout: Readout,
    columns: Sequence[npt.NDArray[np.int64]],
    *,
    targets: npt.NDArray[np.floating] | None = None,
    n_steps: int = 0,
    batch_size: int = 16,
) -> list[FirstOrder]:
    """Effects of all latents on the readout of texts, by gradients.

    Args:
        lm: the model.
        sae: its autoencoder; its mask rule leaves tokens out.
        texts: the texts, each read behind every suffix of the readout.
        readout: what is differentiated.
        columns: one array [n_texts] for each result: the column of the readout for every text.
        targets: [n_texts, d_sae] where the path of integrated gradients ends; None for 0.
        n_steps: steps of that path; 0 takes the gradient at the unedited text.
        batch_size: rows in one pass.

    Returns:
        One result for each array of `columns`. With `n_steps`, only the change that the path makes
        is meant: `mean_ablate` for a path to 0, `mean_set` with `targets` for one to them.

    Raises:
        HookError: the forward pass does not reach the SAE's hook.
    """
    n = len(texts)
    sums: list[list[sparse.csr_array]] = [[] for _ in columns]
    pulls = [np.zeros((n, sae.d_in)) for _ in columns]
    scale = np.ones(n)
    order: list[npt.NDArray[np.int64]] = []
    for part in _parts(lm, sae, texts, readout, batch_size):
        order.append(part.texts)
        own = None if targets is None else targets[part.texts]
        wanted = [column[part.texts] for column in columns]
        scale[part.texts] = _mean_scale(part)
        gradients = _mean_gradients(lm, sae, part, readout, wanted, own, n_steps)
        for index, gradient in enumerate(gradients):
            ablate, pull = _contract(sae, part, gradient)
            sums[index].append(ablate)
            pulls[index][part.texts] = pull
    back = np.argsort(np.concatenate(order))
    return [
        FirstOrder(sparse.csr_array(sparse.vstack(rows, format="csr")[back]), pull, scale)
        for rows, pull in zip(sums, pulls, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Part:
    """Some texts in one batch.

    `place` [n_kept] are flat indices of the unmasked tokens, `owner` the text (within the part)
    of each; `token`, `latent`, `value` are the active latents on them, `scale` [n_kept, 1] what
    the decoder row is multiplied with.
    """

    texts: npt.NDArray[np.int64]
    batch: Batch
    resid: Tensor
    place: Tensor
    owner: Tensor
    scale: Tensor
    token: Tensor
    latent: Tensor
    value: Tensor


def _parts(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    readout: Readout,
    batch_size: int,
) -> Iterator[_Part]:
    rows = readout.rows(lm, texts)
    n_suffixes = rows.n_suffixes
    order = np.argsort(rows.lengths, kind="stable")
    step = max(batch_size // n_suffixes, 1)
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    for start in range(0, len(texts), step):
        chosen = order[start : start + step]
        batch = lm.pad([rows.rows[i * n_suffixes + s] for i in chosen for s in range(n_suffixes)])
        x = capture(lm, [sae.info.hook_name], batch)[sae.info.hook_name].float()
        keep = rule.keep(x, batch.positions, batch.attention_mask).flatten()
        place = keep.nonzero().flatten()
        kept = x.flatten(0, 1)[place]
        token, latent, value = _active(sae, kept)
        owner = place // x.shape[1] // n_suffixes
        yield _Part(chosen, batch, x, place, owner, sae.output_scale(kept), token, latent, value)


def _mean_scale(part: _Part) -> npt.NDArray[np.float64]:
    """Mean scale of each text of the part; 1 where no token is unmasked."""
    owner = part.owner.cpu().numpy()
    count = np.bincount(owner, minlength=len(part.texts))
    total = np.bincount(owner, part.scale[:, 0].double().cpu().numpy(), len(part.texts))
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def _active(sae: SparseAutoencoder, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token, latent and value of what is not 0, of residuals [n, d_model]."""
    found = []
    step = max(_MAX_ENTRIES // sae.d_sae, 1)
    for start in range(0, max(len(x), 1), step):
        z = sae.encode(x[start : start + step])
        token, latent = z.nonzero(as_tuple=True)
        found.append((token + start, latent, z[token, latent]))
    token, latent, value = (torch.cat(parts) for parts in zip(*found, strict=True))
    return token, latent, value


def _mean_gradients(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    part: _Part,
    readout: Readout,
    columns: Sequence[npt.NDArray[np.int64]],
    targets: npt.NDArray[np.floating] | None,
    n_steps: int,
) -> list[Tensor]:
    """Gradient [rows, seq, d_model] of each column at the text, or its mean along the path."""
    if not n_steps:
        return _gradients(lm, sae, part, part.resid, readout, columns)
    delta = _path(sae, part, targets)
    total = [torch.zeros_like(part.resid) for _ in columns]
    for k in range(n_steps):
        x = part.resid + (k + 0.5) / n_steps * delta
        for sum_, gradient in zip(
            total, _gradients(lm, sae, part, x, readout, columns), strict=True
        ):
            sum_ += gradient / n_steps
    return total


def _path(sae: SparseAutoencoder, part: _Part, targets: npt.NDArray[np.floating] | None) -> Tensor:
    """Change of the residual [rows, seq, d_model] when all latents take their targets."""
    change = torch.zeros(len(part.place), sae.d_in, device=part.resid.device)
    for some in _chunks(len(part.value), sae.d_in):
        written = part.value[some, None] * sae.W_dec[part.latent[some]]
        change.index_add_(0, part.token[some], written, alpha=-1.0)
    if targets is not None:
        rows = torch.as_tensor(targets, dtype=torch.float32, device=change.device)
        change += (rows @ sae.W_dec)[part.owner]
    delta = torch.zeros_like(part.resid).flatten(0, 1)
    delta[part.place] = change * part.scale
    return delta.view_as(part.resid)


def _gradients(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    part: _Part,
    resid: Tensor,
    readout: Readout,
    columns: Sequence[npt.NDArray[np.int64]],
) -> list[Tensor]:
    leaf = resid.detach().clone().requires_grad_()
    with torch.enable_grad(), goes_on_from(lm, layer_of(sae.info.hook_name), leaf):
        logp = readout.log_probabilities(lm.forward_logits(part.batch, gradients=True))
        scores = readout.scores(logp.unflatten(0, (len(part.texts), -1)))
        found = []
        for index, column in enumerate(columns):
            place = torch.as_tensor(column, device=scores.device)[:, None]
            last = index == len(columns) - 1
            (gradient,) = torch.autograd.grad(
                scores.gather(1, place).sum(), leaf, retain_graph=not last
            )
            found.append(gradient)
    return found


def _contract(
    sae: SparseAutoencoder, part: _Part, gradient: Tensor
) -> tuple[sparse.csr_array, npt.NDArray[np.float64]]:
    """Effects of setting active latents to 0 and the summed gradient, for each text of the part."""
    along = gradient.flatten(0, 1)[part.place].float() * part.scale
    n = len(part.texts)
    pull = torch.zeros(n, sae.d_in, dtype=torch.float64, device=along.device)
    pull.index_add_(0, part.owner, along.double())
    effects = [
        -part.value[some] * (along[part.token[some]] * sae.W_dec[part.latent[some]]).sum(-1)
        for some in _chunks(len(part.value), sae.d_in)
    ]
    values = torch.cat(effects) if effects else part.value
    text = part.owner[part.token]
    entries = (values.double().cpu().numpy(), (text.cpu().numpy(), part.latent.cpu().numpy()))
    ablate = sparse.coo_array(entries, shape=(n, sae.d_sae)).tocsr()
    return sparse.csr_array(ablate), pull.cpu().numpy()


def _chunks(n: int, width: int) -> Iterator[slice]:
    step = max(_MAX_ENTRIES // width, 1)
    return (slice(start, start + step) for start in range(0, n, step))
