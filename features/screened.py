"""What a screen found, how it is stored, and how it joins the table of its search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.features.results import read_table, write_table
from affectlens.features.screen_columns import SCREENED
from affectlens.features.screen_records import ScreenSummary
from affectlens.features.search_views import ScreenViews


@dataclass(frozen=True, eq=False, repr=False)
class Screen(ScreenViews):
    """What a screen found.

    Attributes:
        table: one row a contrast and latent (`SCREEN_COLUMNS`), by latent within a contrast.
        agreement: estimates against measurements (`AGREEMENT_COLUMNS`).
        summary: how it was made.
    """

    table: pd.DataFrame = field(repr=False)
    agreement: pd.DataFrame = field(repr=False)
    summary: ScreenSummary

    def of(self, contrast: str) -> pd.DataFrame:
        """The rows of one contrast, indexed by latent.

        Raises:
            ConfigError: it was not screened.
        """
        if contrast not in self.summary.contrasts:
            raise ConfigError(
                f"contrast {contrast!r} was not screened; there are "
                f"{', '.join(self.summary.contrasts)}"
            )
        return self.table[self.table["contrast"] == contrast].set_index("feature")

    def write(self, run: Path) -> Path:
        """Write `search/screen*` of a run folder, the summary last; returns its path."""
        write_table(self.table, run, "search/screen")
        write_table(self.agreement, run, "search/screen_agreement")
        return self.summary.write(Path(run))


def read_screen(run: Path) -> Screen:
    """The screen stored below `run/search`.

    Raises:
        ArtifactError: absent or damaged.
    """
    run = Path(run)
    return Screen(
        table=read_table(run, "search/screen"),
        agreement=read_table(run, "search/screen_agreement"),
        summary=ScreenSummary.read(run),
    )


def with_screen(table: pd.DataFrame, screen: Screen | None) -> pd.DataFrame:
    """The table of a search with `attribution` and `output_score` from its screen.

    They are NaN where the screen has no row or measured nothing, or where there is no screen.
    `attribution` is the gradient estimate of ablation throughout, so that rows compare;
    `search/screen` holds what was measured.
    """
    names = [*table.columns, *(name for name in SCREENED if name not in table)]
    bare = table.drop(columns=[name for name in SCREENED if name in table])
    if screen is None:
        return bare.assign(**dict.fromkeys(SCREENED, np.nan))[names]
    screened = screen.table.rename(columns={"attribution_ablate": "attribution"})
    keys = ["contrast", "feature"]
    return bare.merge(screened[[*keys, *SCREENED]], on=keys, how="left", validate="1:1")[names]
