"""Parrott's tree: its size, and the way down to a name."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.parrott import PARROTT, PARROTT_NAMES, parrott_below, parrott_path

LEAVES = [leaf for below in PARROTT.values() for leaves in below.values() for leaf in leaves]


def test_the_tree_holds_the_135_names_of_the_source():
    assert tuple(PARROTT) == ("love", "joy", "surprise", "anger", "sadness", "fear")
    assert [len(below) for below in PARROTT.values()] == [3, 7, 1, 6, 6, 2]
    assert len(LEAVES) == len(set(LEAVES)) == 135
    assert Counter(PARROTT_NAMES).most_common(1)[0][1] == 1
    assert set(PARROTT_NAMES) == set(LEAVES)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("revulsion", ("anger", "disgust", "revulsion")),
        ("anger", ("anger",)),
        ("Rage ", ("anger", "rage")),
        ("sadness", ("sadness",)),
        ("surprise", ("surprise",)),
        ("disgust", ("anger", "disgust")),
        ("longing", ("love", "longing")),
        ("dread", ("fear", "nervousness", "dread")),
    ],
)
def test_the_highest_tier_gives_the_path(name, path):
    assert parrott_path(name) == path


def test_names_below():
    assert parrott_below("fear") == ("horror", "nervousness")
    assert parrott_below("disgust") == ("disgust", "revulsion", "contempt")
    assert parrott_below("dread") == ()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(StimulusError, match="no emotion 'revulsoin'; nearest: 'revulsion'; its pr"):
        parrott_path("revulsoin")


def test_the_tree_cannot_be_changed():
    with pytest.raises(TypeError):
        PARROTT["anger"]["rage"] = ()  # type: ignore[index]


@given(st.sampled_from(PARROTT_NAMES))
def test_every_path_leads_down_the_tree(name):
    path = parrott_path(name)
    assert path[-1] == name
    assert path[0] in PARROTT
    assert len(path) < 2 or path[1] in PARROTT[path[0]]
    assert len(path) < 3 or path[2] in PARROTT[path[0]][path[1]]
