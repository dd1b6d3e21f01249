"""One main finding: how it came out, a headline that can stand alone, and one big number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["found", "mixed", "none", "missing"]


@dataclass(frozen=True)
class Finding:
    """One main finding: tone, a headline that can stand alone, its numbers, and one big number."""

    tone: Tone
    headline: str
    detail: str
    value: str = "–"
    unit: str = ""

    @property
    def text(self) -> str:
        """Headline and detail as one paragraph."""
        return f"{self.headline} {self.detail}".strip()
