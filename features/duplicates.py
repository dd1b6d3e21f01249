"""Near-duplicates among the texts of different pairs, by runs of three words.

Copies that straddle a split let a classifier (or a feature) be tested on what it was fitted to.
Runs of three words are rare enough that comparing all texts stays a sparse product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from affectlens.data.stimuli import Pair, Stimulus
from affectlens.features.lexical_card import NearDuplicate

_MOST = 50
"""A run of words in more different texts than this is a formula and is not compared."""


def near_duplicates(
    pairs: Sequence[Pair], words: Sequence[Sequence[str]], threshold: float
) -> list[NearDuplicate]:
    """Texts of different pairs whose word 3-grams overlap by `threshold` or more.

    Args:
        pairs: the pairs of a battery.
        words: tokens of every text, clinical members first, pairs in order.
        threshold: smallest Jaccard overlap of the two sets of 3-grams to report.

    Returns:
        Largest overlap first. Copies of one text are each listed against its first occurrence only,
        so that their number grows with the copies and not with its square. Texts shorter than three
        words are compared as wholes.
    """
    firsts: dict[tuple[str, ...], int] = {}
    found = []
    for row, ws in enumerate(words):
        first = firsts.setdefault(tuple(ws), row)
        if first % len(pairs) != row % len(pairs):
            found.append(_duplicate(pairs, first, row, 1.0))
    rows = list(firsts.values())
    shingles = [_shingles(words[row]) for row in rows]
    sizes = np.array([len(s) for s in shingles], float)
    shared = _shared(shingles).tocoo()
    for i, j, both in zip(shared.row, shared.col, shared.data, strict=True):
        a, b = rows[i], rows[j]
        overlap = both / (sizes[i] + sizes[j] - both)
        if a < b and a % len(pairs) != b % len(pairs) and overlap >= threshold:
            found.append(_duplicate(pairs, a, b, float(overlap)))
    return sorted(found, key=lambda d: (-d.overlap, d.a, d.b))


def _duplicate(pairs: Sequence[Pair], a: int, b: int, overlap: float) -> NearDuplicate:
    left, right = _item(pairs, a), _item(pairs, b)
    return NearDuplicate(left.id, right.id, overlap, left.cluster == right.cluster)


def _item(pairs: Sequence[Pair], row: int) -> Stimulus:
    pair = pairs[row % len(pairs)]
    return pair.clinical if row < len(pairs) else pair.neutral


def _shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    if len(words) < 3:
        return frozenset([tuple(words)])
    return frozenset(tuple(words[i : i + 3]) for i in range(len(words) - 2))


def _shared(shingles: Sequence[frozenset[tuple[str, ...]]]) -> csr_matrix:
    """[n, n] number of 3-grams that two texts share."""
    index: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, own in enumerate(shingles):
        for shingle in own:
            rows.append(row)
            columns.append(index.setdefault(shingle, len(index)))
    data = np.ones(len(rows), dtype=np.int32)
    member = csr_matrix((data, (rows, columns)), shape=(len(shingles), len(index)))
    common = np.asarray(member.sum(axis=0)).ravel()
    member = member[:, common <= _MOST]
    return csr_matrix(member @ member.T)
