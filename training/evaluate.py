"""How well an SAE stands in for the residual stream on held-out documents.

Masked tokens (the store's mask rule) count nowhere: not in FVU, and in every arm of the
cross-entropy they keep their residual, so all arms differ from the clean run at the same tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.artifacts import write_json
from affectlens.data.hooks import EditContext, capture, edit, resume_from
from affectlens.data.masking import MaskRule
from affectlens.data.models import Batch, LanguageModel
from affectlens.data.store import Part
from affectlens.sae.loading import check_fit
from affectlens.sae.metrics import QualityMeter, loss_recovered
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.thresholds import rows_at_once

METRICS_VERSION = 1
HELDOUT_TOKENS = 20_000
"""Held-out content tokens for FVU, L0 and dead latents."""
CE_TOKENS = 4096
"""Tokens for the cross-entropies: about half a minute on two cores."""
_TOKENS_AT_ONCE = 1024


class Store(Protocol):
    """What training and evaluation ask of a store of activations; `ActivationStore` has it all."""

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        ...

    @property
    def hook_names(self) -> list[str]:
        """The places that are stored."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the store."""
        ...

    @property
    def sha256(self) -> str:
        """Identity of the contents."""
        ...

    def mask_rule(self, hook: str) -> MaskRule:
        """The mask of a hook."""
        ...

    def n_kept(self, hook: str, part: Part = "all") -> int:
        """Rows of a hook that are not masked."""
        ...

    def first_not_finite(self, hook: str) -> tuple[str, int] | None:
        """Document and position of the first row that holds NaN or inf."""
        ...

    def heldout(self, hook: str, max_rows: int | None = None, *, kept_only: bool = True) -> Any:
        """Held-out rows, with `acts` [n, d_model] and `keep` [n]."""
        ...

    def iter_batches(
        self,
        hook: str,
        batch_size: int,
        *,
        generator: np.random.Generator,
        part: Part = "train",
        epochs: int | None = None,
        buffer_share: float = 1.0,
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Shuffled batches [batch_size, d_model]."""
        ...

    def token_windows(self, part: Part = "heldout", max_tokens: int | None = None) -> list[Any]:
        """Token windows as the model saw them."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Mean next-token loss (nats) on the same tokens under four treatments of the residual."""

    clean: float
    spliced: float
    mean_ablated: float
    zero_ablated: float
    n_tokens: int


@dataclass(frozen=True)
class Evaluation:
    """Quality on held-out documents; cross-entropies are `nan` where no model was given."""

    n_heldout_tokens: int
    n_masked_tokens: int
    fvu: float
    l0: float
    dead_share: float
    ce_clean: float
    ce_spliced: float
    ce_mean_ablated: float
    ce_zero_ablated: float
    ce_recovered_mean: float
    ce_recovered_zero: float


def evaluate(
    sae: SparseAutoencoder,
    store: Store,
    lm: LanguageModel | None = None,
    *,
    hook_name: str | None = None,
    max_tokens: int = HELDOUT_TOKENS,
    max_ce_tokens: int = CE_TOKENS,
) -> Evaluation:
    """Measure `sae` on the held-out documents of `store`.

    Args:
        sae: the SAE.
        store: activations with held-out documents.
        lm: the model; without it the cross-entropies stay `nan`.
        hook_name: where in the store; by default the SAE's own place.
        max_tokens: content tokens for FVU, L0 and dead latents.
        max_ce_tokens: tokens for the cross-entropies.

    Raises:
        SAEError: the SAE does not fit the store or the model.
        ArtifactError: no held-out row.
    """
    hook = hook_name or sae.info.hook_name
    check_fit(sae, d_model=store.d_model)
    meter, masked = _heldout_quality(sae, store, hook, max_tokens)
    ce = CrossEntropy(math.nan, math.nan, math.nan, math.nan, 0)
    if lm is not None:
        check_fit(sae, d_model=lm.d_model, fingerprint=lm.fingerprint)
        windows = [w.token_ids for w in store.token_windows("heldout", max_ce_tokens)]
        mean = store.heldout(hook, max_tokens).acts.mean(0)
        ce = cross_entropy(sae, lm, hook, windows, mean, store.mask_rule(hook))
    return Evaluation(
        n_heldout_tokens=meter.n,
        n_masked_tokens=masked,
        fvu=meter.fvu,
        l0=meter.l0,
        dead_share=meter.dead_share,
        ce_clean=ce.clean,
        ce_spliced=ce.spliced,
        ce_mean_ablated=ce.mean_ablated,
        ce_zero_ablated=ce.zero_ablated,
        ce_recovered_mean=loss_recovered(ce.clean, ce.spliced, ce.mean_ablated),
        ce_recovered_zero=loss_recovered(ce.clean, ce.spliced, ce.zero_ablated),
    )


@torch.no_grad()
def reconstruction(sae: SparseAutoencoder, rows: Tensor) -> QualityMeter:
    """FVU, L0, firing, cosine and norm of an SAE over rows [n, d_in], a bounded number at once."""
    meter = QualityMeter(sae.d_sae)
    for chunk in rows.split(rows_at_once(sae.d_sae)):
        chunk = chunk.to(sae.device)
        z, x_hat = sae.encode_and_reconstruct(chunk)
        meter.add(chunk, x_hat, z)
    return meter


@torch.no_grad()
def cross_entropy(
    sae: SparseAutoencoder,
    lm: LanguageModel,
    hook: str,
    windows: list[tuple[int, ...]],
    mean: Tensor,
    rule: MaskRule,
) -> CrossEntropy:
    """Next-token loss with the residual as it is, through the SAE, at its mean, and at zero.

    Args:
        sae: the SAE.
        lm: the model.
        hook: where the residual is replaced, at content tokens only.
        windows: token ids, one tuple for each text window.
        mean: mean content residual [d_model], for the mean ablation.
        rule: which tokens are content.
    """
    arms: dict[str, Callable[[Tensor], Tensor] | None] = {
        "clean": None,
        "spliced": sae.reconstruct,
        "mean_ablated": lambda resid: mean.to(resid).expand_as(resid),
        "zero_ablated": torch.zeros_like,
    }
    totals = dict.fromkeys(arms, 0.0)
    n = 0
    for batch in _batches(lm, windows):
        n += int((batch.lengths - 1).sum())
        with _from_hook(lm, hook, batch):
            for name, replace in arms.items():
                totals[name] += _summed_loss(lm, hook, batch, replace, rule)
    losses = {name: total / n if n else math.nan for name, total in totals.items()}
    return CrossEntropy(**losses, n_tokens=n)


def write_metrics(path: Path, sae: SparseAutoencoder, result: Evaluation, **more: Any) -> None:
    """Write `metrics.json` with the fields of the results' `SAEMetrics`; `nan` becomes null.

    Args:
        path: the file.
        sae: the SAE that was measured.
        result: its evaluation.
        more: `n_training_samples` and `history`.
    """
    payload = {
        "architecture": sae.info.architecture,
        "hook_name": sae.info.hook_name,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": float(sae.info.k if sae.info.k is not None else result.l0),
        "n_training_samples": 0,
        "history": [],
        **asdict(result),
        **more,
    }
    clean = {key: None if value != value else value for key, value in payload.items()}
    write_json(path, {"format_version": METRICS_VERSION, **clean})


def _heldout_quality(
    sae: SparseAutoencoder, store: Store, hook: str, max_tokens: int
) -> tuple[QualityMeter, int]:
    everything = store.heldout(hook, max_tokens, kept_only=False)
    meter = reconstruction(sae, store.heldout(hook, max_tokens).acts)
    return meter, int((~torch.as_tensor(everything.keep)).sum())


def _batches(lm: LanguageModel, windows: list[tuple[int, ...]]) -> Iterator[Batch]:
    """Batches of at most about a thousand tokens, so that the logits stay small."""
    usable = sorted((w for w in windows if len(w) > 1), key=len)
    pending: list[tuple[int, ...]] = []
    for window in usable:
        if pending and len(window) * (len(pending) + 1) > _TOKENS_AT_ONCE:
            yield lm.pad(pending)
            pending = []
        pending.append(window)
    if pending:
        yield lm.pad(pending)


@contextlib.contextmanager
def _from_hook(lm: LanguageModel, hook: str, batch: Batch) -> Iterator[None]:
    """Run the blocks below the hook once for all arms, where the place allows it."""
    address = Address.parse(hook)
    if address.site != "resid_post":
        yield
        return
    resid = capture(lm, [hook], batch)[address.name]
    with resume_from(lm, address.layer, resid):
        yield


def _summed_loss(
    lm: LanguageModel,
    hook: str,
    batch: Batch,
    replace: Callable[[Tensor], Tensor] | None,
    rule: MaskRule,
) -> float:
    def change(resid: Tensor, context: EditContext) -> Tensor | None:
        if replace is None:
            return None
        keep = rule.keep(resid, context.positions, context.attention).unsqueeze(-1)
        return torch.where(keep, replace(resid).to(resid.dtype), resid)

    with edit(lm, {hook: change}):
        logits = lm.forward_logits(batch, last_only=False)
    targets = batch.input_ids[:, 1:].masked_fill(~batch.attention_mask[:, 1:], -100)
    return float(
        torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
    )
