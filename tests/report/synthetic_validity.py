"""Made-up tables of the stages after the search, for the retained features of a synthetic run."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from affectlens.features.columns import TABLES

INF = float("inf")
TOO_FEW = "2 units (clusters): the smallest attainable p is 0.5"
VOID = {"meta", "img", "br", "source", "input", "link", "hr"}


class Fragment(HTMLParser):
    """Text, classes and ids of a piece of a page; every element must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def chosen(features: pd.DataFrame, emotions: list[str], n: int = 3) -> list[tuple[str, int, bool]]:
    """(contrast, feature, confirmed) of the first `n` retained features of each contrast."""
    table = features[features.retained & (features["rank"] <= n)]
    return [
        (str(r.contrast), int(r.feature), bool(r.confirmed))
        for r in table.itertuples()
        if r.contrast in ("all", *emotions)
    ]


def tables(features: pd.DataFrame, emotions: list[str]) -> dict[str, pd.DataFrame]:
    """Every table of the validity stage and of the other SAEs."""
    found = chosen(features, emotions)
    single = [row for row in found if row[0] != "all"]
    made = {
        "validity/tests": _tests(found),
        "validity/shrinkage": pd.DataFrame(
            [
                {"contrast": c, "n_features": 200, "n_silent": 3, "spearman": 0.7, "k": 20,
                 "overlap": 9, "expected": 2.0, "p": 1e-4, "discovery_d_z": 1.0,
                 "confirmation_d_z": 0.8 - 0.1 * i, "kept": 0.8 - 0.1 * i}
                for i, c in enumerate(["all", *emotions])
            ]
        ),
        "validity/matrix": _matrix(found, emotions),
        "validity/others": _others(single, emotions),
        "validity/specific": _specific(single),
        "validity/dimensions": _dimensions(found),
        "validity/rollups": _rollups(found),
        "validity/transfer": _transfer(single),
        "validity/transfer_summary": _transfer_summary(emotions),
        "validity/stability": _stability(found),
    }  # fmt: skip
    return {name: checked(frame, TABLES[name]) for name, frame in made.items()}


