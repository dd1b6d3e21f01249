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
from affectlens.features.columns import TABLES

FORMAT_VERSION = 1


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
        raise ArtifactError(
            f"table {name!r}: missing columns {missing}, unknown columns {extra}; if another "
            "version wrote it, run its stage again"
        )


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
        needed = {
            f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
        }
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
    confirmation_share: float = 0.34
    max_retained: int = 20
    misfits: list[str] = field(default_factory=list)
    """What does not fit between SAE, model and store and was overridden by name."""
    confirm_min_p: dict[str, float] = field(default_factory=dict)
    """Smallest p that a contrast's confirmation can give; 1 where it cannot be made."""
    min_detectable: dict[str, float] = field(default_factory=dict)
    """Smallest effect that a contrast's discovery finds with power .8, in standard deviations of
    single pair differences (for an emotion, from all others); 1000 where none is found. That of
    'all' is `min_detectable_d_z`."""
    icc: float | None = field(default_factory=lambda: None)
    """Mean intraclass correlation of pair differences within clusters, over tested latents, on
    which `min_detectable` rests; None where clusters allow none."""
    n_significant_family: dict[str, int] = field(default_factory=dict)
    """Like `n_significant_fwer`, family-wise over all contrasts (`p_family`)."""
    n_confirmed_family: dict[str, int] = field(default_factory=dict)
    """Of `n_confirmed`, those that stay after correction over all contrasts
    (`confirm_p_family`)."""
    sae_sha256: str = ""
    """Hash of the SAE that was searched; empty for a search without a model."""

    def limits(self) -> list[str]:
        """One sentence a contrast and part in which nothing could have come out, with its p."""
        lines = []
        for part, smallest in (("discovery", self.min_p), ("confirmation", self.confirm_min_p)):
            for name, p in smallest.items():
                if p > self.alpha:
                    # Enumeration never gives less than 1 / n, drawing gives 1 / (1 + n).
                    drawn = p < 1 / self.n_permutations
                    few = "permutations" if drawn else self._units(name)
                    lines.append(
                        f"{name}: the smallest p that {part} can give is {p:.2g}, above the level "
                        f"{self.alpha:g}; it has too few {few}"
                    )
        return lines

    def _units(self, contrast: str) -> str:
        unit = self.unit if contrast == "all" else self.unit_emotion
        return "pairs" if unit in ("pair", "hierarchical") else "clusters"


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
    arms: list[str] = field(default_factory=list)
    """Control arms that were asked for, beside the chosen features and no edit."""
    doses: dict[str, list[float]] = field(default_factory=dict)
    """Strengths of each intervention; [0] where it has none."""
    dose_rule: str = ""
    """How the reported dose was chosen, and on which texts."""
    n_tests: int = 0
    """Tests of the family of `p_family`: emotions x interventions x doses."""
    n_family: dict[str, int] = field(default_factory=dict)
    """Verdicts of each intervention with `p_family` at or below `alpha`."""
    n_beating_controls: dict[str, int] = field(default_factory=dict)
    """Verdicts of each intervention that also beat every direction and other selection."""
    n_planned_rows: int = 0
    """Forward rows from the edited layer on, at most; unchanged ones were not run."""
    n_pairs: int = 0
    """Confirmation pairs measured."""
    missing_arms: dict[str, list[str]] = field(default_factory=dict)
    """Arms that could not be made, and for which emotions."""
    prompts: dict[str, list[str]] = field(default_factory=dict)
    """Emotion -> the sentence of the arm 'prompt', and that of 'prompt_neutral'."""
    calibrated: bool = False
    """Whether the readout sets each word against its own after texts without content."""
    words: str = "plutchik"
    """Word sets of the readout."""


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


def write_lines(path: Path, rows: Iterable[Context | Generation | Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, atomically; missing folders are made.

    Raises:
        MachineError: the disk is full.
        ValueError: a number is NaN or infinite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A token can hold half of a surrogate pair, which UTF-8 cannot; its escape is JSON's own.
    with (
        atomic_path(path) as tmp,
        tmp.open("w", encoding="utf-8", errors="backslashreplace") as handle,
    ):
        for row in rows:
            fields_ = row if isinstance(row, Mapping) else asdict(row)
            handle.write(json.dumps(fields_, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_contexts(run: Path) -> list[Context]:
    """Read `search/contexts.jsonl`."""
    return [Context(**row) for row in read_lines(Path(run) / "search/contexts.jsonl")]


def read_generations(run: Path) -> list[Generation]:
    """Read `effects/generations.jsonl`."""
    return [Generation(**row) for row in read_lines(Path(run) / "effects/generations.jsonl")]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the JSON objects that `write_lines` wrote.

    Raises:
        ArtifactError: absent, cut off within a line, or not lines of JSON objects.
    """
    try:
        # Not str.splitlines: U+2028, U+0085 and others are legal inside a JSON string.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: this stage has not been run") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is damaged ({error}); run its stage again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ArtifactError(f"{path}, line {number}: not an object")
        rows.append(row)
    return rows
