"""Reads naming/names.jsonl: what each found feature fires on, writes, and stands near.

The text comes from models and corpora; whoever puts it on a page escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from affectlens.data.errors import ArtifactError
from affectlens.features.results import Context, read_lines

NAMES_FILE = "naming/names.jsonl"
FORMAT = "affectlens feature names"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TokenShare:
    """A token type, its share of the feature's activation, and how far above its share of text."""

    text: str
    mass_share: float
    lift: float


@dataclass(frozen=True)
class TokenSpread:
    """Over how many token types the activation is spread; None where the feature never fires."""

    n_active: int
    n_types: int
    effective_types: float | None
    entropy_bits: float | None
    base_entropy_bits: float
    top: tuple[TokenShare, ...]


@dataclass(frozen=True)
class TokenLogit:
    """A token and what the decoder row alone adds to its logit."""

    text: str
    logit: float


@dataclass(frozen=True)
class Lens:
    """Tokens promoted and suppressed most, the strongest first."""

    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]


@dataclass(frozen=True)
class EmotionWords:
    """The feature against the words of one contrast's emotion."""

    contrast: str
    kind: str
    own_mass: float | None
    auroc: float | None
    p_reference: float | None
    n_words: int


@dataclass(frozen=True)
class Range:
    """Places whose activation lies in (low, high]; `share` is of the tokens it fires on."""

    low: float
    high: float
    n_tokens: int
    share: float
    contexts: tuple[Context, ...]


@dataclass(frozen=True)
class Density:
    """Histogram of log10 activation: [n + 1] edges, [n] tokens; empty if it never fires."""

    log10_edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Neighbour:
    """Another feature and how near it is."""

    feature: int
    value: float


@dataclass(frozen=True)
class FeatureName:
    """What the page needs of one line; further fields of the file are left alone."""

    feature: int
    firing_rate: float
    max_active: float
    density: Density
    groups: tuple[Range, ...]
    tokens: TokenSpread
    emotion_mass: float | None
    lens: Lens
    emotions: tuple[EmotionWords, ...]
    nearest_decoder: tuple[Neighbour, ...]
    nearest_cofiring: tuple[Neighbour, ...]


@dataclass(frozen=True)
class AboutNames:
    """The first line: what the names were read from."""

    n_names: int
    n_tokens: int
    emotion_token_rate: float
    lexicon: str
    n_reference: int


_NAMES = TypeAdapter(tuple[FeatureName, ...])
_ABOUT = TypeAdapter(AboutNames)


def read_feature_names(path: Path) -> tuple[AboutNames, tuple[FeatureName, ...]]:
    """The first line and the features of naming/names.jsonl.

    Raises:
        ArtifactError: absent, cut off, not JSON, of another version, or with other fields.
    """
    rows = read_lines(path)
    head = rows[0] if rows else {}
    if (head.get("format"), head.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ArtifactError(
            f"{path} is {head.get('format')!r} of version {head.get('format_version')!r}; this "
            f"release reads {FORMAT!r} of version {FORMAT_VERSION}; run the naming stage again"
        )
    try:
        about, names = _ABOUT.validate_python(head), _NAMES.validate_python(rows[1:])
    except ValidationError as error:
        raise ArtifactError(
            f"{path} holds other fields than names have ({error}); run the naming stage again"
        ) from error
    if about.n_names != len(names):
        raise ArtifactError(f"{path} is cut off; run the naming stage again")
    return about, names
