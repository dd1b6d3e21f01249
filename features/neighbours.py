"""The nearest latents of a latent: by what they write, and by when they fire.

What they write: the cosine between decoder rows. When they fire: the phi coefficient over held-out
tokens, which is Pearson's correlation of the two yes-or-no series (Yule 1912). With n11 tokens on
which both are active, n1 and n2 on which each is, of N,

    phi = (N n11 - n1 n2) / sqrt(n1 n2 (N - n1) (N - n2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.features.contexts import check_latents
from affectlens.sae.metrics import nearest_rows


@dataclass(frozen=True)
class Neighbour:
    """Another latent and how near it is: cosine of decoder rows, or phi of firing."""

    feature: int
    value: float


def nearest_by_cosine(
    decoder: Tensor, features: Sequence[int], n: int
) -> list[tuple[Neighbour, ...]]:
    """The `n` latents with the highest decoder cosine to each of `features`, highest first.

    Args:
        decoder: [d_sae, d_model] decoder rows.
        features: latents.
        n: how many; fewer are given where the SAE has fewer others.

    A row of length 0 has no direction: it is nobody's neighbour and has none.

    Raises:
        ConfigError: a latent outside the SAE, or `n` below 0.
    """
    _check(features, decoder.shape[0], n)
    wanted = torch.as_tensor(list(features), dtype=torch.long, device=decoder.device)
    found = nearest_rows(decoder[wanted], decoder, n, skip=wanted)
    pairs = zip(found.index.tolist(), found.cosine.tolist(), strict=True)
    return [_listed(index, cosine) for index, cosine in pairs]


def nearest_by_cofiring(
    cofired: npt.NDArray[np.int64],
    fired: npt.NDArray[np.int64],
    features: Sequence[int],
    n_tokens: int,
    n: int,
) -> list[tuple[Neighbour, ...]]:
    """The `n` latents with the highest phi to each of `features`, highest first.

    Latents with phi of 0 or less fire together no more than by chance and are not listed; nor are
    those for which phi is not defined, since they fire on no token or on every one.

    Args:
        cofired: int64 [len(features), d_sae] tokens on which both are active.
        fired: int64 [d_sae] tokens on which each latent is active.
        features: the latents of the rows.
        n_tokens: tokens counted.
        n: how many at most.

    Raises:
        ConfigError: a latent outside the SAE, `n` below 0, or arrays of other shapes.
    """
    _check(features, len(fired), n)
    if cofired.shape != (len(features), len(fired)):
        raise ConfigError(
            f"co-firing counts have shape {cofired.shape}; need {(len(features), len(fired))}"
        )
    counts = fired.astype(np.float64)
    found = []
    for both, feature in zip(cofired, features, strict=True):
        one = counts[feature]
        spread = np.sqrt(one * (n_tokens - one)) * np.sqrt(counts * (n_tokens - counts))
        phi = np.full(len(counts), -np.inf)
        defined = spread > 0
        phi[defined] = (n_tokens * both[defined] - one * counts[defined]) / spread[defined]
        phi[feature] = -np.inf
        phi[phi <= 0] = -np.inf
        order = np.argsort(-phi, kind="stable")[:n]
        found.append(_listed(order.tolist(), phi[order].tolist()))
    return found


def _listed(indices: Sequence[int], values: Sequence[float]) -> tuple[Neighbour, ...]:
    pairs = zip(indices, values, strict=True)
    return tuple(Neighbour(int(i), float(v)) for i, v in pairs if np.isfinite(v))


def _check(features: Sequence[int], d_sae: int, n: int) -> None:
    check_latents(features, d_sae)
    if n < 0:
        raise ConfigError(f"got n={n} neighbours; need 0 or more")
