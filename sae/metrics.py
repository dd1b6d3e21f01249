"""Quality of a reconstruction; every function expects masked rows to be left out already."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from affectlens.sae.errors import SAEError


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


@dataclass
class QualityMeter:
    """FVU, L0 and firing over batches of rows that do not fit into memory at once."""

    d_sae: int
    n: int = 0
    _error: float = 0.0
    _square: float = 0.0
    _active: int = 0
    _sum: Tensor | None = None
    fired: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.fired = torch.zeros(self.d_sae, dtype=torch.bool)

    def add(self, x: Tensor, x_hat: Tensor, z: Tensor | None = None) -> None:
        """Count rows `x` [b, d], reconstructions [b, d] and, if given, latents [b, d_sae]."""
        wide = x.detach().to("cpu", torch.float64)
        self._error += float((wide - x_hat.detach().to("cpu", torch.float64)).square().sum())
        self._square += float(wide.square().sum())
        total = wide.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self.n += len(x)
        if z is not None:
            active = (z != 0).cpu()
            self._active += int(active.sum())
            self.fired |= active.any(0)

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
        return self._active / self.n if self.n else math.nan

    @property
    def dead_share(self) -> float:
        """Share of latents that have not fired so far."""
        return dead_share(self.fired)
