"""Found latents and their contexts as plain tables, for spreadsheets and other programs.

    features.csv   one row a contrast and named latent: what the search found, then its name
    contexts.csv   one row a context: the range of activation it stands for, where it lies, its text

Text is UTF-8; half of a surrogate pair, which UTF-8 cannot hold, is written as its escape. Text
comes from a corpus: a program that runs cells as formulas must be told that these are text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from affectlens.data.artifacts import atomic_folder
from affectlens.features.control_vector_gguf import utf8
from affectlens.features.naming import FeatureName, FeatureNames
from affectlens.features.naming_columns import NAMING_COLUMNS

SEARCH_COLUMNS = (
    "rank",
    "mean_diff",
    "d_z",
    "auroc_paired",
    "specificity",
    "p",
    "q",
    "p_fwer",
    "confirm_d_z",
    "confirm_auroc_paired",
    "confirm_p_holm",
    "confirm_p_family",
    "confirmed",
)
"""What of a search stands beside a name."""

CONTEXT_COLUMNS: dict[str, str] = {
    "feature": "latent index in the SAE",
    "group": "range of activation, 1 is the strongest",
    "low": "lower end of the range, left out",
    "high": "upper end, included",
    "share": "share of the tokens on which the latent is active that lie in the range",
    "doc_id": "document of the corpus",
    "position": "place of the peak in its document, in tokens",
    "token": "token with the largest activation of the context",
    "activation": "that activation",
    "before": "text before it",
    "after": "text after it",
}


def write_csv(found: FeatureNames, searched: pd.DataFrame, folder: Path) -> Path:
    """Write `features.csv` and `contexts.csv` into `folder`, which is replaced as a whole.

    Args:
        found: names of latents.
        searched: the search that found them (`FEATURE_COLUMNS`).
        folder: where they go.

    Raises:
        MachineError: the disk is full.
    """
    keys = ["contrast", "feature"]
    features = found.table().merge(
        searched[[*keys, *SEARCH_COLUMNS]], on=keys, how="left", validate="one_to_one"
    )
    order = [*keys, *SEARCH_COLUMNS, *(c for c in NAMING_COLUMNS if c not in keys)]
    with atomic_folder(Path(folder)) as staged:
        features[order].to_csv(staged / "features.csv", index=False, encoding="utf-8")
        context_table(found).to_csv(staged / "contexts.csv", index=False, encoding="utf-8")
    return Path(folder)


def context_table(found: FeatureNames) -> pd.DataFrame:
    """One row a context of a named latent (`CONTEXT_COLUMNS`)."""
    rows = [row for name in found.names for row in _contexts(name)]
    return pd.DataFrame(rows, columns=list(CONTEXT_COLUMNS))


def _contexts(name: FeatureName) -> list[Mapping[str, object]]:
    return [
        {
            "feature": name.feature,
            "group": number,
            "low": group.low,
            "high": group.high,
            "share": group.share,
            "doc_id": context.doc_id,
            "position": context.position,
            "token": utf8(context.tokens[context.peak]),
            "activation": context.activations[context.peak],
            "before": utf8("".join(context.tokens[: context.peak])),
            "after": utf8("".join(context.tokens[context.peak + 1 :])),
        }
        for number, group in enumerate(name.groups, start=1)
        for context in group.contexts
    ]
