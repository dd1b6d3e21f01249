"""The JSON record of a screen: how it was made and what it covers; light, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from affectlens.features.results import Record


@dataclass(frozen=True)
class ScreenSummary(Record):
    """What was screened. No test is made: a screen ranks latents, it gives no p.

    Attributes:
        contrasts: contrasts that were screened.
        unread: contrasts without a column in the readout, with the reason.
        readout: what the readout is (`Readout.describe`).
        n_pairs: discovery pairs used.
        n_texts: contrast -> clinical items on which ablations are estimated and measured.
        n_live: latents that fire on held-out text; only they are screened.
        n_dead: the others.
        n_kept: contrast -> rows of the table.
        n_left_out: contrast -> live latents without a row: smaller estimates, or all of them 0.
        n_measured: intervention -> latents whose effect was measured for any contrast.
        completeness: contrast -> the effect of ablating all latents at once (`joint`), and the
            sums over latents of both estimates of it; `integrated` should be near.
        n_scored: latents with an output score.
        unscored: why there are no output scores; '' if there are.
        n_prefixes: neutral openings used for it.
        n_prefixes_masked: openings whose last token the SAE's mask leaves out.
        settings: the settings (`ScreenConfig`).
    """

    file: ClassVar[str] = "search/screen.json"
    contrasts: list[str]
    unread: dict[str, str]
    readout: dict[str, Any]
    n_pairs: int
    n_texts: dict[str, int]
    n_live: int
    n_dead: int
    n_kept: dict[str, int]
    n_left_out: dict[str, int]
    n_measured: dict[str, int]
    completeness: dict[str, dict[str, float | None]]
    n_scored: int
    unscored: str
    n_prefixes: int
    n_prefixes_masked: int
    settings: dict[str, Any]
    misfits: list[str] = field(default_factory=list)
    """What does not fit between SAE and model and was overridden by name."""
