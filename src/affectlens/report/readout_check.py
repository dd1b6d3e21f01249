"""Which readouts can be read: those that rise on their own emotion's texts."""

from __future__ import annotations

from .loading import ALPHA, RunData

SCALES = ("valence", "arousal")
"""Readouts that no emotion's features are measured by."""


def doubtful_readouts(data: RunData) -> list[str]:
    """Emotions whose readout does not rise on their own texts (p above alpha, or wrong sign).

    The p is over scene groups where the check gives one, else over pairs.
    """
    if data.readout is None:
        return []
    alpha = data.effects_summary.alpha if data.effects_summary else ALPHA
    own = data.readout[~data.readout.emotion.isin(SCALES)]
    p = own.p_cluster.where(own.p_cluster.notna(), own.p)
    passed = (p <= alpha) & (own.mean_diff > 0)
    return [str(e) for e in own.loc[~passed, "emotion"]]
