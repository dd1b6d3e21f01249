"""Reads a finished search back from its run folder, so that later stages need not search again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from affectlens.data.errors import ArtifactError
from affectlens.features.columns import STATS_COLUMNS
from affectlens.features.encoding import TokenActivations
from affectlens.features.results import SearchSummary, read_contexts, read_table
from affectlens.features.search import ENCODED_FILE, SearchResult


def read_search(run: Path) -> SearchResult:
    """The search stored below `run/search`; equal to the result that wrote it, bar `read_tokens`.

    The encoded battery is left where it is; `read_encoded` reads it.

    Raises:
        ArtifactError: a file of the search is absent or damaged.
    """
    run = Path(run)
    summary = SearchSummary.read(run)
    pooled = read_table(run, "search/pooled")
    parts = dict(zip(pooled["cluster"], pooled["part"], strict=True))
    if not parts:
        raise ArtifactError(f"{run}/search/pooled holds no pair, so the split is unknown")
    with_store = (run / "search/feature_stats.parquet").exists()
    empty = pd.DataFrame({column: pd.Series(dtype=float) for column in STATS_COLUMNS})
    return SearchResult(
        table=read_table(run, "search/features"),
        summary=summary,
        parts=parts,
        specificity=read_table(run, "search/specificity"),
        pooled=pooled,
        stats=read_table(run, "search/feature_stats") if with_store else empty,
        contexts=tuple(read_contexts(run)) if with_store else (),
        reads=read_table(run, "search/reads"),
    )


def read_encoded(run: Path) -> TokenActivations:
    """The battery as the search below `run/search` read it.

    Raises:
        ArtifactError: absent or damaged.
    """
    return TokenActivations.read(Path(run) / ENCODED_FILE)
