"""Reads a finished search back from its run folder, so that later stages need not search again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from affectlens.data.errors import ArtifactError
from affectlens.data.models import LanguageModel
from affectlens.data.store import ActivationStore
from affectlens.features.columns import STATS_COLUMNS
from affectlens.features.encoding import TokenActivations
from affectlens.features.fit import require_fit
from affectlens.features.results import SearchSummary, read_contexts, read_table
from affectlens.features.screen_records import ScreenSummary
from affectlens.features.screened import read_screen, with_screen
from affectlens.features.search import ENCODED_FILE, SearchResult
from affectlens.sae.model import SparseAutoencoder


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
    screen = read_screen(run) if (run / ScreenSummary.file).exists() else None
    empty = pd.DataFrame({column: pd.Series(dtype=float) for column in STATS_COLUMNS})
    return SearchResult(
        table=with_screen(read_table(run, "search/features"), screen),
        summary=summary,
        parts=parts,
        specificity=read_table(run, "search/specificity"),
        pooled=pooled,
        stats=read_table(run, "search/feature_stats") if with_store else empty,
        contexts=tuple(read_contexts(run)) if with_store else (),
        reads=read_table(run, "search/reads"),
        screen=screen,
    )


def read_encoded(run: Path) -> TokenActivations:
    """The battery as the search below `run/search` read it.

    Raises:
        ArtifactError: absent or damaged.
    """
    try:
        return TokenActivations.read(Path(run) / ENCODED_FILE)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; `affectlens search {run}` does so") from error


def require_searched(
    found: SearchResult,
    sae: SparseAutoencoder,
    lm: LanguageModel | None = None,
    *,
    encoded: TokenActivations | None = None,
    store: ActivationStore | None = None,
) -> list[str]:
    """Refuse an SAE that was not searched, or a model or activations that it does not fit.

    A latent's number means nothing in another SAE. Misfits that the search passed over are passed
    over again.

    Args:
        found: the search.
        sae: the SAE given for a stage after it.
        lm: the model given, if one is used.
        encoded: the battery as the search read it; tells SAEs of one width apart.
        store: activations that the stage reads.

    Returns:
        The names of the misfits that the search passed over.

    Raises:
        ArtifactError: another SAE.
        SAEError, HookError: the SAE does not fit `lm` or `store`; see `fit.require_fit`.
    """
    n = found.summary.n_features
    if n != sae.d_sae:
        raise ArtifactError(
            f"the search was of {n:,} latents, the SAE has {sae.d_sae:,}; give the SAE that was "
            "searched, or search this one"
        )
    made = found.summary.sae_sha256 if encoded is None else encoded.sae_sha256
    if made and made != sae.info.sha256:
        raise ArtifactError(
            f"the search was of the SAE {made[:12]}, the SAE given is {sae.info.sha256[:12]}; "
            "give the SAE that was searched, or search this one"
        )
    allow = [said.partition(":")[0] for said in found.summary.misfits]
    if lm is not None:
        require_fit(sae, lm, store=store, allow=allow)
    return allow
