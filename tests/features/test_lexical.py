"""The lexical audit finds planted words, stays quiet without them, and its numbers are exact."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.stimuli import Stimulus, make_battery
from affectlens.features import _lexical_models as models
from affectlens.features._lexical_scores import pair_scores
from affectlens.features._words import is_function_word, is_negator, tokens
from affectlens.features.findings import validate
from affectlens.features.lexical import CONTROLS, AuditConfig, LexicalCard, StaticMeans, audit
from affectlens.features.lexical_card import ORDER_AWARE

FAST = AuditConfig(n_repeats=1, n_bootstrap=100)
WITHOUT_MODEL = [name for name in CONTROLS if name != "static_embedding"]
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


def test_what_guessing_reaches_too_is_said_to_be_unsure():
    card = audit(battery(lambda c, n, i: (f"{c} dagger", f"{n} kettle")), FAST)
    assert card.words_suffice
    few = replace(card, chance_95=1.0)
    assert not few.words_suffice
    assert few.warning.startswith("Whether words alone tell")
    assert "cannot be said with so few pairs" in few.warning
    assert "TF-IDF of all words 1.00" in few.warning
    low = replace(control(card, "length"), paired_accuracy=0.7)
    some = replace(card, chance_95=0.8, controls=(*card.controls, low))
    assert some.words_suffice
    assert "as these do too: " in some.warning and "0.70" in some.warning.split("as these do")[1]


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
    assert {f.kind for f in validate(battery())} == {"repeated", "person"}


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
            values.append(pair_scores(scores)[1])
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
    assert [s.control for s in card.controls] == WITHOUT_MODEL


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


def test_card_survives_its_file(tmp_path):
    card = audit(battery(lambda c, n, i: (f"{c} dagger", n)), FAST)
    path = card.write(tmp_path / "sub" / "lexical.json")
    assert LexicalCard.read(path) == card
    path.write_text('{"format_version": 9}')
    with pytest.raises(ArtifactError, match="format version 9"):
        LexicalCard.read(path)
    path.write_text('{"format_version": 2, "controls": []}')
    with pytest.raises(ArtifactError, match="not a lexical card"):
        LexicalCard.read(path)
    path.write_text("[]")
    with pytest.raises(ArtifactError, match="format version None"):
        LexicalCard.read(path)


def test_frames():
    card = audit(battery(lambda c, n, i: (f"{c} dagger", n)), FAST)
    frame = card.table
    assert len(frame) == 2 * len(WITHOUT_MODEL)
    assert set(frame.control[frame.above]) >= {"words", "content_words", "length"}
    assert card.words_table.word[0] == "dagger"
    assert audit(battery(), FAST).words_table.columns[0] == "word"


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


def test_a_model_adds_its_static_embedding():
    made = battery()
    values = np.random.default_rng(0).normal(size=(48, 5))
    values[:24, 0] += 9
    card = audit(made, FAST, static=StaticMeans("tiny", values))
    assert control(card, "static_embedding", "cluster").auroc > 0.95
    assert card.model == "tiny"
    assert "static token embeddings" in card.warning
    with pytest.raises(StimulusError, match="has 24 pairs, so 48 are needed"):
        audit(made, FAST, static=StaticMeans("tiny", values[1:]))


def test_word_order_is_seen_by_word_pairs_only():
    made = battery(lambda c, n, i: (f"{c} salt then pepper", f"{n} pepper then salt"))
    card = audit(made, FAST)
    assert card.same_multiset == 1
    assert control(card, "bigrams", "cluster").paired_accuracy == 1
    for name in set(WITHOUT_MODEL) - ORDER_AWARE:
        score = control(card, name, "cluster")
        assert (score.auroc, score.paired_accuracy) == (0.5, 0.5), name


def test_lexicons_are_controls_and_keywords_are_listed():
    made = battery(lambda c, n, i: (f"{c} grieving terribly", f"{n} the a"))
    card = audit(made, FAST)
    assert control(card, "emotion_words", "cluster").paired_accuracy == 1
    assert control(card, "valence", "cluster").paired_accuracy == 1
    assert card.n_keyword_items == 24
    assert card.keywords[0].words == ("grieving", "terribly")


def test_pair_cards_say_which_pairs_words_give_away():
    made = battery(lambda c, n, i: (f"{c} dagger" if i % 2 else c, n))
    card = audit(made, FAST)
    margins = card.pairs_table.margin
    assert margins[1::2].min() > 0 == margins[0::2].abs().max()
    assert card.pairs[1].jaccard == pytest.approx(12 / 13, abs=0.02)


def test_large_batteries_are_audited_once_and_by_a_sample():
    made = battery(lambda c, n, i: (f"{c} dagger", n))
    assert audit(made, AuditConfig(n_bootstrap=0)).n_repeats == 5
    assert audit(made, AuditConfig(n_bootstrap=0)).controls[0].auroc_low is None
    many = [replace(i, id=f"{i.id}-{k}", matched_control_id=i.matched_control_id and
            f"{i.matched_control_id}-{k}") for k in range(90) for i in made.items]  # fmt: skip
    card = audit(make_battery("many", many, "test"), AuditConfig(n_bootstrap=10))
    assert (card.n_pairs, card.n_repeats) == (2160, 1)
    assert control(card, "words", "cluster").paired_accuracy == 1
    assert card.n_near_duplicates > 0


def test_the_last_words_are_a_control_of_their_own():
    """The same words in both members: a bag is blind to them, the end of the text is not."""
    filler = " ".join(VOCABULARY[:30])
    made = battery(lambda c, n, i: (f"kettle {filler} {c} dagger", f"dagger {filler} {n} kettle"))
    card = audit(made, FAST)
    assert control(card, "words", "cluster").paired_accuracy == 0.5
    assert control(card, "ending", "cluster").paired_accuracy == 1
    assert "last 20 words 1.00" in card.warning
