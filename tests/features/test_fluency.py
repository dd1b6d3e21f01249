"""Perplexity against single rows, repetition by hand, coherence by its formula, hostile text."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import load_battery
from affectlens.features.fluency import (
    FLUENCY_COLUMNS,
    Reference,
    coherence,
    drift,
    fluency,
    reference_of,
)
from affectlens.features.incoherence import (
    KINDS,
    FormModel,
    distinct,
    make_incoherent,
    pieces,
    repetition,
    rule_breaks,
)

PROMPTS = ["The boat left the harbour", "She read", "He folded the map and", "One"]
TEXTS = [" at noon, as it did every day.", "", " the letter " * 9, "\u202b \u05d0 nul \x00 end"]

ITEMS = st.lists(st.integers(0, 5), max_size=30)


def by_hand(lm: LanguageModel, prompt: str, text: str) -> float:
    """Mean NLL of the continuation of a byte-level model, one unpadded row."""
    ids, start = lm.token_ids(prompt + text), len(lm.token_ids(prompt))
    logits = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -float(np.mean([float(logits[i - 1, ids[i]]) for i in range(start, len(ids))]))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_perplexity_is_that_of_single_rows(lm: LanguageModel, batch_size: int) -> None:
    table = fluency(lm, PROMPTS, TEXTS, batch_size=batch_size)
    assert list(table.columns) == list(FLUENCY_COLUMNS)
    for i in (0, 2, 3):
        want = by_hand(lm, PROMPTS[i], TEXTS[i])
        assert table["nll"][i] == pytest.approx(want, abs=1e-5)
        assert table["perplexity"][i] == pytest.approx(math.exp(want), rel=1e-5)
    assert table["n_tokens"].tolist() == [len(t.encode()) for t in TEXTS]


def test_an_empty_continuation_is_marked(tiny_llama: LanguageModel) -> None:
    table = fluency(tiny_llama, ["A start", "A start", "A start"], ["", "  ", " go on"])
    assert table["empty"].tolist() == [True, True, False]
    first = table.iloc[0]
    assert first["n_tokens"] == 0
    for name in ("nll", "perplexity", "distinct_1", "distinct_2", "repetition", "drift"):
        assert math.isnan(first[name])
    assert math.isfinite(table["nll"][1])  # blanks are tokens
    assert math.isnan(table["drift"][1])
    assert fluency(tiny_llama, [], []).empty


def test_order_and_neighbours_do_not_matter(tiny_llama: LanguageModel) -> None:
    forward = fluency(tiny_llama, PROMPTS, TEXTS, batch_size=2)
    back = fluency(tiny_llama, PROMPTS[::-1], TEXTS[::-1], batch_size=4)
    pd.testing.assert_frame_equal(forward, back[::-1].reset_index(drop=True), rtol=1e-4)


def test_a_huge_text_is_measured_or_refused(tiny_llama: LanguageModel) -> None:
    assert fluency(tiny_llama, ["A"], ["b" * 2000])["n_tokens"][0] == 2000
    with pytest.raises(StimulusError, match="prompt and text 0 has 3001 tokens"):
        fluency(tiny_llama, ["A"], ["b" * 3000])


def test_wrong_input_is_refused(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="2 prompts and 1 texts"):
        fluency(tiny_llama, ["a", "b"], ["c"])
    with pytest.raises(StimulusError, match="lists of prompts and texts"):
        fluency(tiny_llama, "a", ["c"])
    with pytest.raises(StimulusError, match="prompt 0 is empty"):
        fluency(tiny_llama, [" "], ["c"])
    with pytest.raises(StimulusError, match="lone surrogate"):
        fluency(tiny_llama, ["a"], ["\ud800"])


def test_distinct_and_repetition_by_hand() -> None:
    row = pieces("The cat sat. The cat SAT!")
    assert row == ["the", "cat", "sat", ".", "the", "cat", "sat", "!"]
    assert distinct(row, 1) == 5 / 8
    assert distinct(row, 2) == 5 / 7
    assert repetition(row, 3) == pytest.approx(1 / 6)
    assert repetition(row, 4) == 0
    assert math.isnan(distinct([], 1))
    assert repetition(["a", "b"]) == 0
    with pytest.raises(ValueError, match="n >= 1"):
        repetition(row, 0)


@given(ITEMS, st.integers(1, 5))
def test_bounds_and_invariances_of_repetition(items: list[int], n: int) -> None:
    rep, dis = repetition(items, n), distinct(items, n)
    if len(items) < n:
        assert rep == 0
        assert math.isnan(dis)
        return
    assert 0 <= rep < 1
    assert rep == pytest.approx(1 - dis)
    # Names of the items and the direction of reading make no difference.
    assert repetition([chr(65 + i) for i in items], n) == rep
    assert repetition(items[::-1], n) == rep
    # Ranks of distinct items: nothing occurs twice.
    assert repetition(list(range(len(items))), n) == 0
    # Written twice over, at least as much is repeated, and no n-gram gets lost.
    assert repetition(items * 2, n) >= (len(items) - n + 1) / (2 * len(items) - n + 1) - 1e-12


@given(st.text(max_size=200))
def test_any_text_has_finite_measures(text: str) -> None:
    assert all(p == p.lower() or not p.isascii() for p in pieces(text))
    assert isinstance(rule_breaks(text), tuple)
    assert np.isfinite(FORM.features([text])).all()
    value = drift(["A plain sentence."], [text])[0]
    assert math.isnan(value) if not text.strip() else 0 <= value <= 1


FORM = FormModel(["The boat left at noon.", "She read the letter and put it away."])


def test_drift_tells_a_prompt_from_another() -> None:
    prompts = ["The baker put bread into the oven.", "Frost had burst the water pipes."]
    texts = [" Loaves of bread rose as he baked.", " The plumber mended every pipe."]
    own, other = drift(prompts, texts), drift(prompts[::-1], texts)
    assert (own < other).all()
    assert drift(prompts, prompts) == pytest.approx([0, 0])


def table_of(perplexity: list[float], repeated: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"perplexity": perplexity, "repetition": repeated, "empty": np.isnan(repeated)}
    )


def test_coherence_by_hand() -> None:
    reference = reference_of(
        table_of([4.0, 8.0, 12.0, 16.0, 20.0, math.nan], [0.0, 0.1, 0.2, 0.2, 0.9, math.nan])
    )
    assert reference == Reference(perplexity=16.0, new=0.8, n=5, n_empty=1)
    table = table_of([16.0, 8.0, 32.0, 16.0, 32.0, math.inf, math.nan],
                     [0.2, 0.0, 0.2, 0.6, 0.6, 0.0, math.nan])  # fmt: skip
    assert coherence(table, reference) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0, 0])


@given(
    st.lists(st.tuples(st.floats(1.01, 1e6), st.floats(0, 0.99)), min_size=2, max_size=20),
    st.floats(1.5, 1e3),
    st.floats(0.1, 1),
)
def test_coherence_is_monotone_and_bounded(
    rows: list[tuple[float, float]], perplexity: float, new: float
) -> None:
    reference = Reference(perplexity, new, 10, 0)
    ordered = sorted(rows)
    rising = table_of([p for p, _ in ordered], [0.3] * len(rows))
    assert (np.diff(coherence(rising, reference)) <= 1e-12).all()
    repeated = sorted(r for _, r in rows)
    looping = table_of([5.0] * len(rows), repeated)
    assert (np.diff(coherence(looping, reference)) <= 1e-12).all()
    both = coherence(table_of(*map(list, zip(*rows))), reference)  # type: ignore[arg-type]
    assert ((both >= 0) & (both <= 1)).all()


def test_a_reference_needs_text() -> None:
    with pytest.raises(ConfigError, match="none of 1 continuations"):
        reference_of(table_of([math.nan], [math.nan]))


def test_a_looping_model_does_not_make_every_loop_sound() -> None:
    reference = reference_of(table_of([2.0] * 4, [0.99] * 4))
    assert reference.new == 0.1
    assert coherence(table_of([2.0], [0.99]), reference)[0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no_words"),
        ("\x00\u200f\u202e", "no_words"),
        ("123 456 !!!", "no_words"),
        ("and so and so and so and so and so and so", "repetition"),
        ("This is {{ not }} :: a ## text | of ~ words", "marks"),
        ("The был cat это sat", "odd_words"),
        ("The brtkpq sat thhhhhh on it", "odd_words"),
        ("a q the t w of r n and on", "letters"),
        ("one 1 2 3 4 5 6 two", "few_words"),
        (" ".join(f"noun{chr(97 + i)}a" for i in range(20)), "function_words"),
    ],
)
def test_each_rule_fires(text: str, rule: str) -> None:
    assert rule in rule_breaks(text)


def test_sound_text_breaks_no_rule() -> None:
    items = load_battery().items
    assert not [i.id for i in items if rule_breaks(i.text)]
    assert rule_breaks("\u00c9t\u00e9 na\u00efve caf\u00e9s are sound words in a text.") == ()


def test_broken_text_is_made_of_every_kind_from_a_seed() -> None:
    texts = [i.text for i in load_battery().items[:40]]
    made = make_incoherent(texts, 200, np.random.default_rng(3))
    assert made == make_incoherent(texts, 200, np.random.default_rng(3))
    assert {b.kind for b in made} == set(KINDS)
    for broken in made:
        words, source = broken.text.split(), texts[broken.source].split()
        assert words
        if broken.kind == "shuffled":
            assert set(words) <= set(source)
        if broken.kind == "loop":
            assert repetition(words, 1) > 0.3
    lengths = [len(b.text.split()) for b in made if b.kind == "shuffled"]
    assert 15 <= min(lengths) <= max(lengths) <= 60


def test_measures_of_form_tell_order_and_letters() -> None:
    texts = [i.text for i in load_battery().items]
    model = FormModel(texts[::2])
    plain = texts[1::2][:60]
    rng = np.random.default_rng(0)
    shuffled = [b.text for b in make_incoherent(plain, 60, rng, kinds=("shuffled",))]
    cut = [b.text for b in make_incoherent(plain, 60, rng, kinds=("truncated",))]
    a, b, c = (model.features(t) for t in (plain, shuffled, cut))
    for column, broken in ((3, b), (4, c)):
        ranks = rankdata(np.r_[a[:, column], broken[:, column]])
        auroc = (ranks[:60].sum() - 60 * 61 / 2) / 3600
        assert auroc > 0.9


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_shuffling_keeps_what_is_counted_without_order(seed: int) -> None:
    text = "The boat left the harbour at noon and nobody waved at the boat."
    words = pieces(text)
    mixed = list(np.random.default_rng(seed).permutation(words))
    assert distinct(mixed, 1) == distinct(words, 1)
