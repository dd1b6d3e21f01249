"""Classes by a table of cases, and rules that never turn against more evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.features.feature_classes import CLASSES, MOSTLY, Evidence, WordFree, classify

NAN = float("nan")
YES, NO, AGAINST, NONE = (
    WordFree(1.0, 0.01),
    WordFree(0.1, 0.6),
    WordFree(-1.0, 0.01),
    WordFree(NAN, NAN),
)


def case(**more: object) -> Evidence:
    fields: dict[str, object] = {
        "confirmed": True,
        "effect": 2.0,
        "shuffle": YES,
        "residual": YES,
        "shared": YES,
        "r2": 0.1,
        "kept": 0.1,
        "kept_low": 0.0,
        "predicted": 0.1,
        "predicted_low": 0.0,
        "off_distribution": False,
        "strict": False,
    }
    return Evidence(**{**fields, **more})  # type: ignore[arg-type]


NOTHING = {"shuffle": NO, "residual": NO, "shared": NO}
WORDS = {**NOTHING, "kept": 0.9, "kept_low": 0.7}

CASES = [
    ("unsupported", {"confirmed": False}),
    ("unsupported", {"confirmed": False, **WORDS}),
    ("contextual", {}),
    ("contextual", {"shared": None}),
    ("contextual", {"r2": 0.5}),
    ("contextual", {"kept": 0.8, "kept_low": 0.6}),
    ("contextual", {"off_distribution": True}),
    ("contextual", {"off_distribution": True, "shared": None, "strict": True}),
    ("mixed", {"off_distribution": True, "shared": None}),
    ("lexical", {**WORDS, "off_distribution": True, "shared": None}),
    ("mixed", {**WORDS, "strict": True}),
    ("mixed", {"shuffle": NO}),
    ("mixed", {"residual": NO}),
    ("mixed", {"shared": NO}),
    ("mixed", {"shared": AGAINST}),
    ("mixed", {"shuffle": NONE}),
    ("mixed", {"r2": 0.51}),
    ("mixed", {"r2": NAN, "residual": NONE}),
    ("mixed", {"r2": NAN}),
    ("mixed", {"residual": NO, "kept": 0.9, "kept_low": 0.8}),
    ("mixed", {**NOTHING, "residual": YES}),
    ("mixed", {"shared": None, "shuffle": NO}),
    ("mixed", NOTHING),
    ("mixed", {**NOTHING, "kept": 0.9, "kept_low": 0.49}),
    ("mixed", {**NOTHING, "kept": 0.9, "kept_low": NAN}),
    ("mixed", {"shuffle": NONE, "residual": NONE, "shared": NONE}),
    ("lexical", WORDS),
    ("lexical", {**WORDS, "shared": None}),
    ("lexical", {**WORDS, "residual": YES}),
    ("lexical", {**NOTHING, "predicted": 0.8, "predicted_low": 0.5}),
    ("lexical", {**WORDS, "shuffle": AGAINST}),
    ("lexical", {**WORDS, "shared": NONE}),
    ("contextual", {"effect": -2.0, "shuffle": AGAINST, "residual": AGAINST, "shared": AGAINST}),
    ("mixed", {"effect": -2.0, "shuffle": AGAINST}),
]


@pytest.mark.parametrize(("kind", "more"), CASES)
def test_cases(kind: str, more: dict[str, object]) -> None:
    found = classify(case(**more), alpha=0.05, max_r2=0.5)
    assert found.kind == kind
    assert found.why[0].isupper() and found.why.endswith(".") and "nan" not in found.why


def test_every_class_is_reached_and_named() -> None:
    assert {kind for kind, _ in CASES} == set(CLASSES)
    assert MOSTLY == 0.5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ["p=0.01", "R2 0.10", "shared tokens"]),
        ({"shared": None}, ["p=0.01", "R2 0.10"]),
        (WORDS, ["0.90, at least 0.70"]),
        ({"residual": NO}, ["shuffled words, shared tokens", "not by: residual"]),
        ({"r2": 0.7}, ["R2 0.70, above 0.5"]),
        ({**WORDS, "strict": True}, ["supported by: a battery of equal words"]),
        ({"r2": NAN}, ["too rarely active"]),
        ({"off_distribution": True, "shared": None}, ["needs fluency"]),
        ({**NOTHING, "kept": NAN, "kept_low": NAN}, ["Undecided", "undefined"]),
    ],
)
def test_why_holds_the_numbers(more: dict[str, object], words: list[str]) -> None:
    why = classify(case(**more), alpha=0.05, max_r2=0.5).why
    assert all(word in why for word in words), why


ORDER = {"lexical": 0, "mixed": 1, "contextual": 2}
TESTS = st.builds(
    WordFree, st.sampled_from([-1.0, 1.0, NAN]), st.sampled_from([0.001, 0.05, 0.3, NAN])
)
EVIDENCE = st.builds(
    Evidence,
    confirmed=st.just(True),
    effect=st.sampled_from([-1.0, 1.0]),
    shuffle=TESTS,
    residual=TESTS,
    shared=st.none() | TESTS,
    r2=st.sampled_from([0.0, 0.5, 0.9, NAN]),
    kept=st.just(0.7),
    kept_low=st.sampled_from([0.0, 0.6, NAN]),
    predicted=st.just(0.7),
    predicted_low=st.sampled_from([0.0, 0.6, NAN]),
    off_distribution=st.booleans(),
    strict=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(EVIDENCE)
def test_more_evidence_for_context_never_takes_a_class_away(e: Evidence) -> None:
    def rank(x: Evidence) -> int:
        return ORDER[classify(x, alpha=0.05, max_r2=0.5).kind]

    better = WordFree(e.effect, 0.001)
    stronger = [
        replace(e, shuffle=better),
        replace(e, residual=better),
        replace(e, r2=0.0),
        replace(e, kept_low=0.0),
        replace(e, predicted_low=0.0),
        replace(e, off_distribution=False),
        replace(e, strict=True),
    ]
    if e.shared is not None:
        stronger.append(replace(e, shared=better))
    assert all(rank(s) >= rank(e) for s in stronger)
    flipped = replace(
        e,
        effect=-e.effect,
        shuffle=replace(e.shuffle, effect=-e.shuffle.effect),
        residual=replace(e.residual, effect=-e.residual.effect),
        shared=None if e.shared is None else replace(e.shared, effect=-e.shared.effect),
    )
    assert rank(flipped) == rank(e)
