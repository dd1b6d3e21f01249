"""Columns of the tables of the steering study; light, no torch."""

from __future__ import annotations

_INTERVAL = "95%, t over scenarios; NaN for too few"
_WHO = {
    "emotion": "emotion that is steered to and scored for",
    "arm": "what was done, see the study's settings",
    "set_index": "which of several sets of an arm; 0 where there is one",
}
_UNIT = "in the unit of the study's dose_unit; 0 for arms without a dose"

TEXTS_COLUMNS: dict[str, str] = {
    **_WHO,
    "dose": f"strength, {_UNIT}",
    "scenario": "id of the scenario; also the random stream, the same in every arm",
    "copy": "which of several texts of the scenario",
    "half": "'select' (chooses the dose) or 'report'",
    "text": "what the model wrote",
    "n_tokens": "tokens of the text",
    "n_edited_tokens": "tokens of prompt and text that were changed",
    "delta_norm": "mean L2 norm of the change written per changed token",
    "concept": "scorer's probability of the emotion",
    "hit": "True if the emotion is the scorer's likeliest label",
    "concept_masked": "concept after words that name an emotion were taken out",
    "naming": "True if the text names the emotion and the prompt does not",
    "incoherent": "scorer's probability of the label 'incoherent'; 0 for a scorer without it",
    "perplexity": "of the text after its prompt without instruction, under the unedited model; NaN "
    "for an empty text",
    "distinct_1": "different words over words; NaN for an empty text",
    "distinct_2": "different word pairs over word pairs; NaN below two words",
    "repetition": "share of the text that repeats itself",
    "drift": "how far the text is from its prompt, 0 to 1",
    "coherence": "fluent, varied and readable, 0 to 1; see the study's method",
    "on_topic": "closer to its own scenario than to others, 0 to 1; see the study's method",
    "overall": "harmonic mean of concept, coherence and on_topic; 0 if one is 0",
    "overall_masked": "the same with concept_masked",
}

CURVES_COLUMNS: dict[str, str] = {
    **_WHO,
    "dose": f"strength, {_UNIT}",
    "half": "'select' or 'report'",
    "n_texts": "texts",
    "overall": "mean overall score",
    "overall_low": f"lower end, {_INTERVAL}",
    "overall_high": "upper end",
    "concept": "mean probability of the emotion",
    "concept_low": f"lower end, {_INTERVAL}",
    "concept_high": "upper end",
    "coherence": "mean coherence",
    "coherence_low": f"lower end, {_INTERVAL}",
    "coherence_high": "upper end",
    "on_topic": "mean on_topic",
    "concept_masked": "mean concept with emotion words taken out",
    "overall_masked": "mean overall score with them taken out",
    "hit": "share of texts whose likeliest label is the emotion",
    "naming": "share of texts that name the emotion",
    "incoherent": "mean probability of the label 'incoherent'",
    "perplexity": "median perplexity",
    "distinct_1": "mean",
    "distinct_2": "mean",
    "repetition": "mean",
    "drift": "mean",
    "n_tokens": "mean length in tokens",
    "delta_norm": "mean L2 norm written per changed token",
}

CHOSEN_COLUMNS: dict[str, str] = {
    **_WHO,
    "features": "comma-separated latents that were steered; '' for arms without",
    "matched_to": "arm whose set a random set is matched to; '' otherwise",
    "dose": "dose with the highest mean overall score on the select half; the lowest of equals",
    "select_overall": "that score",
    **{name: text for name, text in CURVES_COLUMNS.items() if name not in (*_WHO, "dose", "half")},
    "coherence_change": "coherence minus the unedited model's on the same scenarios",
    "coherence_change_low": "lower end, 90%, t over scenarios",
    "coherence_change_high": "upper end",
    "coherence_equivalent": "True if that interval lies within the margin of equivalence",
    "concept_slope": "mean slope of concept over doses (0 is the unedited model), per unit of "
    "dose_unit, report half; NaN for arms without a dose",
    "concept_slope_low": f"lower end, {_INTERVAL}",
    "concept_slope_high": "upper end",
    "coherence_slope": "the same of coherence",
    "coherence_slope_low": f"lower end, {_INTERVAL}",
    "coherence_slope_high": "upper end",
}

RANKING_COLUMNS: dict[str, str] = {
    "rank": "1 is the highest overall score",
    "arm": "what was done; 'random' is the mean of the random sets, 'random_best' each emotion's "
    "best set by its score on the report half",
    "n_emotions": "emotions averaged",
    "select_overall": "mean overall score on the half that chose the doses; what to pick an arm by",
    "n_scenarios": "scenarios of the report half",
    "overall": "mean over emotions at the chosen doses, report half",
    "overall_low": f"lower end, {_INTERVAL}",
    "overall_high": "upper end",
    "concept": "the same of the emotion's probability",
    "concept_masked": "with emotion words taken out",
    "overall_masked": "overall with emotion words taken out",
    "hit": "share of texts whose likeliest label is the emotion",
    "naming": "share of texts that name the emotion",
    "coherence": "mean coherence",
    "on_topic": "mean on_topic",
    "coherence_change": "coherence minus the unedited model's",
    "coherence_change_low": "lower end, 90%, t over scenarios",
    "coherence_change_high": "upper end",
    "coherence_equivalent": "True if that interval lies within the margin of equivalence",
    "concept_slope": "mean slope of concept over doses; NaN for arms without a dose",
    "delta_norm": "mean L2 norm written per changed token at the chosen doses",
}

COMPARISON_STEERING_COLUMNS: dict[str, str] = {
    "emotion": "emotion, or 'all' for the mean over emotions",
    "arm": "what is compared",
    "against": "'sae_input', 'sae_output', 'random' (every random set) or 'prompt'",
    "score": "'overall' or 'overall_masked'",
    "difference": "that score, arm minus rival, same scenarios of the report half; for 'random' "
    "the smallest difference over the sets",
    "low": f"lower end, {_INTERVAL}; of that same set",
    "high": "upper end",
    "p": "one-sided sign flip over scenarios; for 'random' the largest over the sets, a test of "
    "'beats every one'",
    "p_holm": "Holm over emotions x rivals of this arm and score; 'all' has a family of its own",
    "beats": "True if p_holm <= alpha and the difference is above zero",
    "n_scenarios": "scenarios compared",
    "min_p": "the smallest p that this many scenarios can give",
}

WINS_COLUMNS: dict[str, str] = {
    "arm": "'sae_output' or 'sae_output_score'",
    "score": "'overall' or 'overall_masked'",
    "n_emotions": "emotions compared",
    "beats_input": "emotions in which it beats 'sae_input' after correction",
    "beats_random": "emotions in which it beats every random set after correction",
    "wins": "emotions in which it does both: the larger of the two p, Holm over emotions",
    "min_p_holm": "the smallest corrected p that this design can give; above the level nothing "
    "could be found",
    "bar": "number asked for before the study: half of the emotions, 4 of 8",
    "reached": "True if wins >= bar",
    "emotions": "comma-separated emotions it wins",
}

STEERING_TABLES: dict[str, dict[str, str]] = {
    "steering/texts": TEXTS_COLUMNS,
    "steering/curves": CURVES_COLUMNS,
    "steering/chosen": CHOSEN_COLUMNS,
    "steering/ranking": RANKING_COLUMNS,
    "steering/comparisons": COMPARISON_STEERING_COLUMNS,
    "steering/wins": WINS_COLUMNS,
}
"""Every table of the study by its path without suffix."""
