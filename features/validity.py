"""Validity of what a search found: everything that needs its pooled activations and no model.

    validity_tests  dose, discriminant, person, paraphrase, domains (one table, `VALIDITY_COLUMNS`)
    matrix          emotion x latent with max-T, own against every other emotion
    rollups         valence and arousal, Ekman's and Parrott's categories
    transfer        to texts that name the emotion and back
    here            shrinkage from discovery to confirmation

Tests whose labels chose the latents (clinical or neutral, and the emotion) use the confirmation
pairs unless asked otherwise. Complex neutral and keyword-rich texts chose nothing, so all are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy import stats as scipy_stats

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery
from affectlens.features import stats
from affectlens.features.config import EmotionUnit
from affectlens.features.contrasts import ALL
from affectlens.features.design import PairDesign, Part
from affectlens.features.matrix import (
    PARTS,
    Measured,
    emotion_matrix,
    own_against_others,
    specific_table,
)
from affectlens.features.pooling import Pooled
from affectlens.features.results import write_table
from affectlens.features.rollups import dimension_table, rollup_table
from affectlens.features.search import SearchResult
from affectlens.features.search_tables import joined
from affectlens.features.transfer import keyword_transfer
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validation_views import ValidityViews
from affectlens.features.validity_columns import SHRINKAGE_COLUMNS, VALIDITY_COLUMNS
from affectlens.features.validity_tests import (
    Subject,
    discriminant,
    domains,
    dose,
    effect,
    paraphrase,
    person,
)

Array = npt.NDArray[np.float64]

LIST_SIZE = 20
"""Length of the lists of best latents whose overlap is counted, the search's most retained."""

_BLOCK = 2048
"""Latents that are dense at once."""


@dataclass(frozen=True, eq=False, repr=False)
class Validity(ValidityViews):
    """What further tests of validity showed; the columns are in `validity_columns`.

    Attributes:
        table: one row a contrast, retained latent, test and group (`VALIDITY_COLUMNS`).
        shrinkage: one row a contrast (`SHRINKAGE_COLUMNS`).
        matrix: retained latents against every emotion (`MATRIX_COLUMNS`).
        others: own emotion against each other one (`OTHERS_COLUMNS`).
        specific: one row a latent and part (`SPECIFIC_COLUMNS`).
        dimensions: valence and arousal (`DIMENSION_COLUMNS`).
        rollups: categories of other schemes (`ROLLUP_COLUMNS`).
        transfer: keyword transfer by latent (`TRANSFER_COLUMNS`).
        transfer_summary: by emotion and direction (`TRANSFER_SUMMARY_COLUMNS`).
    """

    table: pd.DataFrame = field(repr=False)
    shrinkage: pd.DataFrame = field(repr=False)
    matrix: pd.DataFrame = field(repr=False)
    others: pd.DataFrame = field(repr=False)
    specific: pd.DataFrame = field(repr=False)
    dimensions: pd.DataFrame = field(repr=False)
    rollups: pd.DataFrame = field(repr=False)
    transfer: pd.DataFrame = field(repr=False)
    transfer_summary: pd.DataFrame = field(repr=False)

    def write(self, run: Path) -> Path:
        """Write the tables as `validity/*` of a run folder, the tests last; returns their path."""
        write_table(self.shrinkage, run, "validity/shrinkage")
        write_table(self.matrix, run, "validity/matrix")
        write_table(self.others, run, "validity/others")
        write_table(self.specific, run, "validity/specific")
        write_table(self.dimensions, run, "validity/dimensions")
        write_table(self.rollups, run, "validity/rollups")
        write_table(self.transfer, run, "validity/transfer")
        write_table(self.transfer_summary, run, "validity/transfer_summary")
        return write_table(self.table, run, "validity/tests")


