"""Shared tokens against a slow definition, and the cases with nothing to share."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.features.design import PairDesign
from affectlens.features.encoding import TokenActivations
from affectlens.features.shared_tokens import shared_tokens

from .test_encoding import from_dense


def two(n_pairs: int = 1) -> PairDesign:
    """Pairs of items (0, 1), (2, 3) ..."""
    return PairDesign(
        np.arange(0, 2 * n_pairs, 2),
        np.arange(1, 2 * n_pairs, 2),
        tuple(f"p{i}" for i in range(n_pairs)),
        ("a",) * n_pairs,
        tuple(f"a/{i}" for i in range(n_pairs)),
        ("a",),
    )


def made(tokens: list[list[int]], values: np.ndarray, **more: object) -> TokenActivations:
    flat = np.array([t for row in tokens for t in row], dtype=np.int32)
    more = {"n_tail": 0, **more}
    return from_dense(values, [len(row) for row in tokens], tokens=flat, **more)  # type: ignore[arg-type]


def test_by_hand() -> None:
    # Types 7 and 8 are shared; 7 stands twice and three times, 8 once and once.
    tokens = [[7, 5, 7, 8], [7, 7, 7, 8, 6]]
    values = np.array([4, 100, 2, 10, 1, 1, 4, 5, 100], dtype=float)[:, None]
    found = shared_tokens(made(tokens, values), two(), [0])
    # 7: mean 3 against 2, weight 2; 8: 10 against 5, weight 1.
    np.testing.assert_allclose(found.differences, [[(2 * 1 + 1 * 5) / 3]])
    assert found.n_types.tolist() == [2] and found.n_tokens.tolist() == [3]


def test_masked_tokens_and_surroundings_are_not_read() -> None:
    tokens = [[7, 8, 9], [7, 8, 9]]
    values = np.array([9, 2, 50, 9, 1, 0], dtype=float)[:, None]
    keep = np.array([False, True, True] * 2)
    found = shared_tokens(made(tokens, values, keep=keep, n_tail=1), two(), [0])
    np.testing.assert_allclose(found.differences, [[1.0]])
    assert found.n_types.tolist() == [1]


def test_a_pair_without_shared_types_is_named() -> None:
    tokens = [[1, 2], [3, 4], [1, 2], [2, 1]]
    found = shared_tokens(made(tokens, np.ones((8, 2))), two(2), [1, 0])
    assert found.rows.tolist() == [1] and found.n_types.tolist() == [0, 2]
    assert np.array_equal(found.differences, np.zeros((2, 2)))


def test_equal_words_in_another_order_share_all_and_can_differ() -> None:
    tokens = [[1, 2, 3], [3, 2, 1]]
    values = np.array([0, 2, 2, 0, 0, 0], dtype=float)[:, None]
    found = shared_tokens(made(tokens, values), two(), [0])
    np.testing.assert_allclose(found.differences, [[4 / 3]])
    keyword = shared_tokens(
        made(tokens, np.array([0, 5, 0, 0, 5, 0], dtype=float)[:, None]), two(), [0]
    )
    np.testing.assert_allclose(keyword.differences, [[0.0]])


def slow(encoded: TokenActivations, design: PairDesign, latent: int) -> list[float]:
    dense = encoded.matrix().toarray()[:, latent]
    readable = encoded.content() & encoded.keep
    out = []
    for pair in zip(design.clinical, design.neutral, strict=True):
        by_type: list[dict[int, list[float]]] = [{}, {}]
        for member, item in enumerate(pair):
            for t in range(encoded.first[item], encoded.first[item + 1]):
                if readable[t]:
                    by_type[member].setdefault(int(encoded.tokens[t]), []).append(dense[t])
        top = bottom = 0.0
        for token in set(by_type[0]) & set(by_type[1]):
            a, b = by_type[0][token], by_type[1][token]
            top += min(len(a), len(b)) * (np.mean(a) - np.mean(b))
            bottom += min(len(a), len(b))
        out.append(top / bottom if bottom else 0.0)
    return out


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**40))
def test_equals_the_slow_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, 5, size=rng.integers(2, 9)).tolist() for _ in range(6)]
    n = sum(map(len, tokens))
    values = rng.normal(size=(n, 4)) * (rng.random((n, 4)) < 0.5)
    keep = rng.random(n) < 0.8
    encoded = made(tokens, values, keep=keep, n_tail=int(rng.integers(0, 2)))
    found = shared_tokens(encoded, two(3), [3, 0])
    for column, latent in enumerate((3, 0)):
        np.testing.assert_allclose(
            found.differences[:, column], slow(encoded, two(3), latent), atol=1e-6
        )
