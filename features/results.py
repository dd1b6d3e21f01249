"""Result tables and records of a run: everything that the report may read, and nothing that needs
torch.

A table is a parquet file with a CSV twin beside it; its columns are declared here and checked when
it is written and when it is read. A record is a JSON file with a `format_version`. Both are
written to a temporary name in the same folder, fsynced and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from affectlens.data.artifacts import atomic_path, read_versioned, write_versioned
from affectlens.data.errors import ArtifactError

FORMAT_VERSION = 1

FEATURE_COLUMNS: dict[str, str] = {
    "contrast": "'all' (every pair) or the name of one emotion (own pairs against the others')",
    "feature": "latent index in the SAE",
    "rank": "rank by discovery score within the contrast, 1 is best",
    "n_pairs": "pairs in the discovery part that enter this contrast",
    "firing_rate_items": "share of battery items in which the pooled activation is above zero",
    "mean_clinical": "mean pooled activation over clinical members, discovery part",
    "mean_neutral": "mean pooled activation over neutral members, discovery part",
    "mean_diff": "mean of clinical minus neutral over (own) pairs, discovery part",
    "d_z": "mean difference over standard deviation of differences, Hedges-corrected, (own) pairs",
    "auroc_paired": "share of (own) pairs with clinical > neutral, ties count one half",
    "specificity": "own mean difference minus the other emotions' (equals mean_diff for 'all')",
    "p": "permutation p, discovery part",
    "q": "Benjamini-Hochberg q over the family of this run, discovery part",
    "p_fwer": "max-T family-wise p within the contrast, discovery part",
    "confirm_n_pairs": "pairs in the confirmation part that enter this contrast",
    "confirm_mean_diff": "mean difference, confirmation part",
    "confirm_d_z": "d_z, confirmation part",
    "confirm_auroc_paired": "paired AUROC, confirmation part",
    "confirm_specificity": "specificity, confirmation part",
    "confirm_p": "permutation p, confirmation part; NaN where the feature was not retained",
    "confirm_p_holm": "Holm-adjusted over the retained features of the contrast; NaN likewise",
    "retained": "True if the feature was carried from discovery to confirmation",
    "confirmed": "True if retained, same sign, and confirm_p_holm <= alpha",
}

STATS_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "firing_rate": "share of unmasked held-out corpus tokens on which the latent is active",
    "mean_active": "mean activation where active (0 if never)",
    "max_active": "largest activation seen (0 if never)",
}

SPECIFICITY_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "selected_for": "contrast the feature was selected for",
    "emotion": "emotion whose pairs are measured",
    "part": "'discovery' or 'confirmation'",
    "n_pairs": "pairs measured",
    "mean_diff": "mean clinical minus neutral pooled activation over those pairs",
    "d_z": "d_z over those pairs; NaN below two pairs or at zero variance",
}

EFFECT_COLUMNS: dict[str, str] = {
    "emotion": "emotion whose features were edited and whose readout is measured",
    "intervention": "'ablate_zero', 'ablate_neutral', 'clamp' or 'scale'",
    "arm": "'chosen', 'random', 'random_direction', 'diff_of_means' or 'no_edit'",
    "set_index": "which random set; 0 for the single-set arms",
    "features": "comma-separated latent indices that were edited ('' for direction arms)",
    "strength": "clamp in units of each latent's maximum on held-out text, or the scale factor",
    "n_items": "texts measured (confirmation part)",
    "n_clusters": "emotion x domain clusters among them",
    "effect": "mean over items of edited minus unedited readout of the emotion (nats)",
    "effect_low": "lower end of the cluster-bootstrap interval",
    "effect_high": "upper end of the cluster-bootstrap interval",
    "readout_unedited": "mean readout without edit (nats)",
    "delta_norm": "mean L2 norm of the change written to the residual per edited token",
    "n_edited_tokens": "tokens that were changed",
    "hook_calls": "how often the edit ran",
    "kl": "mean KL(unedited || edited) of the next-token distribution at the readout (nats)",
}

VERDICT_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "intervention": "intervention",
    "direction": "'lower' or 'raise': the side predicted before the test",
    "effect": "effect of the chosen features (nats)",
    "random_mean": "mean effect of the matched random sets",
    "random_low": "smallest effect among the random sets",
    "random_high": "largest effect among the random sets",
    "n_random": "number of random sets",
    "advantage": "effect minus random_mean, signed so that positive is the predicted direction",
    "advantage_low": "lower end of the cluster-bootstrap interval of the advantage",
    "advantage_high": "upper end",
    "rank_p": "(1 + random sets at least as strong in the predicted direction) / (1 + n_random)",
    "p": "one-sided cluster sign-flip p of (chosen minus mean random) per item",
    "p_holm": "p, Holm-adjusted over the emotions within the intervention",
    "beats_random": "True if p_holm <= alpha and stronger than every random set",
    "n_items": "texts measured",
    "n_clusters": "clusters among them",
}

READOUT_COLUMNS: dict[str, str] = {
    "emotion": "emotion whose word set is read",
    "n_pairs": "own pairs of that emotion (all parts)",
    "clinical": "mean readout on own clinical items (nats)",
    "neutral": "mean readout on own neutral items (nats)",
    "mean_diff": "clinical minus neutral",
    "d_z": "d_z of that difference",
    "auroc_paired": "share of own pairs with clinical > neutral",
    "p": "exact or permutation sign-flip p over pairs, two-sided",
    "words": "comma-separated words whose probabilities are added",
}

POOLED_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "pair_id": "id of the clinical item",
    "emotion": "emotion of the pair",
    "cluster": "emotion x domain cluster",
    "part": "'discovery' or 'confirmation'",
    "clinical": "pooled activation of the clinical member",
    "neutral": "pooled activation of its neutral",
}

TABLES: dict[str, dict[str, str]] = {
    "search/features": FEATURE_COLUMNS,
    "search/feature_stats": STATS_COLUMNS,
    "search/specificity": SPECIFICITY_COLUMNS,
    "search/pooled": POOLED_COLUMNS,
    "effects/effects": EFFECT_COLUMNS,
    "effects/verdicts": VERDICT_COLUMNS,
    "effects/readout_check": READOUT_COLUMNS,
}
"""Every table of a run folder by its path without suffix."""


def write_table(frame: pd.DataFrame, run: Path, name: str) -> Path:
    """Write `frame` as `run/name.parquet` and `run/name.csv` after checking its columns.

    Raises:
        ArtifactError: columns are missing or unknown.
    """
    _check_columns(frame, name)
    frame = frame[list(TABLES[name])]
    base = Path(run) / name
    base.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(base.with_suffix(".csv")) as tmp:
        frame.to_csv(tmp, index=False)
    with atomic_path(base.with_suffix(".parquet")) as tmp:
        frame.to_parquet(tmp, index=False)
    return base.with_suffix(".parquet")


def read_table(run: Path, name: str) -> pd.DataFrame:
    """Read a table written by `write_table`.

    Raises:
        ArtifactError: the file is absent, unreadable, or has other columns.
    """
    path = (Path(run) / name).with_suffix(".parquet")
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: this stage has not been run") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read as parquet ({error}); run its stage again"
        ) from error
    _check_columns(frame, name)
    return frame


def _check_columns(frame: pd.DataFrame, name: str) -> None:
    if name not in TABLES:
        raise ArtifactError(f"unknown table {name!r}; known: {', '.join(TABLES)}")
    missing = [c for c in TABLES[name] if c not in frame.columns]
    extra = [c for c in frame.columns if c not in TABLES[name]]
    if missing or extra:
        raise ArtifactError(f"table {name!r}: missing columns {missing}, unknown columns {extra}")


@dataclass(frozen=True)
class Record:
    """Base of the JSON records; subclasses are flat frozen dataclasses."""

    file: ClassVar[str] = ""

    def write(self, run: Path) -> Path:
        """Write this record to its place below the run folder."""
        return write_versioned(Path(run) / self.file, FORMAT_VERSION, asdict(self))

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read this record from a run folder.

        Raises:
            ArtifactError: absent, not JSON, a newer format, or other fields.
        """
        path = Path(run) / cls.file
        payload = read_versioned(path, FORMAT_VERSION)
        names = {f.name for f in fields(cls)}
        # A field with a default was added after the first files of this version were written.
        needed = {f.name for f in fields(cls) if f.default_factory is MISSING}
        if not needed <= set(payload) <= names:
            raise ArtifactError(
                f"{path}: fields differ from {cls.__name__}: {sorted(names ^ set(payload))}"
            )
        return cls(**payload)


