"""Words of a readout: names and files, what is refused, tokens after a template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.taxonomy import CALM_WORDS, EKMAN, EMOTION_WORDS, TAXONOMY
from affectlens.data.tiny import tiny_model
from affectlens.features.readout_words import Labels, check_words, emotion_words, find_labels

GOOD = {"joy": ("glad", "merry", "happy"), "fear": ("afraid", "scared", "panic")}


def with_tokenizer(tokenizer: Tokenizer, unknown: str | None = None) -> LanguageModel:
    tiny = tiny_model("llama", n_layers=1, d_model=8)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown)
    return LanguageModel(tiny.name, tiny.model, fast, tiny.source)


def characters(*merges: tuple[str, str]) -> BPE:
    letters = "abcdefghijklmnopqrstuvwxyzIS. :\u2581"
    vocab = {piece: k for k, piece in enumerate([*letters, *("".join(m) for m in merges)])}
    return BPE(vocab=vocab, merges=list(merges))


def ids(lm: LanguageModel, *pieces: str) -> tuple[int, ...]:
    return tuple(lm.tokenizer.convert_tokens_to_ids(list(pieces)))


def tokens_of(labels: Labels, word: str) -> tuple[tuple[int, ...], ...]:
    return next(label.ids for label in labels.kept if label.word == word)


def test_plutchik_is_the_default_set() -> None:
    words = emotion_words("plutchik")
    assert tuple(words) == (*TAXONOMY, "calm")
    assert words["rage"] == EMOTION_WORDS["rage"]
    assert words["calm"] == CALM_WORDS


def test_ekman_joins_the_words_of_the_peaks() -> None:
    words = emotion_words("ekman")
    assert tuple(words) == (*EKMAN, "calm")
    assert "happiness" in words["happiness"]
    for name in EKMAN:
        peaks = [e for e in TAXONOMY.values() if e.ekman == name]
        assert set(words[name]) == {w for e in peaks for w in e.words}
    assert not {"trust", "alert"} & {w for group in words.values() for w in group}


def test_calm_stands_last_and_is_optional() -> None:
    assert tuple(check_words({"calm": ("a", "b", "c"), **GOOD})) == ("joy", "fear", "calm")
    assert tuple(emotion_words(GOOD)) == ("joy", "fear")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"words{suffix}"
    path.write_text("\ufeff" + json.dumps({**GOOD, "calm": ["a", "b", "c"]}), encoding="utf-8")
    assert emotion_words(path) == {**GOOD, "calm": ("a", "b", "c")}
    assert emotion_words(str(path)) == emotion_words(path)


def test_block_yaml(tmp_path: Path) -> None:
    path = tmp_path / "words.yml"
    path.write_text("joy: [glad, merry, happy]\nfreude:\n  - heiter\n  - fröhlich\n  - froh\n")
    assert emotion_words(path)["freude"] == ("heiter", "fröhlich", "froh")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.yaml", "joy: [glad, merry, happy]\njoy: [a, b, c]", "'joy' stands twice"),
        ("a.json", '{"joy": ["a", "b", "c"], "joy": ["d"]}', "'joy' stands twice"),
        ("a.yaml", "joy: [yes, no, happy]\nfear: [a, b, c]", "bool.*in quotes"),
        ("a.yaml", "joy: glad\nfear: [a, b, c]", "'joy' are a str"),
        ("a.yaml", "- joy\n- fear", "holds a list"),
        ("a.yaml", "", "holds a NoneType"),
        ("a.yaml", "joy: [", "cannot be read"),
        ("a.yaml", "!!python/object/apply:os.system [ls]", "cannot be read"),
        ("a.yaml", "? [a, b]\n: [a, b, c]", "cannot be read"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.yaml", "[" * 1_500, "cannot be read"),
        ("a.yaml", "joy: {deep: [a, b, c]}\nfear: [a, b, c]", "'joy' are a dict"),
        ("a.yaml", "x: &x [a, b, c]\ny: [*x, *x, *x]", "is a list, not text"),
        ("a.yaml", "x" * 1_000_001, "1,000,001 bytes"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, match: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=match):
        emotion_words(path)


def test_other_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'plutchik', 'ekman'"):
        emotion_words("plutchick")
    with pytest.raises(ConfigError, match="allowed are"):
        emotion_words(tmp_path)
    for name in ("a" * 100_000, "a\0b", ""):
        with pytest.raises(ConfigError, match="allowed are"):
            emotion_words(name)
    binary = tmp_path / "a.yaml"
    binary.write_bytes(b"\xff\xfe\x00joy")
    with pytest.raises(ConfigError, match="cannot be read"):
        emotion_words(binary)


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (" sad", "blanks"),
        ("sad ", "blanks"),
        ("let  down", "blanks"),
        ("let\tdown", "control"),
        ("sad\n", "control"),
        ("sad\x00", "control"),
        ("sad\u200b", "control"),
        ("\u202esad", "control"),
        ("\ud800", "control"),
        ("no\u00a0break", "blanks"),
        ("a" * 65, "65 characters"),
        ("a" * 1_000_000, "1,000,000 characters"),
        (3, "int, not text"),
        (None, "NoneType, not text"),
        ("glad", "twice in 'joy'"),
        ("Glad", "twice in 'joy'"),
        ("panic", "'joy' and 'fear'"),
        ("PANIC", "'joy' and 'fear'"),
    ],
)
def test_hostile_words(word: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        check_words({"joy": (*GOOD["joy"], word), "fear": GOOD["fear"]})
    assert len(str(caught.value)) < 400


def test_one_word_in_two_normal_forms_is_one_word() -> None:
    with pytest.raises(ConfigError, match="'joy' and 'fear'"):
        check_words(
            {"joy": ("\u00e9lan", "glad", "merry"), "fear": ("e\u0301lan", "afraid", "panic")}
        )


def test_words_of_other_scripts_are_taken() -> None:
    words = {"joy": ("喜び", "радость", "سعادة"), "fear": ("می\u200cترسم", "страх", "भय")}
    assert check_words(words) == words


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({}, "at least two emotions.*none"),
        ({"joy": GOOD["joy"]}, "at least two emotions.*joy"),
        ({"joy": GOOD["joy"], "calm": GOOD["fear"]}, "at least two emotions"),
        ({**GOOD, "grief": ()}, "'grief' has 0 readout words; at least 3"),
        ({**GOOD, "grief": ("a", "b")}, "'grief' has 2 readout words; at least 3"),
        ({**GOOD, "all": ("a", "b", "c")}, "another column"),
        ({**GOOD, "valence": ("a", "b", "c")}, "another column"),
        ({**GOOD, " ": ("a", "b", "c")}, "name of an emotion is empty"),
        ({**GOOD, 3: ("a", "b", "c")}, "name of an emotion is a int"),
    ],
)
def test_word_sets_that_cannot_be_used(words: dict[str, Sequence[str]], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check_words(words)


def test_split_words_are_dropped_or_scored() -> None:
    lm = tiny_model("llama", words=("glad", "merry", "happy", "afraid", "scared", "panic"))
    words = {"joy": (*GOOD["joy"], "gay"), "fear": GOOD["fear"]}
    dropped = find_labels(lm, words, ("It is:",), "drop")
    assert dropped.groups == GOOD
    assert dropped.dropped == {"joy": {"gay": "split"}, "fear": {}}
    scored = find_labels(lm, words, ("It is:",), "score")
    assert scored.dropped == {"joy": {}, "fear": {}}
    assert tokens_of(scored, "gay") == (tuple(lm.tokenizer.encode(" gay")),)
    assert len(tokens_of(scored, "gay")[0]) == 4
    with pytest.raises(ConfigError, match="'cut' is unknown; allowed: 'drop', 'score'"):
        find_labels(lm, words, ("It is:",), "cut")  # type: ignore[arg-type]


def test_too_few_words_say_what_to_do() -> None:
    lm = tiny_model("llama", words=GOOD["joy"])
    with pytest.raises(ConfigError, match=r"'fear' keeps 0 of 3.*split='score' or give other"):
        find_labels(lm, GOOD, ("It is",), "drop")
    assert find_labels(lm, GOOD, ("It is",), "score").groups == GOOD
    two = {"joy": GOOD["joy"], "fear": ("f", "fe", "fea", "g")}
    with pytest.raises(ConfigError, match=r"keeps 2 of 4.*2 part of another.*: give other words"):
        find_labels(lm, two, ("It is",), "score")


def test_an_added_token_is_found_after_a_letter() -> None:
    lm = tiny_model("llama", words=[w for words in GOOD.values() for w in words])
    for template in ("It is", "It is:"):
        labels = find_labels(lm, GOOD, (template,), "drop")
        assert tokens_of(labels, "glad") == (tuple(lm.tokenizer.encode(" glad")),)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_tokenizers_that_mark_words(scheme: str) -> None:
    """The mark before the first word of a text is not read as part of a later word."""
    tokenizer = Tokenizer(characters(("g", "l"), ("gl", "a"), ("gla", "d"), ("\u2581", "glad")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    lm = with_tokenizer(tokenizer)
    labels = find_labels(lm, {"x": ("glad", "sad", "mad")}, ("so it is",), "score")
    assert tokens_of(labels, "glad") == (ids(lm, "\u2581glad"),)
    assert tokens_of(labels, "sad") == (ids(lm, "\u2581", "s", "a", "d"),)


def test_tokenizers_that_drop_blanks() -> None:
    vocab = {w: k for k, w in enumerate(["it", "was", "late", ".", "so", "glad", "sad", "mad"])}
    tokenizer = Tokenizer(WordLevel({**vocab, "It": 8, "<unk>": 9}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    lm = with_tokenizer(tokenizer, "<unk>")
    labels = find_labels(lm, {"x": ("glad", "sad", "mad", "odd")}, ("so it was",), "drop")
    assert tokens_of(labels, "glad") == ((vocab["glad"],),)
    assert labels.dropped == {"x": {"odd": "unknown"}}


def test_words_that_the_tokenizer_joins_with_the_template_are_left_out() -> None:
    lm = with_tokenizer(Tokenizer(characters((" ", "g"), ("s", " g"))))
    words = {"x": ("sad", "mad", "bad", "glad")}
    labels = find_labels(lm, words, ("so it is",), "score")
    assert labels.dropped == {"x": {"glad": "joined"}}
    assert find_labels(lm, words, ("so it was a",), "score").dropped == {"x": {}}


def test_a_word_within_another_of_its_emotion_is_absorbed() -> None:
    lm = tiny_model("gpt2")
    words = {"fear": ("fearful", "fear", "dread", "panic", "panicky"), "joy": GOOD["joy"]}
    labels = find_labels(lm, words, (" So",), "score")
    assert labels.groups["fear"] == ("fear", "dread", "panic")
    assert labels.absorbed == {"fear": ("fearful", "panicky"), "joy": ()}


def test_a_word_within_one_of_another_emotion_is_refused() -> None:
    lm = tiny_model("gpt2")
    words = {"fear": ("fear", "dread", "panic"), "joy": ("fearless", "glad", "merry")}
    with pytest.raises(ConfigError, match=r"'fearless' \('joy'\) as 'fear' \('fear'\)"):
        find_labels(lm, words, (" So",), "score")


def test_words_that_the_tokenizer_writes_alike_are_one() -> None:
    tokenizer = Tokenizer(characters())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    lm = with_tokenizer(tokenizer)
    one = {"a": ("gai", "ga\u00ef", "mad", "bad"), "b": ("sad", "man", "set")}
    labels = find_labels(lm, one, ("so it is",), "score")
    assert len(labels.groups["a"]) == 3
    assert len(labels.absorbed["a"]) == 1
    two = {"a": ("gai", "mad", "bad"), "b": ("ga\u00ef", "man", "set")}
    with pytest.raises(ConfigError, match="leave one out"):
        find_labels(lm, two, ("so it is",), "score")


@pytest.mark.parametrize("word", ["<eos>", "<pad>", "a<eos>b"])
def test_special_tokens_are_no_words(word: str) -> None:
    lm = tiny_model("llama")
    with pytest.raises(ConfigError, match="special token"):
        find_labels(lm, {"x": ("sad", "mad", word)}, (" So",), "score")
