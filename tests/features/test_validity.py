"""Validity on activations planted into the embedded battery: each test must pass and must fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy import stats as scipy_stats

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery, Stimulus, load_battery
from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.pooling import Pooled
from affectlens.features.search import SearchResult, search_activations
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity import Validity, check_validity, retained, shrinkage_table
from affectlens.features.validity_columns import (
    DIMENSION_COLUMNS,
    MATRIX_COLUMNS,
    OTHERS_COLUMNS,
    ROLLUP_COLUMNS,
    SHRINKAGE_COLUMNS,
    SPECIFIC_COLUMNS,
    TRANSFER_COLUMNS,
    TRANSFER_SUMMARY_COLUMNS,
    VALIDITY_COLUMNS,
)

GRADED, PEAK, FIRST, DOMAIN, BUSY, WORDING, FALLING, SILENT, GRIEF, SAD_OR_SCARED = range(10)
"""Planted latents; the rest of the 30 are noise."""
N = 30
CONFIG = ValidityConfig(n_permutations=2000)


def emotional(item: Stimulus) -> bool:
    return item.id.startswith(("V-", "PV-"))


def planted(item: Stimulus) -> np.ndarray:
    z = np.zeros(N)
    peak, moderate = emotional(item), item.split == "moderate"
    z[GRADED] = 2 * peak + 1 * moderate
    z[PEAK] = 2 * peak
    z[FIRST] = 2 * (peak and item.person == "first") + moderate
    z[DOMAIN] = 3 * ((peak or moderate) and item.emotion == "rage")
    z[BUSY] = 2 * peak + moderate + 2 * (item.split == "complex_neutral")
    z[WORDING] = 2 * (item.split == "clinical") + moderate
    z[FALLING] = 4 - 2 * peak - moderate
    rich = item.split == "keyword_rich"
    z[GRIEF] = 2 * ((peak or rich) and item.emotion == "grief")
    z[SAD_OR_SCARED] = 2 * (peak and item.emotion in ("grief", "terror"))
    return z


@pytest.fixture(scope="module")
def battery() -> Battery:
    return load_battery("affectlens-vignettes")


@pytest.fixture(scope="module")
def pooled(battery: Battery) -> Pooled:
    rng = np.random.default_rng(0)
    z = np.stack([planted(i) for i in battery.items])
    z = np.where(z > 0, np.maximum(z + rng.normal(0, 0.3, z.shape), 0), 0)
    z[:, GRIEF + 2 :] = np.maximum(rng.normal(0, 1, z[:, GRIEF + 2 :].shape), 0)
    z += (rng.random(z.shape) < 0.05) * rng.random(z.shape)
    z[:, SILENT] = 0
    return as_pooled(z, battery)


def as_pooled(z: np.ndarray, battery: Battery) -> Pooled:
    values = scipy.sparse.csc_array(z.astype(np.float32))
    ids = tuple(i.id for i in battery.items)
    return Pooled(values, ids, "suffix", (), np.ones(len(ids), dtype=np.int64), 0)


def searched(pooled: Pooled, battery: Battery, keep: dict[str, list[int]]) -> SearchResult:
    design = PairDesign.from_battery(battery, pooled.item_ids)
    found = search_activations(
        pooled.values.toarray(),
        design,
        SearchConfig(n_permutations=500, min_items=1, unit_emotion="pair"),
        battery_sha256=battery.sha256,
    )
    table = found.table.copy()
    wanted = [(c, f) for c, own in keep.items() for f in own]
    table["retained"] = [
        (c, f) in wanted for c, f in zip(table["contrast"], table["feature"], strict=True)
    ]
    return replace(found, table=table)


@pytest.fixture(scope="module")
def found(pooled: Pooled, battery: Battery) -> SearchResult:
    general = [GRADED, PEAK, FIRST, DOMAIN, BUSY, WORDING, FALLING, SILENT]
    return searched(pooled, battery, {"all": general, "grief": [GRIEF, SAD_OR_SCARED]})


@pytest.fixture(scope="module")
def validity(pooled: Pooled, battery: Battery, found: SearchResult) -> Validity:
    return check_validity(pooled, battery, found, CONFIG)


def verdict(v: Validity, test: str, feature: int, contrast: str = "all") -> str:
    t = v.table
    row = t[(t.contrast == contrast) & (t.test == test) & (t.feature == feature)]
    return str(row[row.group == "verdict"].verdict.item())


def line(v: Validity, test: str, group: str, feature: int, contrast: str = "all") -> pd.Series:
    t = v.table
    t = t[(t.contrast == contrast) & (t.test == test) & (t.group == group)]
    return t[t.feature == feature].iloc[0]


@pytest.mark.parametrize(
    ("test", "feature", "expected"),
    [
        ("effect", GRADED, "holds"),
        ("effect", FALLING, "holds"),
        ("dose", GRADED, "holds"),
        ("dose", PEAK, "fails"),
        ("dose", FALLING, "holds"),
        ("discriminant", GRADED, "holds"),
        ("discriminant", BUSY, "fails"),
        ("person", GRADED, "holds"),
        ("person", FIRST, "fails"),
        ("paraphrase", GRADED, "holds"),
        ("paraphrase", WORDING, "fails"),
        ("domains", GRADED, "holds"),
        ("domains", DOMAIN, "fails"),
    ],
)
def test_planted_latents_get_their_verdict(
    validity: Validity, test: str, feature: int, expected: str
) -> None:
    assert verdict(validity, test, feature) == expected


def test_numbers_are_what_was_planted(validity: Validity, battery: Battery) -> None:
    parts = line(validity, "dose", "verdict", GRADED)
    assert parts.estimate == pytest.approx(1, abs=0.1) and parts.n == 16
    assert line(validity, "dose", "neutral_to_moderate", PEAK).estimate == pytest.approx(0, abs=0.1)
    assert line(validity, "dose", "monotone_share", GRADED).estimate > 0.9
    assert line(validity, "person", "verdict", FIRST).estimate == pytest.approx(2, abs=0.2)
    assert line(validity, "discriminant", "share_of_effect", BUSY).estimate == pytest.approx(
        1, abs=0.15
    )
    share = line(validity, "domains", "share_rising", GRADED)
    assert share.estimate == 1 and share.low == pytest.approx(0.025 ** (1 / 16))
    assert len(battery.clusters) == 48


def test_a_latent_that_rises_in_one_emotion_does_not_pass_as_general(validity: Validity) -> None:
    assert line(validity, "domains", "share_rising", DOMAIN).estimate < 0.5
    assert line(validity, "domains", "weakest", DOMAIN).estimate < 0.5


def test_too_few_units_are_unknown_with_the_reason(validity: Validity) -> None:
    row = line(validity, "dose", "verdict", GRIEF, "grief")
    assert row.verdict == "unknown" and row.n == 2
    assert "smallest attainable p is 0.5" in row.note
    assert row.low == -np.inf and row.high == np.inf
    # Eight pairs carry the effect itself.
    assert verdict(validity, "effect", GRIEF, "grief") == "holds"


def test_both_parts_give_an_emotion_its_dose_test(
    pooled: Pooled, battery: Battery, found: SearchResult
) -> None:
    v = check_validity(pooled, battery, found, ValidityConfig(n_permutations=500, part="both"))
    assert line(v, "dose", "verdict", GRIEF, "grief").n == 6
    assert line(v, "effect", "verdict", GRADED).n == 48


def test_specificity_tells_one_emotion_from_two(validity: Validity) -> None:
    s = validity.specific.set_index(["part", "feature"])
    assert s.loc[("confirmation", GRIEF), "verdict"] == "holds"
    assert s.loc[("confirmation", SAD_OR_SCARED), "verdict"] == "unknown"
    assert s.loc[("confirmation", SAD_OR_SCARED), "closest"] == "terror"


def test_transfer_finds_the_planted_latent_both_ways(validity: Validity) -> None:
    t = validity.transfer[validity.transfer.emotion == "grief"].set_index(["direction", "feature"])
    assert t.loc[("to_keywords", GRIEF), "transfers"]
    assert t.loc[("to_keywords", GRIEF), "auroc"] > 0.95
    assert not t.loc[("to_keywords", SAD_OR_SCARED), "transfers"]
    assert t.loc[("from_keywords", GRIEF), "transfers"]
    assert t.loc[("from_keywords", GRIEF), "rank"] == 1


def test_columns_are_those_declared(validity: Validity) -> None:
    for frame, columns in tables(validity):
        assert list(frame.columns) == list(columns)
        assert len(frame)
    values = validity.table[["estimate", "p"]].to_numpy(dtype=float)
    assert not np.isinf(values).any()


def tables(v: Validity) -> list[tuple[pd.DataFrame, dict[str, str]]]:
    return [
        (v.table, VALIDITY_COLUMNS),
        (v.shrinkage, SHRINKAGE_COLUMNS),
        (v.matrix, MATRIX_COLUMNS),
        (v.others, OTHERS_COLUMNS),
        (v.specific, SPECIFIC_COLUMNS),
        (v.dimensions, DIMENSION_COLUMNS),
        (v.rollups, ROLLUP_COLUMNS),
        (v.transfer, TRANSFER_COLUMNS),
        (v.transfer_summary, TRANSFER_SUMMARY_COLUMNS),
    ]


def test_nothing_retained_gives_empty_tables(pooled: Pooled, battery: Battery) -> None:
    v = check_validity(pooled, battery, searched(pooled, battery, {}), CONFIG)
    for frame, columns in tables(v):
        assert list(frame.columns) == list(columns)
    assert len(v.table) == len(v.matrix) == len(v.others) == len(v.specific) == 0
    assert set(v.transfer_summary.direction) == {"to_keywords", "from_keywords"}


def test_a_battery_without_variants_says_so(battery: Battery) -> None:
    small = load_battery("affectlens-isolexical")
    rng = np.random.default_rng(1)
    z = np.maximum(rng.normal(size=(len(small.items), 6)), 0)
    found = searched(as_pooled(z, small), small, {"all": [0], "grief": [1]})
    v = check_validity(as_pooled(z, small), small, found, CONFIG)
    notes = v.table[v.table.verdict == "unknown"].set_index("test").note.to_dict()
    assert "no complex neutral" in notes["discriminant"]
    assert "moderate" in notes["dose"] and "paraphrased" in notes["paraphrase"]
    assert (v.transfer_summary.note != "").all()


def test_other_items_and_batteries_are_refused(
    pooled: Pooled, battery: Battery, found: SearchResult
) -> None:
    pairs = [i for i, item in enumerate(battery.items) if item.split in ("clinical", "neutral")]
    some = replace(
        pooled, values=pooled.values[pairs], item_ids=tuple(pooled.item_ids[i] for i in pairs)
    )
    with pytest.raises(StimulusError, match="encode all items"):
        check_validity(some, battery, found, CONFIG)
    other = replace(found, summary=replace(found.summary, battery_sha256="0" * 64))
    with pytest.raises(StimulusError, match="hash 000000000000"):
        check_validity(pooled, battery, other, CONFIG)


def test_retained_lists_every_contrast(found: SearchResult) -> None:
    kept = retained(found.table)
    assert set(kept["grief"]) == {GRIEF, SAD_OR_SCARED} and kept["rage"] == []


def test_shrinkage_against_a_hand_count() -> None:
    n = 40
    table = pd.DataFrame(
        {
            "contrast": "all",
            "feature": range(n),
            "rank": range(1, n + 1),
            "d_z": np.linspace(2, -1, n),
            "confirm_d_z": np.linspace(1, -0.5, n),
            "confirm_mean_diff": 1.0,
            "specificity": 0.0,
            "confirm_specificity": 0.0,
            "confirm_n_pairs": 4,
            "retained": np.arange(n) < 3,
        }
    )
    nothing = scipy.sparse.csc_array((2, n)), design_of(("rage",), 1, 1), {"rage/0": "discovery"}
    row = shrinkage_table(table, *nothing).iloc[0]
    assert row.spearman == pytest.approx(1) and row.overlap == row.k == 20
    assert row.kept == pytest.approx(0.5) and row.expected == 10
    table["confirm_d_z"] = np.nan
    row = shrinkage_table(table, *nothing).iloc[0]
    assert np.isnan(row.spearman) and row.confirmation_d_z == 0
    assert len(shrinkage_table(table.assign(confirm_n_pairs=0), *nothing)) == 0


def design_of(emotions: tuple[str, ...], domains: int, per: int) -> PairDesign:
    labels = [(e, f"{e}/{d}") for e in emotions for d in range(domains) for _ in range(per)]
    n = len(labels)
    names = tuple(e for e, _ in labels)
    clusters = tuple(c for _, c in labels)
    ids = tuple(f"p{i}" for i in range(n))
    return PairDesign(np.arange(n), np.arange(n, 2 * n), ids, names, clusters, emotions)


def test_shrinkage_of_emotions_by_hand() -> None:
    made = design_of(("rage", "grief"), 4, 3)
    z = np.random.default_rng(2).exponential(size=(2 * len(made), 30)).astype(np.float32)
    found = search_activations(z, made, SearchConfig(n_permutations=100, min_items=1))
    row = shrinkage_table(found.table, scipy.sparse.csc_array(z), made, found.parts)
    row = row.set_index("contrast").loc["grief"]
    d = z[made.clinical].astype(float) - z[made.neutral]
    scores = []
    for part in ("discovery", "confirmation"):
        rows = made.rows(found.parts, part)
        own = np.array([made.emotions[r] == "grief" for r in rows])
        scores.append(stats.hedges_g(d[rows[own]], d[rows[~own]]))
    best = [set(np.argsort(-s)[:20]) for s in scores]
    assert row.overlap == len(best[0] & best[1]) and row.k == 20
    assert row.spearman == pytest.approx(scipy_stats.spearmanr(*scores).statistic)


def test_latents_of_wide_scale_do_not_overlap_without_an_effect() -> None:
    made = design_of(("rage", "grief", "terror", "joy"), 6, 3)
    small, n_sets = 0, 25
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        z = rng.exponential(size=(2 * len(made), 200)) * rng.lognormal(0, 1.5, size=200)
        z = z.astype(np.float32)
        found = search_activations(z, made, SearchConfig(n_permutations=100))
        table = shrinkage_table(found.table, scipy.sparse.csc_array(z), made, found.parts)
        small += int(table.set_index("contrast").p["grief"] <= 0.05)
    assert scipy_stats.binomtest(small, n_sets, 0.05, "greater").pvalue > 0.001
