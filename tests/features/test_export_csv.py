"""Names and contexts as plain tables: what stands beside what, and text that is hard to write."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from affectlens.features.contexts import ContextGroup
from affectlens.features.export_csv import (
    CONTEXT_COLUMNS,
    SEARCH_COLUMNS,
    context_table,
    write_csv,
)
from affectlens.features.logit_lens import Lens
from affectlens.features.naming import EmotionWords, FeatureName, FeatureNames
from affectlens.features.naming_columns import NAMING_COLUMNS
from affectlens.features.results import Context
from affectlens.features.token_profile import Density, TokenProfile


def words(contrast: str) -> EmotionWords:
    return EmotionWords(contrast, "evokes", 0.1, None, None, None, 3)


def named(feature: int, *contrasts: str) -> FeatureName:
    strong = Context(feature, "a", 7, 1, [" =1+1", ' "x",', "\ud800"], [0.0, 3.0, 1.0])
    weak = Context(feature, "b", 2, 0, ["\n", "end"], [0.5, 0.0])
    groups = (
        ContextGroup(feature, 1.0, 3.0, 4, 0.4, (strong,)),
        ContextGroup(feature, 0.0, 1.0, 6, 0.6, (weak,)),
    )
    return FeatureName(
        feature=feature,
        firing_rate=0.1,
        max_active=3.0,
        density=Density((0.0, 1.0), (1,)),
        groups=groups,
        tokens=TokenProfile(2, 2, 1.0, 2.0, 5.0, ()),
        emotion_mass=0.1,
        lens=Lens((), ()),
        emotions=tuple(words(c) for c in contrasts),
        nearest_decoder=(),
        nearest_cofiring=(),
    )


NAMES = FeatureNames(
    (named(5, "all", "grief"), named(2, "all"), named(9, "rage")),
    *("m", "h", "0" * 64, 10, 0, 0.01, "l", "n"),
    centred=False,
    n_reference=99,
)


def searched() -> pd.DataFrame:
    rows = [("all", 5), ("all", 2), ("all", 7), ("grief", 5)]
    table = pd.DataFrame(rows, columns=["contrast", "feature"])
    return table.assign(**{c: range(len(rows)) for c in SEARCH_COLUMNS})


def test_search_and_name_stand_side_by_side(tmp_path: Path) -> None:
    out = write_csv(NAMES, searched(), tmp_path / "out")
    features = pd.read_csv(out / "features.csv").set_index(["contrast", "feature"])
    assert list(features.index) == [("all", 5), ("grief", 5), ("all", 2), ("rage", 9)]
    assert features["rank"]["all", 2] == 1 and features["rank"]["grief", 5] == 3
    assert pd.isna(features["rank"]["rage", 9])  # named, but not in this search
    assert set(features.columns) == {*SEARCH_COLUMNS, *NAMING_COLUMNS} - {"contrast", "feature"}
    assert sorted(path.name for path in out.iterdir()) == ["contexts.csv", "features.csv"]


def test_contexts_and_hostile_text(tmp_path: Path) -> None:
    table = context_table(NAMES)
    assert list(table.columns) == list(CONTEXT_COLUMNS)
    first = table.iloc[0]
    assert (first["group"], first["token"], first["activation"]) == (1, ' "x",', 3.0)
    assert (first["before"], first["after"]) == (" =1+1", "\\ud800")
    read = pd.read_csv(write_csv(NAMES, searched(), tmp_path / "o") / "contexts.csv")
    assert len(read) == 6
    assert list(read["token"][:2]) == [' "x",', "\n"]
    assert read["after"][0] == "\\ud800"


def test_only_some_contrasts() -> None:
    few = NAMES.of(["grief", "rage"])
    assert [name.feature for name in few.names] == [5, 9]
    assert [e.contrast for e in few.names[0].emotions] == ["grief"]
    assert NAMES.of([]).names == ()
    assert len(NAMES.names) == 3
