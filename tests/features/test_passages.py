"""Passages: as long as the battery, from many documents, sharing nothing with it."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.data.corpus import build_corpus, load_corpus
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery
from affectlens.features.passages import passages


def document(i: int, n_sentences: int = 12) -> str:
    names = "".join(chr(97 + int(c)) for c in str(i))
    lines = (chr(97 + j) * 3 for j in range(n_sentences))
    return " ".join(f"Word {names} stands once more in the line {j}." for j in lines)


CORPUS = build_corpus("made", [(f"d{i}", document(i)) for i in range(20)])
TEXTS = ["one two three four five six seven eight nine " * 2] * 3


def test_lengths_documents_and_ids() -> None:
    found = passages(CORPUS, TEXTS, 15, seed=0)
    assert len(found.texts) == len(set(found.ids)) == len(set(found.documents.tolist())) == 15
    assert {len(text.split()) for text in found.texts} == {18}
    for text, owner in zip(found.texts, found.documents, strict=True):
        assert text in CORPUS.documents[owner].text


def test_a_second_passage_only_after_a_first_from_every_document() -> None:
    found = passages(CORPUS, TEXTS, 50, seed=0)
    assert set(np.bincount(found.documents, minlength=20).tolist()) == {2, 3}
    assert len(set(found.texts)) == 50


def test_a_small_corpus_gives_what_it_has() -> None:
    found = passages(build_corpus("one", [("a", document(0))]), TEXTS, 100, seed=0)
    assert len(found.texts) == 6 and found.n_asked == 100


def test_seed_decides_and_repeats_are_left_out() -> None:
    a, b, c = (passages(CORPUS, TEXTS, 15, seed=s) for s in (0, 0, 1))
    assert a.texts == b.texts != c.texts
    twice = build_corpus("twice", [("a", document(0)), ("b", document(0))])
    found = passages(twice, TEXTS, 100, seed=0)
    assert len(found.texts) == len(set(found.texts)) and found.n_repeated > 0


def test_what_the_battery_holds_is_left_out() -> None:
    shared = CORPUS.documents[3].text.split(". ")[0] + "."
    found = passages(CORPUS, [*TEXTS, shared], 1000, seed=0)
    assert found.n_shared > 0
    assert not any(shared in text for text in found.texts)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(StimulusError, match=r"'short'.*longer documents"):
        passages(build_corpus("short", [("a", "Two words.")]), TEXTS, 10, seed=0)
    with pytest.raises(StimulusError, match="0 texts"):
        passages(CORPUS, [], 10, seed=0)


def test_the_embedded_corpus_and_battery() -> None:
    battery = load_battery("affectlens-vignettes")
    found = passages(load_corpus("default"), battery.pair_texts, 400, seed=0)
    assert len(found.texts) == len(set(found.documents.tolist())) == 400
    ours = np.mean([len(t.split()) for t in battery.pair_texts])
    theirs = np.mean([len(t.split()) for t in found.texts])
    assert abs(ours - theirs) < 0.15 * ours
