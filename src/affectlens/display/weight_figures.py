"""Figure of an SAE's weights: how far its decoder rows point to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .look import THEME, axes_of, dress, key, styled
from .words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def nearest(
    cosines: npt.NDArray[np.float64], *, d_sae: int, chance: float, ax: Axes | None = None
) -> Axes:
    """Largest cosine of a decoder row with any other row, a histogram over latents.

    Args:
        cosines: one a latent that was looked at, -1 to 1.
        d_sae: latents of the SAE.
        chance: the median of random directions.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (6.4, 3.4))
    known = cosines[np.isfinite(cosines)]
    dress(
        axes,
        "How near is the nearest other latent?",
        f"n = {plural(len(known), 'latent')} of {d_sae:,}, each against all others; control: "
        "random directions of the same number and width",
        x="largest cosine with another decoder row",
        y="latents",
        grid="y",
    )
    axes.hist(known, bins=np.linspace(min(0.0, *known, chance), 1, 51).tolist(), color=THEME.blue,
              edgecolor=THEME.paper, linewidth=0.4)  # fmt: skip
    axes.axvline(chance, color=THEME.red, linestyle="--", linewidth=1.2,
                 label=f"random directions {chance:.2f}")  # fmt: skip
    key(axes)
    return axes
