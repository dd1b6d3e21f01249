"""Does the readout itself see the battery? Unedited model, every emotion's own pairs.

If the readout of an emotion is not higher on its clinical items than on their neutrals, an edit
that moves it says little about that emotion; the report shows this table before any effect. A
readout that rises on every emotional text alike says that something is felt, not what: `auroc_own`
sets own clinical items against those of the other emotions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.contrasts import ALL
from affectlens.features.effect_columns import READOUT_COLUMNS
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.readout_scales import SCALE_NAMES
from affectlens.features.readout_words import emotion_words
from affectlens.features.readouts import Readout, build_readout, readout_name_of, readout_of
from affectlens.features.results import write_table
from affectlens.features.stats import auroc, auroc_paired, cluster_totals, d_z, sign_flip

Array = npt.NDArray[np.float64]


def check_readout(
    lm: LanguageModel, battery: Battery, config: InterveneConfig, *, out: Path | None = None
) -> pd.DataFrame:
    """Readout of every emotion on its own pairs (`READOUT_COLUMNS`), unedited model.

    The p is the two-sided sign flip over pairs, `p_cluster` the one-sided over clusters. 'all',
    valence and arousal are read on all pairs.

    Raises:
        ConfigError: words that cannot be read with this tokenizer.
    """
    measures = config.measures
    readout = build_readout(
        lm, emotion_words(measures.words), config.templates, calibrate=measures.calibrate,
        scales=measures.scales,
    )  # fmt: skip
    clinical, neutral = (
        readout_of(
            lm,
            [getattr(p, side).text for p in battery.pairs],
            readout,
            batch_size=config.batch_size,
        )
        for side in ("clinical", "neutral")
    )
    owners = [_column_of(p.emotion, readout) for p in battery.pairs]
    rows = []
    for column, name in enumerate(readout.names):
        whole = name == ALL or name in SCALE_NAMES
        own = np.array([whole or owner == name for owner in owners])
        if own.any():
            found = _row(clinical[:, column], neutral[:, column], own, battery, config, name)
            rows.append({**found, "words": _words(readout, name), "calibrated": readout.calibrated})
    table = pd.DataFrame(rows, columns=list(READOUT_COLUMNS))
    if out is not None:
        write_table(table, Path(out), "effects/readout_check")
    return table


def _row(
    clinical: Array,
    neutral: Array,
    own: npt.NDArray[np.bool_],
    battery: Battery,
    config: InterveneConfig,
    name: str,
) -> dict[str, Any]:
    difference = (clinical - neutral)[own]
    flip = sign_flip(difference, config.n_permutations, config.seed)
    clusters = [p.cluster for p, mine in zip(battery.pairs, own, strict=True) if mine]
    grouped = sign_flip(
        cluster_totals(difference, clusters),
        config.n_permutations,
        config.seed,
        alternative="two-sided" if name in SCALE_NAMES else "greater",
    )
    rest = clinical[~own]
    return {
        "emotion": name,
        "n_pairs": int(own.sum()),
        "clinical": float(clinical[own].mean()),
        "neutral": float(neutral[own].mean()),
        "mean_diff": float(difference.mean()),
        "d_z": float(d_z(difference)),
        "auroc_paired": float(auroc_paired(difference)),
        "p": float(flip.p[0]),
        "p_cluster": float(grouped.p[0]),
        "auroc_own": float(auroc(clinical[own], rest)) if len(rest) else float("nan"),
    }


def _column_of(emotion: str, readout: Readout) -> str | None:
    """The readout of a battery's emotion; None where its words were not asked for."""
    try:
        return readout_name_of(emotion, readout)
    except ConfigError:
        return None


def _words(readout: Readout, name: str) -> str:
    if name == ALL:
        return "every emotion's words, against calm words"
    if name in SCALE_NAMES:
        return "expected value over the answers of a scale"
    return ", ".join(readout.describe()["words"][name])
