"""How well a scorer of text does on texts it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from affectlens.features.incoherence import INCOHERENT
from affectlens.features.intervals import cluster_bootstrap
from affectlens.features.text_scoring import SCORE_LABELS

Array = npt.NDArray[np.float64]

_N_BINS = 10
_N_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers about held-out texts.

    Attributes:
        labels: true label of each sound text, [n].
        groups: its group, [n].
        named: bool [n], whether a passage names its emotion.
        passages: bool [n], whether the text is a passage.
        views: probabilities [n, n_labels] of the texts as they are ('whole') and altered.
        broken: probabilities [m, n_labels] of broken texts.
    """

    labels: tuple[str, ...]
    groups: tuple[str, ...]
    named: npt.NDArray[np.bool_]
    passages: npt.NDArray[np.bool_]
    views: Mapping[str, Array]
    broken: Array


def held_out_facts(held_out: HeldOut, seed: int = 0) -> dict[str, Any]:
    """JSON-able accuracy, recall, confusion and calibration.

    Intervals are 95% percentile intervals that resample groups; the broken texts of 'accuracy' have
    no group and are one each. Chance is that of guessing among all labels.
    """
    truth = np.array([SCORE_LABELS.index(label) for label in held_out.labels])
    groups = np.array(held_out.groups)
    broken = np.full(len(held_out.broken), SCORE_LABELS.index(INCOHERENT))
    whole = held_out.views["whole"]
    every = np.concatenate([whole, held_out.broken])
    all_true = np.concatenate([truth, broken])
    all_groups = [*held_out.groups, *(f"broken {i}" for i in range(len(broken)))]
    parts: dict[str, tuple[Array, npt.NDArray[np.bool_]]] = {
        name: (view, np.ones(len(truth), dtype=bool)) for name, view in held_out.views.items()
    }
    emotional = held_out.passages & np.array([label != "neutral" for label in held_out.labels])
    parts["passages"] = (whole, held_out.passages)
    parts["passages that name the emotion"] = (whole, emotional & held_out.named)
    parts["passages that do not"] = (whole, emotional & ~held_out.named)
    return {
        "accuracy": share(every.argmax(1) == all_true, all_groups, seed),
        "chance": 1 / len(SCORE_LABELS),
        "labels": list(SCORE_LABELS),
        "recall": _per_label(every, all_true),
        "precision": _precision(every, all_true),
        "confusion": confusion(every, all_true).tolist(),
        "ece": calibration_error(every, all_true),
        "sound_texts": {
            name: share(view[rows].argmax(1) == truth[rows], groups[rows].tolist(), seed)
            for name, (view, rows) in parts.items()
        },
    }


def held_out_lines(facts: Mapping[str, Any]) -> list[str]:
    """What `held_out_facts` found, in a few lines for a reader."""
    recall = ", ".join(
        f"{label} {value:.2f}" for label, value in facts["recall"].items() if value is not None
    )
    return [
        f"all labels: {_shown(facts['accuracy'])}, chance {facts['chance']:.2f}, expected "
        f"calibration error {facts['ece']:.3f}",
        f"recall: {recall}",
        *(f"{name}: {_shown(found)}" for name, found in facts["sound_texts"].items()),
    ]


def _shown(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return "no text"
    return (
        f"{found['share']:.3f} right [{found['low']:.3f}, {found['high']:.3f}], {found['n']} texts "
        f"of {found['n_groups']} groups"
    )


def share(right: npt.NDArray[np.bool_], groups: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """A share with n and a 95% interval over groups; None without texts."""
    if not len(right):
        return {"share": None, "low": None, "high": None, "n": 0, "n_groups": 0}
    found = cluster_bootstrap(right.astype(float), list(groups), _N_RESAMPLES, seed)
    return {
        "share": float(found.estimate),
        "low": float(found.low),
        "high": float(found.high),
        "n": len(right),
        "n_groups": found.n_clusters,
    }


def confusion(p: Array, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Texts of each true label (rows) by likeliest label (columns), int [n_labels, n_labels]."""
    out = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(out, (truth, p.argmax(1)), 1)
    return out


def calibration_error(p: Array, truth: npt.NDArray[np.int64]) -> float:
    """Expected calibration error (Guo et al. 2017) of the likeliest label over ten equal bins.

    The mean over texts of |share right - mean probability| of the bin the text falls in.
    """
    sure, right = p.max(1), p.argmax(1) == truth
    place = np.minimum((sure * _N_BINS).astype(int), _N_BINS - 1)
    off = np.bincount(place, weights=right - sure, minlength=_N_BINS)
    return float(np.abs(off).sum() / len(p))


def _per_label(p: Array, truth: npt.NDArray[np.int64]) -> dict[str, float | None]:
    table = confusion(p, truth)
    return _quotients(table.diagonal(), table.sum(1))


def _precision(p: Array, truth: npt.NDArray[np.int64]) -> dict[str, float | None]:
    table = confusion(p, truth)
    return _quotients(table.diagonal(), table.sum(0))


def _quotients(
    part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    return {
        label: float(a / b) if b else None
        for label, a, b in zip(SCORE_LABELS, part, whole, strict=True)
    }
