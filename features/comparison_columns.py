"""Columns of the table that sets an SAE beside others; light, no torch."""

from __future__ import annotations

COMPARISON_COLUMNS: dict[str, str] = {
    "sae": "'this SAE', or the name of another",
    "kind": "'own'; 'seed', 'training' (other samples, batch size, learning rate or text), "
    "'design' (another architecture or k) or 'width' at the same hook; 'layer' at another hook",
    "hook_name": "where the SAE reads",
    "layer": "block of that place",
    "architecture": "architecture",
    "d_sae": "number of latents",
    "k": "latents a token that the architecture fixes or was trained for; NaN for none",
    "l0": "mean number of active latents over the battery's unmasked tokens",
    "seed": "seed of its training; NaN unknown",
    "n_samples": "activations it was trained on; NaN unknown",
    "misfits": "misfits that were overridden, separated by '; '",
    "contrast": "'all' (every pair) or the name of one emotion",
    "n_tested": "latents tested",
    "n_fwer": "latents with p_fwer <= alpha on the side the contrast looks for, discovery part",
    "n_retained": "latents carried into confirmation",
    "n_confirmed": "of these, confirmed",
    "first_auroc": "confirmation paired AUROC of the latent that discovery ranks first; NaN "
    "without a confirmation part",
    "first_d_z": "its confirmation d_z; NaN likewise, or where it has no difference",
    "best_auroc": "confirmation paired AUROC of the retained latent where it is farthest from one "
    "half; chosen on the same pairs, so too far; NaN without retained latents",
    "best_d_z": "largest confirmation d_z of the retained latents by size, chosen likewise",
    "n_sought": "retained latents of this SAE that were looked for; 0 for 'own'",
    "n_recur": "of these, with a decoder cosine above the threshold; NaN between hooks and for "
    "'own'",
    "base_recur": "share of this SAE's tested latents, whatever their result, that recur; NaN "
    "likewise",
    "median_correlation": "median over the latents sought of the best activation correlation; NaN "
    "without any",
    "base_correlation": "the same over the tested latents; NaN for 'own'",
    "n_match_retained": "of the latents sought, those whose match was retained in the same "
    "contrast of the other search",
    "n_match_confirmed": "of the latents sought, those whose match was confirmed there",
}
