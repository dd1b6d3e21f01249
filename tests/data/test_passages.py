"""Passages: the embedded set keeps its rules and its balance; broken files are refused."""

import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import StimulusError
from affectlens.data.passages import PASSAGE_LABELS, Passages, load_passages
from affectlens.data.person import grammatical_person
from affectlens.data.taxonomy import EMOTIONS, NEUTRAL
from affectlens.features._words import tokens

ROW = {
    "id": "p1",
    "label": "rage",
    "names_it": False,
    "group": "kitchen",
    "text": "He threw the pan at the wall.",
}


def numbered(n, **changes):
    return {**ROW, "id": f"p{n}", "text": f"He threw {n} pans at the wall.", **changes}


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def embedded() -> Passages:
    return load_passages()


def test_counts(embedded):
    assert embedded.counts == {**dict.fromkeys(EMOTIONS, 50), NEUTRAL: 60}
    assert tuple(embedded.counts) == PASSAGE_LABELS
    assert embedded.licence == "CC-BY-4.0"
    assert embedded.warnings == ()
    assert len(set(embedded.texts)) == len(embedded.items) == 460


def test_every_setting_occurs_equally_often_under_every_emotion(embedded):
    cells = Counter((p.label, p.group, p.names_it) for p in embedded.items)
    settings_ = {p.group for p in embedded.items}
    assert len(settings_) == 25
    for emotion in EMOTIONS:
        for group in settings_:
            assert cells[emotion, group, True] == cells[emotion, group, False] == 1
    assert {cells[NEUTRAL, g, False] for g in settings_} == {2, 3}
    assert not any(p.names_it for p in embedded.items if p.label == NEUTRAL)


def test_half_name_the_emotion_and_no_other_word_of_emotion_stands_anywhere(embedded):
    lexicon = own_lexicon()
    for passage in embedded.items:
        found = set(lexicon.count(tokens(passage.text)))
        wanted = {passage.label} if passage.names_it else set()
        assert found == wanted, (passage.id, lexicon.hits(tokens(passage.text)))


def test_no_word_names_an_emotion_too_often(embedded):
    lexicon = own_lexicon()
    for emotion in EMOTIONS:
        named = [p for p in embedded.items if p.label == emotion and p.names_it]
        words = Counter(w for p in named for w in set(lexicon.hits(tokens(p.text))))
        assert len(words) >= 15, emotion
        assert max(words.values()) <= 4, (emotion, words.most_common(1))


def test_lengths_are_varied_and_balanced(embedded):
    means = []
    for label in PASSAGE_LABELS:
        sizes = [len(p.text.split()) for p in embedded.items if p.label == label]
        assert min(sizes) >= 25, label
        assert max(sizes) <= 50, label
        assert np.std(sizes) > 4, label
        means.append(np.mean(sizes))
    assert max(means) - min(means) < 3


def test_persons_are_mixed_under_every_label(embedded):
    for label in PASSAGE_LABELS:
        own = [grammatical_person(p.text) == "first" for p in embedded.items if p.label == label]
        assert 0.55 <= np.mean(own) <= 0.9, label


def test_no_run_of_six_words_is_shared_by_more_than_three(embedded):
    runs = defaultdict(set)
    for passage in embedded.items:
        words = tokens(passage.text)
        for start in range(len(words) - 5):
            runs[tuple(words[start : start + 6])].add(passage.id)
    assert max(len(ids) for ids in runs.values()) <= 3


def test_no_two_passages_are_near_duplicates(embedded):
    grams = [set(zip(w, w[1:], w[2:])) for w in map(tokens, embedded.texts)]
    holders = defaultdict(list)
    for index, three in enumerate(grams):
        for gram in three:
            holders[gram].append(index)
    shared = Counter(
        (a, b) for held in holders.values() for i, a in enumerate(held) for b in held[i + 1 :]
    )
    for (a, b), n in shared.items():
        jaccard = n / len(grams[a] | grams[b])
        assert jaccard < 0.1, (embedded.items[a].id, embedded.items[b].id, jaccard)


def test_openings_do_not_repeat(embedded):
    openings = Counter(tuple(tokens(t)[:3]) for t in embedded.texts)
    assert max(openings.values()) <= 4, openings.most_common(3)


