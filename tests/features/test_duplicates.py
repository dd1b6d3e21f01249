"""Near-duplicates: the overlap is that of word 3-gram sets; members of one pair do not count."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.stimuli import Pair, Stimulus
from affectlens.features._words import tokens
from affectlens.features.duplicates import near_duplicates


def made(texts):
    """Pairs from texts, two in a row; every second pair is of another cluster."""
    items = [
        Stimulus(f"i{k}", "grief", "peak", str(k // 2 % 2), "", None, len(t.split()), t, "clinical")
        for k, t in enumerate(texts)
    ]
    pairs = [Pair(a, b) for a, b in zip(items[::2], items[1::2], strict=True)]
    words = [tokens(p.clinical.text) for p in pairs] + [tokens(p.neutral.text) for p in pairs]
    return pairs, words


def shingles(text):
    ws = text.split()
    return {tuple(ws[i : i + 3]) for i in range(len(ws) - 2)} or {tuple(ws)}


def test_a_copy_is_found_and_a_twin_is_not():
    pairs, words = made(
        ["the cat sat on mats", "the cat sat on mats", "the cat sat on rugs", "x y"]
    )
    found = near_duplicates(pairs, words, 0.5)
    assert [(d.a, d.b, d.overlap, d.same_cluster) for d in found] == [("i0", "i2", 0.5, False)]


def test_many_copies_are_listed_once_each():
    pairs, words = made([f"same words in every text{' of' * (k % 2)}" for k in range(200)])
    found = near_duplicates(pairs, words, 0.9)
    assert len(found) == 198
    assert {d.overlap for d in found} == {1.0}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("abc ", max_size=14), min_size=4, max_size=12).filter(lambda v: not len(v) % 2)
)
def test_equal_to_comparing_all(texts):
    texts = [" ".join(t.split()) for t in texts]
    pairs, words = made(texts)
    found = {(d.a, d.b): d.overlap for d in near_duplicates(pairs, words, 0.3)}
    firsts = {}
    for row in [*range(0, len(texts), 2), *range(1, len(texts), 2)]:
        firsts.setdefault(texts[row], row)
    for a in firsts.values():
        for b in firsts.values():
            if a // 2 == b // 2:
                continue
            left, right = shingles(texts[a]), shingles(texts[b])
            overlap = len(left & right) / len(left | right)
            hit = found.get((f"i{a}", f"i{b}")) or found.get((f"i{b}", f"i{a}"))
            assert (hit is None) == (overlap < 0.3)
            if hit is not None:
                assert hit == pytest.approx(overlap)
