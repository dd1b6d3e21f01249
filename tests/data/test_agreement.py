"""Agreement: kappa against scikit-learn and a textbook, intervals, counts of what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from affectlens.data.agreement import agreement, cohen_kappa, fleiss_kappa
from affectlens.data.errors import StimulusError
from affectlens.data.ratings import ANSWERS, Rating, intents, text_sha256
from affectlens.data.stimuli import Battery, Stimulus, load_battery, make_battery
from affectlens.data.taxonomy import VALENCES

VIGNETTES = load_battery()
MEANT = intents(VIGNETTES)
LABELS = [*ANSWERS, *VALENCES]


def intent(item: Stimulus) -> str:
    return MEANT[item.id]


def rows(made: Battery, rater: str, emotions: list[str | None], intensity: int | None = 2):
    return [
        Rating(
            item=i.id,
            text_sha256=text_sha256(i.text),
            rater=rater,
            emotion=e,  # type: ignore[arg-type]
            intensity=intensity,
        )
        for i, e in zip(made.items, emotions, strict=True)
        if e is not None
    ]


def noisy(rng: np.random.Generator, share: float) -> list[str | None]:
    return [
        intent(i) if rng.random() > share else str(rng.choice(ANSWERS)) for i in VIGNETTES.items
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_cohen_kappa_is_sklearns(answers):
    a, b = zip(*answers, strict=True)
    table = confusion_matrix(a, b, labels=range(4))
    if len({*a, *b}) == 1:
        assert np.isnan(cohen_kappa(table))
    else:
        assert cohen_kappa(table) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_fleiss_kappa_of_the_textbook():
    # Fleiss, Levin and Paik, as reproduced in most encyclopaedias: 10 items, 14 raters, 0.210.
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert np.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    weighted = fleiss_kappa([[2, 0], [0, 2], [1, 1]], [[1, 1, 1], [2, 1, 0]])
    assert weighted == pytest.approx([1 / 3, 1])
    with pytest.raises(StimulusError, match="same number of raters"):
        fleiss_kappa([[1, 2], [1, 1]])


def test_numbers_of_one_rater(rng):
    labels = noisy(rng, 0.4)
    found = agreement(VIGNETTES, rows(VIGNETTES, "anna", labels))
    intended = [intent(i) for i in VIGNETTES.items]
    (one,) = found.with_intent
    assert (one.a, one.b, one.n) == ("anna", "intent", len(labels))
    assert one.accuracy.value == pytest.approx(accuracy_score(intended, labels))
    assert one.kappa.value == pytest.approx(cohen_kappa_score(intended, labels))
    assert one.accuracy.low < one.accuracy.value < one.accuracy.high
    assert one.kappa.low < one.kappa.value < one.kappa.high
    assert np.array_equal(one.counts, confusion_matrix(labels, intended, labels=LABELS))
    frame = one.table
    assert frame.to_numpy().sum() == len(labels)
    assert "other" not in frame.columns
    differing = [i.id for i, e in zip(VIGNETTES.items, labels, strict=True) if e != intent(i)]
    assert [d.item for d in found.differences] == differing
    assert (found.n_unrated, found.between, found.fleiss) == (0, (), None)
    assert {(m.split, m.n, m.mean) for m in found.intensities} == {
        ("clinical", 192, 2.0),
        ("neutral", 192, 2.0),
        ("moderate", 48, 2.0),
        ("complex_neutral", 48, 2.0),
        ("keyword_rich", 80, 2.0),
        ("paraphrase", 96, 2.0),
    }


def test_raters_are_compared_on_what_both_answered(rng):
    n = len(VIGNETTES.items)
    a, b, c = noisy(rng, 0.3), noisy(rng, 0.3), noisy(rng, 0.3)
    a[0] = b[0] = c[0] = None
    a[1] = None
    given = [*rows(VIGNETTES, "a", a), *rows(VIGNETTES, "b", b), *rows(VIGNETTES, "c", c, None)]
    found = agreement(VIGNETTES, given)
    assert (found.n_items, found.n_unrated) == (n, 1)
    assert [(x.a, x.b, x.n) for x in found.between] == [
        ("a", "b", n - 2),
        ("a", "c", n - 2),
        ("b", "c", n - 1),
    ]
    assert found.between[2].kappa.value == pytest.approx(cohen_kappa_score(b[1:], c[1:]))
    assert found.fleiss is not None
    counts = [[x.count(e) for e in ANSWERS] for x in zip(a[2:], b[2:], c[2:], strict=True)]
    assert (found.fleiss.n, found.fleiss.raters) == (n - 2, ("a", "b", "c"))
    assert found.fleiss.kappa.value == pytest.approx(float(fleiss_kappa(counts)))
    assert found.fleiss.kappa.low < found.fleiss.kappa.value < found.fleiss.kappa.high
    assert {m.rater for m in found.intensities} == {"a", "b"}
    assert len(found.table) == 6


def test_perfect_agreement_and_flat_answers():
    labels = [intent(i) for i in VIGNETTES.items]
    (one,) = agreement(VIGNETTES, rows(VIGNETTES, "a", labels)).with_intent
    assert (one.accuracy.value, one.kappa.value, one.kappa.low) == (1, 1, 1)
    flat = ["other" for _ in labels]
    found = agreement(VIGNETTES, [*rows(VIGNETTES, "a", flat), *rows(VIGNETTES, "b", flat)])
    assert found.with_intent[0].kappa.value == 0
    assert found.between[0].kappa.value is None
    assert found.between[0].accuracy.value == 1


def test_intervals_draw_clusters_or_items(rng):
    # Whole clusters right or wrong: drawing items would make the interval too short.
    wrong = {c for k, c in enumerate(VIGNETTES.clusters) if k % 2}
    labels = ["other" if i.cluster in wrong else intent(i) for i in VIGNETTES.items]
    given = rows(VIGNETTES, "a", labels)
    wide = agreement(VIGNETTES, given).with_intent[0].accuracy
    short = agreement(VIGNETTES, given, unit="item").with_intent[0].accuracy
    assert wide.high - wide.low > 1.5 * (short.high - short.low)
    assert agreement(VIGNETTES, given, seed=1) == agreement(VIGNETTES, given, seed=1)
    none = agreement(VIGNETTES, given, n_bootstrap=0).with_intent[0]
    assert (none.kappa.low, none.accuracy.value) == (None, wide.value)
    with pytest.raises(StimulusError, match="allowed: cluster, item"):
        agreement(VIGNETTES, given, unit="pair")  # type: ignore[arg-type]


def test_raters_without_a_common_item():
    n = len(VIGNETTES.items)
    a = ["other"] * 3 + [None] * (n - 3)
    b = [None] * 3 + ["rage"] * (n - 3)
    c = [None] * (n - 1) + ["rage"]
    found = agreement(
        VIGNETTES,
        [*rows(VIGNETTES, "a", a), *rows(VIGNETTES, "b", b), *rows(VIGNETTES, "c", c)],
    )
    assert (found.between[0].n, found.between[0].accuracy.value) == (0, None)
    assert (found.fleiss.n, found.fleiss.kappa.value) == (0, None)


def test_an_intended_valence_is_compared_with_the_valence_of_the_answer():
    made = make_battery(
        "v",
        [
            Stimulus(f"L-{k}", label, "", "1", "", None, 2, f"Text {k}.", "labelled")
            for k, label in enumerate(["positive", "negative", "positive", "negative", "grief"])
        ],
        "test",
    )
    given = rows(made, "a", ["ecstasy", "grief", "rage", "vigilance", "rage"])
    found = agreement(made, [*given, *rows(made, "b", ["admiration"] + ["rage"] * 4)])
    assert [x.accuracy.value for x in found.with_intent] == [0.4, 0.6]
    assert found.between[0].accuracy.value == 0.4
    assert [d.item for d in found.differences if d.rater == "a"] == ["L-2", "L-3", "L-4"]


def test_what_is_refused():
    good = rows(VIGNETTES, "a", [intent(i) for i in VIGNETTES.items])
    for bad, message in [
        ([], "no ratings"),
        ([*good, good[3]], "twice"),
        ([good[0].model_copy(update={"text_sha256": "0" * 64})], "with another text"),
        ([good[0].model_copy(update={"item": "x"})], "does not have"),
        ([good[0].model_copy(update={"rater": "intent"})], "may not be called"),
    ]:
        with pytest.raises(StimulusError, match=message):
            agreement(VIGNETTES, bad)
