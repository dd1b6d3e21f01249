"""The classes of the lexical controls by contrast and feature, for every part of the page."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import listing, number, plural, probability, share, spread

from .loading import RunData

KINDS: dict[str, str] = {
    "contextual": "confirmed, and every test that takes the words away leaves the effect standing: "
    "it needs more than which words are there (a feature of one fixed phrase would pass too)",
    "lexical": "confirmed, but shown to follow the words: shuffled text keeps most of the effect, "
    "or a regression on words predicts most of it",
    "mixed": "confirmed, but the tests disagree or cannot tell",
    "unsupported": "not confirmed on the scenes kept aside, so there is no effect to explain",
}
"""The four classes, best first, and what each says."""

SHOWN = ("contextual", "mixed", "lexical")
"""The classes that a confirmed feature can have, in the order of the page."""

CONTROLS, STRICT, GRAINS = "search/controls", "search/strict", "search/control_grains"


@dataclass(frozen=True)
class FeatureClass:
    """One feature's class in one contrast, with its numbers in words.

    `outcomes` holds what each strict battery says, by battery.
    """

    kind: str
    why: str
    numbers: str
    outcomes: Mapping[str, str]

    @property
    def strict(self) -> str:
        """The outcomes on the strict batteries in words; '' without any."""
        said = [f"{battery} {outcome}" for battery, outcome in self.outcomes.items()]
        return f"pairs of equal words: {', '.join(said)}" if said else ""


def feature_classes(data: RunData) -> dict[tuple[str, int], FeatureClass]:
    """Every class by (contrast, feature); empty if the controls were not run."""
    table = data.table(CONTROLS)
    if table is None:
        return {}
    outcomes = _outcomes(data)
    return {
        (str(r.contrast), int(r.feature)): FeatureClass(
            str(r.kind),
            reason(str(r.why)),
            numbers(r),
            outcomes.get((str(r.contrast), int(r.feature)), {}),
        )
        for r in named(table).itertuples(index=False)
    }


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table of controls with the column 'class' as 'kind', which tuples can hold."""
    return table.rename(columns={"class": "kind"})


def _outcomes(data: RunData) -> dict[tuple[str, int], dict[str, str]]:
    table = data.table(STRICT)
    found: dict[tuple[str, int], dict[str, str]] = {}
    if table is not None:
        for r in table.itertuples(index=False):
            key = (str(r.contrast), int(r.feature))
            found.setdefault(key, {})[str(r.battery)] = str(r.outcome)
    return found


def numbers(row: Any) -> str:
    """The numbers that put a feature into its class, one after the other."""
    parts = [
        f"kept when words are shuffled {spread(row.kept, row.kept_low, row.kept_high)}, "
        f"p {probability(row.did_p_holm)}",
        f"predicted from words {spread(row.predicted, row.predicted_low, row.predicted_high)}, "
        f"R² {number(row.r2)}, p of the rest {probability(row.residual_p_holm)}",
    ]
    if row.shared_status == "tested":
        parts.append(f"on shared words p {probability(row.shared_p_holm)}")
    parts.append(
        f"{share(row.mass_only_clinical)} of activation on words the twin lacks, "
        f"{share(row.tokens_only_clinical)} of tokens"
    )
    return " · ".join(parts)


def counts(data: RunData, contrast: str) -> dict[str, int]:
    """How many confirmed features of a contrast fell into each class; empty if not run."""
    table = data.table(CONTROLS)
    if table is None:
        return {}
    rows = table[(table["contrast"] == contrast) & table["confirmed"]]
    return {kind: int((rows["class"] == kind).sum()) for kind in KINDS}


def counted(found: Mapping[str, int]) -> str:
    """'3 contextual, 16 mixed and 0 lexical', without 'unsupported', which is not confirmed."""
    return listing([f"{found.get(kind, 0):,} {kind}" for kind in SHOWN])


def reason(text: str) -> str:
    """The reason of a class with its numbers as the page writes them."""
    text = re.sub(r"\bp=([0-9.e-]*[0-9])", lambda m: f"p = {probability(float(m[1]))}", text)
    text = re.sub(r"\bR2 ", "R² ", text)
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text)


def strict_lines(data: RunData, contrasts: Collection[str] | None = None) -> list[str]:
    """What pairs whose members hold the same words say of the confirmed features.

    Args:
        data: the run.
        contrasts: these only; every contrast if not given.

    Returns:
        No line or one.
    """
    table, strict = data.table(CONTROLS), data.table(STRICT)
    if table is None or strict is None:
        return []
    confirmed = table.loc[table["confirmed"], ["contrast", "feature"]]
    if contrasts is not None:
        confirmed = confirmed[confirmed["contrast"].isin(contrasts)]
    rows = strict.merge(confirmed, on=["contrast", "feature"])
    if rows.empty:
        return []
    weak = rows["outcome"].isin(["low power", "not testable"])
    holds, able = _distinct(rows[rows["outcome"] == "holds"]), _distinct(rows[~weak])
    text = (
        f"On pairs whose members hold the same words the effect of {holds:,} of "
        f"{plural(len(confirmed), 'confirmed feature')} holds ({able:,} could have shown it there "
        "if it were as large)."
    )
    nothing = " So none was shown to tell emotion apart where the words are the same."
    return [text + ("" if holds else nothing)]


def _distinct(rows: pd.DataFrame) -> int:
    return len(rows[["contrast", "feature"]].drop_duplicates())
