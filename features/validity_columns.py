"""Columns of the tables on specificity and validity, with what they hold; light, no torch."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["holds", "fails", "unknown", "shown"]
"""'holds': the data show it. 'fails': they show the contrary. 'unknown': they show neither, or are
too few. 'shown': a line that describes and decides nothing."""

_BOUNDS = "infinite where the design is too small for the level"

VALIDITY_COLUMNS: dict[str, str] = {
    "contrast": "contrast that the latent was retained for",
    "feature": "latent index in the SAE",
    "test": "'effect', 'dose', 'discriminant', 'person', 'paraphrase', 'domains' or 'domain'",
    "group": "what within the test; 'verdict' is the line that decides the test",
    "n": "units of the line (pairs, clusters, scenes or texts, see note)",
    "estimate": "the quantity, on the side the latent was found on; NaN where not defined",
    "low": f"lower bound; {_BOUNDS}; NaN where none is given",
    "high": "upper bound; likewise",
    "p": "p of no difference; NaN where nothing is tested",
    "verdict": "'holds', 'fails', 'unknown', or 'shown' for a line that only describes",
    "note": "what was compared, and why a verdict is unknown",
}

SHRINKAGE_COLUMNS: dict[str, str] = {
    "contrast": "contrast",
    "n_features": "latents tested in discovery",
    "n_silent": "of them, latents without any difference in the confirmation part (score 0)",
    "spearman": "rank correlation over latents of the discovery and the confirmation score (d_z; "
    "for an emotion Hedges' g of own against other differences); NaN where a part is constant",
    "k": "size of the lists compared",
    "overlap": "latents in both lists of the k best",
    "expected": "overlap expected by chance, k^2 / n_features",
    "p": "chance of such an overlap or more, hypergeometric; an upper tail",
    "discovery_d_z": "median d_z of the retained latents in discovery; NaN without any",
    "confirmation_d_z": "the same latents in confirmation, on the same side",
    "kept": "confirmation_d_z / discovery_d_z",
}

SPECIFICITY_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "selected_for": "contrast the feature was selected for",
    "emotion": "emotion whose pairs are measured",
    "part": "'discovery' or 'confirmation'",
    "n_pairs": "pairs measured",
    "mean_diff": "mean clinical minus neutral pooled activation over those pairs",
    "d_z": "d_z over those pairs; NaN below two pairs or at zero variance",
}

MATRIX_COLUMNS: dict[str, str] = {
    **SPECIFICITY_COLUMNS,
    "n_units": "units of those pairs: pairs or clusters, as in the search",
    "low": f"lower bound of mean_diff, sign flips of units inverted; {_BOUNDS}",
    "high": "upper bound of mean_diff; likewise",
    "p": "two-sided p that these pairs differ from all other pairs, labels exchanged; NaN where "
    "there are no other pairs",
    "p_fwer": "p, step-down max-T over every latent and emotion of the part; NaN likewise",
    "min_p": "the smallest p_fwer that this emotion can have in the part, whatever the effect; NaN "
    "likewise",
}

OTHERS_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "selected_for": "emotion the latent was selected for",
    "part": "'discovery' or 'confirmation'",
    "other": "emotion it is held against",
    "n_own": "units of its own emotion",
    "n_other": "units of the other",
    "difference": "own mean difference minus the other's",
    "low": f"lower bound, labels exchanged and inverted; {_BOUNDS}",
    "high": "upper bound; likewise",
    "level": "level of this interval, so strict that all of the contrast may be read together",
    "p": "two-sided p of no difference, not adjusted",
}

SPECIFIC_COLUMNS: dict[str, str] = {
    "feature": "latent index",
    "selected_for": "emotion the latent was selected for",
    "part": "'discovery' or 'confirmation'",
    "n_others": "emotions it was held against",
    "n_below": "of them, emotions whose interval lies wholly below the own one",
    "closest": "emotion with the smallest difference",
    "verdict": "'holds' if the latent is specific: every interval leaves out 0; 'fails' if another "
    "emotion surely raises it more; else 'unknown'",
    "note": "the emotions that stand in the way, and whether the design is too small",
}

DIMENSION_COLUMNS: dict[str, str] = {
    "contrast": "contrast that the latent was selected for",
    "feature": "latent index",
    "part": "'discovery' or 'confirmation'",
    "dimension": "'valence' or 'arousal'",
    "n": "units of the regression",
    "estimate": "pair difference per step of the dimension's sign, the other held fixed",
    "low": "lower bound, cluster-robust t; conditional on these emotions; NaN where the errors "
    "cannot be estimated",
    "high": "upper bound; likewise",
    "p": "emotion labels exchanged between units; small also if a single emotion stands out",
    "p_emotions": "signs exchanged between whole emotions: does this order fit better than others",
    "correlation": "correlation of valence and arousal over the units: what is confounded",
    "share": "share of the variance between emotions that valence and arousal explain; NaN without",
}

ROLLUP_COLUMNS: dict[str, str] = {
    "contrast": "contrast that the latent was selected for",
    "feature": "latent index",
    "part": "'discovery' or 'confirmation'",
    "scheme": "'ekman' or 'parrott'",
    "category": "category of the scheme",
    "emotions": "comma-separated emotions of the battery that belong to it",
    "n_own": "units in the category",
    "n_rest": "units in the scheme's other categories",
    "n_left_out": "units of emotions without counterpart in the scheme",
    "mean_diff": "mean difference over the category's units",
    "specificity": "mean_diff minus the mean over the rest",
    "p": "two-sided, labels exchanged between units",
    "p_fwer": "step-down max-T over the contrast's latents, within the category",
    "p_holm": "p_fwer, Holm-adjusted over all contrasts and categories of the part",
}

TRANSFER_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "direction": "'to_keywords' (found without emotion words, tested on texts with them) or "
    "'from_keywords' (the other way round)",
    "feature": "latent index",
    "rank": "rank in the part that chose it",
    "n_own": "own texts, or own pairs, of the test",
    "n_other": "those of the other emotions",
    "auroc": "chance that an own text (own pair's difference) lies above another emotion's",
    "low": "lower bound of auroc; units are texts ('to_keywords') or those of the search's test, "
    "clusters or pairs ('from_keywords')",
    "high": "upper bound of auroc",
    "effect": "Hedges' g of own against other texts ('to_keywords'), d_z of own pairs "
    "('from_keywords'); NaN where there is no spread",
    "p": "two-sided, labels exchanged",
    "p_holm": "Holm over the latents of this emotion and direction",
    "transfers": "True if p_holm <= alpha and own lies above the others",
}

TRANSFER_SUMMARY_COLUMNS: dict[str, str] = {
    "emotion": "emotion",
    "direction": "'to_keywords' or 'from_keywords'",
    "n_features": "latents tested",
    "mean_auroc": "mean AUROC over them; NaN without any",
    "mean_effect": "mean of the defined effects; NaN without any",
    "n_effect": "latents whose effect is defined",
    "n_transfer": "latents that transfer",
    "min_p": "the smallest p that the test can give; 1 where it cannot be made",
    "note": "why there is nothing to test",
}

STABILITY_COLUMNS: dict[str, str] = {
    "contrast": "contrast that the latent was selected for",
    "feature": "latent index",
    "other": "name of the other SAE",
    "kind": "'seed', 'training' (other samples, batch size, learning rate or text), 'design' "
    "(another architecture or k) or 'width' at the same hook, 'layer' at another hook",
    "match": "latent of the other SAE that matches best: by decoder cosine at the same hook, by "
    "activation correlation at another; -1 without a match",
    "cosine": "decoder cosine with the match; NaN between hooks, whose directions cannot be "
    "compared",
    "chance_cosine": "largest cosine expected among as many random directions; NaN between hooks",
    "recurs": "True if cosine is above the threshold; False between hooks",
    "correlation": "Pearson correlation over battery items of the two activations; NaN where one "
    "is constant",
    "best_correlated": "latent of the other SAE with the highest correlation; -1 without any",
    "best_correlation": "that correlation; NaN without any",
    "match_rank": "rank of the match in the same contrast of the other SAE's search; -1 unknown",
    "match_p": "its discovery p there; NaN unknown",
    "match_confirmed": "whether it was confirmed there; False unknown",
}
