"""How often latents fire on held-out text, how strongly, and where.

One pass over the held-out part of a store encodes each token once, in blocks, so memory does not
grow with the width of the SAE times the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.data.store import ActivationStore, Rows
from affectlens.features.columns import STATS_COLUMNS
from affectlens.features.results import Context
from affectlens.sae.model import SparseAutoencoder

BLOCK_ROWS = 2048
"""Tokens encoded at once."""


class Decoder(Protocol):
    """What of a tokenizer is needed here."""

    @property
    def decode(self) -> Callable[..., object]:
        """Token ids to text."""
        ...


@dataclass(frozen=True, eq=False)
class HeldoutScan:
    """One pass over held-out tokens.

    Attributes:
        stats: `STATS_COLUMNS` for every latent, over unmasked tokens.
        features: latents whose activations were kept.
        activations: float32 [n_rows, len(features)]; 0 on masked tokens.
        rows: the tokens, masked ones included, in corpus order; its `acts` is emptied.
        documents: document ids, indexed by `rows.doc`.
        n_tokens: unmasked tokens that the statistics are over.
    """

    stats: pd.DataFrame
    features: tuple[int, ...]
    activations: npt.NDArray[np.float32]
    rows: Rows
    documents: tuple[str, ...]
    n_tokens: int


@torch.inference_mode()
def scan_heldout(
    sae: SparseAutoencoder,
    store: ActivationStore,
    hook: str | None = None,
    *,
    features: Sequence[int] = (),
    max_rows: int | None = None,
) -> HeldoutScan:
    """Encode held-out tokens once; collect statistics of all latents and traces of some.

    Args:
        sae: the SAE.
        store: activations.
        hook: hook name in the store; the SAE's own by default.
        features: latents whose activation at every token is kept.
        max_rows: at most this many tokens.

    Raises:
        ConfigError: a latent index outside the SAE.
        ArtifactError: the store lacks the hook, or holds nothing out.
        SAEError: the SAE reads another width.
    """
    wrong = [f for f in features if not 0 <= f < sae.d_sae]
    if wrong:
        raise ConfigError(f"no latent {wrong[0]}: the SAE has latents 0 to {sae.d_sae - 1}")
    name = Address.parse(hook if hook is not None else sae.info.hook_name).name
    rows = store.heldout(name, max_rows, kept_only=False)
    keep = np.asarray(rows.keep, dtype=bool)
    fired = np.zeros(sae.d_sae, dtype=np.int64)
    total, top = np.zeros(sae.d_sae), np.zeros(sae.d_sae)
    wanted = torch.as_tensor(list(features), dtype=torch.long)
    traces = np.zeros((len(rows), len(features)), dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        inside = start + np.flatnonzero(keep[start : start + BLOCK_ROWS])
        if not len(inside):
            continue
        latents = sae.encode(rows.acts[torch.from_numpy(inside)].to(sae.device)).cpu()
        fired += (latents > 0).sum(0).numpy()
        total += latents.clamp(min=0).sum(0, dtype=torch.float64).numpy()
        np.maximum(top, latents.amax(0).double().numpy(), out=top)
        traces[inside] = latents[:, wanted].numpy()
    n_tokens = int(keep.sum())
    frame = pd.DataFrame(
        {
            "feature": np.arange(sae.d_sae),
            "firing_rate": fired / max(n_tokens, 1),
            "mean_active": total / np.maximum(fired, 1),
            "max_active": top,
        }
    )[list(STATS_COLUMNS)]
    light = Rows(rows.acts[:0], rows.keep, rows.doc, rows.position, rows.token)
    return HeldoutScan(frame, tuple(features), traces, light, store.documents, n_tokens)


def feature_statistics(
    sae: SparseAutoencoder,
    store: ActivationStore,
    hook: str | None = None,
    max_rows: int | None = None,
) -> pd.DataFrame:
    """Firing statistics of every latent on held-out text (`STATS_COLUMNS`).

    Raises:
        ArtifactError: as `scan_heldout`.
    """
    return scan_heldout(sae, store, hook, max_rows=max_rows).stats


def top_contexts(
    sae: SparseAutoencoder,
    store: ActivationStore,
    tokenizer: Decoder,
    features: Sequence[int],
    n: int = 5,
    width: int = 10,
    *,
    hook: str | None = None,
    max_rows: int | None = None,
) -> list[Context]:
    """The `n` strongest places of each latent on held-out text, at most one a document.

    Raises:
        ConfigError: a latent index outside the SAE.
        ArtifactError: as `scan_heldout`.
    """
    scan = scan_heldout(sae, store, hook, features=features, max_rows=max_rows)
    return contexts_of(scan, tokenizer, n, width)


def contexts_of(scan: HeldoutScan, tokenizer: Decoder, n: int, width: int) -> list[Context]:
    """As `top_contexts`, from a pass already made.

    A context has up to `width` tokens on each side and never crosses the border of the window that
    the model read. Fewer than `n` are given where a latent fires in fewer documents.
    """
    windows = _window_numbers(scan.rows)
    found: list[Context] = []
    for column, feature in enumerate(scan.features):
        trace = scan.activations[:, column]
        for peak in _peaks(trace, scan.rows.doc, n):
            start, stop = max(0, peak - width), min(len(trace), peak + width + 1)
            near = start + np.flatnonzero(windows[start:stop] == windows[peak])
            found.append(
                Context(
                    feature=int(feature),
                    doc_id=scan.documents[int(scan.rows.doc[peak])],
                    position=int(scan.rows.position[peak]),
                    peak=int(peak - near[0]),
                    tokens=[str(tokenizer.decode([int(t)])) for t in scan.rows.token[near]],
                    activations=[float(a) for a in trace[near]],
                )
            )
    return found


def _peaks(trace: npt.NDArray[np.float32], documents: npt.NDArray[np.int32], n: int) -> list[int]:
    """Rows of the largest positive values, strongest first, one a document."""
    active = np.flatnonzero(trace > 0)
    order = active[np.argsort(-trace[active], kind="stable")]
    seen: set[int] = set()
    peaks: list[int] = []
    for row in order:
        document = int(documents[row])
        if document not in seen:
            seen.add(document)
            peaks.append(int(row))
        if len(peaks) == n:
            break
    return peaks


def _window_numbers(rows: Rows) -> npt.NDArray[np.int64]:
    """A number for each token that changes where the next token is not its neighbour."""
    breaks = (np.diff(rows.doc) != 0) | (np.diff(rows.position) != 1)
    return np.concatenate([[0], np.cumsum(breaks)]).astype(np.int64)
