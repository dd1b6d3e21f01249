"""Columns of every result table of a run folder, with what they hold; light, no torch."""

from __future__ import annotations

from affectlens.features.baseline_columns import BASELINE_COLUMNS
from affectlens.features.calibration_columns import (
    DETECTABLE_COLUMNS,
    POWER_COLUMNS,
    RATES_COLUMNS,
)
from affectlens.features.comparison_columns import COMPARISON_COLUMNS
from affectlens.features.controls_columns import CONTROLS_COLUMNS, GRAIN_COLUMNS, STRICT_COLUMNS
from affectlens.features.effect_columns import (
    DAMAGE_COLUMNS,
    DOSE_COLUMNS,
    EFFECT_COLUMNS,
    EFFECT_MATRIX_COLUMNS,
    MEDIATION_COLUMNS,
    READOUT_COLUMNS,
    VERDICT_COLUMNS,
)
from affectlens.features.naming_columns import NAMING_COLUMNS
from affectlens.features.null_columns import NULL_COLUMNS, NULL_LATENT_COLUMNS
from affectlens.features.read_columns import READS_COLUMNS
from affectlens.features.screen_columns import AGREEMENT_COLUMNS, SCREEN_COLUMNS
from affectlens.features.study_columns import STEERING_TABLES
from affectlens.features.validity_columns import (
    DIMENSION_COLUMNS,
    MATRIX_COLUMNS,
    OTHERS_COLUMNS,
    ROLLUP_COLUMNS,
    SHRINKAGE_COLUMNS,
    SPECIFIC_COLUMNS,
    SPECIFICITY_COLUMNS,
    STABILITY_COLUMNS,
    TRANSFER_COLUMNS,
    TRANSFER_SUMMARY_COLUMNS,
    VALIDITY_COLUMNS,
)

_SIDE = "describes, pairs as independent, not corrected"
_RETAINED = "NaN where the feature was not retained or no pair is there"
_BOUND = (
    "95%, studentised cluster bootstrap; infinite where too few clusters differ; NaN where the "
    "feature was not retained and below three clusters"
)

FEATURE_COLUMNS: dict[str, str] = {
    "contrast": "'all' (every pair) or the name of one emotion (own pairs against the others')",
    "feature": "latent index in the SAE",
    "rank": "rank by discovery score within the contrast, 1 is best",
    "n_pairs": "pairs in the discovery part that enter this contrast",
    "firing_rate_items": "share of battery items in which the pooled activation is above zero",
    "mean_clinical": "mean pooled activation over clinical members, discovery part",
    "mean_neutral": "mean pooled activation over neutral members, discovery part",
    "mean_diff": "mean of clinical minus neutral over (own) pairs, discovery part",
    "d_z": "mean difference over standard deviation of differences, Hedges-corrected, (own) pairs; "
    "NaN below three pairs or where all differences are equal",
    "auroc_paired": "share of (own) pairs with clinical > neutral, ties count one half",
    "auroc": "AUROC of clinical against neutral members of (own) pairs, the pairing ignored, "
    "discovery part",
    "presence_diff": "share of (own) pairs active in the clinical minus in the neutral member",
    "presence_p": f"exact sign test over pairs in which one member is active; {_SIDE}",
    "magnitude_diff": "mean difference over (own) pairs in which both members are active; NaN "
    "without any",
    "magnitude_n": "number of those pairs",
    "wilcoxon_p": f"Wilcoxon signed-rank p over (own) pairs, zeros left out; {_SIDE}",
    "icc": "intraclass correlation of pair differences within clusters, (own) pairs, discovery "
    "part; below 0 where pairs of a cluster differ more than others; NaN with one cluster, single "
    "pairs as clusters, or equal differences",
    "specificity": "own mean difference minus the other emotions' (equals mean_diff for 'all')",
    "p": "permutation p, discovery part",
    "q": "Benjamini-Hochberg q over the family of this run, discovery part",
    "q_by": "Benjamini-Yekutieli q over the same family, right under any dependence",
    "p_fwer": "step-down max-T family-wise p within the contrast, discovery part",
    "p_family": "p_fwer times the number of contrasts, 1 at most: family-wise over all tests",
    "confirm_n_pairs": "pairs in the confirmation part that enter this contrast",
    "confirm_mean_diff": "mean difference, confirmation part; NaN without pairs",
    "confirm_mean_diff_low": f"lower bound of confirm_mean_diff, {_BOUND}",
    "confirm_mean_diff_high": f"upper bound of confirm_mean_diff, {_BOUND}",
    "confirm_d_z": "d_z, confirmation part; NaN as d_z",
    "confirm_d_z_low": f"lower bound of confirm_d_z, {_BOUND}, or without a d_z",
    "confirm_d_z_high": f"upper bound of confirm_d_z, {_BOUND}, or without a d_z",
    "confirm_auroc_paired": "paired AUROC, confirmation part; NaN without pairs",
    "confirm_auroc": f"AUROC, the pairing ignored, confirmation part; {_RETAINED}",
    "confirm_presence_diff": f"presence_diff, confirmation part; {_RETAINED}",
    "confirm_presence_p": f"presence_p, confirmation part; {_SIDE}; {_RETAINED}",
    "confirm_magnitude_diff": "magnitude_diff, confirmation part; NaN where not retained or no "
    "pair has both members active",
    "confirm_magnitude_n": f"number of those pairs; {_RETAINED}",
    "confirm_wilcoxon_p": f"wilcoxon_p, confirmation part; {_SIDE}; {_RETAINED}",
    "confirm_specificity": "specificity, confirmation part; NaN without own or other pairs",
    "confirm_p": "permutation p, confirmation part; NaN where the feature was not retained or the "
    "contrast cannot be tested there",
    "confirm_p_holm": "Holm-adjusted over the retained features of the contrast; NaN likewise",
    "confirm_p_family": "confirm_p_holm times the number of contrasts, 1 at most: family-wise over "
    "the retained features of all contrasts; NaN likewise",
    "retained": "True if the feature was carried from discovery to confirmation",
    "confirmed": "True if retained, same sign, confirm_p_holm <= alpha, and for an emotion "
    "confirm_mean_diff > 0; each contrast has a level of its own, see confirm_p_family",
    "attribution": "effect on the contrast's readout of setting the latent to 0, estimated by "
    "gradient times difference, discovery part (nats; below 0 where the latent holds the readout "
    "up); NaN where the latent was not screened",
    "output_score": "how far the latent, added to neutral openings, brings up the tokens that its "
    "decoder row promotes, 0 to 1; NaN where it was not measured",
}

