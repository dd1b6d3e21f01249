"""How often latents fire on held-out text, how strongly, and where.

One pass over the held-out part of a store encodes each token once, in blocks, so memory does not
grow with the width of the SAE times the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

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
        cofired: int64 [len(features), d_sae], unmasked tokens on which both latents are active;
            None where it was not asked for.
    """

    stats: pd.DataFrame
    features: tuple[int, ...]
    activations: npt.NDArray[np.float32]
    rows: Rows
    documents: tuple[str, ...]
    n_tokens: int
    cofired: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ContextGroup:
    """Contexts of one latent whose activation lies in one range (low, high].

    Attributes:
        feature: latent index.
        low: lower end, left out.
        high: upper end, included.
        n_tokens: unmasked held-out tokens in the range, not only those shown.
        share: `n_tokens` over the tokens on which the latent is active.
        contexts: places in the range; fewer than asked for where there are fewer.
    """

    feature: int
    low: float
    high: float
    n_tokens: int
    share: float
    contexts: tuple[Context, ...]


@torch.inference_mode()
def scan_heldout(
    sae: SparseAutoencoder,
    store: ActivationStore,
    hook: str | None = None,
    *,
    features: Sequence[int] = (),
    max_rows: int | None = None,
    cofiring: bool = False,
) -> HeldoutScan:
    """Encode held-out tokens once; collect statistics of all latents and traces of some.

    Args:
        sae: the SAE.
        store: activations.
        hook: hook name in the store; the SAE's own by default.
        features: latents whose activation at every token is kept.
        max_rows: at most this many tokens.
        cofiring: count, too, with which other latents the given ones are active.

    Raises:
        ConfigError: a latent index outside the SAE.
        ArtifactError: the store lacks the hook, or holds nothing out.
        SAEError: the SAE reads another width.
    """
    check_latents(features, sae.d_sae)
    name = Address.parse(hook if hook is not None else sae.info.hook_name).name
    rows = store.heldout(name, max_rows, kept_only=False)
    keep = np.asarray(rows.keep, dtype=bool)
    fired = np.zeros(sae.d_sae, dtype=np.int64)
    total, top = np.zeros(sae.d_sae), np.zeros(sae.d_sae)
    wanted = torch.as_tensor(list(features), dtype=torch.long)
    traces = np.zeros((len(rows), len(features)), dtype=np.float32)
    cofired = np.zeros((len(features), sae.d_sae), dtype=np.int64) if cofiring else None
    for start in range(0, len(rows), BLOCK_ROWS):
        inside = start + np.flatnonzero(keep[start : start + BLOCK_ROWS])
        if not len(inside):
            continue
        latents = sae.encode(rows.acts[torch.from_numpy(inside)].to(sae.device)).cpu()
        fired += (latents > 0).sum(0).numpy()
        total += latents.clamp(min=0).sum(0, dtype=torch.float64).numpy()
        np.maximum(top, latents.amax(0).double().numpy(), out=top)
        traces[inside] = latents[:, wanted].numpy()
        if cofired is not None:
            cofired += _both_active(latents, wanted)
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
    return HeldoutScan(frame, tuple(features), traces, light, store.documents, n_tokens, cofired)


def check_latents(features: Iterable[int], d_sae: int) -> None:
    """Refuse latents that an SAE does not have.

    Raises:
        ConfigError: a latent outside the SAE.
    """
    wrong = [f for f in features if not 0 <= f < d_sae]
    if wrong:
        raise ConfigError(f"no latent {wrong[0]}: the SAE has latents 0 to {d_sae - 1}")


def window_bounds(rows: Rows) -> npt.NDArray[np.int64]:
    """Where tokens stop being neighbours: window i is rows `bounds[i]:bounds[i + 1]`."""
    breaks = (np.diff(rows.doc) != 0) | (np.diff(rows.position) != 1)
    return np.concatenate([[0], 1 + np.flatnonzero(breaks), [len(rows)]]).astype(np.int64)


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
    return [
        _context(scan, tokenizer, column, peak, width, windows)
        for column in range(len(scan.features))
        for peak in _peaks(scan.activations[:, column], scan.rows.doc, n)
    ]


