"""What can still be tested after a search; light, no torch.

Later stages test what the search retained, on pairs that did not choose it. A search that retained
nothing, or kept no pairs back, leaves them nothing to do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from affectlens.features.results import SearchSummary

DERIVED_FOLDERS = ("validity", "naming", "calibration", "effects", "steering")
"""Folders of a run that hold only what later stages made of a search."""

DERIVED_FILES = (
    "screen",
    "screen_agreement",
    "controls",
    "control_grains",
    "strict",
    "baselines",
    "nulls",
    "null_latents",
)
"""The same inside its folder `search`, without the endings."""


def untestable(summary: SearchSummary) -> dict[str, str]:
    """Stages that a search leaves nothing to do, each with the reason.

    Stages are 'controls', 'validity', 'baselines' and 'naming'; an empty dictionary means all can
    be done.
    """
    found: dict[str, str] = {}
    if summary.n_pairs_confirmation == 0:
        found["controls"] = (
            "the search kept no pairs for confirmation, so no pair is left that did not choose the "
            f"latents; {_how_to_keep(summary)}"
        )
    if summary.n_clusters_discovery + summary.n_clusters_confirmation < 2:
        found["baselines"] = (
            "the battery has one cluster of pairs; baselines are fitted on some clusters and "
            "tested on others"
        )
    if not sum(summary.n_retained.values()):
        reason = "the search retained no latent, so there is none to test"
        found |= dict.fromkeys(("controls", "validity", "naming"), reason)
        found.setdefault("baselines", reason)
    return found


def _how_to_keep(summary: SearchSummary) -> str:
    if summary.confirmation_share > 0:
        return "that takes an emotion with two domains at least, so add pairs of other domains"
    return "search with confirmation_share above 0"


def forget(run: Path) -> None:
    """Remove what later stages made of an earlier search of this folder."""
    for name in DERIVED_FOLDERS:
        shutil.rmtree(run / name, ignore_errors=True)
    for name in DERIVED_FILES:
        for kind in ("parquet", "csv", "json"):
            (run / "search" / f"{name}.{kind}").unlink(missing_ok=True)
