"""Shared-token contrast: activation on token types that both members of a pair hold.

For pair i let T be the token types (token ids) among the readable content tokens of both members,
n_c(t) and n_n(t) how often each member holds type t, m(t) the smaller of the two, and a_c(t) and
a_n(t) the mean activation over a member's occurrences of t. Then

    D_i = sum over T of m(t) (a_c(t) - a_n(t)) / sum over T of m(t).

Token identity is fixed, so a difference can only come from what stands before the token. That may
still be a word: a latent that fires on every token after a keyword passes this test, and the
shuffles are there to find it. Where all texts end with one suffix, and only that is read, the
tokens are the same by construction, and this contrast has nothing to add (`APPLIES_NOT`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from affectlens.features.design import PairDesign
from affectlens.features.encoding import TokenActivations

APPLIES_NOT = "not applicable: equal tokens by construction"
"""What is reported for poolings that read the same tokens in every text."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SharedTokens:
    """Differences on shared token types.

    Attributes:
        differences: float64 [n_pairs, n_columns]; 0 where a pair shares no type.
        n_types: int64 [n_pairs] shared types.
        n_tokens: int64 [n_pairs] sum of m(t): token occurrences that could be matched.
    """

    differences: Array
    n_types: npt.NDArray[np.int64]
    n_tokens: npt.NDArray[np.int64]

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Pairs with a shared type; the others say nothing and are left out of the test."""
        return np.flatnonzero(self.n_types)


def shared_tokens(
    encoded: TokenActivations, design: PairDesign, latents: npt.ArrayLike
) -> SharedTokens:
    """Shared-token differences of some latents [n_columns] for every pair of the design.

    Cost grows with the entries of the read tokens, not with d_sae.

    Args:
        encoded: activations of all items; the design's rows index them.
        design: the pairs.
        latents: which latents.
    """
    readable = encoded.content() & encoded.keep
    matched = []
    for clinical, neutral in zip(design.clinical, design.neutral, strict=True):
        a, b = (_readable(encoded, readable, int(item)) for item in (clinical, neutral))
        matched.append(_match(a, b, encoded.tokens))
    weights = scipy.sparse.csr_array(
        (
            np.concatenate([np.zeros(0), *(m.weights for m in matched)]),
            np.concatenate([np.zeros(0, np.int64), *(m.rows for m in matched)]),
            np.cumsum([0, *(len(m.rows) for m in matched)]),
        ),
        shape=(len(design), encoded.n_tokens),
    )
    columns = encoded.matrix()[:, np.asarray(latents, dtype=np.int64)].astype(float)
    return SharedTokens(
        (weights @ columns).toarray(),
        np.array([m.n_types for m in matched], dtype=np.int64),
        np.array([m.n_tokens for m in matched], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Matched:
    """Tokens of one pair, of both members, and the weight of each in D_i."""

    rows: npt.NDArray[np.int64]
    weights: Array
    n_types: int
    n_tokens: int


def _match(
    first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32]
) -> _Matched:
    """Weights m(t) / n(t) / sum of m, negative for the second member; 0 for types not shared."""
    rows = np.concatenate([first, second])
    types, codes = np.unique(tokens[rows], return_inverse=True)
    members = codes[: len(first)], codes[len(first) :]
    counts = [np.bincount(codes, minlength=len(types)) for codes in members]
    fewer = np.minimum(*counts)
    total = int(fewer.sum())
    weights = [
        sign * fewer[codes] / count[codes] / max(total, 1)
        for sign, codes, count in zip((1.0, -1.0), members, counts, strict=True)
    ]
    return _Matched(rows, np.concatenate(weights), int((fewer > 0).sum()), total)


def _readable(
    encoded: TokenActivations, readable: npt.NDArray[np.bool_], item: int
) -> npt.NDArray[np.int64]:
    """Rows of an item's own tokens that the mask does not leave out."""
    first = encoded.first[item]
    return first + np.flatnonzero(readable[first : encoded.first[item + 1]])
