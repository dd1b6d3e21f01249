"""The lines of a check about latents: how often they fire, and the angles of their weights."""

from __future__ import annotations

from torch import Tensor

from affectlens.sae.metrics import QualityMeter
from affectlens.training.check_lines import CheckLine, Verdict
from affectlens.training.check_measures import WeightGeometry

DEAD_WARN, DEAD_TOKENS = 0.2, 10_000
"""Share of latents that never fired, and the tokens from which that says anything."""
DENSE_RATE, DENSE_WARN, DENSE_MEAN = 0.1, 0.05, 0.05
"""Latents that fire on more than a tenth of tokens are seldom interpretable (Rajamanoharan et al.
2024); one in twenty is a lot. Where the mean density is above 5% anyway it says nothing."""
RARE_RATE, RARE_WARN = 1e-5, 0.2
"""Latents rarer than this cannot be told from dead ones without millions of tokens; a rate is
resolved from 3 / rate tokens on (the rule of three)."""
ENCODER_WARN = 0.2
"""Median cosine of encoder column and decoder row; trained SAEs lie at 0.4 to 0.9, and rows that
do not belong together near 0."""
SPREAD_WARN = 2.0
"""95% over 5% quantile of decoder norms: beyond it equal activations mean unequal writes."""
TWIN_COSINE, TWIN_WARN = 0.9, 0.1
"""Decoder rows nearer than this write the same thing twice."""


def density_lines(meter: QualityMeter) -> list[CheckLine]:
    """Dead, dense and rare latents, and quantiles of how often latents fire."""
    density, n = meter.density, meter.n
    dense = float((density > DENSE_RATE).double().mean())
    mean_density = meter.l0 / max(meter.d_sae, 1)
    rare = float((density < RARE_RATE).double().mean())
    return [
        _dead_line(meter.dead_share, n),
        CheckLine("firing rate", quantiles(density), "for information", "ok", f"over {n:,} tokens"),
        _dense_line(dense, mean_density),
        _rare_line(rare, n),
    ]


def _dead_line(share: float, n: int) -> CheckLine:
    why = f"did not fire on {n:,} tokens"
    if n < DEAD_TOKENS and share > 0:
        why += "; too few to call them dead"
        return CheckLine("silent latents", share, f"below {DEAD_WARN:g}", "unknown", why)
    verdict: Verdict = "ok" if share <= DEAD_WARN else "warn"
    return CheckLine("silent latents", share, f"below {DEAD_WARN:g}", verdict, why)


def _dense_line(share: float, mean_density: float) -> CheckLine:
    name, expected = "dense latents", f"below {DENSE_WARN:g}"
    why = f"fire on more than {DENSE_RATE:.0%} of tokens"
    if mean_density > DENSE_MEAN:
        why += f"; but so does the average ({mean_density:.0%}), so it says nothing here"
        return CheckLine(name, share, expected, "unknown", why)
    return CheckLine(name, share, expected, "ok" if share <= DENSE_WARN else "warn", why)


def _rare_line(share: float, n: int) -> CheckLine:
    name, expected = "rare latents", f"below {RARE_WARN:g}"
    needed = 3 / RARE_RATE
    if n < needed:
        why = (
            f"{n:,} tokens cannot tell a rate of {RARE_RATE:g} from none: it takes {needed:,.0f}; "
            f"a latent not seen fires on fewer than {3 / max(n, 1):.2g} of tokens (95%)"
        )
        return CheckLine(name, None, expected, "unknown", why)
    why = f"fire on fewer than {RARE_RATE:g} of tokens"
    return CheckLine(name, share, expected, "ok" if share <= RARE_WARN else "warn", why)


def geometry_lines(weights: WeightGeometry) -> list[CheckLine]:
    """Encoder-decoder cosine, decoder norms, and decoder rows that repeat each other."""
    lines = []
    if weights.encoder_decoder is not None:
        value = quantiles(weights.encoder_decoder)
        good = value["50%"] >= ENCODER_WARN
        why = "what a latent reads is what it writes" if good else "encoder and decoder disagree"
        expected = f"median at least {ENCODER_WARN:g}"
        verdict: Verdict = "ok" if good else "warn"
        lines.append(CheckLine("encoder-decoder cosine", value, expected, verdict, why))
    norms = quantiles(weights.norms)
    even = norms["95%"] <= SPREAD_WARN * max(norms["5%"], 1e-12)
    why = "latents write alike" if even else "equal activations write unequal amounts"
    expected = f"95% within {SPREAD_WARN:g} x 5%"
    lines.append(CheckLine("decoder norms", norms, expected, "ok" if even else "warn", why))
    twins = float((weights.nearest > TWIN_COSINE).double().mean())
    why = f"decoder rows with a twin above {TWIN_COSINE:g}, of {len(weights.nearest)} sampled"
    verdict = "ok" if twins <= TWIN_WARN else "warn"
    lines.append(CheckLine("decoder twins", twins, f"below {TWIN_WARN:g}", verdict, why))
    return lines


def quantiles(values: Tensor) -> dict[str, float]:
    """5%, 50% and 95% quantiles."""
    # torch.quantile refuses more than 2^24 values; a sort does not.
    ordered = values.double().sort().values
    last = len(ordered) - 1
    return {f"{p}%": float(ordered[round(p / 100 * last)]) for p in (5, 50, 95)}
