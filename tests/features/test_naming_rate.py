"""Naming: whole words only, whatever their case and script; words of the prompt do not count."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.taxonomy import EMOTION_WORDS, EMOTIONS
from affectlens.features.naming_rate import (
    ANY,
    named_words,
    names_emotion,
    naming_rate,
    naming_words,
    wilson,
)

LETTERS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=4)


def test_a_hand_counted_rate() -> None:
    texts = ["Her grief was plain.", "He wept for hours.", "The bus left.", "", "Griefs? None."]
    got = naming_rate(texts, "grief")
    assert (got.n, got.n_naming, got.n_blank) == (5, 3, 1)
    assert got.rate == float(got) == pytest.approx(0.6)
    assert dict(got.words) == {"grief": 1, "griefs": 1, "wept": 1}
    assert got.low < 0.6 < got.high


def test_words_of_the_prompt_do_not_count() -> None:
    prompts = ["She was angry.", "She was angry."]
    assert named_words(["Angry, so angry!", "Angry and furious."], "rage", prompts) == [
        (),
        ("furious",),
    ]
    assert names_emotion(["Angry!"], "rage").tolist() == [True]
    with pytest.raises(ConfigError, match="2 texts but 1 prompts"):
        named_words(["a", "b"], "rage", ["a"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ANGER", True),
        ("grief-stricken with anger-management", True),
        ("the anger's edge", True),
        ("the anger\u2019s edge", True),
        ("danger", False),
        ("angered", True),
        ("angerx", False),
        ("an\u00adger", True),  # soft hyphen
        ("\u202eanger\u202c", True),  # right-to-left override
        ("\uff41\uff4e\uff47\uff45\uff52", True),  # full-width letters
        ("an\x00ger", False),
        ("x\x00anger", True),
        ("an ger", False),
        ("5anger", True),
        ("anger_level", True),
    ],
)
def test_word_borders(text: str, names: bool) -> None:
    assert names_emotion([text], "rage").tolist() == [names]


@given(st.sampled_from(EMOTIONS), LETTERS, LETTERS, st.booleans())
def test_a_word_inside_a_word_is_none(emotion: str, left: str, right: str, upper: bool) -> None:
    word = EMOTION_WORDS[emotion][0]
    text = word.upper() if upper else word
    assert names_emotion([f"({text})"], emotion).all()
    inside = f"{left}{text}{right}"
    if inside.lower() not in naming_words(ANY):
        assert not names_emotion([inside], emotion).any()


@given(st.lists(st.text(max_size=40), max_size=6), st.sampled_from((*EMOTIONS, ANY)))
def test_any_text_is_counted(texts: list[str], emotion: str) -> None:
    got = naming_rate(texts, emotion)
    assert got.n == len(texts)
    assert 0 <= got.n_naming <= got.n - got.n_blank
    assert math.isnan(got.rate) == (not texts)
    assert names_emotion(texts, ANY).sum() >= got.n_naming
    assert not names_emotion(texts, emotion, texts).any()  # a prompt that holds every word


def test_no_form_belongs_to_two_emotions() -> None:
    for a, b in itertools.combinations(EMOTIONS, 2):
        assert not naming_words(a) & naming_words(b)
    for emotion in EMOTIONS:
        assert own_lexicon().words[emotion] <= naming_words(emotion) <= naming_words(ANY)
    assert {"joys", "ecstasies", "happier", "delightedly"} <= naming_words("ecstasy")


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from((0.8, 0.95, 0.99)))
def test_wilson_is_scipys(k: int, more: int, level: float) -> None:
    n = k + more
    low, high = wilson(k, n, level)
    if n == 0:
        assert (low, high) == (0.0, 1.0)
        return
    want = binomtest(k, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((want.low, want.high), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown emotion 'joyful'; allowed: rage"):
        naming_rate(["x"], "joyful")
    with pytest.raises(StimulusError, match="a list of texts"):
        naming_rate("one text", "rage")
    with pytest.raises(ConfigError, match="0 <= k <= n"):
        wilson(3, 2)


def test_a_huge_text_is_read_in_no_time() -> None:
    assert naming_rate(["fear " * 200_000], "terror").n_naming == 1
