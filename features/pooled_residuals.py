"""The residual stream at several places, pooled over exactly the tokens that an SAE's latents were.

Tokens, mask and read positions are taken from `TokenActivations`, so both sides of a comparison
see the same tokens. 'mean' and 'suffix' are means, 'max' the largest value of each coordinate, the
poolings of one token that token. 'firing' has no counterpart, since every coordinate is always on;
the mean over the same tokens stands for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.features.baseline_columns import EMBEDDING_LAYER
from affectlens.features.encoding import TokenActivations
from affectlens.features.permutation import StatisticsError
from affectlens.features.pooling import Pooling, reads

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """A place on the residual stream: `layer` is the block whose output it is, -1 the embedding."""

    layer: int
    hook: str


@dataclass(frozen=True, eq=False)
class PooledResidual:
    """`values` is float32 [n_items, d_model] at `place`."""

    place: Place
    values: npt.NDArray[np.float32]


def place_of(hook: str | int) -> Place:
    """The place of an address; the input of block n is the output of block n - 1.

    Raises:
        HookError: not an address.
    """
    address = Address.parse(hook)
    return Place(address.layer - (address.site == "resid_pre"), address.name)


def default_places(sae_hook: str, layers: Sequence[int], n_layers: int) -> tuple[Place, ...]:
    """The embedding, the given blocks and the place that the SAE reads, from low to high.

    Without `layers`: the first block, the quarters up to the SAE's, and the SAE's; nothing above.
    The embedding is the input of block 0: the token embedding, with the position embedding in
    models that add one there.

    Raises:
        ConfigError: a layer that the model does not have.
        HookError: `sae_hook` is not an address.
    """
    wrong = [layer for layer in layers if not 0 <= layer < n_layers]
    if wrong:
        raise ConfigError(f"layers {wrong} do not exist; the model has 0 to {n_layers - 1}")
    own = place_of(sae_hook)
    if not layers and own.layer >= 0:
        layers = [own.layer * quarter // 4 for quarter in range(5)]
    embedding = Place(EMBEDDING_LAYER, Address(0, "resid_pre").name)
    found = {p.layer: p for p in (embedding, *(place_of(layer) for layer in layers), own)}
    return tuple(found[layer] for layer in sorted(found))


def pooled_residuals(
    lm: LanguageModel,
    places: Sequence[Place],
    encoded: TokenActivations,
    rows: Sequence[int],
    pooling: Pooling,
    *,
    batch_size: int = 16,
    quiet: bool | None = None,
) -> tuple[PooledResidual, ...]:
    """Pool the stream at all places in one pass over the model, which stops at the highest one.

    Args:
        lm: the model that gave `encoded`.
        places: where to read.
        encoded: gives the tokens, their mask and what was put around the texts.
        rows: items of `encoded` to read, in this order.
        pooling: see the module.
        batch_size: texts in one forward pass.
        quiet: no progress; see `progress.track`.

    Returns:
        One array a place; sums run in float64 over the float32 stream.

    Raises:
        ConfigError: a pooling that the texts were not read for, or a batch size below 1.
        StimulusError: an item has no token to read.
        StatisticsError: the stream holds NaN or infinity.
    """
    read = reads(encoded, pooling)
    at = np.split(read.rows - encoded.first[read.items], np.cumsum(read.n_read)[:-1])
    (values,) = residuals_at(
        lm,
        [p.hook for p in places],
        [encoded.tokens[encoded.first[i] : encoded.first[i + 1]].tolist() for i in rows],
        [[at[i] for i in rows]],
        largest=pooling == "max",
        batch_size=batch_size,
        quiet=quiet,
    )
    return tuple(PooledResidual(p, v) for p, v in zip(places, values, strict=True))


@torch.inference_mode()
def residuals_at(
    lm: LanguageModel,
    hooks: Sequence[str],
    texts: Sequence[Sequence[int]],
    readings: Sequence[Sequence[Positions]],
    *,
    largest: bool = False,
    batch_size: int = 16,
    quiet: bool | None = None,
) -> npt.NDArray[np.float32]:
    """Pool the stream over given tokens of each text, in one pass up to the highest hook.

    Args:
        lm: the model.
        hooks: names of the places.
        texts: token ids of each text.
        readings: one or more; each gives the positions that are read in every text.
        largest: take the largest value of each coordinate, not the mean.
        batch_size: texts in one forward pass.
        quiet: no progress; see `progress.track`.

    Returns:
        float32 [n_readings, n_hooks, n_texts, d_model]; sums run in float64.

    Raises:
        ConfigError: a batch size below 1.
        StatisticsError: the stream holds NaN or infinity.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more")
    out = np.zeros((len(readings), len(hooks), len(texts), lm.d_model), np.float32)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    with track(len(texts), "texts", "reading the residual stream", quiet=quiet) as progress:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            found = capture(lm, list(hooks), lm.pad([texts[i] for i in chosen]))
            for h, hook in enumerate(hooks):
                for in_batch, i in enumerate(chosen):
                    for r, at in enumerate(readings):
                        read = found[hook][in_batch, torch.as_tensor(at[i])]
                        out[r, h, i] = _pooled(read, largest=largest)
            progress.update(len(chosen))
    for h, hook in enumerate(hooks):
        if not np.isfinite(out[:, h]).all():
            raise StatisticsError(
                f"the residual stream at {hook} holds NaN or infinity; load the model with "
                "dtype='float32' or 'bfloat16'"
            )
    return out


def _pooled(read: Tensor, *, largest: bool) -> npt.NDArray[np.float32]:
    read = read.float()
    pooled = read.amax(dim=0) if largest else read.double().mean(dim=0)
    return np.asarray(pooled.cpu().numpy(), dtype=np.float32)
