"""What the found features are about, one line each; each feature's page has the rest.

The names are JSON lines whose text comes from models and corpora; the page escapes all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectlens.display.words import contrast_label, listing, plural, share

from .feature_names import NAMES_FILE, FeatureName, read_feature_names
from .feature_words import Chip, fired_tokens, lens_tokens
from .loading import RunData
from .passport import retained, with_page
from .tables import Head, Row, Table, words

TOKENS_SHOWN = 5

KINDS = {
    "names": "it makes words of its emotion more likely",
    "detects words": "most of its activation lies on emotion words",
    "evokes": "neither, by exclusion; it may also fall on emotional scenes",
    "not seen": "it never fires on held-out text",
}
"""Kinds as the naming stage defines them, in words."""

_HEADS = (
    Head("Feature", "found for", num=False),
    Head("Kind", num=False),
    Head("Fires on", "share of its activation, and that over the share of text", num=False),
    Head("Promotes", "added to the token’s logit", num=False),
)


@dataclass(frozen=True)
class NamingSection:
    """A line a feature, confirmed ones apart, and how many are of each kind."""

    confirmed: Table | None
    others: Table | None
    kinds: str
    basis: str


def naming_section(data: RunData) -> NamingSection | None:
    """The lines; None if the names were not written.

    Raises:
        ArtifactError: the file of names is broken or of another version.
    """
    path = data.path / NAMES_FILE
    if not path.exists():
        return None
    about, names = read_feature_names(path)
    found = retained(data)
    place = {feature: i for i, (_, feature, _) in reversed(list(enumerate(found)))}
    sure = {feature for _, feature, confirmed in found if confirmed}
    ordered = sorted(names, key=lambda n: (place.get(n.feature, len(place)), n.feature))
    shown = with_page(data)
    return NamingSection(
        _table("Confirmed features", [n for n in ordered if n.feature in sure], shown),
        _table("Candidates not confirmed", [n for n in ordered if n.feature not in sure], shown),
        _counted(names),
        f"{plural(about.n_tokens, 'held-out corpus token')}; emotion words: {about.lexicon}, "
        f"{share(about.emotion_token_rate)} of the tokens; promotion compared with "
        f"{plural(about.n_reference, 'other feature')}.",
    )


def _table(title: str, names: Sequence[FeatureName], shown: frozenset[int]) -> Table | None:
    if not names:
        return None
    return Table(f"{title}: {len(names)}", _HEADS, tuple(_row(n, shown) for n in names))


def _row(name: FeatureName, shown: frozenset[int]) -> Row:
    kinds = dict.fromkeys(words_.kind for words_ in name.emotions)
    cells = (
        words(", ".join(kinds), "; ".join(KINDS.get(kind, "") for kind in kinds)),
        words(_said(fired_tokens(name.tokens.top[:TOKENS_SHOWN])) or "never on held-out text"),
        words(_said(lens_tokens(name.lens.promoted[:TOKENS_SHOWN]))),
    )
    return Row(
        str(name.feature),
        cells,
        below=listing([contrast_label(words_.contrast) for words_ in name.emotions]),
        link=f"feature-{name.feature}" if name.feature in shown else "",
    )


def _said(tokens: Sequence[Chip]) -> str:
    return ", ".join(f"{token.text} ({token.size})" for token in tokens)


def _counted(names: Sequence[FeatureName]) -> str:
    kinds = [own.kind for name in names for own in name.emotions]
    said = [f"{kinds.count(kind)} “{kind}” ({what})" for kind, what in KINDS.items()
            if kind in kinds]  # fmt: skip
    return f"{listing(said)}." if said else ""
