"""The defence card: its numbers against VADER, SciPy and hand counts; classifier and readout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, wilcoxon
from transformers import BertConfig, BertForSequenceClassification
from vader import SentimentIntensityAnalyzer, polarity_scores

from affectlens.data.emotion_lexicon import own_lexicon, read_nrc
from affectlens.data.errors import ArtifactError, ConfigError, ModelError, StimulusError
from affectlens.data.stimuli import Battery, Stimulus, load_battery, make_battery
from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS, EMOTIONS
from affectlens.data.tiny import byte_tokenizer, tiny_model
from affectlens.features._words import tokens
from affectlens.features.classification_models import emotion_of
from affectlens.features.defence import DefenceConfig, defend
from affectlens.features.defence_card import (
    NOT_TRAINED,
    OWN_LIST_NOTE,
    PUBLISHED,
    DefenceCard,
)
from affectlens.features.defence_classifier import load_classifier
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.readout_check import check_readout
from affectlens.features.stats import cluster_totals, d_z, holm, sign_flip

LABELS = ("anger", "disgust", "fear", "joy", "Neutral", "sadness", "surprise")
FAST = DefenceConfig(n_permutations=200)


def item(kind: str, key: str, emotion: str, domain: str, text: str) -> Stimulus:
    split = {"V": "clinical", "N": "neutral", "M": "moderate", "C": "complex_neutral"}[kind]
    return Stimulus(
        f"{kind}-{key}", emotion, "none", domain, "", f"N-{key}" if kind == "V" else None,
        len(text.split()), text, split,  # type: ignore[arg-type]
    )  # fmt: skip


def battery(n_domains: int = 3) -> Battery:
    """Grief pairs with a sad word on one side, admiration pairs without one, two single items."""
    items = []
    for domain in map(str, range(n_domains)):
        for emotion, word in (("grief", "funeral tragic sorrow"), ("admiration", "stone")):
            key = f"{emotion}-{domain}"
            items.append(item("V", key, emotion, domain, f"The {word} was by the river {domain}."))
            items.append(
                item("N", key, emotion, domain, f"The cart was by the nice mill {domain}.")
            )
    items.append(item("M", "1", "grief", "1", "A lonely dog waited at the gate."))
    items.append(item("C", "1", "neutral", "", "Turn the valve to the left and wait."))
    return make_battery("made", items, "test")


def save_classifier(
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    bias: tuple[float, ...] | None = None,
    problem: str | None = None,
    positions: int = 1024,
) -> Path:
    """A random two-layer BERT; with `bias` its logits are these numbers, whatever the text."""
    config = BertConfig(
        vocab_size=258, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions, pad_token_id=256,
        id2label=dict(enumerate(labels)), label2id={n: k for k, n in enumerate(labels)},
        problem_type=problem,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    if bias is not None:
        model.classifier.weight.data.zero_()
        model.classifier.bias.data = torch.tensor(bias)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_valence_is_vader_and_its_tests_are_scipys():
    made = load_battery().select(limit=24)
    card = defend(made, config=FAST)
    clinical = np.array([polarity_scores(p.clinical.text)["compound"] for p in made.pairs])
    neutral = np.array([polarity_scores(p.neutral.text)["compound"] for p in made.pairs])
    row = card.row("valence", "compound", "clinical")
    assert (row.n, row.median) == (24, float(np.median(clinical)))
    assert row.mean_abs == pytest.approx(np.abs(clinical).mean())
    assert card.row("valence", "strength", "clinical").mean == row.mean_abs
    lexicon = SentimentIntensityAnalyzer().lexicon
    hits = sum(w in lexicon for p in made.pairs for w in tokens(p.neutral.text))
    assert card.row("valence", "hits", "neutral").total == hits
    test = card.test("valence", "compound")
    unpaired = mannwhitneyu(clinical, neutral, alternative="two-sided")
    assert (test.mwu_u, test.mwu_p) == (unpaired.statistic, unpaired.pvalue)
    assert test.p_wilcoxon == wilcoxon(clinical - neutral).pvalue
    difference = clinical - neutral
    assert test.d_z == float(d_z(difference))
    assert test.p_pairs == sign_flip(difference, 200, 0).p[0]
    whole = cluster_totals(difference, [p.cluster for p in made.pairs])
    assert test.p_clusters == sign_flip(whole, 200, 0).p[0]
    assert (test.n_pairs, test.n_clusters) == (24, len(made.clusters))


def test_emotion_lexicon_rates_are_counts_over_words(tmp_path):
    made = battery()
    nrc = tmp_path / "nrc.txt"
    nrc.write_text(
        "tragic\tsadness\t1\ntragic\tfear\t1\ntragic\tnegative\t1\nnice\tpositive\t1\n"
        "nice\tjoy\t0\nstone\tnegative\t1\n"
    )
    card = defend(made, nrc=read_nrc(nrc), config=FAST)
    words = [tokens(p.clinical.text) for p in made.pairs]
    own = np.mean([sum(w in own_lexicon().index for w in ws) / len(ws) for ws in words])
    assert card.row("lexicon_own", "emotion_rate", "clinical").mean == pytest.approx(own)
    # A word of two emotions counts once, and 'positive' is no emotion.
    rates = [ws.count("tragic") / len(ws) for ws in words]
    assert card.row("lexicon_nrc", "emotion_rate", "clinical").mean == pytest.approx(np.mean(rates))
    assert card.row("lexicon_nrc", "emotion_rate", "neutral").mean == 0
    negative = [(ws.count("tragic") + ws.count("stone")) / len(ws) for ws in words]
    found = card.row("lexicon_nrc", "negative_rate", "clinical")
    assert found.mean == pytest.approx(np.mean(negative))
    assert card.row("lexicon_own", "emotion_rate", "moderate").n == 1
    with pytest.raises(KeyError, match="lexicon_own/emotion_rate/neutral"):
        card.row("lexicon_own", "negative_rate", "neutral")


def test_measures_without_any_difference_have_p_one():
    card = defend(load_battery().select(limit=8), config=FAST)
    test = card.test("lexicon_own", "emotion_rate")
    assert (test.mwu_p, test.p_wilcoxon, test.p_pairs, test.d_z) == (1, 1, 1, None)
    assert test.share_higher == 0.5


def test_classifier_probabilities_and_categories(tmp_path):
    logits = (0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0)
    made = battery()
    card = defend(
        made,
        classifier=load_classifier(str(save_classifier(tmp_path, bias=logits))),
        config=FAST,
    )
    p_neutral = np.exp(1) / np.exp(logits).sum()
    for split in ("clinical", "neutral", "moderate", "complex_neutral"):
        row = card.row("classifier", "p_emotional", split)
        assert row.mean == pytest.approx(1 - p_neutral, abs=1e-6)
    # It says sadness to everything: right for grief, and admiration has no label at all.
    assert card.row("classifier", "top1", "clinical").mean == 0.5
    assert card.row("classifier", "top1_covered", "clinical").mean == 1
    assert card.row("classifier", "top1_covered", "clinical").n == 3
    assert "classifier/top1/complex_neutral" not in str(card.rows)
    assert card.model == ""
    notes = "\n".join(card.notes)
    assert "sadness as grief" in notes
    assert "No label stands for admiration" in notes
    holms = {t.group: t.p_holm for t in card.tests if t.measure == "p_emotional"}
    assert holms == {"all": None, "grief": 1.0, "admiration": 1.0}


def test_random_classifier_is_paired_and_batch_size_does_not_matter(tmp_path):
    classifier = load_classifier(str(save_classifier(tmp_path)))
    made = battery()
    texts = [i.text for i in made.items]
    one, all_ = classifier.probabilities(texts, 1), classifier.probabilities(texts, 64)
    assert np.allclose(one, all_, atol=1e-6)
    assert np.allclose(one.sum(axis=1), 1)
    card = defend(made, classifier=classifier, config=FAST)
    p = dict(zip([i.id for i in made.items], 1 - all_[:, 4], strict=True))
    difference = [p[x.clinical.id] - p[x.neutral.id] for x in made.pairs]
    test = card.test("classifier", "p_emotional")
    assert test.p_wilcoxon == pytest.approx(wilcoxon(difference).pvalue)
    assert test.mean_diff == pytest.approx(np.mean(difference))
    own = [card.test("classifier", "p_emotional", e) for e in ("grief", "admiration")]
    assert [t.p_holm for t in own] == pytest.approx(list(holm([t.p_pairs for t in own])))


def test_independent_labels_use_the_sigmoid(tmp_path):
    folder = save_classifier(
        tmp_path, ("neutral", "joy"), (0.0, 0.0), problem="multi_label_classification"
    )
    assert np.allclose(load_classifier(str(folder)).probabilities(["A text."]), 0.5)


def test_a_classifier_needs_a_neutral_label(tmp_path):
    folder = save_classifier(tmp_path, ("anger", "calm", "joy"), (0.0, 3.0, 0.0))
    with pytest.raises(ConfigError, match=r"no label 'neutral'; its labels: anger, calm, joy"):
        load_classifier(str(folder))
    with pytest.raises(ConfigError, match="no label 'none'"):
        load_classifier(str(folder), neutral_label="none")
    assert load_classifier(str(folder), neutral_label="CALM").neutral == 1


def test_only_whole_safetensors_classifiers_are_read(tmp_path):
    folder = save_classifier(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors file"):
        load_classifier(str(folder))
    with pytest.raises(ModelError, match="no classifier folder"):
        load_classifier("./absent")
    lm = tiny_model("gpt2")
    lm.model.save_pretrained(tmp_path / "b")
    byte_tokenizer().save_pretrained(tmp_path / "b")
    with pytest.raises(ModelError, match=r"weights are missing .* would be random"):
        load_classifier(str(tmp_path / "b"))
    broken = save_classifier(tmp_path / "c")
    (broken / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="could not be read"):
        load_classifier(str(broken))


def test_nothing_is_cut(tmp_path):
    classifier = load_classifier(str(save_classifier(tmp_path, positions=20)))
    with pytest.raises(StimulusError, match=r"has 26 tokens, but .* reads 20"):
        classifier.probabilities(["x" * 26])


def test_labels_stand_for_emotions_by_family_ekman_and_words():
    expected = {
        "anger": "rage", "Joy": "ecstasy", "happiness": "ecstasy", "sadness": "grief",
        "admiration": "admiration", "trust": "admiration", "fear": "terror", "sad": "grief",
        "surprise": "amazement",
        "disgust": "loathing", "anticipation": "vigilance", "love": None, "LABEL_0": None,
        "no-emotion": None,
    }  # fmt: skip
    assert {label: emotion_of(label) for label in expected} == expected


def test_offline_readout_is_the_readout_check():
    made = load_battery().select(limit=16)
    words = [w for ws in (*EMOTION_WORDS.values(), CALM_WORDS) for w in ws]
    lm = tiny_model("llama", words=words)
    card = defend(made, lm=lm, config=FAST)
    plain = {"measures": {"calibrate": False}}
    known = check_readout(lm, made, InterveneConfig.parse({"n_permutations": 200, **plain}))
    known = known.set_index("emotion")
    for emotion in EMOTIONS:
        test = card.test("readout", "own", emotion)
        assert test.mean_diff == pytest.approx(known.loc[emotion, "mean_diff"], abs=1e-6)
        assert test.p_pairs == pytest.approx(known.loc[emotion, "p"])
    adjusted = holm([card.test("readout", "own", e).p_pairs for e in EMOTIONS])
    found = [card.test("readout", "own", e).p_holm for e in EMOTIONS]
    assert found == pytest.approx(list(adjusted))
    whole = card.test("readout", "all")
    assert whole.mean_diff == pytest.approx(known.loc["all", "mean_diff"], abs=1e-6)
    assert 0 <= card.row("readout", "top1", "clinical").mean <= 1
    assert card.model == "tiny:llama"
    assert any("tiny:llama stands in for a classifier" in n for n in card.notes)


def test_card_survives_writing_and_reading(tmp_path):
    card = defend(battery(), config=FAST)
    assert DefenceCard.read(card.write(tmp_path / "d" / "card.json")) == card
    other = tmp_path / "old.json"
    other.write_text('{"format_version": 0}')
    with pytest.raises(ArtifactError, match="format version 0"):
        DefenceCard.read(other)
    other.write_text('{"format_version": 1, "rows": []}')
    with pytest.raises(ArtifactError, match="not a defence card"):
        DefenceCard.read(other)


def test_frames_hold_every_published_number():
    card = defend(battery(), config=FAST)
    frame = card.table.set_index(["method", "measure", "split"])
    for known in PUBLISHED:
        place = (known.method, known.measure, known.split)
        assert frame.loc[place, f"published_{known.statistic}"] == known.value
    assert frame.loc[("classifier", "top1", "clinical"), "n"] == 0
    assert (frame["n"] > 0).sum() == len(card.rows)
    tests = card.tests_frame()
    assert len(tests) == len(card.tests)
    assert "1.76e-10" in tests.loc[0, "published"]


def test_reading_says_what_a_difference_means():
    card = defend(battery(8), config=FAST)
    assert card.reading[0] == NOT_TRAINED
    said = "\n".join(card.reading)
    assert "separates the members here: a warning" in said
    assert OWN_LIST_NOTE in said
    quiet = replace(card, tests=tuple(replace(t, p_clusters=0.5) for t in card.tests))
    assert "does not separate the members here" in "\n".join(quiet.reading)
    few = defend(battery(1), config=FAST)
    assert "With 2 clusters no test by clusters can go below p = 0.5." in few.notes


def test_paraphrases_of_either_side_and_valences_are_kept_apart():
    made = battery()
    items = list(made.items)
    for pair in made.pairs[:2]:
        for origin in (pair.clinical, pair.neutral):
            again = {"id": f"P-{origin.id}", "split": "paraphrase", "variant_of": origin.id}
            items.append(replace(origin, matched_control_id=None, **again))
    items.append(replace(items[-1], id="L", split="labelled", emotion="positive", variant_of=None))
    words = [w for ws in (*EMOTION_WORDS.values(), CALM_WORDS) for w in ws]
    made = make_battery("retold", items, "test")
    card = defend(made, lm=tiny_model("llama", words=words), config=FAST)
    for split in ("clinical", "neutral"):
        assert card.row("valence", "compound", f"paraphrase_of_{split}").n == 2
    assert card.row("valence", "compound", "labelled").n == 1
    with pytest.raises(KeyError, match="no row readout/own/labelled"):
        card.row("readout", "own", "labelled")
    with pytest.raises(KeyError, match="no row readout/top1/complex_neutral"):
        card.row("readout", "top1", "complex_neutral")


def test_too_few_pairs():
    with pytest.raises(StimulusError, match="at least 2"):
        defend(load_battery().select(limit=1))
