"""The whole stage on planted latents: one that follows a word, one that follows word order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.data.corpus import build_corpus
from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, make_battery
from affectlens.features import lexical_controls as module
from affectlens.features.config import SearchConfig
from affectlens.features.controls_columns import (
    CONTROLS_COLUMNS,
    GRAIN_COLUMNS,
    STRICT_COLUMNS,
)
from affectlens.features.controls_tables import ControlInputs, ControlTables, control_tables
from affectlens.features.design import PairDesign
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.lexical_controls import (
    ControlsSummary,
    LexicalControls,
    lexical_controls,
)
from affectlens.features.pair_data import Members as PairValues
from affectlens.features.pooling import pool
from affectlens.features.search import search, search_activations
from affectlens.features.shared_tokens import APPLIES_NOT
from affectlens.features.validation_config import ControlsConfig

from .planted_texts import (
    ORDER,
    WORD,
    Model,
    Sae,
    battery_of,
    config,
    encoded_battery,
    planted_battery,
    planted_corpus,
    read,
    searched,
    text_of,
)
from .test_encode import make_pairs, make_sae


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "encode_items", read)
    strict = planted_battery(5, storms=False, n=48, name="affectlens-isolexical")
    monkeypatch.setattr(module, "load_battery", lambda name: strict)


def run(pooling: str, controls: ControlsConfig | None = None) -> LexicalControls:
    lm, battery = Model(), planted_battery(0)
    found = searched(lm, battery, pooling)
    controls = controls or ControlsConfig(
        n_texts=150, n_bootstrap=300, strict=("affectlens-isolexical",)
    )
    return lexical_controls(
        lm,  # type: ignore[arg-type]
        Sae(),  # type: ignore[arg-type]
        battery,
        found,
        controls,
        config(pooling),
        corpus=planted_corpus(),
        quiet=True,
    )


@pytest.mark.parametrize("pooling", ["mean", "suffix", "max"])
def test_a_word_ends_lexical_and_order_contextual(patched: None, pooling: str) -> None:
    found = run(pooling)
    rows = found.table[found.table["contrast"] == "all"].set_index("feature")
    assert rows.loc[WORD, "confirmed"] and rows.loc[ORDER, "confirmed"]
    assert rows.loc[WORD, "class"] == "lexical", rows.loc[WORD, "why"]
    assert rows.loc[ORDER, "class"] == "contextual", rows.loc[ORDER, "why"]
    assert rows.loc[WORD, "kept_low"] > 0.8 and rows.loc[WORD, "r2"] > 0.6
    assert rows.loc[ORDER, "kept_high"] < 0.3 and rows.loc[ORDER, "r2"] < 0.2
    assert rows.loc[ORDER, "residual_p_holm"] < 0.05 < rows.loc[WORD, "residual_p_holm"]
    assert rows.loc[ORDER, "strict"] == "affectlens-isolexical" and rows.loc[WORD, "strict"] == ""
    others = rows.drop([WORD, ORDER])
    assert set(others["class"]) <= {"unsupported"}
    if pooling == "suffix":
        assert set(rows["shared_status"]) == {APPLIES_NOT} and rows["shared_p"].isna().all()
    else:
        assert rows.loc[ORDER, "shared_p_holm"] < 0.05 and rows.loc[WORD, "shared_p"] == 1
        assert rows.loc[WORD, "mass_only_clinical"] == 1
        assert rows.loc[ORDER, "mass_only_clinical"] < 0.9


def test_tables_hold_their_columns_and_the_summary_counts(patched: None, tmp_path: Path) -> None:
    found = run("mean")
    assert list(found.table.columns) == list(CONTROLS_COLUMNS)
    assert list(found.grains.columns) == list(GRAIN_COLUMNS)
    assert list(found.strict.columns) == list(STRICT_COLUMNS)
    n = len(found.table)
    assert len(found.grains) == 3 * n and len(found.strict) == n
    s = found.summary
    assert s.n_pairs == 36 and s.part == "confirmation" and s.n_passages == 150
    assert sum(sum(c.values()) for c in s.classes.values()) == n
    assert s.classes["all"]["lexical"] == s.classes["all"]["contextual"] == 1
    assert s.n_strict["all"] == 1 and s.n_excluded == dict.fromkeys(s.grains, 0)
    assert 0 <= s.unseen_share < 0.2
    s.write(tmp_path)
    assert ControlsSummary.read(tmp_path) == s


def test_equal_input_gives_equal_output_and_given_activations_are_used(patched: None) -> None:
    lm, battery = Model(), planted_battery(0)
    found = searched(lm, battery, "mean")
    settings = ControlsConfig(n_texts=60, n_bootstrap=50, strict=(), grains=("words",))
    encoded = encoded_battery(lm, battery, "mean")
    both = [
        lexical_controls(
            lm,
            Sae(),
            battery,
            found,
            settings,
            config("mean"),
            encoded=e,
            corpus=planted_corpus(),  # type: ignore[arg-type]
        )
        for e in (encoded, None)
    ]
    assert both[0].table.equals(both[1].table) and both[0].grains.equals(both[1].grains)
    assert len(both[0].strict) == 0 and list(both[0].strict.columns) == list(STRICT_COLUMNS)


def test_swapped_members_swap_signs_alone(patched: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ControlInputs] = []

    def spy(found: pd.DataFrame, inputs: ControlInputs, *more: Any) -> ControlTables:
        seen.append(inputs)
        return control_tables(found, inputs, *more)

    monkeypatch.setattr(module, "control_tables", spy)
    done = run("mean")
    (inputs,) = seen
    lm, battery = Model(), planted_battery(0)
    found = searched(lm, battery, "mean").table
    assert inputs.shared is not None
    swapped = replace(
        inputs,
        design=replace(
            inputs.design, clinical=inputs.design.neutral, neutral=inputs.design.clinical
        ),
        original=swap(inputs.original),
        shuffled={g: replace(s, values=swap(s.values)) for g, s in inputs.shuffled.items()},
        predicted=-inputs.predicted,
        shared=replace(inputs.shared, differences=-inputs.shared.differences),
    )
    controls = ControlsConfig(n_texts=150, n_bootstrap=300, strict=())
    other = control_tables(found, swapped, controls, config("mean")).table
    for column in ("did_p", "residual_p", "shared_p", "kept", "predicted", "r2", "class"):
        assert other[column].equals(done.table[column]), column
    for column in ("effect", "did", "residual", "shared"):
        np.testing.assert_allclose(other[column], -done.table[column])
    np.testing.assert_array_equal(other["mass_only_neutral"], done.table["mass_only_clinical"])


def swap(values: PairValues) -> PairValues:
    return PairValues(values.neutral, values.clinical)


def test_both_parts_may_be_tested(patched: None) -> None:
    settings = ControlsConfig(
        part="both", n_texts=60, n_bootstrap=20, n_shuffles=1, strict=(), grains=("words",)
    )
    assert run("mean", settings).summary.n_pairs == 72


def test_what_does_not_fit_is_refused(patched: None) -> None:
    lm, battery = Model(), planted_battery(0)
    found = searched(lm, battery, "mean")

    def go(battery: Battery = battery, encoded: TokenActivations | None = None) -> None:
        lexical_controls(
            lm,
            Sae(),
            battery,
            found,
            None,
            config("mean"),
            encoded=encoded,  # type: ignore[arg-type]
        )

    with pytest.raises(StimulusError, match="not the one that was searched"):
        go(planted_battery(1))
    with pytest.raises(ArtifactError, match="were read as"):
        go(encoded=encoded_battery(lm, battery, "suffix"))
    (some,) = read(lm, [Sae()], [("C0", battery.items[0].text)], Reading())
    with pytest.raises(StimulusError, match="not encoded"):
        go(encoded=some)


def test_nothing_retained_gives_empty_tables(patched: None) -> None:
    lm, battery = Model(), planted_battery(0)
    found = searched(lm, battery, "mean")
    found = replace(found, table=found.table.assign(retained=False))
    settings = ControlsConfig(n_texts=50, n_shuffles=1, strict=("affectlens-isolexical",))
    done = lexical_controls(
        lm,  # type: ignore[arg-type]
        Sae(),  # type: ignore[arg-type]
        battery,
        found,
        settings,
        config("mean"),
        corpus=planted_corpus(60),
    )
    assert len(done.table) == len(done.grains) == len(done.strict) == 0
    assert list(done.table.columns) == list(CONTROLS_COLUMNS)
    assert done.summary.classes == {} and done.summary.n_latents == 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_few_pairs_give_a_stated_result(patched: None, n: int) -> None:
    """One cluster is all discovery; two of one emotion leave one for confirmation."""
    lm = Model()
    rng = np.random.default_rng(0)
    texts = [
        (text_of(rng, ordered=True, storms=1), text_of(rng, ordered=False, storms=0))
        for _ in range(n)
    ]
    items = [
        replace(i, emotion="rage", domain=str(int(i.id[1:]) // 2)) for i in battery_of(texts).items
    ]
    battery = make_battery("few", items, "test")
    encoded = encoded_battery(lm, battery, "mean")
    design = PairDesign.from_battery(battery, encoded.item_ids)
    values = pool(encoded, "mean").values.toarray()
    found = search_activations(values, design, config("mean").model_copy(update={"min_items": 1}))
    settings = ControlsConfig(n_texts=50, n_shuffles=1, strict=("affectlens-isolexical",))

    def go() -> LexicalControls:
        return lexical_controls(
            lm,  # type: ignore[arg-type]
            Sae(),  # type: ignore[arg-type]
            battery,
            found,
            settings,
            config("mean"),
            corpus=planted_corpus(60),
        )

    if n < 4:
        with pytest.raises(StimulusError, match="no pairs for confirmation"):
            go()
        return
    done = go()
    assert set(done.table["class"]) == {"unsupported"} and (done.table["n_pairs"] == 2).all()
    assert (done.table["did_p"] == 1).all() and done.table["kept_low"].isna().all()


def test_settings() -> None:
    with pytest.raises(ConfigError, match="must hold 'words'"):
        ControlsConfig.parse({"grains": ["sentences"]})
    with pytest.raises(ConfigError, match="none twice"):
        ControlsConfig.parse({"grains": ["words", "words"]})
    with pytest.raises(ConfigError, match="given twice"):
        ControlsConfig.parse({"strict": ["a", "a"]})


def test_on_a_real_model_texts_without_a_second_sentence_are_counted(
    tiny: Callable[[str], LanguageModel],
) -> None:
    lm = tiny("llama")
    sae, battery = make_sae(lm.d_model), make_pairs(n_domains=6)
    settings = SearchConfig(pooling="mean", n_permutations=200, confirmation_share=0.5)
    found = search(lm, sae, battery, settings)
    corpus = build_corpus(
        "made", [(f"d{i}", f"Someone number {i} went out. They held the cup.") for i in range(60)]
    )
    controls = ControlsConfig(n_texts=50, n_shuffles=1, n_bootstrap=20, strict=())
    done = lexical_controls(lm, sae, battery, found, controls, settings, corpus=corpus, quiet=True)
    assert done.summary.n_excluded == {"words": 0, "within_sentences": 0, "sentences": 6}
    order = done.grains[done.grains["grain"] == "sentences"]
    assert (order["n_pairs"] == 0).all() and order["did_p"].isna().all()
    assert done.table["class"].isin(["contextual", "lexical", "mixed", "unsupported"]).all()
