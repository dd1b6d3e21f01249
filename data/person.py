"""Whether a text is told in the first person (English)."""

from __future__ import annotations

import re
from typing import Literal

# A quotation that is not closed runs to the end of the text.
_QUOTED = re.compile(r'"[^"]*(?:"|$)|[\u201c\u201e][^\u201c\u201d]*(?:[\u201c\u201d]|$)')
# "US" is a country and "i.e." no pronoun; a mine may be a pit, so 'mine' counts only where a pit
# would need an article.
_FIRST = re.compile(
    r"\b(?:[Ii](?!\.\s?e\b)|[Mm]e|ME|[Mm]y|MY|[Mm]yself|MYSELF|[Ww]e|WE|[Uu]s|[Oo]urs?|OURS?"
    r"|[Oo]urselves)\b"
    r"|\b(?:of|is|was|are|were|be|been|than|like|to|with|from|and|not|became) mine\b"
    r"|(?:^|[.!?]\s+)Mine (?:is|was|are|were|had|has)\b"
)


def grammatical_person(text: str) -> Literal["first", "third"]:
    """'first' if a first-person pronoun stands outside double quotation marks, else 'third'.

    The pronouns are I, me, my, mine, myself, we, us, our, ours and ourselves, also in contractions
    (I'm, we'd). Single quotation marks are not told from apostrophes: what stands in them counts.
    """
    return "first" if _FIRST.search(_QUOTED.sub(" ", text)) else "third"
