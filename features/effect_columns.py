"""Columns of the tables below `effects/`, with what they hold; light, no torch."""

from __future__ import annotations

FEWEST_CLUSTERS = 5
"""Fewer clusters (or scenarios) give no interval: too few to tell how far they vary."""

_INTERVAL = f"95%, t over clusters; NaN below {FEWEST_CLUSTERS} clusters"

EFFECT_COLUMNS: dict[str, str] = {
    "emotion": "emotion whose features were edited and whose readout is measured",
    "intervention": "'ablate_zero', 'ablate_mean', 'ablate_neutral', 'project_out', 'clamp', "
    "'min_clamp', 'scale', 'add' or 'patch_clinical'",
    "arm": "'chosen'; 'no_edit' (0 by definition); 'splice' (the SAE's reconstruction in place of "
    "the stream, no edit); 'chosen_no_error' (the edit in that reconstruction); 'error_only' (all "
    "latents removed); 'chosen_error_only' (the edit on top of that); 'random' (matched latents); "
    "'shuffled_labels' (selected on pairs with shuffled labels); 'random_direction', "
    "'diff_of_means', 'dense_probe' and 'neurons' (directions of equal total norm); 'prompt' and "
    "'prompt_neutral' (a sentence before the text that names the emotion, and its twin)",
    "set_index": "which random set, direction or shuffle; 0 for the single-set arms",
    "features": "comma-separated latent indices that were edited ('' for direction arms)",
    "strength": "clamp in units of each latent's maximum on held-out text, the scale factor, or "
    "length in units of the residual's norm for 'add'; 0 for interventions without one",
    "n_items": "texts measured (confirmation part)",
    "n_clusters": "emotion x domain clusters among them",
    "effect": "mean over items of edited minus unedited readout of the emotion (nats)",
    "effect_low": f"lower end of its interval ({_INTERVAL})",
    "effect_high": "upper end",
    "net_effect": "effect minus that of the same treatment of the SAE's error without the edit; "
    "equals effect where the error stays in place",
    "readout_unedited": "mean readout without edit (nats)",
    "delta_norm": "mean L2 norm of the change written to the residual per edited token; NaN for "
    "prompts",
    "delta_total": "L2 norms of the change summed over a text's tokens, mean over texts; NaN for "
    "prompts",
    "norm_ratio": "delta_total over that of the chosen features, 1 for equal norms; NaN where "
    "those write nothing, and for prompts",
    "n_edited_tokens": "tokens that were changed",
    "hook_calls": "how often the edit ran",
    "kl": "mean KL(unedited || edited) of the next-token distribution at the readout (nats); NaN "
    "for prompts",
    "reported": "True for the dose that the verdict is about, and where there is only one",
}

VERDICT_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "intervention": "intervention",
    "direction": "'lower' or 'raise': the side predicted before the test",
    "strength": "the reported strength, as in the effects",
    "effect": "effect of the chosen features (nats)",
    "random_mean": "mean effect of the matched random sets",
    "random_low": "smallest effect among the random sets",
    "random_high": "largest effect among the random sets",
    "n_random": "number of random sets",
    "advantage": "effect minus random_mean, signed so that positive is the predicted direction",
    "advantage_low": f"lower end of the interval of the advantage ({_INTERVAL})",
    "advantage_high": "upper end",
    "rank_p": "(1 + random sets at least as strong in the predicted direction) / (1 + n_random)",
    "p": "one-sided cluster sign-flip p of (chosen minus mean random) per item",
    "p_holm": "p, Holm-adjusted over the emotions within the intervention",
    "p_family": "p, Holm-adjusted over all emotions, interventions and doses of the run",
    "min_p": "the smallest p that this number of clusters can give",
    "beats_random": "True if p_holm <= alpha and stronger than every random set, each at its best "
    "dose; the first is corrected over emotions, the second has a level of 1 / (1 + n_random) each",
    "beats_controls": "True if beats_random, and stronger in the predicted direction than every "
    "random direction, shuffled selection, difference of means, probe and set of neurons measured",
    "strongest_control": "the arm other than the error rows with the largest effect in the "
    "predicted direction",
    "strongest_effect": "its effect (nats)",
    "dose_slope": "least-squares slope of the effect over strengths (nats per unit of strength), "
    "mean over items; NaN with one dose",
    "dose_slope_low": f"lower end of its interval ({_INTERVAL})",
    "dose_slope_high": "upper end",
    "n_items": "texts measured",
    "n_clusters": "clusters among them",
}

