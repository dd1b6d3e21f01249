"""How far estimated effects of latents agree with measured ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Array = npt.NDArray[np.float64]

MIN_LATENTS = 3


def agreement(estimate: Array, exact: Array, *, n_bootstrap: int, seed: int) -> dict[str, float]:
    """Correlations, slope and shared signs of estimates and measured effects of the same latents.

    Intervals are percentiles over resampled latents (Efron 1979). Latents of one sample are not
    independent (they share texts), so the intervals are about these texts.

    Args:
        estimate: [n].
        exact: [n].
        n_bootstrap: resamples.
        seed: their seed.

    Returns:
        The columns of `AGREEMENT_COLUMNS` from `n` on; NaN below three latents, or where all
        estimates or all effects are equal.
    """
    n = len(estimate)
    draw = np.random.default_rng(seed).integers(0, max(n, 1), (n_bootstrap, n))
    found: dict[str, float] = {"n": n}
    for name, prepare in (("pearson", _as_it_is), ("spearman", _ranks)):
        found[name] = float(_pearson(prepare(estimate[None]), prepare(exact[None]))[0])
        draws = _pearson(prepare(estimate[draw]), prepare(exact[draw]))
        draws = draws[np.isfinite(draws)]
        known = len(draws) > 0 and np.isfinite(found[name])
        low, high = np.percentile(draws, (2.5, 97.5)) if known else (np.nan, np.nan)
        found[f"{name}_low"], found[f"{name}_high"] = float(low), float(high)
    spread = float(((estimate - estimate.mean()) ** 2).sum()) if n >= MIN_LATENTS else 0.0
    moved = float(((estimate - estimate.mean()) * exact).sum()) if spread else np.nan
    found["slope"] = moved / spread if spread else np.nan
    found["same_sign"] = float(np.mean(np.sign(estimate) == np.sign(exact))) if n else np.nan
    return found


def _as_it_is(values: Array) -> Array:
    return values


def _ranks(values: Array) -> Array:
    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def _pearson(x: Array, y: Array) -> Array:
    """Pearson's r of each row of [n_rows, n]; NaN where it is not defined."""
    if x.shape[1] < MIN_LATENTS:
        return np.full(len(x), np.nan)
    x, y = _centred(x), _centred(y)
    scale = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    out = np.full(len(x), np.nan)
    np.divide((x * y).sum(1), scale, out=out, where=scale > 0)
    return np.clip(out, -1, 1)


def _centred(values: Array) -> Array:
    """Each row less its mean, scaled to at most 1; zeros where only rounding is left of it."""
    centred = values - values.mean(1, keepdims=True)
    top = np.abs(centred).max(1, keepdims=True)
    spread = top > 1e-12 * np.abs(values).max(1, keepdims=True)
    # Scaled, so that tiny effects do not vanish in the products.
    return np.divide(centred, top, out=np.zeros_like(centred), where=spread)