def test_texts_are_plain_ascii_and_ids_say_the_label(embedded):
    for passage in embedded.items:
        assert passage.text.isascii()
        assert passage.text == " ".join(passage.text.split())
        assert passage.id.startswith(f"{passage.label}-")


def test_the_card_states_the_checksum(embedded):
    card = Path(__file__).parents[2] / "data/passages/affectlens-passages.md"
    assert f"`{embedded.sha256}`" in card.read_text(encoding="utf-8")


def test_hash_is_of_the_items_only(tmp_path):
    rows = [numbered(1), numbered(2, label="neutral")]
    one = load_passages(lines(tmp_path / "one.jsonl", rows))
    turned = [dict(reversed(r.items())) for r in rows]
    text = "\ufeff" + "\r\n".join(map(json.dumps, turned)) + "\r\n"
    (tmp_path / "two.jsonl").write_bytes(text.encode())
    two = load_passages(tmp_path / "two.jsonl")
    assert one.sha256 == two.sha256
    assert one.items == two.items
    assert one.counts == {"rage": 1, "neutral": 1}
    changed = lines(tmp_path / "three.jsonl", [numbered(1), numbered(2, label="grief")])
    assert load_passages(changed).sha256 != one.sha256


def test_fields_that_are_not_used_are_counted(tmp_path):
    path = lines(tmp_path / "a.jsonl", [numbered(1, author="x"), numbered(2, text=" Text. ")])
    found = load_passages(path)
    assert found.texts[1] == "Text."
    assert found.warnings == ("fields of passages that are not known were not used: 'author' (1)",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": ""}, "line 2: the field 'text' is missing or empty"),
        ({"text": "\n "}, "line 2: the field 'text' is blank"),
        ({"text": ["a"]}, r"line 2: 'text' must be a string, got \['a'\] \(list\)"),
        ({"group": None}, "line 2: the field 'group' is missing"),
        ({"label": "greif"}, "line 2: unknown label 'greif'; allowed: rage.*did you mean 'grief'"),
        ({"names_it": 1}, r"line 2: 'names_it' must be true or false, got 1 \(int\)"),
        ({"names_it": None}, "line 2: 'names_it' must be true or false, got None"),
        ({"label": "neutral", "names_it": True}, "a neutral passage has no emotion to name"),
        ({"text": "a\udfff"}, r"line 2: text: lone surrogate U\+DFFF at character 1"),
        ({"id": "\x00"}, "line 2: id: NUL at character 0"),
        ({"id": "p1"}, r"line 2: this id was used before \(.*line 1\)"),
        ({"text": "He threw 1 pans at the wall."}, "line 2: this text was used before"),
    ],
)
def test_broken_lines_are_named(tmp_path, changed, message):
    path = lines(tmp_path / "bad.jsonl", [numbered(1), numbered(2, **changed)])
    with pytest.raises(StimulusError, match=message):
        load_passages(path)


def test_names_suffixes_and_empty_files(tmp_path):
    with pytest.raises(StimulusError, match="did you mean 'affectlens-passages'"):
        load_passages("affectlens-passage")
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(StimulusError, match=r"passages are read from \.jsonl files only"):
        load_passages(path)
    with pytest.raises(StimulusError, match="has no passages; it needs at least one line"):
        load_passages(lines(tmp_path / "empty.jsonl", []))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(tuple(ROW)), VALUES | st.sampled_from(PASSAGE_LABELS)),
    max_size=4,
)


@given(rows=ROWS)
@settings(max_examples=80, deadline=None)
def test_any_json_is_read_or_refused(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = lines(Path(folder) / "any.jsonl", rows)
        try:
            found = load_passages(path)
        except StimulusError as error:
            str(error).encode()
            return
        assert len(found.items) == len(rows) == sum(found.counts.values())
        assert len(found.sha256) == 64


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20
).filter(str.strip)


@given(texts=st.lists(TEXTS, min_size=3, max_size=3), label=st.sampled_from(EMOTIONS))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(texts, label):
    written = {"id": texts[0], "text": texts[1], "group": texts[2], "label": label}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        text = json.dumps({**written, "names_it": True}, ensure_ascii=False)
        path.write_bytes((text + "\n").encode())
        (item,) = load_passages(path).items
    assert (item.id, item.text, item.group) == tuple(t.strip() for t in texts)
    assert (item.label, item.names_it) == (label, True)
