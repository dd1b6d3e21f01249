"""Grammatical person: pronouns, contractions, quotations, look-alikes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.person import grammatical_person


@pytest.mark.parametrize(
    "text",
    [
        "I closed the door.",
        "The bell rang and I'd gone.",
        "The bell rang and I\u2019m late.",
        "he told me nothing",
        "A friend of mine rang.",
        "The red one was mine.",
        "He left. Mine was the last cup.",
        "They took us home.",
        "We're late.",
        "Ours is the blue one.",
        'She asked, "Who?" and my answer came.',
        "i was tired",
        "MY DOG RAN",
    ],
)
def test_first_person(text):
    assert grammatical_person(text) == "first"


@pytest.mark.parametrize(
    "text",
    [
        "She closed the door.",
        '"I am late," she said.',
        "\u201cWe are late,\u201d she said, \u201cand my bag is gone.\u201d",
        'He called: "My hat!',
        "The coal mine closed in 1980, and a mine is no place for him.",
        "Mine workers left.",
        "The US sold it, i.e. gave it away.",
        "Meet him at the bus; thus his hour came.",
        "",
    ],
)
def test_third_person(text):
    assert grammatical_person(text) == "third"


@given(st.text(max_size=60).filter(lambda t: not set(t) & set('"\u201c\u201d\u201e')))
def test_quoting_a_text_takes_its_person_away(text):
    assert grammatical_person(f'She said "{text}" at last.') == "third"
    assert grammatical_person(f"{text} I {text}") == "first"
