"""Quality of a reconstruction, masked rows left out already, and angles between the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from affectlens.sae.errors import SAEError

CANDIDATES_AT_ONCE = 2**14
COSINES_AT_ONCE = 2**24
"""Bounds on the candidates and cosines held at once, whatever the number of latents."""


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Fraction of variance unexplained of rows [n, d]: squared error over variance around the mean.

    0 is perfect, 1 is as good as the mean. Sums run in float64.

    Raises:
        SAEError: the shapes differ, there are fewer than two rows, or the rows are all equal.
    """
    if x.shape != x_hat.shape:
        raise SAEError(f"rows {tuple(x.shape)} and reconstructions {tuple(x_hat.shape)} differ")
    meter = QualityMeter(d_sae=0)
    meter.add(x, x_hat)
    return meter.fvu


def l0(z: Tensor) -> float:
    """Mean number of non-zero latents over rows [n, d_sae]."""
    return float((z != 0).sum(-1).double().mean())


def dead_share(fired: Tensor) -> float:
    """Share of latents in `fired` [d_sae] (bool) that never fired."""
    return float((~fired.bool()).double().mean())


def loss_recovered(clean: float, spliced: float, ablated: float) -> float:
    """Share of the loss rise under ablation that the SAE avoids: 1 is lossless, 0 no better.

    `nan` when ablation does not raise the loss, because the share is then undefined.
    """
    if ablated <= clean:
        return math.nan
    return (ablated - spliced) / (ablated - clean)


def encoder_decoder_cosine(W_enc: Tensor, W_dec: Tensor) -> Tensor:
    """Cosine of what each latent reads with what it writes, [d_sae]; 0 where either is zero.

    Near 1 a latent reads the direction it writes; near 0 encoder and decoder do not belong
    together, or the latent reads something else than it restores.

    Args:
        W_enc: encoder columns [d_in, d_sae].
        W_dec: decoder rows [d_sae, d_in].

    Raises:
        SAEError: the shapes do not belong together.
    """
    if W_enc.T.shape != W_dec.shape:
        raise SAEError(
            f"W_enc {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)} do not belong together"
        )
    return torch.nn.functional.cosine_similarity(W_enc.T.double(), W_dec.double(), dim=-1)


@dataclass(frozen=True, eq=False)
class NearestRows:
    """For each row its nearest candidates, nearest first; [n_rows, n].

    Attributes:
        index: long; -1 where there is no further candidate.
        cosine: in the precision of the rows; NaN there.
    """

    index: Tensor
    cosine: Tensor


