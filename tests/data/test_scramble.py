"""Scrambling keeps the words and the pairs, and changes the order it says it changes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.scramble import GRAINS, scramble_text, scrambled, sentences
from affectlens.data.stimuli import load_battery

TEXT = 'She came home. "Who is there?" he asked. Nobody spoke! The tap ran on.'


@pytest.mark.parametrize("grain", GRAINS)
@given(text=st.text("ab .!?\"'", max_size=60), seed=st.integers(0, 99))
def test_words_are_kept(grain, text, seed):
    out = scramble_text(text, grain, np.random.default_rng(seed))
    assert Counter(out.split()) == Counter(text.split())


def test_sentences_keep_their_own_words():
    assert sentences(TEXT) == ["She came home.", '"Who is there?"', "he asked.", "Nobody spoke!",
                               "The tap ran on."]  # fmt: skip
    out = scramble_text(TEXT, "within_sentences", np.random.default_rng(0))
    assert out != TEXT
    place = 0
    for sentence in sentences(TEXT):
        n = len(sentence.split())
        assert Counter(out.split()[place : place + n]) == Counter(sentence.split())
        place += n
    whole = scramble_text(TEXT, "sentences", np.random.default_rng(1))
    assert sorted(sentences(whole)) == sorted(sentences(TEXT))
    assert whole != TEXT


def test_a_battery_keeps_its_pairs_and_depends_on_the_generator():
    made = load_battery().select(limit=6)
    one = scrambled(made, "words", np.random.default_rng(3))
    assert one.sha256 == scrambled(made, "words", np.random.default_rng(3)).sha256
    assert one.sha256 != scrambled(made, "words", np.random.default_rng(4)).sha256
    assert [p.id for p in one.pairs] == [p.id for p in made.pairs]
    assert one.name == "affectlens-vignettes~words"
    assert all(a.text != b.text for a, b in zip(one.items, made.items, strict=True))
    assert [i.word_count for i in one.items] == [i.word_count for i in made.items]


def test_unchanged_texts_are_counted_and_unknown_grains_refused():
    made = load_battery().select(limit=1)
    for text in ("One", "One."):
        assert scramble_text(text, "sentences", np.random.default_rng(0)) == text
    with pytest.raises(StimulusError, match="unknown grain 'letters'; allowed: words"):
        scrambled(made, "letters", np.random.default_rng(0))
