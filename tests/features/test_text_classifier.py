"""The offline judge: what it is fitted to, what it must not see, and how honest its card is."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from affectlens.data.corpus import build_corpus, check_overlap
from affectlens.data.emotion_lexicon import EmotionLexicon
from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.stimuli import list_batteries, load_battery
from affectlens.data.taxonomy import EMOTIONS, NEUTRAL
from affectlens.features.classifier_check import calibration_error, confusion, share
from affectlens.features.classifier_texts import (
    SOUND_LABELS,
    Labelled,
    TrainingTexts,
    training_texts,
    training_windows,
)
from affectlens.features.incoherence import make_incoherent
from affectlens.features.naming_rate import names_emotion, wilson
from affectlens.features.text_classifier import TextClassifier, default_scorer
from affectlens.features.text_scoring import (
    INCOHERENT,
    SCORE_LABELS,
    LexiconScorer,
    MaskedScorer,
    TextScorer,
    mask_emotion_words,
    scorer_named,
)

HOSTILE = ["", " \n\t", "\x00\x00", "\u202e\u200f", "!!!???", "\ufffd" * 50, "a", "word " * 20_000,
           "\u05d0\u05d1\u05d2 \u4f60\u597d", "x" * 100_000, "grief\x00grief"]  # fmt: skip


@pytest.fixture(scope="module")
def scorer() -> TextClassifier:
    return default_scorer()


def column(name: str) -> int:
    return SCORE_LABELS.index(name)


def small(seed: int = 0, n_groups: int = 6) -> TrainingTexts:
    """A world in which each label has words of its own."""
    rng = np.random.default_rng(seed)
    common = ["the", "a", "of", "and", "it", "was", "that", "he", "she", "on", "in", "to", "with"]
    own = {label: [f"{label[:4]}{c}ing" for c in "abcdefgh"] for label in SOUND_LABELS}
    items = []
    for label in SOUND_LABELS:
        for group in range(n_groups):
            words = [str(rng.choice(own[label] if rng.random() < 0.4 else common))
                     for _ in range(40)]  # fmt: skip
            items.append(Labelled(" ".join(words), label, f"g{group}", "passages"))
    plain = tuple(" ".join(map(str, rng.choice(common, 30))) for _ in range(20))
    return TrainingTexts(tuple(items), plain, tuple(i.text for i in items[::2]) + plain, {})


def test_training_texts_share_nothing_with_pairs_and_their_retellings() -> None:
    given_ = training_texts()
    every = {
        "items": [i.text for i in given_.items], "plain": given_.plain, "form": given_.form,
    }  # fmt: skip
    made = build_corpus("training", [(f"{k}{i}", t) for k, v in every.items()
                                     for i, t in enumerate(v)])  # fmt: skip
    for info in list_batteries():
        if info.offline:
            items = load_battery(info.name).items
            searched = [i.text for i in items if i.split not in ("keyword_rich", "complex_neutral")]
            assert check_overlap(made, searched, n=8).n_texts == len(searched)


def test_what_the_package_gives_is_balanced_and_counted() -> None:
    given_ = training_texts()
    counts = Counter((i.source, i.label) for i in given_.items)
    assert {counts["keyword_rich", e] for e in EMOTIONS} == {10}
    assert min(counts["passages", label] for label in SOUND_LABELS) >= 40
    assert {label for source, label in counts if source == "corpus"} == {NEUTRAL}
    assert set(given_.items) and sum(given_.left_out.values()) > 0
    # No text that the measures of form are counted on is measured with them.
    assert not set(given_.form) & ({i.text for i in given_.items} | set(given_.plain))


def test_windows_keep_their_item_and_vary() -> None:
    items = training_texts().items
    rng = np.random.default_rng(1)
    made = training_windows(items, training_texts().plain, rng)
    again = training_windows(items, training_texts().plain, np.random.default_rng(1))
    assert made.texts == again.texts
    assert [SOUND_LABELS[k] for k in made.labels] == [items[i].label for i in made.item]
    counts = Counter(made.item.tolist())
    assert {counts[i] for i, x in enumerate(items) if x.source == "corpus"} == {1}
    assert {counts[i] for i, x in enumerate(items) if x.source != "corpus"} == {4}
    named = names_emotion([t for t, i in zip(made.texts, made.item)
                           if items[i].source == "keyword_rich"], "any")  # fmt: skip
    assert 0.3 < named.mean() < 0.75  # half of them masked
    assert all(made.texts)


def test_it_is_a_scorer_and_rows_are_shares(scorer: TextClassifier) -> None:
    assert isinstance(scorer, TextScorer)
    assert scorer.labels == SCORE_LABELS
    got = scorer.probabilities(["I was furious and hit the wall.", *HOSTILE])
    assert got.shape == (len(HOSTILE) + 1, len(SCORE_LABELS))
    np.testing.assert_allclose(got.sum(1), 1)
    assert (got >= 0).all()
    assert got[1:6, column(INCOHERENT)].tolist() == [1] * 5
    assert scorer.probabilities([]).shape == (0, len(SCORE_LABELS))
    assert scorer_named("default") is scorer


def test_a_text_is_scored_by_itself(scorer: TextClassifier) -> None:
    texts = [i.text for i in load_battery().items[:12]]
    together = scorer.probabilities(texts)
    alone = np.concatenate([scorer.probabilities([t]) for t in texts])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_plain_cases(scorer: TextClassifier) -> None:
    texts = {
        "rage": "He was furious. He slammed the door and shouted that he would make them pay.",
        "grief": "She wept at the funeral and could not believe that her mother was gone.",
        "terror": "I was terrified. Something scratched at the door in the dark and I hid.",
        "ecstasy": "We won! I was overjoyed, we danced and laughed and hugged everyone.",
        "loathing": "The rotten meat crawled with maggots; I gagged with disgust.",
        NEUTRAL: "The library opens at nine. Books are lent for four weeks at the front desk.",
    }
    best = scorer.probabilities(list(texts.values())).argmax(1)
    assert [SCORE_LABELS[k] for k in best] == list(texts)


def test_broken_text_is_broken_whatever_its_topic(scorer: TextClassifier) -> None:
    """The share called incoherent is the same for neutral and emotional sources."""
    items = load_battery().items
    rng = np.random.default_rng(4)
    for split in ("clinical", "complex_neutral", "keyword_rich"):
        texts = [i.text for i in items if i.split == split]
        broken = [b.text for b in make_incoherent(texts, 60, rng)]
        assert (scorer.probabilities(broken).argmax(1) == column(INCOHERENT)).mean() > 0.85
        assert (scorer.probabilities(texts).argmax(1) == column(INCOHERENT)).mean() < 0.1


def test_the_card_says_how_well_it_does(scorer: TextClassifier) -> None:
    card = scorer.card()
    assert json.loads(json.dumps(card)) == card
    facts = card["held_out"]
    table = np.array(facts["confusion"])
    assert facts["chance"] == 0.1
    assert facts["accuracy"]["n"] == table.sum()
    assert facts["accuracy"]["share"] == pytest.approx(table.trace() / table.sum())
    assert 0.6 < facts["accuracy"]["low"] < facts["accuracy"]["high"] < 0.95
    assert facts["recall"]["rage"] == pytest.approx(table[0, 0] / table[0].sum())
    assert facts["recall"][INCOHERENT] > 0.9
    assert facts["ece"] < 0.2
    views = facts["sound_texts"]
    # It lives by words, and says so: far worse without them, but not at chance.
    assert views["masked"]["share"] < views["whole"]["share"] - 0.1
    assert views["masked"]["low"] > 0.2
    assert views["passages that do not"]["low"] > 0.15
    assert views["passages that name the emotion"]["share"] > 0.8
    shown = str(scorer)
    assert f"all labels: {facts['accuracy']['share']:.3f} right" in shown
    assert f"masked: {views['masked']['share']:.3f} right" in shown
    assert "chance 0.10" in shown


def test_a_seed_gives_one_classifier() -> None:
    given_, texts = small(), [i.text for i in small(9).items]
    a, b, c = (TextClassifier(given_, seed) for seed in (3, 3, 4))
    assert (a.probabilities(texts) == b.probabilities(texts)).all()
    assert a.card() == b.card()
    assert (a.probabilities(texts) != c.probabilities(texts)).any()


def right(p: np.ndarray, items: tuple[Labelled, ...]) -> float:
    """Share of items whose likeliest label of sound text is their own."""
    return float(np.mean([SOUND_LABELS[k] == i.label for k, i in zip(p[:, :-1].argmax(1), items)]))


def test_it_learns_what_can_be_learnt_and_nothing_from_noise() -> None:
    given_ = small(n_groups=12)
    good = TextClassifier(given_, 0)
    assert right(good.held_out.views["whole"], given_.items) > 0.9
    fresh = small(17).items
    assert right(good.probabilities([i.text for i in fresh]), fresh) > 0.9
    # Labels dealt out at random: held-out texts are at chance, one in nine.
    order = np.random.default_rng(0).permutation(len(given_.items))
    mixed = tuple(
        Labelled(i.text, given_.items[k].label, i.group, i.source)
        for i, k in zip(given_.items, order)
    )
    noise = TextClassifier(TrainingTexts(mixed, given_.plain, given_.form, {}), 0)
    assert right(noise.held_out.views["whole"], mixed) < 0.35


def test_groups_are_held_out_whole() -> None:
    """A word that gives the label away within one group must not help on that group."""
    given_ = small()
    rng = np.random.default_rng(2)
    keys = ["".join(rng.choice(list("bcdfghjklm"), 9)) for _ in given_.items]
    told = tuple(
        Labelled("the of and " * 8 + f"{key} " * 5, i.label, i.group, i.source)
        for i, key in zip(given_.items, keys)
    )
    leaky = TextClassifier(TrainingTexts(told, given_.plain, given_.form, {}), 0)
    assert right(leaky.probabilities([i.text for i in told]), told) > 0.9
    assert right(leaky.held_out.views["whole"], told) < 0.35


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="'rage' has texts of 3 groups"):
        TextClassifier(small(n_groups=3))


def test_confusion_and_calibration_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.65, 0.35], [0.2, 0.8], [0.62, 0.38]])
    truth = np.array([0, 1, 1, 0])
    assert confusion(p, truth).tolist() == [[2, 0], [1, 1]]
    # Bins .9: |1 - .95|; .6: |1 - 1.27|; .8: |1 - .8|.
    assert calibration_error(p, truth) == pytest.approx((0.05 + 0.27 + 0.2) / 4)
    assert calibration_error(np.array([[1.0, 0.0]] * 3), np.zeros(3, dtype=int)) == 0
    facts = share(np.array([True, False, True, True]), ["a", "a", "b", "c"])
    assert (facts["share"], facts["n"], facts["n_groups"]) == (0.75, 4, 3)
    assert facts["low"] < 0.75 < facts["high"]
    assert share(np.array([], dtype=bool), [])["share"] is None


def test_masking_takes_out_words_and_only_these() -> None:
    assert mask_emotion_words("He was angry, so ANGRY!") == "He was, so!"
    assert mask_emotion_words("Grief-stricken, she left.") == "-stricken, she left."
    assert mask_emotion_words("Joy\u2019s end and an\u00adger") == "end and"
    for text in ("Therefore the danger grew.", "  two  spaces ", "", "\x00"):
        assert mask_emotion_words(text) == text
    assert mask_emotion_words("a b c", {"b"}) == "a c"


@settings(max_examples=60)
@given(st.text(max_size=80), st.sampled_from(("grief", "Fury", "the", "\u202eFEAR", "joy's")))
@example("so", "\u202eFEAR")
def test_nothing_that_names_is_left(text: str, word: str) -> None:
    masked = mask_emotion_words(f"{text} {word} {text}")
    words = re.findall(r"[^\W\d_]+", masked.lower())
    assert not {"grief", "fury", "fear", "joy"} & set(words)
    assert mask_emotion_words(masked) == masked


def test_a_masked_scorer_asks_about_masked_texts(scorer: TextClassifier) -> None:
    masked = MaskedScorer(scorer)
    assert isinstance(masked, TextScorer)
    texts = ["She was heartbroken at the grave.", "The bus left at nine.", "joy joy"]
    got = masked.probabilities(texts)
    want = scorer.probabilities(["She was at the grave.", "The bus left at nine.", ""])
    assert (got == want).all()
    assert got[2, column(INCOHERENT)] == 1
    assert masked.card()["n_masked_words"] > 500


def test_the_lexicon_scorer_by_hand() -> None:
    scorer = LexiconScorer()
    assert isinstance(scorer, TextScorer)
    got = scorer.probabilities(["He was angry and furious and a little sad about the house.",
                                "The train left at noon with nobody on it.",
                                "no no no no no no no no no no no no", ""])  # fmt: skip
    row = dict(zip(SCORE_LABELS, got[0], strict=True))
    assert (row["rage"], row["grief"], row[NEUTRAL]) == (0.5, 0.25, 0.25)
    assert got[1].argmax() == column(NEUTRAL)
    assert got[1].max() == 1
    assert got[2:, column(INCOHERENT)].tolist() == [1, 1]
    np.testing.assert_allclose(scorer.probabilities(HOSTILE).sum(1), 1)
    assert scorer.card()["fitted"] is False
    with pytest.raises(ConfigError, match="has no words for grief"):
        LexiconScorer(EmotionLexicon("mine", {"rage": frozenset({"mad"})}))


@pytest.mark.parametrize("bad", ["one text", [1], [None]])
def test_wrong_input_is_refused(scorer: TextClassifier, bad: list[str]) -> None:
    for one in (scorer, LexiconScorer(), MaskedScorer(scorer)):
        with pytest.raises(StimulusError, match="string"):
            one.probabilities(bad)


def test_vignettes_without_keywords_are_hard_but_not_at_chance(scorer: TextClassifier) -> None:
    """Never trained on; one in nine is chance, and close twins share their words."""
    items = [i for i in load_battery().items if i.split == "clinical"]
    p = scorer.probabilities([i.text for i in items])
    right = sum(SCORE_LABELS[k] == i.emotion for k, i in zip(p.argmax(1), items))
    assert wilson(right, len(items))[0] > 1 / 9
    lexicon = LexiconScorer().probabilities([i.text for i in items]).argmax(1)
    assert (lexicon == column(NEUTRAL)).mean() > 0.95  # naming alone finds nothing there


REAL = os.environ.get("AFFECTLENS_TEST_DATA")


@pytest.mark.skipif(
    REAL is None, reason="AFFECTLENS_TEST_DATA does not name a folder with the published batteries"
)
def test_published_texts_by_other_hands(scorer: TextClassifier) -> None:
    folder = Path(str(REAL)) / "affect-reception"
    rows = [json.loads(line) for line in (folder / "keyword_rich.jsonl").read_text().splitlines()]
    rich = [r for r in rows if r["emotion"] in EMOTIONS]
    p = scorer.probabilities([r["text"] for r in rich])
    right = sum(SCORE_LABELS[k] == r["emotion"] for k, r in zip(p.argmax(1), rich))
    assert wilson(right, len(rich))[0] > 0.6
    rows = [json.loads(line) for line in (folder / "pairs_d1_d2.jsonl").read_text().splitlines()]
    neutral = [r["text"] for r in rows if r["stimulus_set"] != "B_clinical"]
    alarms = (scorer.probabilities(neutral).argmax(1) < len(EMOTIONS)).sum()
    assert wilson(int(alarms), len(neutral))[1] < 0.3
