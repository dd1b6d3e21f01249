"""Every declared table can be written, and every result writes all that it holds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from affectlens.features.calibration import Calibration, CalibrationSummary
from affectlens.features.columns import TABLES
from affectlens.features.config import SearchConfig
from affectlens.features.lexical_controls import ControlsSummary, LexicalControls
from affectlens.features.naming import FeatureNames
from affectlens.features.naming_files import read_names
from affectlens.features.results import Record, read_table, write_table
from affectlens.features.search import search_activations
from affectlens.features.validity import Validity

from .test_search import make


def empty(name: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(TABLES[name]))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back(name: str, tmp_path: Path) -> None:
    write_table(empty(name), tmp_path, name)
    assert list(read_table(tmp_path, name).columns) == list(TABLES[name])
    assert all(meaning for meaning in TABLES[name].values())


def zeros(record: type[Record]) -> dict[str, int]:
    return {f.name: 0 for f in fields(record)}


def written(run: Path) -> set[str]:
    return {str(p.relative_to(run).with_suffix("")) for p in run.rglob("*.parquet")}


def test_results_write_every_table(tmp_path: Path) -> None:
    def stage(prefix: str) -> dict[str, pd.DataFrame]:
        return {n.rpartition("/")[2]: empty(n) for n in TABLES if n.startswith(prefix)}

    validity = stage("validity/")
    del validity["stability"], validity["comparison"]
    tests = Validity(table=validity.pop("tests"), **validity).write(tmp_path)
    assert tests == tmp_path / "validity/tests.parquet"
    summary = CalibrationSummary(**zeros(CalibrationSummary))  # type: ignore[arg-type]
    path = Calibration(**stage("calibration/"), summary=summary).write(tmp_path)
    assert path == tmp_path / CalibrationSummary.file
    about = ControlsSummary(**zeros(ControlsSummary))  # type: ignore[arg-type]
    controls = (empty(f"search/{n}") for n in ("controls", "control_grains", "strict"))
    assert LexicalControls(*controls, about).write(tmp_path) == tmp_path / ControlsSummary.file
    names = FeatureNames((), "model", "hook", "0", 1, 0, 0.0, "words", "norm", True, 99)
    assert read_names(names.write(tmp_path)) == names
    stages = ("validity/", "calibration/", "naming/", "search/control", "search/strict")
    others = {"validity/stability", "validity/comparison"}
    assert written(tmp_path) == {n for n in TABLES if n.startswith(stages)} - others


def test_dense_and_sparse_activations_give_one_search() -> None:
    pooled, design = make()
    config = SearchConfig(n_permutations=200)
    one, two = (search_activations(p, design, config) for p in (pooled, sparse.csr_array(pooled)))
    for name in ("table", "specificity", "pooled"):
        pd.testing.assert_frame_equal(one.__dict__[name], two.__dict__[name], check_exact=True)
    assert one.summary == two.summary
    row = one.pooled[one.pooled["feature"] == 1].iloc[0]
    assert row["clinical"] == np.float64(pooled[0, 1])
