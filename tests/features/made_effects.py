"""Words and statistics for studies of effects on tiny models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from affectlens.data.taxonomy import AROUSAL_WORDS, CALM_WORDS, EMOTION_WORDS, VALENCE_WORDS

WORDS = list(
    dict.fromkeys(
        w
        for words in (*EMOTION_WORDS.values(), CALM_WORDS, VALENCE_WORDS, AROUSAL_WORDS)
        for w in words
    )
)
"""Words that get a token of their own, so that readouts work."""


def make_stats(d_sae: int = 96, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rate = 10 ** rng.uniform(-3, -0.5, d_sae)
    return pd.DataFrame(
        {
            "feature": range(d_sae),
            "firing_rate": rate,
            "mean_active": rng.uniform(0.2, 1, d_sae),
            "max_active": rng.uniform(1, 3, d_sae),
        }
    )