@dataclass(frozen=True)
class SAEMetrics(Record):
    """Quality of the SAE on held-out text, masked tokens left out."""

    file: ClassVar[str] = "sae/metrics.json"
    architecture: str
    hook_name: str
    d_in: int
    d_sae: int
    k: float
    n_training_samples: int
    n_heldout_tokens: int
    n_masked_tokens: int
    fvu: float
    l0: float
    dead_share: float
    ce_clean: float
    ce_spliced: float
    ce_mean_ablated: float
    ce_zero_ablated: float
    ce_recovered_mean: float
    ce_recovered_zero: float
    history: list[dict[str, float]]


@dataclass(frozen=True)
class SearchSummary(Record):
    """What was searched, over which family, and what came out."""

    file: ClassVar[str] = "search/search.json"
    battery: str
    battery_sha256: str
    pooling: str
    suffix: str
    emotions: list[str]
    n_pairs_discovery: int
    n_pairs_confirmation: int
    n_clusters_discovery: int
    n_clusters_confirmation: int
    n_features: int
    n_tested: int
    n_filtered: int
    min_items: int
    n_tests_family: int
    n_permutations: int
    unit: str
    unit_emotion: str
    alpha: float
    min_p: dict[str, float]
    min_detectable_d_z: float
    n_significant_q: dict[str, int]
    n_significant_fwer: dict[str, int]
    n_retained: dict[str, int]
    n_confirmed: dict[str, int]
    lexical_warning: str
    seed: int
    misfits: list[str] = field(default_factory=list)
    """What does not fit between SAE, model and store and was overridden by name."""


