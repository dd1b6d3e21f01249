"""The taxonomy: names, word sets, labels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.taxonomy import (
    EMOTION_WORDS,
    EMOTIONS,
    NEUTRAL,
    TAXONOMY,
    emotion,
    normalise_label,
)


def test_eight_peaks_in_the_published_order():
    assert EMOTIONS == (
        "rage", "grief", "terror", "ecstasy", "loathing", "amazement", "admiration", "vigilance",
    )  # fmt: skip


def test_opposites_are_mutual_and_across():
    for entry in TAXONOMY.values():
        assert TAXONOMY[entry.opposite].opposite == entry.name != entry.opposite


def test_word_sets_are_large_lower_case_single_and_disjoint():
    everything = [w for words in EMOTION_WORDS.values() for w in words]
    assert min(map(len, EMOTION_WORDS.values())) >= 12
    assert len(everything) == len(set(everything))
    assert all(w.isalpha() and w == w.lower() for w in everything)
    assert {"grief", "sadness", "sorrow", "mourning", "loss"} <= set(EMOTION_WORDS["grief"])


def test_signs_are_coarse():
    assert {e.valence for e in TAXONOMY.values()} == {-1, 0, 1}
    assert {e.arousal for e in TAXONOMY.values()} == {-1, 0, 1}


def test_the_mappings_cannot_be_changed():
    with pytest.raises(TypeError):
        EMOTION_WORDS["rage"] = ()  # type: ignore[index]


@pytest.mark.parametrize(
    ("label", "near"),
    [("greif", "grief"), ("joy", "ecstasy"), ("sadness", "grief"), ("anger", "rage")],
)
def test_unknown_label_names_the_nearest_and_is_not_mapped(label, near):
    with pytest.raises(StimulusError, match=f"nearest: '{near}'"):
        normalise_label(label)
    with pytest.raises(StimulusError, match="allowed: rage, grief"):
        emotion(label)


def test_declared_aliases_only():
    assert normalise_label(" Joy ", {"joy": "Ecstasy"}) == "ecstasy"
    assert normalise_label("no_emotion") == NEUTRAL
    with pytest.raises(StimulusError):
        normalise_label("joy", {"anger": "rage"})


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_any_label_is_a_known_name_or_an_error(label):
    try:
        assert normalise_label(label) in (*EMOTIONS, NEUTRAL)
    except StimulusError as error:
        assert "allowed" in str(error)