STATS_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "firing_rate": "share of unmasked held-out corpus tokens on which the latent is active",
    "mean_active": "mean activation where active (0 if never)",
    "max_active": "largest activation seen (0 if never)",
}

POOLED_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "pair_id": "id of the clinical item",
    "emotion": "emotion of the pair",
    "cluster": "emotion x domain cluster",
    "part": "'discovery' or 'confirmation'",
    "clinical": "pooled activation of the clinical member",
    "neutral": "pooled activation of its neutral",
}

TABLES: dict[str, dict[str, str]] = {
    "search/features": FEATURE_COLUMNS,
    "search/feature_stats": STATS_COLUMNS,
    "search/specificity": SPECIFICITY_COLUMNS,
    "search/pooled": POOLED_COLUMNS,
    "search/reads": READS_COLUMNS,
    "search/screen": SCREEN_COLUMNS,
    "search/screen_agreement": AGREEMENT_COLUMNS,
    "search/controls": CONTROLS_COLUMNS,
    "search/control_grains": GRAIN_COLUMNS,
    "search/strict": STRICT_COLUMNS,
    "search/baselines": BASELINE_COLUMNS,
    "search/nulls": NULL_COLUMNS,
    "search/null_latents": NULL_LATENT_COLUMNS,
    "validity/tests": VALIDITY_COLUMNS,
    "validity/shrinkage": SHRINKAGE_COLUMNS,
    "validity/matrix": MATRIX_COLUMNS,
    "validity/others": OTHERS_COLUMNS,
    "validity/specific": SPECIFIC_COLUMNS,
    "validity/dimensions": DIMENSION_COLUMNS,
    "validity/rollups": ROLLUP_COLUMNS,
    "validity/transfer": TRANSFER_COLUMNS,
    "validity/transfer_summary": TRANSFER_SUMMARY_COLUMNS,
    "validity/stability": STABILITY_COLUMNS,
    "validity/comparison": COMPARISON_COLUMNS,
    "calibration/rates": RATES_COLUMNS,
    "calibration/power": POWER_COLUMNS,
    "calibration/detectable": DETECTABLE_COLUMNS,
    "naming/names": NAMING_COLUMNS,
    "effects/effects": EFFECT_COLUMNS,
    "effects/verdicts": VERDICT_COLUMNS,
    "effects/doses": DOSE_COLUMNS,
    "effects/mediation": MEDIATION_COLUMNS,
    "effects/matrix": EFFECT_MATRIX_COLUMNS,
    "effects/damage": DAMAGE_COLUMNS,
    "effects/readout_check": READOUT_COLUMNS,
    **STEERING_TABLES,
}
"""Every table of a run folder by its path without suffix."""
