"""The lexical audit finds planted words, stays quiet without them, and its numbers are exact."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.stimuli import Stimulus, load_battery, make_battery
from affectlens.features import _lexical_models as models
from affectlens.features._words import is_function_word, is_negator, tokens
from affectlens.features.lexical import CONTROLS, AuditConfig, LexicalCard, audit, validate

FAST = AuditConfig(n_repeats=1)
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nrst"]


def battery(change=lambda clinical, neutral, index: (clinical, neutral), emotions=4, seed=0):
    """Pairs of the same random words; `change` edits the two texts of a pair."""
    generator = np.random.default_rng(seed)
    items = []
    names = ("rage", "grief", "terror", "ecstasy")[:emotions]
    index = 0
    for emotion in names:
        for domain in "123":
            for number in "12":
                words = " ".join(generator.choice(VOCABULARY, 12))
                clinical, neutral = change(words, words, index)
                key = f"{emotion}-{domain}-{number}"
                for kind, text in (("V", clinical), ("N", neutral)):
                    items.append(
                        Stimulus(
                            f"{kind}-{key}", emotion, "peak" if kind == "V" else "none", domain, "",
                            f"N-{key}" if kind == "V" else None, len(text.split()), text,
                            "clinical" if kind == "V" else "neutral",
                        )
                    )  # fmt: skip
                index += 1
    return make_battery("made", items, "test")


def swap(made):
    """Every pair with its members' texts exchanged."""
    items = []
    for pair in made.pairs:
        items.append(
            replace(pair.clinical, text=pair.neutral.text, word_count=pair.neutral.word_count)
        )
        items.append(
            replace(pair.neutral, text=pair.clinical.text, word_count=pair.clinical.word_count)
        )
    return make_battery("swapped", items, "test")


def control(card, name, grouping="pair"):
    return next(s for s in card.controls if (s.control, s.grouping) == (name, grouping))


def test_planted_content_word_is_found_and_named():
    card = audit(battery(lambda c, n, i: (f"{c} dagger", f"{n} kettle")), FAST)
    for grouping in ("pair", "cluster"):
        assert control(card, "words", grouping).auroc > 0.95
        assert control(card, "content_words", grouping).paired_accuracy == 1
        assert control(card, "function_words", grouping).auroc == 0.5
        assert control(card, "negations", grouping).paired_accuracy == 0.5
        assert control(card, "length", grouping).auroc == 0.5
    assert {w.word for w in card.words[:2]} == {"dagger", "kettle"}
    assert "TF-IDF of all words 1.00" in card.warning
    assert "negations" not in card.warning


def test_planted_negation_is_seen_by_the_negation_control():
    card = audit(battery(lambda c, n, i: (f"{c} not", f"{n} well")), FAST)
    assert control(card, "negations").paired_accuracy == 1
    assert control(card, "function_words").paired_accuracy == 1
    assert "number of negations 1.00" in card.warning


def test_planted_length_is_seen_by_the_length_control():
    card = audit(battery(lambda c, n, i: (c + " " + " ".join(VOCABULARY[i : i + 9]), n)), FAST)
    assert control(card, "length").paired_accuracy == 1
    assert card.length_mean_diff == 9
    assert card.length_d_z is None
    assert card.length_longer_share == 1


def test_equal_members_give_chance_and_no_warning():
    card = audit(battery(), FAST)
    assert all((s.auroc, s.paired_accuracy) == (0.5, 0.5) for s in card.controls)
    assert card.warning == ""
    assert (card.jaccard_mean, card.jaccard_min) == (1, 1)
    assert card.words == ()
    assert {f.kind for f in validate(battery())} == {"repeated"}


def test_sides_drawn_by_lot_give_chance_on_average():
    """The null of the audit: which member is 'clinical' is a coin toss."""
    values = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        shared = [list(generator.choice(VOCABULARY, 12)) for _ in range(24)]
        documents = [ws + list(generator.choice(VOCABULARY, 4)) for ws in [*shared, *shared]]
        folds = models.grouped_folds([str(i) for i in range(24)], 5, generator)
        for paired in (False, True):
            scores = models.TermDesign(documents, paired=paired).out_of_fold(folds)
            values.append(models.pair_scores(scores)[1])
    assert abs(np.mean(values) - 0.5) < 0.06


def test_swapping_the_sides_of_every_pair_changes_no_score():
    made = battery(lambda c, n, i: (f"{c} dagger not", f"{n} kettle calm spoon"))
    card, swapped = audit(made, FAST), audit(swap(made), FAST)
    for a, b in zip(card.controls, swapped.controls, strict=True):
        assert (a.auroc, a.paired_accuracy) == pytest.approx((b.auroc, b.paired_accuracy), abs=1e-6)
    assert swapped.length_mean_diff == -card.length_mean_diff
    one, other = card.words[0], next(w for w in swapped.words if w.word == card.words[0].word)
    assert (one.clinical_only, one.neutral_only) == (other.neutral_only, other.clinical_only)


def test_sign_test_is_exact_and_holm_adjusted():
    made = battery(lambda c, n, i: (f"{c} dagger" if i < 9 else c, f"{n} dagger" if i == 20 else n))
    card = audit(made, FAST)
    assert card.n_words_one_sided == 1
    word = card.words[0]
    assert (word.word, word.clinical_only, word.neutral_only) == ("dagger", 9, 1)
    assert word.p == pytest.approx(binomtest(9, 10).pvalue)
    two = audit(battery(lambda c, n, i: (f"{c} dagger" + " axe" * (i < 8), n)), FAST)
    assert [w.word for w in two.words] == ["dagger", "axe"]
    assert [w.p_holm for w in two.words] == pytest.approx([2 * 2**-23, 2**-7])


