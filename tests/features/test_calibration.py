"""Calibration: the rates of valid tests lie inside, those of invalid ones outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy import stats as scipy_stats

from affectlens.data.errors import ConfigError
from affectlens.data.progress import track
from affectlens.features.calibration import Calibration, CalibrationSummary, calibrate
from affectlens.features.calibration_columns import (
    DETECTABLE_COLUMNS,
    POWER_COLUMNS,
    RATES_COLUMNS,
)
from affectlens.features.calibration_sets import Job
from affectlens.features.config import SearchConfig
from affectlens.features.inversion import binomial_limits
from affectlens.features.null_rates import judged, rates_under
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.permutation import StatisticsError
from affectlens.features.power_curves import crossing
from affectlens.features.validation_config import CalibrationConfig

from .test_null_data import activations, design_of

SEARCH = SearchConfig(n_permutations=100, unit_emotion="pair")
SMALL = CalibrationConfig(
    n_repeats=20, n_planted=10, n_permutations=99, effects=(0.3, 3.0), n_features=4, max_latents=50
)
DESIGN = design_of(emotions=2, domains=9, size=3)


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate(activations(DESIGN), DESIGN, SEARCH, SMALL, quiet=True)


def test_tables_have_their_columns(found: Calibration) -> None:
    assert list(found.rates) == list(RATES_COLUMNS)
    assert list(found.power) == list(POWER_COLUMNS)
    assert list(found.detectable) == list(DETECTABLE_COLUMNS)
    assert found.summary.n_pairs == 54 and found.summary.n_clusters == 18
    assert not found.summary.skipped
    assert found.summary.n_outside == len(found.summary.outside)
    assert not found.rates.isna().any().any()


def test_independent_data_keep_their_level(found: Calibration) -> None:
    assert set(found.rates["null"]) >= {
        "flip_cluster",
        "labels_pair",
        "neutral_cluster",
        "spread_cluster",
    }
    assert found.rates["n_sets"].eq(20).all()
    # Limits of 95% leave a false alarm now and then among so many rates.
    assert found.summary.n_outside <= 3


def test_power_rises_and_the_effect_is_reached(found: Calibration) -> None:
    recall = found.power[found.power["measure"] == "recall_fwer"]
    whole = recall[(recall["contrast"] == "all") & (recall["n_pairs"] == 54)].set_index("d_z")
    assert whole.loc[0.3, "value"] < 0.5 < 0.9 < whole.loc[3.0, "value"]
    assert 0.2 < whole.loc[0.3, "reached_d_z"] < 0.4 and 2.5 < whole.loc[3.0, "reached_d_z"] < 3.5
    least = found.detectable[found.detectable["criterion"] == "fwer"].iloc[0]
    assert 0.3 < least["detectable"] < 3.0 and 0.3 < least["formula"] < 3.0


def test_the_same_seed_gives_the_same_however_data_come(found: Calibration) -> None:
    again = calibrate(sparse.csr_array(activations(DESIGN)), DESIGN, SEARCH, SMALL, quiet=True)
    pd.testing.assert_frame_equal(again.rates, found.rates)
    pd.testing.assert_frame_equal(again.power, found.power)


def test_pairs_of_a_cluster_that_are_alike_break_the_test_over_pairs() -> None:
    pooled = activations(DESIGN)
    # Within a cluster each pair is the same as the first.
    first = {c: i for i, c in reversed(list(enumerate(DESIGN.clusters)))}
    take = np.array([first[c] for c in DESIGN.clusters])
    pooled = pooled[np.concatenate([take, take + len(DESIGN)])]
    config = SMALL.model_copy(update={"n_repeats": 40})
    over_pairs = SEARCH.model_copy(update={"unit": "pair"})
    broken = calibrate(pooled, DESIGN, over_pairs, config, quiet=True).summary.outside
    assert "flip_cluster all fwer" in broken and "flip_pair all fwer" not in broken
    kept = calibrate(pooled, DESIGN, SEARCH, config, quiet=True).summary.outside
    assert "flip_cluster all fwer" not in kept


def test_what_a_design_does_not_allow_is_skipped_with_the_reason() -> None:
    single = design_of(emotions=1, domains=1, size=6)
    made = calibrate(activations(single), single, SEARCH, SMALL, quiet=True)
    assert set(made.summary.skipped) == {
        "labels_cluster",
        "labels_pair",
        "neutral_cluster",
        "neutral_pair",
        "spread_cluster",
    }
    assert set(made.rates["null"]) == {"flip_cluster", "flip_pair"}
    assert (made.rates["rate"] == 0).all()  # one cluster: p is 1
    assert set(made.power["contrast"]) == {"all"}
    by_cluster = SEARCH.model_copy(update={"unit_emotion": "cluster"})
    made = calibrate(activations(DESIGN), DESIGN, by_cluster, SMALL, quiet=True)
    assert set(made.summary.skipped) == {"labels_pair"}


def test_verdicts_bear_in_mind_how_many_rates_are_judged() -> None:
    rows = {"n_sets": 200, "allowed": 0.05, "low": 0.0, "high": 1.0, "n_latents": 9.0}
    names = {"null": "flip_cluster", "contrast": "all", "measure": "fwer"}
    rates = pd.DataFrame([{**rows, **names, "rate": r} for r in (0.09, 0.2, 0.0, *[0.05] * 20)])
    found = judged(rates)
    expected = [scipy_stats.binom.sf(k - 1, 200, 0.05) for k in (18, 40)]
    np.testing.assert_allclose(found["p_excess"][:3], [*expected, 1.0], rtol=1e-9)
    # A rate of .09 is above .05 by itself, but not as the largest of many.
    assert expected[0] < 0.02 and list(found["verdict"][:2]) == ["inside", "outside"]
    assert judged(rates.iloc[:1])["verdict"].item() == "outside"


def test_the_family_is_allowed_an_alpha_a_contrast(found: Calibration) -> None:
    family = found.rates[(found.rates["contrast"] == "family") & (found.rates["measure"] == "fwer")]
    allowed = family.set_index("null")["allowed"]
    assert allowed["labels_pair"] == 0.1 and allowed["spread_cluster"] == pytest.approx(0.15)
    assert "flip_cluster" not in allowed


def test_an_emotion_that_scatters_more_breaks_the_exchange_of_labels() -> None:
    design = design_of(emotions=5, domains=6, size=2)
    pooled = activations(design)
    one = np.flatnonzero(np.asarray(design.emotions) == "e0")
    pooled[one] *= 10
    pooled[len(design) + one] *= 10
    search = SEARCH.model_copy(update={"unit_emotion": "cluster"})
    config = SMALL.model_copy(update={"n_repeats": 60})
    job = Job(as_sparse(pooled), design, search, config)
    data = PairData.of(job.values, design, search)
    rate = {}
    with track(120, "sets", "test", quiet=True) as progress:
        for null in ("spread_cluster", "labels_cluster"):
            rates = rates_under(job, data, null, progress)
            rate |= {
                (null, r.contrast): r.rate for r in rates[rates.measure == "fwer"].itertuples()
            }
    # The sign test is exact whatever the spreads are, and so are labels that are exchangeable.
    assert rate["spread_cluster", "all"] < 0.15 and rate["labels_cluster", "e0"] < 0.15
    assert rate["spread_cluster", "e0"] > 0.3


def test_nothing_to_test_is_an_error() -> None:
    with pytest.raises(StatisticsError, match="no latent is active"):
        calibrate(np.zeros((108, 4)), DESIGN, SEARCH, SMALL, quiet=True)
    bad = activations(DESIGN)
    bad[0, 0] = np.nan
    with pytest.raises(StatisticsError, match="NaN"):
        calibrate(bad, DESIGN, SEARCH, SMALL, quiet=True)


def test_a_record_can_be_read_back(found: Calibration, tmp_path) -> None:
    found.summary.write(tmp_path)
    assert CalibrationSummary.read(tmp_path) == found.summary
    assert replace(found.summary, seed=1) != found.summary


@pytest.mark.parametrize(("events", "n"), [(0, 20), (1, 20), (10, 200), (20, 20)])
def test_limits_are_scipys_exact_ones(events: int, n: int) -> None:
    expected = scipy_stats.binomtest(events, n).proportion_ci(method="exact")
    got = binomial_limits(events, n)
    np.testing.assert_allclose([got.low, got.high], [expected.low, expected.high], rtol=1e-6)


def test_limits_refuse_impossible_counts() -> None:
    with pytest.raises(StatisticsError, match=r"need 0\.\.n events"):
        binomial_limits(3, 2)


def test_crossing_by_hand() -> None:
    assert crossing([0.5, 1.0], [0.4, 0.9]) == pytest.approx(0.9)
    assert crossing([0.5], [1.0]) == pytest.approx(0.4)
    assert crossing([0.5], [0.79]) == float("inf")


@pytest.mark.parametrize(
    "bad", [{"effects": (0.5, 0.3)}, {"cluster_shares": (1.0,)}, {"pairs_per_cluster": (0,)}]
)
def test_settings_that_make_no_sense(bad: dict[str, object]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        CalibrationConfig(**bad)  # type: ignore[arg-type]
