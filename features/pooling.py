"""From token activations to one sparse vector of latent activations for each text.

With R(i) the tokens of item i that are read, and z(t, f) the activation of latent f on token t:

    mean, suffix                    sum of z(t, f) over R(i) / |R(i)|
    max                             max of z(t, f) over R(i)
    last, suffix_last, readout      z(t, f) at the one token of R(i)
    firing                          share of R(i) with z(t, f) != 0

R(i) holds, without tokens that the SAE's mask leaves out:

    mean, max, firing   the text's own tokens, without prefix and suffix
    last                the last of these
    suffix              the tokens of the suffix that all texts share
    suffix_last         the last token of that suffix
    readout             the last token of a readout prompt

The model is causal, so a suffix changes nothing on the text's own tokens: 'mean' over texts that
were read with a suffix is 'mean' over the bare texts. Nothing here is ever dense over d_sae.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.features.config import READOUT_PROMPT, Pooling, SearchConfig
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.read_columns import READS_COLUMNS, TOKENS_BEFORE

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
SHARED: tuple[Pooling, ...] = ("suffix", "suffix_last", "readout")
"""Poolings that read the same tokens in every text."""

READOUT_PROMPTS = {"feeling": READOUT_PROMPT}
"""Readout prompts by name; each is appended to a text and read at its last token."""

DEFAULT_PROMPT = "feeling"

Decode = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Pooled:
    """One vector a text, sparse.

    Attributes:
        values: float32 [n_items, d_sae], compressed by column; no stored entry is 0.
        item_ids: the id of each row.
        pooling: how tokens were pooled.
        read_tokens: for poolings that read the same tokens in every text, these tokens, decoded;
            empty for the others, and where no decoder was given.
        n_read: int64 [n_items] tokens that entered each row; 1 or more.
        n_masked: tokens at read positions that the SAE's mask left out, in all items together; 0
            for 'last', which moves on to the next token instead.
    """

    values: scipy.sparse.csc_array
    item_ids: tuple[str, ...]
    pooling: Pooling
    read_tokens: tuple[str, ...]
    n_read: npt.NDArray[np.int64]
    n_masked: int


def reading_for(pooling: Pooling, config: SearchConfig, *, prompt: str = DEFAULT_PROMPT) -> Reading:
    """What to put around the texts so that they can be pooled this way.

    Args:
        pooling: see the module.
        config: gives the sentence for 'suffix' and 'suffix_last'.
        prompt: name of the prompt for 'readout'.

    Raises:
        ConfigError: an unknown pooling or prompt, or a suffix without a word.
    """
    _check_pooling(pooling)
    if pooling == "readout":
        if prompt not in READOUT_PROMPTS:
            raise ConfigError(
                f"unknown readout prompt {prompt!r}; known: {', '.join(READOUT_PROMPTS)}"
            )
        return Reading(suffix=READOUT_PROMPTS[prompt], name=prompt)
    if pooling in SHARED:
        if not config.suffix.strip():
            raise ConfigError(f"pooling {pooling!r} needs a sentence in `suffix`, but it is empty")
        return Reading(suffix=config.suffix, name="suffix")
    return Reading()


def pool(encoded: TokenActivations, pooling: Pooling, decode: Decode | None = None) -> Pooled:
    """Pool every item; time and memory grow with the entries, not with d_sae x n_items.

    Sums run in float64 over tokens in the order of the text.

    Args:
        encoded: activations of all items.
        pooling: see the module.
        decode: token id to text, for `read_tokens`.

    Raises:
        ConfigError: an unknown pooling, or one that these texts were not read for.
        StimulusError: an item has no token to read.
    """
    read = reads(encoded, pooling)
    values = _reduced(encoded, read, pooling)
    shown: tuple[str, ...] = ()
    if decode is not None and pooling in SHARED:
        n_shown = encoded.n_tail if pooling == "suffix" else 1
        shown = tuple(decode(int(t)) for t in encoded.tokens[encoded.n_tokens - n_shown :])
    return Pooled(values, encoded.item_ids, pooling, shown, read.n_read, read.n_masked)


def reads_frame(encoded: TokenActivations, pooling: Pooling, decode: Decode) -> pd.DataFrame:
    """Where each text is read: one row an item (`READS_COLUMNS`).

    `n_read` counts the tokens, `position` (from 0, prefix included) and `token` are the last one's,
    `before` is the text of the tokens before it.

    Raises:
        ConfigError, StimulusError: as `pool`.
    """
    read = reads(encoded, pooling)
    last = read.rows[np.cumsum(read.n_read) - 1]
    first = encoded.first[:-1]
    shown = [
        encoded.tokens[max(start, at - TOKENS_BEFORE) : at + 1]
        for start, at in zip(first, last, strict=True)
    ]
    names = {int(t): decode(int(t)) for t in np.unique(np.concatenate(shown))}
    return pd.DataFrame(
        {
            "item_id": list(encoded.item_ids),
            "n_read": read.n_read,
            "position": last - first,
            "token": [names[int(t)] for t in encoded.tokens[last]],
            "before": ["".join(names[int(t)] for t in tokens[:-1]) for tokens in shown],
        },
        columns=list(READS_COLUMNS),
    )


@dataclass(frozen=True, eq=False)
class Reads:
    """The tokens that a pooling reads, masked ones left out.

    Attributes:
        rows: [n] tokens, rising.
        items: [n] the item of each.
        n_read: [n_items] how many; 1 or more.
        n_masked: tokens at read positions that the mask left out; 0 for 'last'.
    """

    rows: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    n_read: npt.NDArray[np.int64]
    n_masked: int


def reads(encoded: TokenActivations, pooling: Pooling) -> Reads:
    """Find the tokens that a pooling reads.

    Raises:
        ConfigError, StimulusError: as `pool`.
    """
    _check_pooling(pooling)
    wanted = _wanted(encoded, pooling)
    used = wanted & encoded.keep
    n_masked = int(wanted.sum() - used.sum())
    if pooling == "last":
        rows = np.arange(encoded.n_tokens)
        # No item is empty, so every segment of reduceat is one item.
        last = np.maximum.reduceat(np.where(used, rows, -1), encoded.first[:-1])
        used = np.zeros_like(used)
        used[last[last >= 0]] = True
        n_masked = 0
    n_read = np.add.reduceat(used, encoded.first[:-1], dtype=np.int64)
    unread = np.flatnonzero(n_read == 0)
    if len(unread):
        raise StimulusError(
            f"{len(unread)} of {encoded.n_items} items have no token to read, the first is "
            f"{encoded.item_ids[unread[0]]!r}: all its read tokens are masked (first token or norm "
            "outliers), or the text has none of its own"
        )
    rows = np.flatnonzero(used)
    return Reads(rows, encoded.items()[rows], n_read, n_masked)


def _wanted(encoded: TokenActivations, pooling: Pooling) -> npt.NDArray[np.bool_]:
    """Tokens at the positions that a pooling reads, masked ones included; [n_tokens]."""
    if pooling not in SHARED:
        return encoded.content()
    if encoded.n_tail == 0:
        raise ConfigError(
            f"pooling {pooling!r} reads a suffix, but these texts were read without one; encode "
            f"them with reading_for({pooling!r}, config)"
        )
    if pooling == "readout" and encoded.reading.name in ("text", "suffix"):
        raise ConfigError(
            f"pooling 'readout' reads the last token of a readout prompt, but these texts were "
            f"read as {encoded.reading.name!r}; encode them with reading_for('readout', config)"
        )
    if pooling == "suffix":
        return encoded.tail()
    wanted = np.zeros(encoded.n_tokens, dtype=bool)
    wanted[encoded.first[1:] - 1] = True
    return wanted


def _reduced(encoded: TokenActivations, read: Reads, pooling: Pooling) -> scipy.sparse.csc_array:
    """Entries of the read tokens, reduced over each (latent, item): float32 [n_items, d_sae]."""
    shape = (encoded.n_items, encoded.d_sae)
    columns = encoded.matrix()[read.rows].tocsc()
    if not columns.nnz:
        return scipy.sparse.csc_array(shape, dtype=np.float32)
    # Within a column rows rise, and so do items: entries of one latent and item lie together.
    items = read.items[columns.indices]
    begins = np.ones(columns.nnz, dtype=bool)
    begins[1:] = items[1:] != items[:-1]
    begins[columns.indptr[:-1][np.diff(columns.indptr) > 0]] = True
    starts = np.flatnonzero(begins)
    of = items[starts]
    counts = np.diff(starts, append=columns.nnz)
    if pooling == "firing":
        data = counts / read.n_read[of]
    elif pooling == "max":
        data = np.maximum.reduceat(columns.data, starts)
        # Where the latent is silent on some token, 0 is among the values.
        data = np.where(counts < read.n_read[of], np.maximum(data, 0), data)
    else:
        data = np.add.reduceat(columns.data, starts, dtype=np.float64) / read.n_read[of]
    indptr = np.searchsorted(starts, columns.indptr)
    pooled = scipy.sparse.csc_array((data.astype(np.float32), of, indptr), shape=shape)
    # Values of opposite sign can cancel, and a maximum can be 0.
    pooled.eliminate_zeros()
    return pooled


def _check_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ConfigError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
