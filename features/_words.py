"""Words of a text, and the two closed lists that the lexical audit counts. Own lists, English."""

from __future__ import annotations

import re
import unicodedata

NEGATORS = frozenset(
    (
        *("no", "not", "never", "nothing", "nobody", "none", "nor", "neither", "nowhere"),
        *("without", "cannot", "hardly", "barely"),
    )
)
"""Counted as negations, together with every word that ends in n't."""

_FUNCTION_WORDS = """
a an the this that these those each every either neither some any all both few many more most
much other another such no none own same one i me my mine myself we us our ours ourselves you
your yours yourself he him his himself she her hers herself it its itself they them their
theirs themselves who whom whose which what where when why how whoever whatever am is are was
were be been being do does did doing done have has had having will would shall should can could
may might must ought cannot and but or nor so yet for if then else than because as until while
although though unless since whether of at by with about against between into through during
before after above below to from up down in out on off over under again further along across
around behind beside beyond near onto upon toward towards within without not never only just
even still also too very there here now once always ever
"""

FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Closed-class words; contracted forms of its members count as well."""


WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
"""A run of letters, apostrophes inside it included; digits and marks are no words."""


def tokens(text: str) -> list[str]:
    """Lower-cased words of a text, apostrophes inside words kept, digits and marks left out."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def visible(text: str) -> str:
    """The text without characters that have no width: soft hyphens, direction marks, joiners."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def is_function_word(word: str) -> bool:
    """True for a closed-class word or a contraction that begins with one ("she'd", "didn't")."""
    if word in FUNCTION_WORDS or word.endswith("n't"):
        return True
    stem, mark, _ = word.partition("'")
    return bool(mark) and stem in FUNCTION_WORDS


def is_negator(word: str) -> bool:
    """True for a word that negates."""
    return word in NEGATORS or word.endswith("n't")


_PROCEDURAL = """
standard scheduled schedule checked reviewed review routine routinely usual confirmed inventory
logged protocol protocols procedure procedures compliance quarterly documented updated submitted
processed administrative paperwork agenda checklist filed
"""

PROCEDURAL = frozenset(_PROCEDURAL.split())
"""Words of administrative prose, which gives the neutrals of published batteries away."""

BODILY_SIGNS = re.compile(
    r"\bheart (?:pound|rac|hammer|sank|leap|leapt)\w*|\bjaws? (?:clench|tight)\w*|\bclenched\b|"
    r"\b(?:white|tight) knuckles\b|\btrembl\w+|\bstomach (?:turn|churn|knot|drop)\w*|"
    r"\bgoosebumps?\b|\bbreath caught\b|\bfelt\b|\bblood ran cold\b",
    re.IGNORECASE,
)
"""Stock signs by which weak prose names an emotion; 'felt' counts, the cloth is rare."""

_NAMELIKE = """
i mr mrs miss ms dr god monday tuesday wednesday thursday friday saturday sunday january
february march april may june july august september october november december christmas easter
"""
_NOT_NAMES = frozenset(_NAMELIKE.split())


def names(text: str) -> tuple[str, ...]:
    """Capitalised words inside sentences, titles and days left out, each once: most are names."""
    plain = re.sub(r"[\"\u201c\u201d]", "", text)
    found = re.findall(r"(?<=[a-z,;] )[A-Z][^\W\d_]+", plain)
    return tuple(dict.fromkeys(w for w in found if w.lower() not in _NOT_NAMES))