def check_validity(
    pooled: Pooled,
    battery: Battery,
    found: SearchResult,
    config: ValidityConfig | None = None,
) -> Validity:
    """Run every test of validity on the latents that a search retained.

    Args:
        pooled: activations of all items of the battery, pooled as the search pooled them.
        battery: the battery that was searched.
        found: the search.
        config: settings.

    Raises:
        StimulusError: an item was not encoded, or the search was made on another battery.
        StatisticsError: a value is not finite.
    """
    config = config or ValidityConfig()
    design = PairDesign.from_battery(battery, pooled.item_ids)
    _check_same(battery, pooled, found)
    settings = found.settings.model_copy(
        update={n: getattr(config, n) for n in ("n_permutations", "alpha", "seed")}
    )
    kept = retained(found.table)
    features = list(dict.fromkeys(f for own in kept.values() for f in own))
    dense = np.asarray(pooled.values[:, features].toarray(), dtype=float)
    measured = Measured(
        dense[design.clinical] - dense[design.neutral],
        tuple(features),
        design,
        found.parts,
        settings.unit_emotion,
        config,
    )
    emotions = {name: own for name, own in kept.items() if name != ALL}
    others = own_against_others(measured, emotions)
    transfer = keyword_transfer(pooled, battery, design, found.parts, emotions, settings, config)
    return Validity(
        table=_tests(pooled, battery, found, kept, config),
        shrinkage=shrinkage_table(found.table, pooled.values, design, found.parts),
        matrix=emotion_matrix(measured, kept),
        others=others,
        specific=specific_table(others, config.n_permutations),
        dimensions=dimension_table(measured, kept),
        rollups=rollup_table(measured, kept),
        transfer=transfer.table,
        transfer_summary=transfer.summary,
    )


def retained(table: pd.DataFrame) -> dict[str, list[int]]:
    """Retained latents of each contrast, best first; contrasts without any have an empty list."""
    names = list(dict.fromkeys(table["contrast"]))
    chosen = table[table["retained"]].sort_values("rank")
    return {n: [int(f) for f in chosen.loc[chosen["contrast"] == n, "feature"]] for n in names}


def shrinkage_table(
    table: pd.DataFrame,
    values: sparse.csc_array,
    design: PairDesign,
    parts: Mapping[str, Part],
) -> pd.DataFrame:
    """How discovery effects of the latents carry over to confirmation (`SHRINKAGE_COLUMNS`).

    The score is d_z for 'all'. For an emotion it is Hedges' g of its own pair differences against
    the others: by plain means, latents of a wide scale would lead in both parts without any effect.
    A latent without differences, where neither is defined, scores 0. Lists of the k best go by the
    size of the score for 'all' and by the score itself for an emotion. Their
    overlap is hypergeometric if the halves have nothing in common; latents that copy one another
    make chance overlaps larger than that. A contrast without confirmation pairs has no row.

    Args:
        table: of a search (`FEATURE_COLUMNS`).
        values: [n_items, d_sae] what was searched.
        design: the pairs as rows of `values`.
        parts: the split of the clusters.
    """
    rows = []
    for name in dict.fromkeys(table["contrast"]):
        own = table[(table["contrast"] == name) & (table["confirm_n_pairs"] > 0)]
        if not len(own):
            continue
        if name == ALL:
            scores = [own[c].to_numpy(dtype=float) for c in ("d_z", "confirm_d_z")]
        else:
            features = own["feature"].to_numpy()
            scores = [_against(values, features, design, parts, part, str(name)) for part in PARTS]
        rows.append(_shrinkage(str(name), own, *(np.nan_to_num(s) for s in scores)))
    return pd.DataFrame(rows, columns=list(SHRINKAGE_COLUMNS))


def _against(
    values: sparse.csc_array,
    features: npt.NDArray[np.int64],
    design: PairDesign,
    parts: Mapping[str, Part],
    part: Part,
    emotion: str,
) -> Array:
    """Hedges' g of an emotion's pair differences against all others of a part: [n_features]."""
    rows = design.rows(parts, part)
    own = np.array([design.emotions[r] == emotion for r in rows], dtype=bool)
    clinical, neutral = (values[side[rows]] for side in (design.clinical, design.neutral))
    out = np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        x, y = (side[:, features[block]].astype(float) for side in (clinical, neutral))
        dense = (x - y).toarray()
        out[block] = stats.hedges_g(dense[own], dense[~own])
    return out


