"""Columns of the table of names: one row a contrast and latent; light, no torch."""

from __future__ import annotations

NAMING_COLUMNS: dict[str, str] = {
    "contrast": "'all' (words of every emotion) or the emotion whose words are looked for",
    "feature": "latent index in the SAE",
    "kind": "'detects words', 'names', 'evokes', or 'not seen' (never fires on held-out text)",
    "firing_rate": "share of unmasked held-out corpus tokens on which the latent is active",
    "max_active": "largest activation on held-out text (0 if never)",
    "emotion_mass": "share of the activation mass on words of any emotion; empty if never active",
    "own_mass": "the same for words of the contrast's emotion; equals it for 'all'",
    "emotion_token_rate": "share of held-out tokens on such words: what firing evenly would give",
    "auroc": "probability that a word of the emotion is promoted more than another whole word",
    "z": "Mann-Whitney z of that; too large, since words of one meaning are not independent",
    "p_reference": "share of other latents of this SAE with at least that AUROC, add-one",
    "n_words": "words of the emotion that are single tokens of this tokenizer",
    "entropy_bits": "entropy of the activation mass over token types; empty if never active",
    "effective_types": "2 to that power: the effective number of token types",
    "top_token": "token type with the largest share of the mass ('' if never active)",
    "top_share": "its share of the mass",
    "promoted": "tokens promoted most by the decoder row, as a JSON list",
    "suppressed": "tokens suppressed most, as a JSON list",
    "nearest_decoder": "latents with the nearest decoder rows, comma-separated",
    "nearest_cofiring": "latents that fire on the same tokens, comma-separated",
}
