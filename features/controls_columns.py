"""Columns of the tables of the lexical controls, with what they hold; light, no torch.

'Effect' is what the contrast's test is about: for 'all' the mean clinical minus neutral activation
over pairs, for an emotion its own pairs' mean minus the other emotions'. NaN means that a number
could not be computed, for the reason that the column names.
"""

from __future__ import annotations

CONTROLS_COLUMNS: dict[str, str] = {
    "contrast": "'all' (every pair) or the name of one emotion (own pairs against the others')",
    "feature": "latent index in the SAE",
    "confirmed": "True if the search confirmed it on held-out clusters",
    "class": "'contextual', 'lexical', 'mixed' or 'unsupported'",
    "why": "the numbers behind the class, in words",
    "strict": "strict batteries on which the effect holds, comma-separated ('' for none)",
    "n_pairs": "own pairs tested here",
    "effect": "effect of the contrast on the pairs tested here",
    "d": "that effect over the standard deviation of pair differences (d_z for 'all')",
    "kept": "share of the effect left when all words are shuffled; NaN if there is no effect",
    "kept_low": "lower end of its 95% interval; NaN if the effect's own interval holds 0",
    "kept_high": "upper end; NaN likewise",
    "did": "effect of the difference in differences against shuffled words",
    "did_p": "its permutation p; NaN if it cannot be tested",
    "did_p_holm": "Holm-adjusted over the latents of the contrast",
    "off_distribution": "True if the share of texts on which the latent is active differs by more "
    "than a factor of two between texts as they are and with all words shuffled",
    "r2": "share of the latent that words predict on unlabelled passages, out of fold, floored at "
    "0; NaN if it is active (or silent) in too few of them",
    "n_active": "passages in which the latent is active",
    "predicted": "share of the effect that the words of the pairs predict; NaN if no effect or R2",
    "predicted_low": "lower end of its 95% interval; NaN if the effect's own interval holds 0",
    "predicted_high": "upper end; NaN likewise",
    "residual": "effect left without what words predict; NaN where r2 is",
    "residual_p": "its permutation p; NaN where r2 is",
    "residual_p_holm": "Holm-adjusted over the latents of the contrast that have an r2",
    "shared_status": "'tested', 'not testable', or why the shared-token contrast does not apply",
    "shared_n_pairs": "own pairs that share token types",
    "shared_n_types": "mean number of token types that such a pair shares; NaN if not applicable",
    "shared": "effect on shared token types; NaN if not applicable",
    "shared_p": "its permutation p; NaN if not applicable",
    "shared_p_holm": "Holm-adjusted over the latents of the contrast; NaN likewise",
    "mass_only_clinical": "share of activation mass in own clinical texts on words that the "
    "neutral lacks; NaN without any mass on the texts' own tokens",
    "mass_more_clinical": "the same on words that the clinical text holds more often",
    "mass_only_neutral": "share of activation mass in own neutral texts on words that the clinical "
    "text lacks; NaN likewise",
    "mass_more_neutral": "the same on words that the neutral holds more often",
    "mass_emotion": "share of activation mass in own clinical texts on words of the emotion "
    "lexicon",
    "tokens_only_clinical": "share of tokens there, what a latent that fires evenly would have",
    "tokens_more_clinical": "the same for words that the clinical text holds more often",
    "tokens_only_neutral": "the same for words that the clinical text lacks",
    "tokens_more_neutral": "the same for words that the neutral holds more often",
    "tokens_emotion": "the same for words of the emotion lexicon",
}

GRAIN_COLUMNS: dict[str, str] = {
    "contrast": "'all' or an emotion",
    "feature": "latent index in the SAE",
    "grain": "'words', 'within_sentences' or 'sentences': what was put in another order",
    "n_shuffles": "random orders averaged over",
    "n_pairs": "own pairs that entered",
    "n_excluded": "pairs, others' included, with a member that has nothing to reorder",
    "effect": "effect of the contrast on the texts as they are, over the pairs that entered",
    "effect_shuffled": "the same on shuffled texts",
    "mean_diff": "mean clinical minus neutral over own pairs, texts as they are",
    "mean_diff_shuffled": "the same on shuffled texts",
    "kept": "effect_shuffled over effect; NaN if there is no effect",
    "kept_low": "lower end of the 95% interval; NaN if the effect's own interval holds 0",
    "kept_high": "upper end; NaN likewise",
    "did": "effect of the difference in differences; NaN if it cannot be tested",
    "did_d_z": "d_z of the difference in differences over own pairs; NaN below three pairs",
    "did_p": "permutation p; NaN if it cannot be tested",
    "did_p_holm": "Holm-adjusted over the latents of the contrast",
    "min_p": "smallest p that the test can give",
    "firing_original": "share of texts (both members, all pairs) in which the latent is active",
    "firing_shuffled": "the same for shuffled texts",
    "off_distribution": "True if the two rates differ by more than a factor of two",
}

STRICT_COLUMNS: dict[str, str] = {
    "contrast": "'all' or an emotion",
    "feature": "latent index in the SAE",
    "battery": "battery whose members hold the same words",
    "n_pairs": "own pairs there; 0 if it cannot be tested",
    "n_units": "units of the test; 0 likewise",
    "effect": "effect of the contrast there; NaN if it cannot be tested",
    "d": "effect over the standard deviation of pair differences (d_z for 'all'); NaN likewise",
    "auroc_paired": "share of own pairs with clinical > neutral; NaN likewise",
    "p": "permutation p; NaN likewise",
    "p_holm": "Holm-adjusted over the latents and strict batteries of the contrast",
    "min_p": "smallest p that the test can give; NaN likewise",
    "min_detectable": "smallest d that these pairs show with power .8 after correction; infinite "
    "if none, NaN if it cannot be tested",
    "found_d": "d on the pairs of the search, by which power is judged",
    "outcome": "'holds', 'opposite', 'low power' (not significant and found_d below "
    "min_detectable), 'not shown', or 'not testable'",
}