def test_emotion_can_be_named_from_words_or_not():
    named = battery(lambda c, n, i: (f"{c}{(' mark' + 'abcd'[i // 6]) * 4}", n))
    assert audit(named, FAST).emotion_auroc > 0.9
    assert 0.2 < audit(battery(), FAST).emotion_auroc < 0.8
    assert audit(battery(emotions=1), FAST).emotion_auroc is None


def test_one_cluster_has_pair_rows_only():
    made = battery(lambda c, n, i: (f"{c} dagger", n)).select(clusters=["rage/1"])
    card = audit(made, FAST)
    assert {s.grouping for s in card.controls} == {"pair"}
    assert [s.control for s in card.controls] == list(CONTROLS)


def test_too_few_pairs():
    with pytest.raises(StimulusError, match="has 1 pairs; the lexical audit needs at least 2"):
        audit(battery().select(limit=1))


def test_texts_without_any_word_give_chance():
    card = audit(battery(lambda c, n, i: ("... 12 !", "... 13 !")), FAST)
    assert all(s.auroc == 0.5 for s in card.controls)
    assert card.jaccard_mean == 0


def test_result_depends_on_the_seed_only():
    made = battery(lambda c, n, i: (f"{c} {VOCABULARY[i]}", f"{n} {VOCABULARY[-i - 1]}"))
    assert audit(made, FAST) == audit(made, FAST)


def test_embedded_battery_keeps_its_surface_balanced():
    """Function words, negations, length and surface must not tell the members apart."""
    card = audit(load_battery(), FAST)
    for name in ("function_words", "surface", "negations", "length"):
        for grouping in ("pair", "cluster"):
            score = control(card, name, grouping)
            assert max(score.auroc, score.paired_accuracy) < card.chance_95, name
    assert card.jaccard_mean > 0.6
    assert all(w.p_holm == 1 for w in card.words)
    assert validate(load_battery()) == []


def test_card_survives_its_file(tmp_path):
    card = audit(battery(lambda c, n, i: (f"{c} dagger", n)), FAST)
    path = card.write(tmp_path / "sub" / "lexical.json")
    assert LexicalCard.read(path) == card
    path.write_text('{"format_version": 9}')
    with pytest.raises(ArtifactError, match="format version 9"):
        LexicalCard.read(path)
    path.write_text('{"format_version": 1, "controls": []}')
    with pytest.raises(ArtifactError, match="not a lexical card"):
        LexicalCard.read(path)
    path.write_text("[]")
    with pytest.raises(ArtifactError, match="format version None"):
        LexicalCard.read(path)


def test_frames():
    card = audit(battery(lambda c, n, i: (f"{c} dagger", n)), FAST)
    frame = card.to_frame()
    assert len(frame) == 2 * len(CONTROLS)
    assert set(frame.control[frame.above]) >= {"words", "content_words", "length"}
    assert card.words_frame().word[0] == "dagger"
    assert audit(battery(), FAST).words_frame().columns[0] == "word"


def test_findings_name_items():
    made = battery(lambda c, n, i: (f"{c} grief" if i == 0 else c, f"{n}\n\n---" if i == 1 else n))
    items = [replace(i, domain="9") if i.id == "N-rage-2-1" else i for i in made.items]
    items = [i for i in items if not i.id.startswith(("V-terror-1-2", "N-terror-1-2"))]
    items = [i for i in items if not (i.emotion == "ecstasy" and i.domain != "1")]
    found = {f.kind: f for f in validate(make_battery("b", items, "t", warnings=["note"]))}
    assert found["emotion_word"].ids == ("V-rage-1-1",)
    assert "'grief' (grief)" in found["emotion_word"].message
    assert found["stray_marks"].ids == ("N-rage-1-2",)
    assert found["domain"].ids == ("V-rage-2-1", "N-rage-2-1")
    assert "1 to 2 pairs" in found["balance"].message
    assert "ecstasy has one domain only" in found["clusters"].message
    assert found["reading"].message == "note"
    longer = battery(lambda c, n, i: (f"{c} two more", n) if i == 3 else (c, n))
    assert [f.ids[0] for f in validate(longer) if f.kind == "length"] == ["V-rage-2-2"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=20).filter(lambda v: len(v) % 2 == 0))
def test_pair_scores_equal_scikit_learn(values):
    scores = np.array(values, float)
    half = len(scores) // 2
    auroc, accuracy = models.pair_scores(scores)
    assert auroc == pytest.approx(roc_auc_score([1] * half + [0] * half, scores))
    difference = scores[:half] - scores[half:]
    assert accuracy == pytest.approx(np.mean(np.sign(difference)) / 2 + 0.5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=30), st.integers(2, 6))
def test_groups_share_a_fold(groups, n_folds):
    folds = models.grouped_folds(groups, n_folds, np.random.default_rng(0))
    assert all(len(set(folds[[g == name for g in groups]])) == 1 for name in groups)
    assert len(set(folds)) == min(n_folds, len(set(groups)))


def test_words():
    assert tokens("She\u2019d DON'T stop\u2014caf\u00e9 42 x2!") == [
        "she'd", "don't", "stop", "caf\u00e9", "x",
    ]  # fmt: skip
    assert is_function_word("she'd")
    assert is_function_word("didn't")
    assert not is_function_word("brother's")
    assert is_negator("couldn't")
    assert not is_negator("knot")


def test_config_refuses_unknown_keys():
    with pytest.raises(ConfigError, match="did you mean 'n_folds'"):
        AuditConfig.parse({"nfolds": 3})


def test_import_is_light():
    code = (
        "import sys, affectlens.features.lexical;"
        "print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
