"""The taxonomy: names, word sets, labels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.parrott import PARROTT_NAMES
from affectlens.data.taxonomy import (
    CROWD_ENVENT,
    EKMAN,
    EMOTION_WORDS,
    EMOTIONS,
    GOEMOTIONS,
    LABELS,
    NEUTRAL,
    SCHEMES,
    TARGETS,
    TAXONOMY,
    VALENCES,
    emotion,
    map_label,
    normalise_label,
    scheme_names,
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
        assert normalise_label(label) in (*LABELS, NEUTRAL)
    except StimulusError as error:
        assert "allowed" in str(error)


def test_valences_are_labels_but_no_emotions():
    assert LABELS == (*EMOTIONS, *VALENCES) == (*EMOTIONS, "positive", "negative")
    assert normalise_label(" Positive") == "positive"
    with pytest.raises(StimulusError, match=r"allowed: rage, .*, vigilance\. Correct"):
        emotion("positive")


def test_sizes_of_the_schemes():
    assert EKMAN == ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    assert len(GOEMOTIONS) == len(set(GOEMOTIONS)) == 28
    assert (GOEMOTIONS[0], GOEMOTIONS[9], GOEMOTIONS[27]) == (
        "admiration", "disappointment", NEUTRAL,
    )  # fmt: skip
    assert len(CROWD_ENVENT) == len(set(CROWD_ENVENT)) == 13
    assert {e.family for e in TAXONOMY.values()} == set(scheme_names("plutchik_family"))


def test_goemotions_follow_the_published_groups():
    groups = {g: [x for x in GOEMOTIONS if map_label(x, "goemotions", "ekman") == g] for g in EKMAN}
    assert {g: len(labels) for g, labels in groups.items()} == {
        "anger": 3, "disgust": 1, "fear": 2, "happiness": 12, "sadness": 5, "surprise": 4,
    }  # fmt: skip
    assert groups["surprise"] == ["confusion", "curiosity", "realization", "surprise"]
    assert groups["sadness"][0] == "disappointment"


@pytest.mark.parametrize(
    ("label", "scheme", "to", "found"),
    [
        ("joy", "ekman", "plutchik", "ecstasy"),
        ("Happiness ", "ekman", "plutchik_family", "joy"),
        ("joy", "ekman", "ekman", "happiness"),
        ("rage", "plutchik", "ekman", "anger"),
        ("admiration", "plutchik", "ekman", None),
        ("vigilance", "plutchik", "plutchik_family", "anticipation"),
        ("trust", "plutchik_family", "plutchik", "admiration"),
        ("anticipation", "plutchik_family", "ekman", None),
        ("revulsion", "parrott", "plutchik", "loathing"),
        ("revulsion", "parrott", "ekman", "disgust"),
        ("loathing", "parrott", "plutchik", "loathing"),
        ("fury", "parrott", "plutchik", "rage"),
        ("dread", "parrott", "ekman", "fear"),
        ("love", "parrott", "plutchik", None),
        ("triumph", "parrott", "plutchik", None),
        ("guilt", "parrott", "ekman", None),
        ("hate", "parrott", "plutchik", None),
        ("nervousness", "goemotions", "plutchik", "terror"),
        ("pride", "goemotions", "plutchik", None),
        ("pride", "goemotions", "ekman", "happiness"),
        ("trust", "crowd-envent", "plutchik", "admiration"),
        ("trust", "crowd-envent", "ekman", None),
        ("boredom", "crowd-envent", "plutchik", None),
        ("no-emotion", "crowd-envent", "plutchik", NEUTRAL),
        ("neutral", "goemotions", "ekman", NEUTRAL),
    ],
)
def test_counterparts(label, scheme, to, found):
    assert map_label(label, scheme, to) == found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("to", TARGETS)
def test_every_label_of_every_scheme_maps_into_the_target(scheme, to):
    for label in scheme_names(scheme):
        assert map_label(label, scheme, to) in (*scheme_names(to), NEUTRAL, None)
    assert all(map_label(x, scheme, scheme) == x for x in scheme_names(scheme))


def test_no_map_contradicts_the_readout_words():
    owner = {w: e for e, words in EMOTION_WORDS.items() for w in words}
    for scheme, names in (("parrott", PARROTT_NAMES), ("goemotions", GOEMOTIONS)):
        for label in names:
            found = map_label(label, scheme, "plutchik")
            assert found in (None, NEUTRAL, owner.get(label, found))


def test_unknown_schemes_labels_and_directions():
    with pytest.raises(StimulusError, match="unknown label scheme 'goemotion'; nearest: 'goemoti"):
        map_label("joy", "goemotion", "ekman")
    with pytest.raises(StimulusError, match="unknown label scheme 'big five'"):
        map_label("joy", "ekman", "big five")
    with pytest.raises(StimulusError, match="unknown label of ekman 'angr'; nearest: 'anger'"):
        map_label("angr", "ekman", "plutchik")
    with pytest.raises(StimulusError, match=r"nearest: 'melancholy'.*names below them, 135 in all"):
        map_label("melancoly", "parrott", "plutchik")
    with pytest.raises(StimulusError, match="'ekman' are not mapped to 'parrott'; allowed: plutc"):
        map_label("joy", "ekman", "parrott")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20), st.sampled_from(SCHEMES), st.sampled_from(SCHEMES))
def test_any_label_maps_or_is_refused(label, scheme, to):
    try:
        found = map_label(label, scheme, to)
    except StimulusError as error:
        assert "allowed" in str(error)
    else:
        assert found is None or found in (*scheme_names(to), NEUTRAL)
