"""Figure of a screen: estimated effects of latents against measured ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .look import THEME, axes_of, dress, key, styled
from .words import number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAID = {"ablate": "switched off", "clamp": "turned up"}


@styled
def agreement(
    table: pd.DataFrame, *, intervention: str, who: str, pearson: float, ax: Axes | None = None
) -> Axes:
    """Effect estimated by gradients against the measured one, one mark a latent and contrast.

    Args:
        table: columns estimate, exact (nats) and sample ('top', 'random' or 'both').
        intervention: 'ablate' or 'clamp'.
        who: the contrasts, in words.
        pearson: correlation over the random sample, median over contrasts; NaN if not known.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (5.4, 5.0))
    dress(
        axes,
        f"Estimated against measured effect: latents {SAID[intervention]}",
        f"n = {plural(len(table), 'mark')}, {who}; discovery texts; correlation over the random "
        f"sample (control) {number(pearson)}; on the line both are equal",
        x="estimated change of the readout (nats)",
        y="measured change (nats)",
    )
    top = table["sample"] != "random"
    for own, name, marker, colour in (
        (table[~top], "random sample", "o", THEME.blue),
        (table[top], "largest estimates", "s", THEME.red),
    ):
        axes.scatter(own.estimate, own.exact, s=16, marker=marker, linewidths=1, alpha=0.85,
                     edgecolors=colour, facecolors=colour if marker == "o" else "none",
                     label=f"{name} ({len(own):,})", rasterized=len(own) > 2000)  # fmt: skip
    values = np.abs(table[["estimate", "exact"]].to_numpy(dtype=float))
    _symmetric_logs(axes, float(values.max()) if values.size and values.max() > 0 else 1.0)
    key(axes, place="upper left")
    return axes


def _symmetric_logs(axes: Axes, most: float) -> None:
    """Both axes linear around 0 and logarithmic beyond, the diagonal dotted."""
    linear = 10.0 ** math.floor(math.log10(most / 10))
    end = 1.35 * most
    line = np.geomspace(linear / 10, end, 40)
    line = np.concatenate([-line[::-1], line])
    axes.set_xscale("symlog", linthresh=linear)
    axes.set_yscale("symlog", linthresh=linear)
    axes.plot(line, line, color=THEME.muted, linestyle=":", linewidth=1)
    ticks = [t for t in (linear, 10 * linear) if t <= end]
    places = [-t for t in reversed(ticks)] + [0.0, *ticks]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, [f"{t:g}".replace("-", "−") for t in places])
        axis.set_ticks([], minor=True)
    axes.set_xlim(-end, end)
    axes.set_ylim(-end, end)