DOSE_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "intervention": "intervention with a strength",
    "strength": "strength, as in the effects",
    "discovery_effect": "effect of the chosen features on discovery texts, from which the reported "
    "dose is chosen; NaN with one dose",
    "effect": "effect of the chosen features on confirmation texts (nats)",
    "random_mean": "mean effect of the matched random sets at this dose",
    "advantage": "effect minus random_mean, signed by the predicted direction",
    "kl": "mean KL at the readout (nats)",
    "p": "one-sided cluster sign-flip p of (chosen minus mean random) per item",
    "p_family": "p, Holm-adjusted over all emotions, interventions and doses of the run",
    "reported": "True for the dose that the verdict is about",
}

READOUT_COLUMNS: dict[str, str] = {
    "emotion": "emotion whose word set is read; 'all', 'valence' and 'arousal' over all pairs",
    "n_pairs": "own pairs of that emotion (all parts)",
    "clinical": "mean readout on own clinical items (nats)",
    "neutral": "mean readout on own neutral items (nats)",
    "mean_diff": "clinical minus neutral",
    "d_z": "d_z of that difference",
    "auroc_paired": "share of own pairs with clinical > neutral",
    "p": "exact or permutation sign-flip p over pairs, two-sided",
    "words": "comma-separated words whose probabilities are added",
    "p_cluster": "one-sided sign-flip p over clusters; two-sided for valence and arousal",
    "auroc_own": "AUROC of own clinical items against those of the other emotions; NaN without any",
    "calibrated": "True if words are measured against their probability after texts without "
    "content",
}

MEDIATION_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "measure": "'necessity': share of the clinical-neutral difference of the readout that goes "
    "away where the set takes matched neutral values in clinical items; 'sufficiency': share that "
    "appears where it takes clinical values in neutral items; 'faithfulness': (only the set at "
    "clinical values - empty) / (full - empty); 'completeness': the same with the set at neutral "
    "values and all others untouched; 'remainder': share of the difference that is left where all "
    "latents take neutral values; 'reconstruction_share' and 'error_share': share that is there "
    "where the SAE's error is dropped from both texts, and where it is all that is left of both",
    "arm": "'chosen' (the edited features), 'ranked' (a set of another size by the same contrast), "
    "'random' (matched latents) or 'all' (every latent)",
    "set_index": "which random set; 0 otherwise",
    "n_features": "latents in the set",
    "value": "the ratio; NaN where its denominator is not away from 0",
    "value_low": f"lower end of its interval ({_INTERVAL})",
    "value_high": "upper end",
    "numerator": "mean of the numerator over items (nats)",
    "denominator": "mean of the denominator over items (nats)",
    "denominator_low": "lower end of its interval",
    "denominator_high": "upper end",
    "n_items": "own confirmation pairs",
    "n_clusters": "clusters among them",
    "reason": "why there is no value; empty where there is one",
}

EFFECT_MATRIX_COLUMNS: dict[str, str] = {
    "intervention": "intervention",
    "edited": "emotion whose features were edited",
    "read": "emotion whose readout is measured",
    "n_items": "texts: clinical items of the emotion read where effects lower, every neutral item "
    "where they raise",
    "n_clusters": "clusters among them",
    "effect": "mean effect (nats)",
    "effect_low": f"lower end of its interval ({_INTERVAL})",
    "effect_high": "upper end",
    "p": "one-sided cluster sign-flip p in the predicted direction",
    "p_holm": "p, Holm-adjusted over the cells of the intervention",
    "diagonal_dominance": "of the whole matrix: mean signed effect on the diagonal minus mean off "
    "it (nats)",
    "p_diagonal": "of the whole matrix: share of assignments of edited to read emotions, "
    "exchanged at random, whose diagonal is at least as large",
}

DAMAGE_COLUMNS: dict[str, str] = {
    "emotion": "emotion whose features were edited; '' for the splice",
    "intervention": "intervention at the reported dose; '' for the splice",
    "arm": "'chosen', 'random' (the first set) or 'splice'",
    "strength": "strength, as in the effects",
    "n_documents": "neutral documents, the unit",
    "n_tokens": "tokens whose next-token distribution is compared",
    "kl": "mean over documents of KL(unedited || edited) per token (nats)",
    "kl_high": "one-sided upper 95% bound (t over documents)",
    "ce_unedited": "cross entropy without edit (nats a token)",
    "ce_change": "mean over documents of edited minus unedited cross entropy (nats a token)",
    "ce_low": "lower end of the 90% interval (t over documents)",
    "ce_high": "upper end",
    "margin_kl": "largest KL that counts as no damage",
    "margin_ce": "largest change of the cross entropy that counts as no damage",
    "p_kl": "one-sided t test of KL at or above its margin",
    "p_ce": "two one-sided t tests of a change at or beyond its margin (the larger p)",
    "no_damage": "True if both are at most .05: the edit is shown to stay within both margins",
}
