"""A battery whose texts say nothing, and quick settings for comparing methods on it."""

from __future__ import annotations

import numpy as np

from affectlens.data.stimuli import Battery, Stimulus, make_battery
from affectlens.features.config import SearchConfig
from affectlens.features.validation_config import BaselineConfig

EMOTIONS = ("rage", "grief", "terror")
SEARCH = SearchConfig(pooling="mean", n_permutations=100, min_items=1)
FAST = BaselineConfig(
    n_folds=3, n_inner=2, n_bootstrap=200, n_random=5, strengths=(0.01,), word_strengths=(1.0,)
)


def make_pairs(
    n_domains: int = 12, n_per: int = 2, emotions: tuple[str, ...] = EMOTIONS, copies: bool = False
) -> Battery:
    """Pairs whose words are drawn alike for both members; domain 1 and 2 copied on request."""
    rng = np.random.default_rng(0)
    items = []
    for emotion in emotions:
        for d in range(1, n_domains + 1):
            for k in range(n_per):
                for kind in ("clinical", "neutral"):
                    text = " ".join(rng.choice([f"word{chr(97 + w)}" for w in range(20)], 12))
                    if copies and d <= 2 and kind == "neutral":
                        text = f"{emotion} {k} copied"
                    name = f"{kind}-{emotion}-{d}-{k}"
                    control = f"neutral-{emotion}-{d}-{k}" if kind == "clinical" else None
                    items.append(
                        Stimulus(
                            name,
                            emotion,
                            "peak",
                            str(d),
                            "place",
                            control,
                            len(text.split()),
                            text,
                            kind,  # type: ignore[arg-type]
                        )
                    )
    return make_battery("made", items, "test")