def checked(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame with the columns that its table declares, in their order."""
    assert set(frame.columns) == set(columns)
    return frame[list(columns)]


def _tests(found: list[tuple[str, int, bool]]) -> pd.DataFrame:
    rows = []
    for i, (contrast, feature, _) in enumerate(found):
        few = contrast != "all"
        mark, note = ("unknown", TOO_FEW) if few else ("holds", "")
        limits = (-INF, INF) if few else (0.1, 0.5)
        lines = [
            ("effect", "verdict", mark, 0.3, note),
            ("dose", "verdict", "unknown", 0.3, note),
            ("dose", "neutral_to_moderate", "holds", 0.3, ""),
            ("dose", "moderate_to_clinical", "unknown", 0.3, ""),
            ("dose", "monotone_share", "shown", 0.5, ""),
            ("discriminant", "verdict", "fails" if i % 2 == 0 else "unknown", 1.2, ""),
            ("discriminant", "share_of_effect", "shown", 4.0, ""),
            ("person", "verdict", mark, 0.3, note),
            ("person", "first", mark, 0.4, ""),
            ("person", "third", mark, 0.2, ""),
            ("paraphrase", "verdict", mark, 0.2, note),
            ("paraphrase", "change", "shown", -0.2, ""),
            ("domains", "verdict", mark, 0.3, note),
            ("domains", "share_rising", "shown", 0.75, ""),
            ("domain", "any/home mean", "shown", 0.3, ""),
        ]
        rows += [
            (contrast, feature, test, group, 16, value, *limits, 0.01, verdict, why)
            for test, group, verdict, value, why in lines
        ]
    return pd.DataFrame(rows, columns=list(TABLES["validity/tests"]))


def _matrix(found: list[tuple[str, int, bool]], emotions: list[str]) -> pd.DataFrame:
    rows = []
    for contrast, feature, _ in found:
        for part, n in (("discovery", 16), ("confirmation", 8)):
            for emotion in emotions:
                own = emotion == contrast
                p = 0.01 if own and (part == "discovery" or contrast == "grief") else 1.0
                rows.append(
                    {"feature": feature, "selected_for": contrast, "emotion": emotion,
                     "part": part, "n_pairs": n, "mean_diff": 1.0 if own else 0.02, "d_z": 0.8,
                     "n_units": n // 4, "low": -INF, "high": INF, "p": p, "p_fwer": p,
                     "min_p": 1e-4 if part == "discovery" else 0.067}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _others(single: list[tuple[str, int, bool]], emotions: list[str]) -> pd.DataFrame:
    rows = [
        {"feature": feature, "selected_for": contrast, "part": part, "other": other, "n_own": 4,
         "n_other": 4, "difference": 0.2, "low": -INF, "high": INF, "level": 0.99, "p": 0.33}
        for contrast, feature, _ in single
        for part in ("discovery", "confirmation")
        for other in emotions
        if other != contrast
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _specific(single: list[tuple[str, int, bool]]) -> pd.DataFrame:
    note = (
        "not surely below: joy; too few units: the smallest attainable p is 0.33, and 0.0071 is "
        "needed"
    )
    rows = [
        {"feature": feature, "selected_for": contrast, "part": part, "n_others": 7, "n_below": 0,
         "closest": "rage" if contrast != "rage" else "grief", "verdict": "unknown", "note": note}
        for contrast, feature, _ in single
        for part in ("discovery", "confirmation")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _dimensions(found: list[tuple[str, int, bool]]) -> pd.DataFrame:
    rows = [
        {"contrast": contrast, "feature": feature, "part": "confirmation", "dimension": name,
         "n": 16, "estimate": 0.1, "low": 0.02, "high": 0.2, "p": 0.02,
         "p_emotions": 0.01 if name == "valence" and i == 0 else 0.4, "correlation": 0.21,
         "share": 0.6}
        for i, (contrast, feature, _) in enumerate(found)
        for name in ("valence", "arousal")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _rollups(found: list[tuple[str, int, bool]]) -> pd.DataFrame:
    rows = [
        {"contrast": contrast, "feature": feature, "part": "confirmation", "scheme": "ekman",
         "category": "sadness", "emotions": "grief", "n_own": 2, "n_rest": 10, "n_left_out": 4,
         "mean_diff": 0.4, "specificity": 0.3, "p": 0.01, "p_fwer": 0.03 if i == 1 else 0.5,
         "p_holm": 0.33 if i == 1 else 1.0}
        for i, (contrast, feature, _) in enumerate(found)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _transfer(single: list[tuple[str, int, bool]]) -> pd.DataFrame:
    rows = [
        {"emotion": contrast, "direction": "to_keywords", "feature": feature, "rank": 1,
         "n_own": 10, "n_other": 70, "auroc": auroc, "low": auroc - 0.1, "high": auroc + 0.05,
         "effect": 1.0, "p": 0.001, "p_holm": 0.003, "transfers": auroc > 0.6}
        for (contrast, feature, _), auroc in zip(single, np.tile([0.9, 0.5, 0.3], len(single)))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _transfer_summary(emotions: list[str]) -> pd.DataFrame:
    rows = [
        {"emotion": emotion, "direction": direction, "n_features": 0 if emotion == "rage" else 3,
         "mean_auroc": 0.6, "mean_effect": 0.4, "n_effect": 3,
         "n_transfer": 0 if emotion == "rage" else 1, "min_p": 1e-4, "note": "none retained"}
        for emotion in emotions
        for direction in ("to_keywords", "from_keywords")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _stability(found: list[tuple[str, int, bool]]) -> pd.DataFrame:
    rows = []
    for i, (contrast, feature, _) in enumerate(found):
        for other, kind in (("seed 1", "seed"), ("seed 2", "seed"), ("layer 9", "layer")):
            away = kind == "layer"
            rows.append(
                {"contrast": contrast, "feature": feature, "other": other, "kind": kind,
                 "match": 7, "cosine": np.nan if away else 0.8, "chance_cosine": 0.2,
                 "recurs": not away and (i % 3 == 0 or (i % 3 == 1 and other == "seed 1")),
                 "correlation": 0.5, "best_correlated": 9, "best_correlation": 0.7,
                 "match_rank": 3, "match_p": 0.01, "match_confirmed": i == 0}
            )  # fmt: skip
    return pd.DataFrame(rows)
