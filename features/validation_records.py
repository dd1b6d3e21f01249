"""JSON records of the validation stages: how they were made and what came out; light, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from affectlens.features.results import Record


@dataclass(frozen=True)
class ControlsSummary(Record):
    """What the lexical controls were, and how many latents fell into each class."""

    file: ClassVar[str] = "search/controls.json"
    part: str
    pooling: str
    n_pairs: int
    n_latents: int
    classes: dict[str, dict[str, int]]
    n_strict: dict[str, int]
    grains: list[str]
    n_shuffles: int
    n_excluded: dict[str, int]
    n_passages: int
    n_passages_asked: int
    n_passages_shared: int
    n_passages_repeated: int
    n_passage_documents: int
    corpus: str
    corpus_sha256: str
    n_words: int
    unseen_share: float
    strict: list[str]
    mostly: float
    max_r2: float
    alpha: float
    seed: int


@dataclass(frozen=True)
class BaselinesSummary(Record):
    """How the baselines were made and what they say.

    Attributes:
        hooks: places that were read, from the embedding up.
        n_pairs_tested: pairs tested in each evaluation.
        n_left_out: pairs left out of each, because a copy of their text is on the other side.
        untested: "evaluation: target" that could not be tested for want of clusters.
        chosen_layers: evaluation -> target -> layer that the inner folds chose, one a fold; -1 is
            the embedding.
        best_latents: evaluation -> target -> the best latents, best first, one list a fold.
        verdicts: evaluation -> method -> verdict -> number of targets. Methods that exist at
            several layers are counted at the SAE's, the dense probe also at the embedding.
    """

    file: ClassVar[str] = "search/baselines.json"
    battery: str
    battery_sha256: str
    pooling: str
    sae_hook: str
    hooks: list[str]
    n_pairs_tested: dict[str, int]
    n_left_out: dict[str, int]
    untested: list[str]
    chosen_layers: dict[str, dict[str, list[int]]]
    best_latents: dict[str, dict[str, list[list[int]]]]
    verdicts: dict[str, dict[str, dict[str, int]]]
    n_folds: int
    n_inner: int
    strengths: list[float]
    word_strengths: list[float]
    n_random: int
    n_bootstrap: int
    seed: int


@dataclass(frozen=True)
class CalibrationSummary(Record):
    """How the search was calibrated, and in short what came out."""

    file: ClassVar[str] = "calibration/calibration.json"
    n_pairs: int
    n_clusters: int
    n_tested: int
    n_latents: int
    n_repeats: int
    n_planted: int
    n_permutations: int
    alpha: float
    unit: str
    unit_emotion: str
    effects: list[float]
    n_rates: int
    n_outside: int
    outside: list[str]
    skipped: dict[str, str]
    seed: int


@dataclass(frozen=True)
class NullSearchSummary(Record):
    """What was searched beside the SAE.

    Attributes:
        names: the nulls.
        poolings: the search's, and 'mean' where that reads equal tokens.
        comparable: the nulls were trained as the SAE was; else 'same budget' is the fair row.
        n_samples: SAE -> activations it was trained on, as far as known.
        n_significant_fwer: SAE -> pooling -> contrast -> number; without what was not searched.
        n_confirmed: likewise.
        not_searched: SAE -> poolings that read equal tokens there.
        n_beyond: other SAE -> pooling -> confirmed latents of this SAE, over all contrasts, that
            none of the other's retained latents reaches on confirmation.
        n_compared: likewise, the confirmed latents that were compared.
        remarks: SAE -> what has to be known to read its rows.
    """

    file: ClassVar[str] = "search/nulls.json"
    battery: str
    battery_sha256: str
    sae_hook: str
    names: list[str]
    poolings: list[str]
    comparable: bool
    n_samples: dict[str, int]
    n_significant_fwer: dict[str, dict[str, dict[str, int]]]
    n_confirmed: dict[str, dict[str, dict[str, int]]]
    not_searched: dict[str, list[str]]
    n_beyond: dict[str, dict[str, int]]
    n_compared: dict[str, dict[str, int]]
    remarks: dict[str, str]
    n_permutations: int
    unit: str
    unit_emotion: str
    alpha: float
    seed: int
