"""On which tokens a latent's activation falls in held-out text, and how its sizes are spread.

With a_t >= 0 the activation at token t and v_t its type (token id), the mass of a type is the sum
of a_t over its tokens and its share q_v = mass of v / whole mass. The entropy H = -sum q_v log2 q_v
(Shannon 1948) says over how many types the mass is spread; 2^H is its effective number of types
(Hill 1973, order 1): 1 for a latent that fires on a single token, large for one that follows
meaning over many words. Estimated from the shares seen, H is too low where a latent fires on few
tokens (Miller 1955), so `n_active` stands beside it. The base rate of a type is its share of
all unmasked tokens, and lift = q_v / base rate: 1 for a latent that fires evenly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.store import Rows
from affectlens.features.contexts import window_bounds
from affectlens.features.word_mass import Piece, words_of_windows

BINS_PER_DECADE = 10
"""Bins of the density in one power of ten; edges are the same for all latents."""


@dataclass(frozen=True)
class TokenShare:
    """One token type of a latent's mass.

    Attributes:
        token: token id.
        text: its text.
        mass_share: share of the latent's activation mass.
        base_rate: share of all unmasked tokens.
        lift: `mass_share` over `base_rate`.
        n_active: its tokens on which the latent is active.
    """

    token: int
    text: str
    mass_share: float
    base_rate: float
    lift: float
    n_active: int


@dataclass(frozen=True)
class TokenProfile:
    """Token types of one latent's mass.

    Attributes:
        n_active: tokens on which it is active.
        n_types: token types among them.
        entropy_bits: entropy of the mass over types; None for a latent that never fires.
        effective_types: 2 to that power; None likewise.
        base_entropy_bits: the same of all unmasked tokens, what firing evenly would give.
        top: types with the largest share of the mass, largest first.
    """

    n_active: int
    n_types: int
    entropy_bits: float | None
    effective_types: float | None
    base_entropy_bits: float
    top: tuple[TokenShare, ...]


@dataclass(frozen=True)
class Density:
    """Histogram of log10 of the activations above 0.

    Attributes:
        log10_edges: [n_bins + 1] edges, multiples of 1 / `BINS_PER_DECADE`; empty if it never
            fires. A bin holds its lower edge.
        counts: [n_bins] tokens.
    """

    log10_edges: tuple[float, ...]
    counts: tuple[int, ...]


def token_profile(trace: npt.NDArray[np.float32], rows: Rows, piece: Piece, n: int) -> TokenProfile:
    """Profile of one latent.

    Args:
        trace: [n_rows] activation at each token, 0 on masked ones.
        rows: the tokens.
        piece: token id to text.
        n: most types listed; of equal shares the lower id comes first.
    """
    kept = rows.token[np.asarray(rows.keep, dtype=bool)]
    types, base = np.unique(kept, return_counts=True)
    base_rate = base / max(len(kept), 1)
    active = np.flatnonzero(trace > 0)
    own, inverse, counts = np.unique(rows.token[active], return_inverse=True, return_counts=True)
    mass = np.bincount(inverse, weights=trace[active].astype(np.float64), minlength=len(own))
    if not len(own):
        return TokenProfile(0, 0, None, None, _entropy(base_rate), ())
    share = mass / mass.sum()
    entropy = _entropy(share)
    rate = base_rate[np.searchsorted(types, own)]
    top = tuple(
        TokenShare(
            token=int(own[i]),
            text=piece(int(own[i])),
            mass_share=float(share[i]),
            base_rate=float(rate[i]),
            lift=float(share[i] / rate[i]),
            n_active=int(counts[i]),
        )
        for i in np.argsort(-share, kind="stable")[:n]
    )
    return TokenProfile(len(active), len(own), entropy, 2.0**entropy, _entropy(base_rate), top)


def density(trace: npt.NDArray[np.float32]) -> Density:
    """Histogram of log10 activation of one latent [n_rows]."""
    values = np.log10(trace[trace > 0].astype(np.float64))
    if not len(values):
        return Density((), ())
    number = np.floor(values * BINS_PER_DECADE).astype(np.int64)
    low = int(number.min())
    counts = np.bincount(number - low)
    edges = (low + np.arange(len(counts) + 1)) / BINS_PER_DECADE
    return Density(tuple(edges.tolist()), tuple(counts.tolist()))


def words_of_rows(rows: Rows, piece: Piece) -> npt.NDArray[np.object_]:
    """The word that each token belongs to, '' for marks and digits; [n_rows].

    Masked tokens belong to words as well.
    """
    every = np.ones(len(rows), dtype=bool)
    found = words_of_windows(rows.token, window_bounds(rows), every, piece)
    return np.array(found.words, dtype=object)


def on_words(words: npt.NDArray[np.object_], chosen: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which tokens belong to one of the chosen lower-case words; [n_rows]."""
    return np.array([word in chosen for word in words], dtype=bool)


def mass_share(trace: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> float | None:
    """Share of a latent's mass on the chosen tokens; None for a latent that never fires."""
    mass = np.clip(trace, 0, None).astype(np.float64)
    whole = float(mass.sum())
    return float(mass[chosen].sum() / whole) if whole > 0 else None


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    """Entropy in bits of shares that add up to 1, none of them 0."""
    return float(max(0.0, -(shares * np.log2(shares)).sum()))