@dataclass(frozen=True)
class EffectsSummary(Record):
    """How the interventions were made and measured."""

    file: ClassVar[str] = "effects/effects.json"
    emotions: list[str]
    interventions: list[str]
    features_per_emotion: int
    n_random_sets: int
    clamp_strength: float
    scope: str
    templates: list[str]
    readout: str
    alpha: float
    selection: str
    n_beating_random: dict[str, int]
    dropped_words: dict[str, list[str]]
    seed: int
    misfits: list[str] = field(default_factory=list)
    """What does not fit between SAE and model and was overridden by name."""


@dataclass(frozen=True)
class Context:
    """One place in the corpus where a latent fires; `tokens[peak]` holds the maximum."""

    feature: int
    doc_id: str
    position: int
    peak: int
    tokens: list[str]
    activations: list[float]


@dataclass(frozen=True)
class Generation:
    """One text written by the model; strength 0 is the unedited model.

    `misfits` names what does not fit between SAE and model and was overridden.
    """

    emotion: str
    features: list[int]
    arm: str
    strength: float
    prompt: str
    text: str
    seed: int
    misfits: list[str] = field(default_factory=list)


def write_lines(path: Path, rows: Iterable[Context | Generation]) -> Path:
    """Write dataclass rows as JSON lines, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as tmp, tmp.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
    return path


def read_contexts(run: Path) -> list[Context]:
    """Read `search/contexts.jsonl`."""
    return [Context(**row) for row in _rows(Path(run) / "search/contexts.jsonl")]


def read_generations(run: Path) -> list[Generation]:
    """Read `effects/generations.jsonl`."""
    return [Generation(**row) for row in _rows(Path(run) / "effects/generations.jsonl")]


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: this stage has not been run") from None
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{path}, line {number}: not JSON ({error})") from error
