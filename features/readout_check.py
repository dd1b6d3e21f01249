"""Does the readout itself see the battery? Unedited model, every emotion's own pairs.

If the readout of an emotion is not higher on its clinical items than on their neutrals, an edit
that moves it says little about that emotion; the report shows this table before any effect.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.columns import READOUT_COLUMNS
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.readouts import (
    ALL,
    READOUT_WORDS,
    readout_names,
    unedited_readout,
    word_sets,
)
from affectlens.features.results import write_table
from affectlens.features.stats import auroc_paired, d_z, sign_flip


def check_readout(
    lm: LanguageModel, battery: Battery, config: InterveneConfig, *, out: Path | None = None
) -> pd.DataFrame:
    """Readout of every emotion on its own pairs (`READOUT_COLUMNS`), unedited model.

    The p is the two-sided sign flip over pairs.
    """
    sets = word_sets(lm, READOUT_WORDS)
    scores = {
        side: unedited_readout(
            lm,
            [getattr(p, side).text for p in battery.pairs],
            sets,
            config.templates,
            batch_size=config.batch_size,
        )
        for side in ("clinical", "neutral")
    }
    rows = []
    for column, name in enumerate(readout_names(sets)):
        own = [i for i, p in enumerate(battery.pairs) if name in (ALL, p.emotion)]
        if not own:
            continue
        clinical, neutral = scores["clinical"][own, column], scores["neutral"][own, column]
        difference = clinical - neutral
        flip = sign_flip(difference, config.n_permutations, config.seed)
        words = sets.words.get(name, ("every emotion's words", "against calm words"))
        rows.append(
            {
                "emotion": name,
                "n_pairs": len(own),
                "clinical": float(clinical.mean()),
                "neutral": float(neutral.mean()),
                "mean_diff": float(difference.mean()),
                "d_z": float(d_z(difference)),
                "auroc_paired": float(auroc_paired(difference)),
                "p": float(flip.p[0]),
                "words": ", ".join(words),
            }
        )
    table = pd.DataFrame(rows, columns=list(READOUT_COLUMNS))
    if out is not None:
        write_table(table, Path(out), "effects/readout_check")
    return table
