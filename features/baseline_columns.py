"""Columns of the table of baselines, with what they hold; light, no torch."""

from __future__ import annotations

BASELINE_COLUMNS: dict[str, str] = {
    "layer": "block whose output is read; -1 is the token embedding; missing for words, and for "
    "'dense_probe_chosen_layer' where folds chose different blocks",
    "hook": "address of that place; empty where layer is missing",
    "method": "how texts were scored, see METHODS",
    "target": "'all' (clinical against neutral) or an emotion (its clinical texts against the "
    "other emotions' clinical texts)",
    "n_features_used": "numbers that enter a score (mean over folds)",
    "auroc": "AUROC on held-out texts, compared within folds, ties one half",
    "low": "lower end of its 95% cluster-bootstrap interval; NaN below four clusters a side",
    "high": "upper end",
    "paired_accuracy": "share of own held-out pairs with clinical above its own neutral, ties half",
    "paired_low": "lower end of its 95% cluster-bootstrap interval; NaN as for auroc",
    "paired_high": "upper end",
    "minus_sae": "auroc minus that of the best single SAE latent on the same texts",
    "minus_sae_low": "lower end of its paired 95% cluster-bootstrap interval; NaN as for auroc",
    "minus_sae_high": "upper end",
    "verdict": "'reference', 'SAE latent better', 'SAE latent worse', 'not distinguishable' or "
    "'too few clusters' (no interval); each at 95% by itself",
    "n_pairs": "own pairs that were scored",
    "n_clusters": "emotion x domain clusters of those pairs",
    "evaluated_on": "'confirmation' (fitted and chosen on discovery clusters) or 'folds' (fitted "
    "and chosen anew in every fold of a cross-validation over all clusters)",
}

METHODS: dict[str, str] = {
    "sae_latent": "the best latent of the contrast, chosen as the search chooses",
    "sae_top5": "mean of the five best latents, each signed and over its standard deviation",
    "sae_probe_5": "logistic probe on the five best latents, nested cross-validation",
    "sae_probe": "logistic probe on every latent active in enough texts, nested cross-validation",
    "dense_probe": "logistic probe on the residual stream, nested cross-validation",
    "dense_probe_chosen_layer": "the dense probe at the layer with the least inner log loss",
    "difference_of_means": "projection of the residual stream on the difference of class means",
    "single_neuron": "the best coordinate of the residual stream, chosen as a latent is, either "
    "sign",
    "random_direction": "mean over random directions of the residual stream, turned to the right "
    "side on the fitted texts",
    "dense_probe_random_weights": "the dense probe at the SAE's place in the same model with "
    "weights drawn anew; only where such a model was given",
    "difference_of_means_random_weights": "the difference of means there, likewise",
    "tfidf_words": "logistic probe on TF-IDF of the texts' words, nested cross-validation",
}
"""Every method by name, those of the SAE first."""

SAE_METHODS = ("sae_latent", "sae_top5", "sae_probe_5", "sae_probe")
"""Methods that read latents."""

LAYERED_METHODS = ("dense_probe", "difference_of_means", "single_neuron", "random_direction")
"""Methods that have a row for every layer."""

RANDOM_METHODS = ("dense_probe_random_weights", "difference_of_means_random_weights")
"""Methods that read a model that has learned nothing; optional."""

REFERENCE = "sae_latent"
"""The method that all others are compared with."""

EMBEDDING_LAYER = -1
