"""Columns of the calibration tables, with what they hold; light, no torch."""

from __future__ import annotations

_LIMITS = "exact 95% binomial limit (Clopper and Pearson 1934) over data sets"

RATES_COLUMNS: dict[str, str] = {
    "null": "how the data set without effect was made: 'flip_cluster', 'flip_pair', "
    "'labels_cluster', 'labels_pair', 'neutral_cluster', 'neutral_pair', "
    "'spread_cluster'",
    "contrast": "'all', an emotion, or 'family': every contrast judged under this null",
    "measure": "'fwer' (any max-T p <= alpha), 'per_test' (share of latents with p <= alpha), "
    "'bh' (any q <= alpha, which under a full null is the FDR), 'confirmed' (any latent confirmed)",
    "n_sets": "data sets",
    "n_latents": "mean number of latents tested",
    "rate": "share of data sets with the event, or mean share of latents",
    "low": f"lower {_LIMITS}",
    "high": f"upper {_LIMITS}",
    "allowed": "the rate that alpha allows; for 'fwer' and 'confirmed' of 'family', alpha times "
    "the contrasts, as each contrast has an alpha of its own",
    "p_excess": "chance of so many events or more if the rate is as allowed (exact binomial)",
    "verdict": "'outside' if p_excess is at most .05 after Holm over all rows, else 'inside'",
}

POWER_COLUMNS: dict[str, str] = {
    "contrast": "'all', or 'emotion': the effect was added to one emotion's pairs, drawn at random",
    "d_z": "planted d_z of the population of pairs",
    "n_pairs": "own pairs, both parts (mean over data sets)",
    "n_clusters": "own clusters, both parts (mean likewise)",
    "n_pairs_discovery": "own pairs in discovery (mean likewise)",
    "n_clusters_discovery": "own clusters in discovery (mean likewise)",
    "n_sets": "data sets",
    "n_latents": "mean number of latents tested",
    "n_planted": "mean number of latents with the effect",
    "reached_d_z": "mean Hedges-corrected d_z of planted latents, own discovery pairs; NaN where "
    "d_z is defined for none",
    "measure": "'recall_fwer', 'recall_bh', 'recall_confirmed': share of planted latents found; "
    "'fdr_fwer', 'fdr_bh', 'fdr_confirmed': share of false ones among those found, 0 if none is",
    "value": "mean over data sets",
    "low": "95% binomial limit, data sets as units; conservative, as a share varies less than a "
    "yes or no of the same mean",
    "high": "upper limit, likewise",
}

DETECTABLE_COLUMNS: dict[str, str] = {
    "contrast": "'all', or 'emotion': the effect was added to one emotion's pairs, drawn at random",
    "n_pairs_discovery": "own pairs in discovery",
    "n_clusters_discovery": "own clusters in discovery",
    "criterion": "'fwer', 'bh' or 'confirmed'",
    "detectable": "d_z found with power .8, read off the curve by straight lines; infinite if no "
    "planted effect is found so often",
    "formula": "the same by the t test over cluster means after Bonferroni, with the median "
    "intraclass correlation of the latents (contrast 'all', criterion 'fwer'); NaN for the others",
    "icc": "that correlation; NaN where it is not defined, and the formula then takes 0",
}
