"""Columns of the screen: one row a contrast and latent, and how far estimates agree with
measurement; light, no torch."""

from __future__ import annotations

_MEAN = "mean over texts of edited minus unedited readout of the contrast (nats)"
_OWN = "the contrast's own clinical items of the discovery part ('all': of every emotion)"
_ALL_NEUTRAL = "neutral items of the discovery part, of every emotion"
_SAMPLE = (
    "'top' (largest by attribution), 'random' (random sample), 'both', 'other' (measured for "
    "another contrast, or because its clamp raises the readout most for its norm), '' (not "
    "measured)"
)

SCREENED = ("attribution", "output_score")
"""Columns of a search that its screen fills."""

SCREEN_COLUMNS: dict[str, str] = {
    "contrast": "'all' or the emotion whose readout is moved",
    "feature": "latent index in the SAE",
    "attribution_ablate": "estimate, gradient times difference, of setting the latent to 0; "
    f"{_MEAN}; {_OWN}",
    "attribution_neutral": "the same for setting it to its mean over the matched neutral",
    "attribution_clamp": "estimate of clamping it to clamp_strength times its held-out maximum; "
    f"{_MEAN}; {_ALL_NEUTRAL}",
    "ig_ablate": "as attribution_ablate, by integrated gradients; NaN with n_steps 0",
    "ig_neutral": "as attribution_neutral, by integrated gradients; NaN with n_steps 0",
    "exact_ablate": "the effect that attribution_ablate estimates, measured; NaN if not measured",
    "exact_clamp": "the effect that attribution_clamp estimates, measured; NaN if not measured",
    "verified_ablate": f"why exact_ablate was measured: {_SAMPLE}",
    "verified_clamp": f"why exact_clamp was measured: {_SAMPLE}",
    "clamp_norm": "mean L2 norm that the clamp writes on an unmasked token on which the latent is "
    "silent",
    "clamp_per_norm": "exact_clamp over clamp_norm (nats per unit of residual norm); where not "
    "measured attribution_clamp in its place, times the slope, 0 to 1, of measured on estimated "
    "effects of the contrast, so that both compare",
    "output_score": "mean over neutral openings of (1 - best rank / vocabulary) times top "
    "probability of the tokens its decoder row promotes, the latent added at the last token; NaN "
    "if not measured",
    "output_rank": "mean best rank of those tokens (0 is the likeliest token); NaN likewise",
    "output_probability": "mean top probability of those tokens; NaN likewise",
    "input_score": "share of its strongest held-out contexts whose peak token is among those "
    "tokens; NaN without contexts",
    "input_rank": "rank by the search within the contrast; NaN if not tested",
    "d_z": "d_z by the search, discovery part; NaN if not tested",
    "candidate": "True if retained by the search for this contrast",
}

AGREEMENT_COLUMNS: dict[str, str] = {
    "contrast": "contrast",
    "intervention": "'ablate' or 'clamp'",
    "estimator": "'gradient' (times difference) or 'integrated'",
    "sample": "'top' or 'random'",
    "n": "latents that were both estimated and measured",
    "pearson": "Pearson correlation of estimate and measured effect; NaN below three latents or "
    "where all are equal",
    "pearson_low": "lower end of its 95% bootstrap interval over latents (percentiles)",
    "pearson_high": "upper end",
    "spearman": "Spearman correlation of the same",
    "spearman_low": "lower end of its 95% bootstrap interval over latents (percentiles)",
    "spearman_high": "upper end",
    "slope": "least-squares slope of measured effect on estimate, with intercept; below 1 the "
    "estimate is too large",
    "same_sign": "share of latents in which estimate and measured effect have the same sign",
}