@torch.no_grad()
def nearest_rows(
    rows: Tensor, candidates: Tensor, n: int = 1, *, skip: Tensor | None = None
) -> NearestRows:
    """The `n` candidates with the largest cosine to each row; ties go to the lower index.

    A row of length 0 has no direction: it is near nothing, and nothing is near it. Computed on the
    rows' device, in their precision, float32 at least; memory does not grow with the candidates.

    Args:
        rows: [n_rows, d_in].
        candidates: [n_candidates, d_in].
        n: how many.
        skip: long [n_rows], a candidate that each row passes over, such as itself.

    Raises:
        SAEError: rows and candidates have different widths.
    """
    if rows.shape[1] != candidates.shape[1]:
        raise SAEError(
            f"got rows of d_in {rows.shape[1]} and {candidates.shape[1]}; only equal widths compare"
        )
    if skip is None:
        skip = torch.full((len(rows),), -1, device=rows.device)
    step = max(1, COSINES_AT_ONCE // max(1, min(CANDIDATES_AT_ONCE, len(candidates))))
    parts = [
        _nearest(part, candidates, n, own)
        for part, own in zip(rows.split(step), skip.split(step), strict=True)
    ]
    return NearestRows(
        torch.cat([part.index for part in parts]), torch.cat([part.cosine for part in parts])
    )


def _nearest(rows: Tensor, candidates: Tensor, n: int, skip: Tensor) -> NearestRows:
    unit = _unit(rows.to(torch.promote_types(rows.dtype, torch.float32)))
    cosine = unit.new_full((len(rows), n), -torch.inf)
    index = skip.new_full((len(rows), n), -1)
    start = 0
    for block in candidates.split(CANDIDATES_AT_ONCE):
        # First to the device: not every device has every precision.
        values = unit @ _unit(block.to(rows.device).to(unit.dtype)).T
        values.nan_to_num_(nan=-torch.inf)
        inside = ((skip >= start) & (skip < start + len(block))).nonzero().flatten()
        values[inside, skip[inside] - start] = -torch.inf
        for _ in range(min(n, len(block))):
            # A maximum gives the first of equal ones, which topk does not promise.
            best, place = values.max(dim=1, keepdim=True)
            values.scatter_(1, place, -torch.inf)
            cosine, index = torch.cat([cosine, best], 1), torch.cat([index, start + place], 1)
        cosine, order = cosine.sort(dim=1, descending=True, stable=True)
        cosine, index = cosine[:, :n], index.gather(1, order)[:, :n]
        start += len(block)
    none = cosine == -torch.inf
    return NearestRows(index.masked_fill(none, -1), cosine.masked_fill(none, torch.nan))


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; NaN for a row of length 0."""
    return rows / rows.norm(dim=1, keepdim=True)


def nearest_decoder_cosine(W_dec: Tensor, chosen: Tensor) -> Tensor:
    """Largest cosine of each chosen decoder row with any other row, [n_chosen].

    NaN for a row of length 0, and where there is no other.

    Args:
        W_dec: decoder rows [d_sae, d_in].
        chosen: indices of rows, long [n_chosen].
    """
    return nearest_rows(W_dec[chosen], W_dec, skip=chosen).cosine[:, 0]


@dataclass
class QualityMeter:
    """FVU, L0 and firing over batches of rows that do not fit into memory at once.

    Attributes:
        d_sae: number of latents.
        n: rows so far.
        counts: rows in which each latent was active, long [d_sae].
    """

    d_sae: int
    n: int = 0
    _error: float = 0.0
    _square: float = 0.0
    _cosine: float = 0.0
    _norms: float = 0.0
    _sum: Tensor | None = None
    counts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.d_sae, dtype=torch.long)

    def add(self, x: Tensor, x_hat: Tensor, z: Tensor | None = None) -> None:
        """Count rows `x` [b, d], reconstructions [b, d] and, if given, latents [b, d_sae]."""
        wide = x.detach().to("cpu", torch.float64)
        wide_hat = x_hat.detach().to("cpu", torch.float64)
        self._error += float((wide - wide_hat).square().sum())
        self._square += float(wide.square().sum())
        norms = wide.norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
        norms_hat = wide_hat.norm(dim=-1)
        self._norms += float((norms_hat / norms).sum())
        self._cosine += float(torch.nn.functional.cosine_similarity(wide, wide_hat, dim=-1).sum())
        total = wide.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self.n += len(x)
        if z is not None:
            self.counts += (z != 0).sum(0).cpu()

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained so far.

        Raises:
            SAEError: fewer than two rows, or rows without variance.
        """
        if self._sum is None or self.n < 2:
            raise SAEError(f"FVU needs at least two rows, got {self.n}")
        variance = self._square - float(self._sum.square().sum()) / self.n
        if variance <= 0:
            raise SAEError(f"FVU is undefined: all {self.n} rows are equal")
        return self._error / variance

    @property
    def l0(self) -> float:
        """Mean number of active latents so far."""
        return int(self.counts.sum()) / self.n if self.n else math.nan

    @property
    def cosine(self) -> float:
        """Mean cosine of rows and reconstructions; a shared mean direction raises it."""
        return self._cosine / self.n if self.n else math.nan

    @property
    def relative_norm(self) -> float:
        """Mean norm of a reconstruction over the norm of its row."""
        return self._norms / self.n if self.n else math.nan

    @property
    def fired(self) -> Tensor:
        """Which latents have been active at all, bool [d_sae]."""
        return self.counts > 0

    @property
    def density(self) -> Tensor:
        """Share of rows in which each latent was active, float64 [d_sae]."""
        return self.counts.double() / max(self.n, 1)

    @property
    def dead_share(self) -> float:
        """Share of latents that have not fired so far."""
        return dead_share(self.fired)