def grouped_contexts(
    scan: HeldoutScan, tokenizer: Decoder, n_groups: int, n: int, width: int
) -> list[tuple[ContextGroup, ...]]:
    """Contexts of each latent over the whole range of its activation, strongest group first.

    The range from 0 to the largest activation M seen is cut into `n_groups` groups of equal width,
    group g holding activations in (M g / n_groups, M (g + 1) / n_groups]. Equal width, not equal
    count, is the "subsample intervals" of the dashboards of Bricken et al. (2023, "Towards
    Monosemanticity") and of sae_vis, which Neuronpedia shows: most activations are weak, and
    groups of equal count would all but one show weak ones.

    A token is shown only if no token of its own context fires more (of equal ones the first), so a
    weak context is not the margin of a strong one. Within a group at most one place a document.
    The top group shows its strongest places; the others show places spread evenly over the ranks
    of the group, since their strongest would all lie at the upper end. Nothing is random.

    Returns:
        A tuple for each of `scan.features`; empty for a latent that never fires.

    Raises:
        ConfigError: `n_groups` or `n` below 1, or `width` below 0.
    """
    if n_groups < 1 or n < 1 or width < 0:
        raise ConfigError(
            f"got n_groups={n_groups}, n={n}, width={width}; need at least 1, 1 and 0"
        )
    windows = _window_numbers(scan.rows)
    found = []
    for column, feature in enumerate(scan.features):
        trace = scan.activations[:, column]
        active = np.flatnonzero(trace > 0)
        top = float(trace.max(initial=0.0))
        # Float64 throughout: the largest value must land in the last group, not beyond it.
        scaled = trace[active].astype(np.float64) / top * n_groups if len(active) else np.zeros(0)
        number = np.clip(np.ceil(scaled).astype(np.int64) - 1, 0, n_groups - 1)
        highest = _local_peaks(trace, active, windows, width)
        groups = []
        for group in range(n_groups - 1, -1, -1) if len(active) else ():
            inside = number == group
            places = _one_a_document(trace, active[inside & highest], scan.rows.doc)
            shown = places[:n] if group == n_groups - 1 else _spread(places, n)
            groups.append(
                ContextGroup(
                    feature=int(feature),
                    low=top * group / n_groups,
                    high=top * (group + 1) / n_groups,
                    n_tokens=int(inside.sum()),
                    share=float(inside.mean()),
                    contexts=tuple(
                        _context(scan, tokenizer, column, peak, width, windows) for peak in shown
                    ),
                )
            )
        found.append(tuple(groups))
    return found


def _context(
    scan: HeldoutScan,
    tokenizer: Decoder,
    column: int,
    peak: int,
    width: int,
    windows: npt.NDArray[np.int64],
) -> Context:
    """The tokens around one place, within the window that the model read."""
    start, stop = max(0, peak - width), min(len(windows), peak + width + 1)
    near = start + np.flatnonzero(windows[start:stop] == windows[peak])
    return Context(
        feature=int(scan.features[column]),
        doc_id=scan.documents[int(scan.rows.doc[peak])],
        position=int(scan.rows.position[peak]),
        peak=int(peak - near[0]),
        tokens=[str(tokenizer.decode([int(t)])) for t in scan.rows.token[near]],
        activations=[float(a) for a in scan.activations[near, column]],
    )


def _both_active(latents: Tensor, wanted: Tensor) -> npt.NDArray[np.int64]:
    """Tokens on which latent i of `wanted` and latent j are active; [len(wanted), d_sae]."""
    active = latents > 0
    # Counts of a block are far below 2^24, so float32 holds them exactly.
    both = active[:, wanted].T.float() @ active.float()
    counts: npt.NDArray[np.int64] = both.numpy().astype(np.int64)
    return counts


def _local_peaks(
    trace: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int64],
    width: int,
) -> npt.NDArray[np.bool_]:
    """Which active rows hold the maximum of their own context; of equal ones the first."""
    highest = np.ones(len(active), dtype=bool)
    last = len(trace) - 1
    for step in range(1, width + 1):
        before, after = np.maximum(active - step, 0), np.minimum(active + step, last)
        near = (active >= step) & (windows[before] == windows[active])
        highest &= ~(near & (trace[before] >= trace[active]))
        near = (active + step <= last) & (windows[after] == windows[active])
        highest &= ~(near & (trace[after] > trace[active]))
    return highest


def _spread(places: list[int], n: int) -> list[int]:
    """At most `n` places, evenly spaced by rank, first and last among them."""
    if len(places) <= n:
        return places
    ranks = np.unique(np.linspace(0, len(places) - 1, n).round().astype(int))
    return [places[rank] for rank in ranks]


def _one_a_document(
    trace: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int32],
) -> list[int]:
    """The strongest candidate of each document, strongest first."""
    order = candidates[np.argsort(-trace[candidates], kind="stable")]
    _, first = np.unique(documents[order], return_index=True)
    return [int(row) for row in order[np.sort(first)]]


def _peaks(trace: npt.NDArray[np.float32], documents: npt.NDArray[np.int32], n: int) -> list[int]:
    """Rows of the largest positive values, strongest first, one a document."""
    return _one_a_document(trace, np.flatnonzero(trace > 0), documents)[:n]


def _window_numbers(rows: Rows) -> npt.NDArray[np.int64]:
    """A number for each token that changes where the next token is not its neighbour."""
    lengths = np.diff(window_bounds(rows))
    return np.repeat(np.arange(len(lengths)), lengths)
