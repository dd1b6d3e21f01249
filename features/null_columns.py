"""Columns of the searches in SAEs that were trained where there is nothing to find; light."""

from __future__ import annotations

NULL_COLUMNS: dict[str, str] = {
    "sae": "'this SAE', 'same budget' (its own place, trained as the nulls; only where they could "
    "not be trained as it was), 'random-model' or 'embedding'",
    "model": "model that was read",
    "hook": "place on its residual stream",
    "pooling": "where texts were read; 'mean' stands beside a pooling of equal tokens",
    "contrast": "'all' or an emotion",
    "status": "'searched', or 'reads equal tokens': every text gives the same numbers there by "
    "construction, so nothing could be found and the counts are missing",
    "n_samples": "activations it was trained on; missing where the SAE does not say",
    "d_sae": "number of latents",
    "fvu": "fraction of variance unexplained on its own held-out text; NaN for 'this SAE' without "
    "activations",
    "l0": "active latents per token there; NaN likewise",
    "dead_share": "share of latents that never fired there; NaN likewise",
    "n_tested": "latents active in enough discovery texts",
    "n_significant_fwer": "of these, family-wise p <= alpha on discovery, on the contrast's side",
    "n_retained": "carried into confirmation, at most n_retained of the settings",
    "n_confirmed": "of these, confirmed",
    "best_feature": "the latent ranked first on discovery, on the contrast's side; missing if none",
    "best_d_z": "size of its d_z on discovery (own pairs); NaN where not defined or none",
    "best_confirm_d_z": "its d_z on confirmation, positive on the side of discovery; NaN likewise",
    "best_confirm_auroc": "its paired AUROC on confirmation, above one half on that side; NaN "
    "likewise",
    "max_confirm_d_z": "largest such d_z among the retained; chosen on confirmation, so too large "
    "as an estimate, but alike for every SAE; NaN if none",
    "remark": "what has to be known to read the row",
}
"""One row an SAE, pooling and contrast; the SAE itself first."""

NULL_LATENT_COLUMNS: dict[str, str] = {
    "contrast": "'all' or an emotion",
    "feature": "latent of this SAE that its search retained",
    "pooling": "where texts were read, by both SAEs",
    "confirmed": "True if the search confirmed it",
    "confirm_d_z": "its d_z on confirmation, positive on the side of discovery; NaN where not "
    "defined",
    "sae": "the other SAE, as in the table of searches",
    "n_others": "latents that the other SAE's search retained for the contrast",
    "n_reaching": "of these, with at least that d_z on confirmation, each on its own side",
    "share_reaching": "n_reaching over n_others; NaN if there are none, or no d_z",
    "p_null": "(1 + n_reaching) / (1 + n_others), for this latent alone: not adjusted for the "
    "number of latents, and too small where the others copy one another; NaN as share_reaching",
}
"""One row a retained latent and other SAE."""
