"""What a run trains on: a store of activations, or any iterator of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import LanguageModel
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.config import K_READ_BY, TrainConfig
from affectlens.training.evaluate import Evaluation, Store, evaluate
from affectlens.training.finish import evaluate_rows
from affectlens.training.memory import CALIBRATION_ROWS


@dataclass(frozen=True)
class Source:
    """What a run trains on and is judged by.

    Attributes:
        d_in: width of the rows.
        n_rows: rows that can be shuffled; 0 where the data is a stream.
        batches: from a sample count on, the batches that follow it; fresh copies.
        calibration: rows [n, d_in] for the starting values.
        heldout: at most so many held-out rows [n, d_in].
        measure: the final metrics, at most so many held-out rows.
        identity: what tells this data from other data.
        metadata: what the SAE's folder says about its origin.
        explain: where rows that are not finite come from, for the message.
    """

    d_in: int
    n_rows: int
    batches: Callable[[int], Iterator[Tensor]]
    calibration: Callable[[], Tensor]
    heldout: Callable[[int], Tensor]
    measure: Callable[[SparseAutoencoder, int], Evaluation]
    identity: Mapping[str, Any]
    metadata: Mapping[str, Any]
    explain: Callable[[], str] = lambda: ""


def resolve_hook(store: Store, config: TrainConfig) -> str:
    """The hook name that `config.layer` means in `store`.

    Raises:
        ConfigError: no layer given and several stored, or a layer that is not stored.
    """
    names = list(store.hook_names)
    if config.layer is None:
        if len(names) == 1:
            return names[0]
        raise ConfigError(f"the store holds {', '.join(names)}; say which by layer (--layer)")
    name = Address.parse(config.layer).name
    if name not in names:
        raise ConfigError(
            f"layer {config.layer} is not in the store, which holds {', '.join(names)}"
        )
    return name


def store_source(store: Store, config: TrainConfig, hook: str, lm: LanguageModel | None) -> Source:
    """The training part of a store, shuffled by the run's seed, judged by its held-out part.

    Raises:
        ConfigError: `lm` is not the model that the store was harvested from.
    """
    if lm is not None:
        _check_model(store, lm)

    def rows(batch_size: int, skip: int, epochs: int | None) -> Iterator[Tensor]:
        return store.iter_batches(
            hook,
            batch_size,
            part="train",
            generator=np.random.default_rng(config.seed),
            buffer_share=config.buffer_share,
            epochs=epochs,
            skip=skip,
        )

    def explain() -> str:
        found = store.first_not_finite(hook)
        return f"; the first in the store is position {found[1]} of {found[0]!r}" if found else ""

    return Source(
        d_in=store.d_model,
        n_rows=store.n_kept(hook, "train"),
        # Endless batches of a store all have the same size.
        batches=lambda seen: rows(config.batch_size, seen // config.batch_size, None),
        calibration=lambda: next(rows(CALIBRATION_ROWS, 0, 1)),
        heldout=lambda n: store.heldout(hook, n).acts,
        measure=lambda sae, n: evaluate(sae, store, lm, max_tokens=n),
        identity={"hook_name": hook, "store_sha256": store.sha256},
        metadata=_store_metadata(store, config, hook, lm),
        explain=explain,
    )


def _check_model(store: Store, lm: LanguageModel) -> None:
    """Only the metrics at the very end need the model, so a wrong one is refused here."""
    made = store.provenance.get("model", {})
    known = made.get("fingerprint")
    if lm.d_model != store.d_model or (known is not None and known != lm.fingerprint):
        raise ConfigError(
            f"the store was harvested from model {made.get('name')!r} (d_model {store.d_model}, "
            f"fingerprint {str(known)[:12]}), lm is {lm.name!r} (d_model {lm.d_model}, "
            f"fingerprint {lm.fingerprint[:12]}); hand over that model, or none"
        )


def _store_metadata(
    store: Store, config: TrainConfig, hook: str, lm: LanguageModel | None
) -> dict[str, Any]:
    rule = store.mask_rule(hook)
    origin = store.provenance
    model = origin.get("model", {})
    return {
        "hook_name": hook,
        "model_name": model.get("name") or (lm.name if lm else ""),
        "model_fingerprint": model.get("fingerprint") or (lm.fingerprint if lm else None),
        "skip_first": rule.skip_first,
        "norm_limit": rule.norm_limit,
        "centre": False,
        "k": _card_k(config),
        "context_size": origin.get("config", {}).get("context_length"),
    }


def _card_k(config: TrainConfig) -> int | None:
    """`k` for the SAE's card; None where the architecture does not read it."""
    return config.k if config.arch in K_READ_BY else None


def iterator_source(
    batches: Iterable[Tensor],
    config: TrainConfig,
    d_in: int,
    heldout: Tensor,
    metadata: Mapping[str, Any],
    *,
    start: int = 0,
) -> Source:
    """Batches as they come, judged by the rows [n, d_in] in `heldout`.

    Where `start` samples came before, the batches may be at their end: the starting values are then
    replaced by the saved state, whatever they are taken from.

    Raises:
        ConfigError: held-out rows of another width, or fewer than two.
    """
    if not isinstance(heldout, Tensor) or heldout.ndim != 2 or heldout.shape[1] != d_in:
        raise ConfigError(f"heldout is {_form(heldout)}, expected a tensor [n, {d_in}]")
    if len(heldout) < 2:
        raise ConfigError(f"heldout is {_form(heldout)}, expected at least two rows")
    stream = _copies(batches, d_in)
    taken: list[Tensor] = []
    held = heldout.detach().to("cpu", torch.float32).contiguous()

    def calibration() -> Tensor:
        while sum(map(len, taken)) < CALIBRATION_ROWS and (batch := next(stream, None)) is not None:
            taken.append(batch)
        if not taken and not start:
            raise ArtifactError("the iterator gave no row; there is nothing to train on")
        return torch.cat(taken or [held])[:CALIBRATION_ROWS]

    digest = hashlib.sha256(held.numpy().data).hexdigest()
    return Source(
        d_in=d_in,
        n_rows=0,
        batches=lambda _: itertools.chain(_drained(taken), stream),
        calibration=calibration,
        heldout=lambda n: held[:n],
        measure=lambda sae, n: evaluate_rows(sae, held[:n]),
        identity={"d_in": d_in, "heldout_sha256": digest},
        metadata={"hook_name": "", "model_name": "", "k": _card_k(config), **metadata},
    )


def _copies(batches: Iterable[Tensor], d_in: int) -> Iterator[Tensor]:
    """Copies, since the loop overwrites its batches; those without a row are passed over."""
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.ndim != 2 or batch.shape[1] != d_in:
            raise ConfigError(f"a batch is {_form(batch)}, expected [n, {d_in}]")
        if len(batch):
            yield batch.detach().to("cpu", torch.float32, copy=True)


def _form(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _drained(items: list[Tensor]) -> Iterator[Tensor]:
    while items:
        yield items.pop(0)
