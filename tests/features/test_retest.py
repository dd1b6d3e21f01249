"""A control is judged by the test that judged the original."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, retest
from affectlens.features.search import search_activations

from .test_search import EMOTIONS, make

CONFIG = SearchConfig(n_permutations=500, n_retained=5)


@pytest.mark.parametrize("name", [ALL, *EMOTIONS])
def test_the_same_differences_give_the_confirmation_again(name: str) -> None:
    pooled, design = make(n_domains=12)
    found = search_activations(pooled, design, CONFIG)
    rows = found.table[(found.table["contrast"] == name) & found.table["retained"]]
    columns = np.sort(rows["feature"].to_numpy())
    rows = rows.set_index("feature").loc[columns]
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])
    again = retest(d[:, columns], name, design, CONFIG, parts=found.parts)
    assert again is not None
    np.testing.assert_array_equal(again.p, rows["confirm_p"])
    np.testing.assert_array_equal(again.p_holm, rows["confirm_p_holm"])
    np.testing.assert_allclose(again.effects.d_z, rows["confirm_d_z"])
    assert again.n_pairs == rows["confirm_n_pairs"].iloc[0]


def test_without_a_split_every_pair_counts() -> None:
    pooled, design = make()
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])
    whole = retest(d[:, :1], ALL, design, CONFIG)
    assert whole is not None and whole.n_pairs == len(design)
    np.testing.assert_allclose(whole.effects.d_z, stats.d_z(d[:, :1]))


def test_nothing_to_compare_is_none() -> None:
    pooled, design = make(emotions=("rage",))
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])
    assert retest(d[:, :1], "rage", design, CONFIG) is None
    assert retest(d[:, :1], "grief", design, CONFIG) is None
