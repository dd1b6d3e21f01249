"""One main finding: how it came out, a headline that can stand alone, and one big number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["found", "mixed", "none", "missing"]


@dataclass(frozen=True)
class Finding:
    """One main finding: tone, a headline that can stand alone, its numbers, and one big number.

    `question` is what it answers, `sure` the part of `detail` that says how sure it is.
    """

    tone: Tone
    headline: str
    detail: str
    value: str = "–"
    unit: str = ""
    question: str = ""
    sure: str = ""

    @property
    def answer(self) -> str:
        """The headline's first sentence."""
        return self._split[0]

    @property
    def held_against(self) -> str:
        """What the headline says after its first sentence; '' if that is all."""
        return self._split[1]

    @property
    def _split(self) -> tuple[str, str]:
        head, stop, rest = self.headline.partition(". ")
        return (head + stop.strip(), rest) if stop else (self.headline, "")

    @property
    def text(self) -> str:
        """Headline and detail as one paragraph."""
        return f"{self.headline} {self.detail}".strip()
