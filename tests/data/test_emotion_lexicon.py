"""Our own list is consistent; the reader of the NRC layout takes it and nothing else."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.emotion_lexicon import GENERAL, own_lexicon, read_nrc
from affectlens.data.errors import StimulusError
from affectlens.data.taxonomy import EMOTION_WORDS, EMOTIONS

LINES = "abacus\ttrust\t1\nabacus\tfear\t0\nabandon\tfear\t1\nabandon\tnegative\t1\n"


def test_own_list_is_disjoint_lower_case_and_holds_the_readout_words() -> None:
    lexicon = own_lexicon()
    assert lexicon.categories == (*EMOTIONS, GENERAL)
    assert all(len(categories) == 1 for categories in lexicon.index.values())
    assert all(word == word.lower() and word.isalpha() for word in lexicon.index)
    for emotion, words in EMOTION_WORDS.items():
        assert set(words) <= lexicon.words[emotion]
    assert len(lexicon.index) > 500


def test_hits_and_counts() -> None:
    lexicon = own_lexicon()
    tokens = ["she", "wept", "and", "raged", "and", "wept"]
    assert lexicon.hits(tokens) == ("wept", "raged")
    assert lexicon.count(tokens) == {"grief": 2, "rage": 1}


def test_nrc_layout(tmp_path: Path) -> None:
    path = tmp_path / "nrc.txt"
    path.write_text("A preface\nof two lines\n\n" + LINES, encoding="utf-8")
    lexicon = read_nrc(path)
    assert lexicon.words == {"trust": {"abacus"}, "fear": {"abandon"}, "negative": {"abandon"}}
    assert lexicon.count(["abandon", "x"]) == {"fear": 1, "negative": 1}
    assert lexicon.name == "NRC (nrc.txt)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES + "abate fear 1\n", "line 5: 'abate fear 1' is not word, category and 0 or 1"),
        ("nothing here\n", "holds no line of word, category and 1"),
        ("abacus\tfear\t0\n", "holds no line of word, category and 1"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "nrc.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StimulusError, match=message):
        read_nrc(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StimulusError, match="cannot be read"):
        read_nrc(tmp_path / "absent.txt")


@given(st.binary(max_size=80))
def test_any_bytes_end_in_a_lexicon_or_a_refusal(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("nrc") / "x.txt"
    path.write_bytes(data)
    with contextlib.suppress(StimulusError):
        assert read_nrc(path).categories