def _shrinkage(name: str, own: pd.DataFrame, first: Array, second: Array) -> dict[str, object]:
    silent = own["confirm_mean_diff"].to_numpy(dtype=float) == 0
    moving = np.ptp(first) > 0 and np.ptp(second) > 0
    k, n = min(LIST_SIZE, len(own)), len(own)
    lists = [
        set(np.argsort(-(np.abs(x) if name == ALL else x), kind="stable")[:k].tolist())
        for x in (first, second)
    ]
    overlap = len(lists[0] & lists[1])
    kept = own[own["retained"]]
    side = np.sign(kept["d_z"].to_numpy(dtype=float))
    before = _median(side * kept["d_z"].to_numpy(dtype=float))
    after = _median(side * kept["confirm_d_z"].to_numpy(dtype=float))
    return {
        "contrast": name,
        "n_features": n,
        "n_silent": int(silent.sum()),
        "spearman": float(scipy_stats.spearmanr(first, second).statistic) if moving else np.nan,
        "k": k,
        "overlap": overlap,
        "expected": k * k / n,
        "p": float(scipy_stats.hypergeom.sf(overlap - 1, n, k, k)),
        "discovery_d_z": before,
        "confirmation_d_z": after,
        "kept": after / before if before > 0 else np.nan,
    }


def _median(values: Array) -> float:
    # A latent without spread in confirmation has no d_z; where it has no difference it counts as 0.
    values = np.nan_to_num(values)
    return float(np.median(values)) if len(values) else float("nan")


def _tests(
    pooled: Pooled,
    battery: Battery,
    found: SearchResult,
    kept: Mapping[str, Sequence[int]],
    config: ValidityConfig,
) -> pd.DataFrame:
    frames = []
    rows = {item: i for i, item in enumerate(pooled.item_ids)}
    for name, features in kept.items():
        pairs = tuple(
            p
            for p in battery.pairs
            if name in (ALL, p.emotion)
            and (config.part == "both" or found.parts[p.cluster] == config.part)
        )
        if not features or not pairs:
            continue
        own = found.table[found.table["contrast"] == name].set_index("feature")
        side = np.sign(own.loc[list(features), "mean_diff"].to_numpy(dtype=float))
        values = np.asarray(pooled.values[:, list(features)].toarray(), dtype=float) * side
        unit = found.summary.unit if name == ALL else found.summary.unit_emotion
        subject = Subject(name, tuple(features), values, rows, battery, pairs, _unit(unit), config)
        frames += [
            test(subject) for test in (effect, dose, discriminant, person, paraphrase, domains)
        ]
    return joined(frames, VALIDITY_COLUMNS)


def _unit(name: str) -> EmotionUnit:
    # A hierarchical test flips pairs, but it is clusters that it takes as independent.
    return "pair" if name == "pair" else "cluster"


def _check_same(battery: Battery, pooled: Pooled, found: SearchResult) -> None:
    there = set(pooled.item_ids)
    missing = [i.id for i in battery.items if i.id not in there]
    if missing:
        raise StimulusError(
            f"{len(missing)} items of battery {battery.name!r} were not encoded, the first is "
            f"{missing[0]!r}; encode all items, not only the pairs"
        )
    if set(battery.clusters) != set(found.parts):
        raise StimulusError(
            f"the search split {len(found.parts)} clusters, but battery {battery.name!r} has "
            f"{len(battery.clusters)} and not the same ones; give the battery that was searched"
        )
    sha = found.summary.battery_sha256
    if sha and sha != battery.sha256:
        raise StimulusError(
            f"the search was made on a battery with hash {sha[:12]}, this one has "
            f"{battery.sha256[:12]}; give the battery that was searched"
        )
