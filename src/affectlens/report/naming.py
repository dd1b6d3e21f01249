"""Cards that say what a found feature is about, without a model that writes names.

The names are JSON lines whose text comes from models and corpora; the page escapes all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from affectlens.data.errors import ArtifactError
from affectlens.features.results import Context, read_lines

from .contrasts import Snippet, snippet
from .loading import RunData
from .passport import NAMES_FILE, retained
from .text import ALL, contrast_label, count, drawn, listing, number, plural, share, shorten

FILE = NAMES_FILE
FORMAT = "affectlens feature names"
FORMAT_VERSION = 1

CONTEXTS_A_GROUP = 2
"""Places shown of each range of activation; naming/names.jsonl holds more."""
TOKENS_SHOWN = 10
NEIGHBOURS_SHOWN = 5
TOKEN_LIMIT = 24
"""Characters of a token shown; a run of blanks can be longer."""


@dataclass(frozen=True)
class _Share:
    text: str
    mass_share: float
    lift: float


@dataclass(frozen=True)
class _Tokens:
    n_active: int
    n_types: int
    effective_types: float | None
    entropy_bits: float | None
    base_entropy_bits: float
    top: tuple[_Share, ...]


@dataclass(frozen=True)
class _Logit:
    text: str
    logit: float


@dataclass(frozen=True)
class _Lens:
    promoted: tuple[_Logit, ...]
    suppressed: tuple[_Logit, ...]


@dataclass(frozen=True)
class _Emotion:
    contrast: str
    kind: str
    own_mass: float | None
    auroc: float | None
    p_reference: float | None
    n_words: int


@dataclass(frozen=True)
class _Group:
    low: float
    high: float
    n_tokens: int
    share: float
    contexts: tuple[Context, ...]


@dataclass(frozen=True)
class _Near:
    feature: int
    value: float


@dataclass(frozen=True)
class _Name:
    """What the page needs of one line; further fields of the file are left alone."""

    feature: int
    firing_rate: float
    max_active: float
    groups: tuple[_Group, ...]
    tokens: _Tokens
    emotion_mass: float | None
    lens: _Lens
    emotions: tuple[_Emotion, ...]
    nearest_decoder: tuple[_Near, ...]
    nearest_cofiring: tuple[_Near, ...]


@dataclass(frozen=True)
class _About:
    n_names: int
    n_tokens: int
    emotion_token_rate: float
    lexicon: str
    n_reference: int


_NAMES = TypeAdapter(tuple[_Name, ...])
_ABOUT = TypeAdapter(_About)


@dataclass(frozen=True)
class Chip:
    """A token, blanks and line breaks drawn; `lead` is its leading blank, `size` a number by it."""

    lead: str
    text: str
    size: str
    note: str


@dataclass(frozen=True)
class Range:
    """Places whose activation lies in one range."""

    title: str
    snippets: tuple[Snippet, ...]


@dataclass(frozen=True)
class Card:
    """One feature."""

    feature: int
    found_for: str
    confirmed: bool
    kinds: tuple[tuple[str, str], ...]
    seen: str
    spread: str
    words: tuple[str, ...]
    top: tuple[Chip, ...]
    promoted: tuple[Chip, ...]
    suppressed: tuple[Chip, ...]
    ranges: tuple[Range, ...]
    neighbours: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NamingSection:
    """Cards, confirmed features first, and how many are of each kind."""

    confirmed: tuple[Card, ...]
    others: tuple[Card, ...]
    kinds: str
    basis: str


KINDS = {
    "names": "it makes words of its emotion more likely",
    "detects words": "most of its activation lies on emotion words",
    "evokes": "neither, by exclusion; it may also fall on emotional scenes",
    "not seen": "it never fires on held-out text",
}
"""Kinds as the naming stage defines them, in words."""


def naming_section(data: RunData) -> NamingSection | None:
    """The cards; None if the names were not written.

    Raises:
        ArtifactError: the file of names is broken or of another version.
    """
    path = data.path / FILE
    if not path.exists():
        return None
    about, names = _read(path)
    place = {feature: i for i, (_, feature, _) in reversed(list(enumerate(retained(data))))}
    sure = {feature for _, feature, confirmed in retained(data) if confirmed}
    ordered = sorted(names, key=lambda n: (place.get(n.feature, len(place)), n.feature))
    cards = [_card(name, about, confirmed=name.feature in sure) for name in ordered]
    return NamingSection(
        confirmed=tuple(c for c in cards if c.confirmed),
        others=tuple(c for c in cards if not c.confirmed),
        kinds=_counted(names),
        basis=(
            f"{plural(about.n_tokens, 'held-out corpus token')}; emotion words: {about.lexicon}, "
            f"{share(about.emotion_token_rate)} of the tokens; promotion compared with "
            f"{plural(about.n_reference, 'other feature')}."
        ),
    )


def _read(path: Path) -> tuple[_About, tuple[_Name, ...]]:
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


def _counted(names: tuple[_Name, ...]) -> str:
    kinds = [words.kind for name in names for words in name.emotions]
    said = [f"{kinds.count(kind)} “{kind}” ({what})" for kind, what in KINDS.items()
            if kind in kinds]  # fmt: skip
    return f"{listing(said)}." if said else ""


def _card(name: _Name, about: _About, *, confirmed: bool) -> Card:
    kinds = dict.fromkeys((words.kind, KINDS.get(words.kind, "")) for words in name.emotions)
    return Card(
        feature=name.feature,
        found_for=listing([contrast_label(words.contrast) for words in name.emotions]),
        confirmed=confirmed,
        kinds=tuple(kinds),
        seen=(
            f"fires on {share(name.firing_rate)} of tokens, at most {number(name.max_active, 1)}"
            if name.tokens.n_active
            else "never fires on held-out text"
        ),
        spread=_spread(name.tokens),
        words=tuple(_emotion(words, about) for words in name.emotions),
        top=tuple(
            _chip(t.text, share(t.mass_share), f"{share(t.mass_share)}, {_lift(t.lift)}")
            for t in name.tokens.top[:TOKENS_SHOWN]
        ),
        promoted=_chips(name.lens.promoted),
        suppressed=_chips(name.lens.suppressed),
        ranges=tuple(_range(group) for group in name.groups if group.contexts),
        neighbours=(
            ("writes alike (cosine)", _near(name.nearest_decoder)),
            ("fires together (phi)", _near(name.nearest_cofiring)),
        ),
    )


def _spread(tokens: _Tokens) -> str:
    if tokens.effective_types is None:
        return ""
    return (
        f"spread like {count(tokens.effective_types)} equal token types of "
        f"{count(tokens.n_types)} seen (entropy {number(tokens.entropy_bits, 1)} bits; all text "
        f"{number(tokens.base_entropy_bits, 1)})"
    )


def _emotion(words: _Emotion, about: _About) -> str:
    which = "emotion words" if words.contrast == ALL else f"words of {words.contrast}"
    fires = (
        ""
        if words.own_mass is None
        else f"{share(words.own_mass)} of its activation on {which}"
        + (f" ({share(about.emotion_token_rate)} of tokens are)" if words.contrast == ALL else "")
    )
    writes = (
        f"too few {which} to score what it promotes"
        if words.auroc is None
        else f"promotes {which}: AUROC {number(words.auroc)}, reached by "
        f"{_share_of_others(words.p_reference)} ({plural(words.n_words, 'word')})"
    )
    return "; ".join(filter(None, (fires, writes)))


def _share_of_others(p: float | None) -> str:
    return "–" if p is None else f"{share(p)} of other features"


def _lift(lift: float) -> str:
    return f"{number(lift, 0 if lift >= 10 else 1)}× its share of text"


def _chips(logits: tuple[_Logit, ...]) -> tuple[Chip, ...]:
    return tuple(
        _chip(t.text, "", f"logit {number(t.logit, sign=True)}") for t in logits[:TOKENS_SHOWN]
    )


def _chip(text: str, size: str, note: str) -> Chip:
    lead = text.startswith(" ") and text != " "
    rest = text[1:] if lead else text
    return Chip("␣" if lead else "", shorten(drawn(rest), TOKEN_LIMIT), size, note)


def _range(group: _Group) -> Range:
    title = (
        f"{number(group.low, 1)} to {number(group.high, 1)}: {share(group.share)} of the tokens "
        f"it fires on ({count(group.n_tokens)})"
    )
    return Range(title, tuple(snippet(c) for c in group.contexts[:CONTEXTS_A_GROUP]))


def _near(found: tuple[_Near, ...]) -> str:
    shown = [f"{n.feature} ({number(n.value)})" for n in found[:NEIGHBOURS_SHOWN]]
    return ", ".join(shown) or "none"
