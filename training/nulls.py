"""Is an SAE better than nothing? The same SAE, trained where there is nothing to find.

Reconstruction and sparsity alone do not show that an SAE found what a model has learned: SAEs of
randomly initialised transformers reach similar scores, also for the share of interpretable latents
(Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized transformers",
arXiv:2501.17727). So two nulls can be trained beside it:

1. `random-model`: the same place in the same model with weights drawn anew (`random_model`);
2. `embedding`: the residual before block 0 of the real model, the text and no computation.

Architecture, d_sae, k and number of samples are those of the SAE; corpus, windows and mask rule
those of its store. Where one of these cannot be the same (fewer samples are asked for, another
text, a recipe that is not known), one more SAE is trained that way at the SAE's own place, because
only that is a fair comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from affectlens.data.addresses import Address
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.models import LanguageModel
from affectlens.data.store import ActivationStore
from affectlens.sae.metrics import loss_recovered
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.check_latents import DENSE_RATE
from affectlens.training.check_measures import card_l0
from affectlens.training.config import SPARSE_ARCHS, SparsityConfig, TrainConfig
from affectlens.training.evaluate import (
    CE_TOKENS,
    HELDOUT_TOKENS,
    cross_entropy,
    reconstruction,
)
from affectlens.training.null_names import check_names
from affectlens.training.random_model import random_weights

EMBEDDING = "blocks.0.hook_resid_pre"
MIN_TOKENS = 20_000
"""Tokens to read at least, so that enough documents are held out."""
_KEPT_SETTINGS = ("batch_size", "lr", "lr_warmup_share", "lr_decay_share", "dead_window")


@dataclass(frozen=True)
class NullResult:
    """One SAE trained as a comparison, measured on its own held-out rows.

    Attributes:
        kind: 'random-model', 'embedding', or 'same budget' for the SAE's own place.
        model: name of the model that was read.
        hook_name: where.
        arch: architecture it was trained as.
        k: latents per token it was trained for.
        d_sae: number of latents.
        n_samples: activations it was trained on, epochs counted.
        n_tokens: held-out content tokens it was measured on.
        fvu: fraction of variance unexplained.
        l0: active latents per token.
        dead_share: share of latents that never fired there.
        dense_share: share of latents that fired on more than a tenth of the tokens.
        ce_recovered_mean: share of loss recovered against mean ablation; None where it means
            nothing: a model with random weights has no loss to lose.
        remark: what has to be known to read the numbers.
    """

    kind: str
    model: str
    hook_name: str
    arch: str
    k: int
    d_sae: int
    n_samples: int
    n_tokens: int
    fvu: float
    l0: float
    dead_share: float
    dense_share: float
    ce_recovered_mean: float | None
    remark: str


@dataclass(frozen=True, eq=False)
class NullSAE:
    """One SAE trained as a comparison, with the model it reads.

    Attributes:
        sae: the SAE; nothing of it is left on disk.
        lm: the model that it reads.
        result: what it is and how it measures.
    """

    sae: SparseAutoencoder
    lm: LanguageModel
    result: NullResult


@dataclass(frozen=True)
class NullPlan:
    """What is trained, on which text.

    Attributes:
        corpus: text to read.
        harvest: settings of the harvest, without the place.
        train: settings of the training, without the layer.
        comparable: all is as it was for the SAE, so no further SAE is needed to compare with.
        same_text: the corpus is that of the store.
        remarks: what differs from the SAE's own training.
    """

    corpus: Corpus
    harvest: dict[str, Any]
    train: TrainConfig
    comparable: bool
    same_text: bool
    remarks: tuple[str, ...]


def train_nulls(
    sae: SparseAutoencoder,
    lm: LanguageModel,
    names: Sequence[str],
    *,
    store: ActivationStore | None = None,
    corpus: Corpus | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    quiet: bool | None = None,
) -> list[NullResult]:
    """Train the SAE's nulls and measure them; slow (one harvest and one training each).

    Args:
        sae: the SAE they are compared with.
        lm: the model it belongs to; not changed.
        names: which of `null_names.NULLS`.
        store: the SAE's activations; corpus, window length and mask factor are taken from it.
        corpus: text to read; the store's or the embedded one by default.
        n_samples: activations to train on; the SAE's own number by default.
        seed: seed of the random weights and of the trainings.
        work: folder for temporary activations (d_model x 4 bytes a token); the system's by default.
        quiet: no progress.

    Raises:
        ConfigError: an unknown name.
        HookError: the SAE's place lies outside the model.
        MachineError: not enough space for the activations.
    """
    names = check_names(names)
    if not names:
        return []
    plan = plan_nulls(sae, store, corpus, n_samples, seed)
    made = null_saes(sae, lm, names, plan, store=store, work=work, quiet=quiet)
    return [null.result for null in made]


def null_saes(
    sae: SparseAutoencoder,
    lm: LanguageModel,
    names: Sequence[str],
    plan: NullPlan,
    *,
    store: ActivationStore | None = None,
    work: Path | None = None,
    quiet: bool | None = None,
) -> Iterator[NullSAE]:
    """Train the SAEs of a plan one at a time, so that one model more is held at most.

    'same budget' comes first where the plan is not comparable; the others follow in the order of
    `names`. Arguments and errors are those of `train_nulls`.
    """
    hook = Address.parse(sae.info.hook_name).check(lm.n_layers).as_output.name
    if not plan.comparable:
        again = store if store is not None and plan.same_text else None
        yield _arm("same budget", lm, hook, plan, work, store=again, quiet=quiet)
    for name in check_names(names):
        if name == "embedding":
            yield _arm(name, lm, EMBEDDING, plan, work, quiet=quiet)
        else:
            blank = random_weights(lm, torch.Generator().manual_seed(plan.train.seed))
            yield _arm(name, blank, hook, plan, work, quiet=quiet)


def _arm(
    kind: str,
    lm: LanguageModel,
    hook: str,
    plan: NullPlan,
    work: Path | None,
    *,
    store: ActivationStore | None = None,
    quiet: bool | None,
) -> NullSAE:
    from affectlens.training.trainer import train

    with (
        tempfile.TemporaryDirectory(prefix="affectlens-null-", dir=work) as folder,
        _activations(lm, hook, plan, Path(folder) / "activations", store, quiet=quiet) as acts,
    ):
        own = place_in(acts, hook)
        settings = plan.train.model_copy(update={"layer": _layer(acts, own)})
        sae = train(acts, settings, Path(folder) / "sae", quiet=quiet)
        rows = acts.heldout(own, HELDOUT_TOKENS).acts
        meter = reconstruction(sae, rows)
        recovered = None
        if kind != "random-model":
            windows = [w.token_ids for w in acts.token_windows("heldout", CE_TOKENS)]
            ce = cross_entropy(sae, lm, own, windows, rows.mean(0), acts.mask_rule(own))
            share = loss_recovered(ce.clean, ce.spliced, ce.mean_ablated)
            recovered = share if share == share else None
    result = NullResult(
        kind=kind,
        model=lm.name,
        hook_name=hook,
        arch=plan.train.arch,
        k=plan.train.k,
        d_sae=sae.d_sae,
        n_samples=plan.train.n_samples,
        n_tokens=meter.n,
        fvu=meter.fvu,
        l0=meter.l0,
        dead_share=meter.dead_share,
        dense_share=float((meter.density > DENSE_RATE).double().mean()),
        ce_recovered_mean=recovered,
        remark="; ".join([*plan.remarks, *_REMARKS.get(kind, ())]),
    )
    return NullSAE(sae, lm, result)


_REMARKS = {
    "random-model": (
        "random-model: loss recovered is not comparable, since this model predicts nothing",
    ),
    "same budget": ("same budget: the SAE's own place, trained as the nulls; the fair comparison",),
}


@contextmanager
def _activations(
    lm: LanguageModel,
    hook: str,
    plan: NullPlan,
    out: Path,
    store: ActivationStore | None,
    *,
    quiet: bool | None,
) -> Iterator[ActivationStore]:
    """The given store if it holds the place, else a fresh harvest that is closed afterwards."""
    from affectlens.data.activations import harvest

    if store is not None and place_in(store, hook) in store.hook_names:
        yield store
        return
    config = HarvestConfig.parse({**plan.harvest, "layers": (hook,)})
    with harvest(lm, plan.corpus, config, out, quiet=quiet) as made:
        yield made


def place_in(store: ActivationStore, hook: str) -> str:
    """The name by which a store holds a place."""
    return Address.parse(hook).among(store.hook_names) or hook


def _layer(store: ActivationStore, hook: str) -> int | None:
    """The setting that makes a training read this hook; none is needed where there is one."""
    return None if len(store.hook_names) == 1 else Address.parse(hook).as_output.layer


def plan_nulls(
    sae: SparseAutoencoder,
    store: ActivationStore | None,
    corpus: Corpus | None,
    n_samples: int | None,
    seed: int,
) -> NullPlan:
    """Settings of the nulls of an SAE; the arguments are those of `train_nulls`."""
    made = store.provenance if store is not None else {}
    remarks: list[str] = []
    text = corpus or load_corpus()
    recorded = (made.get("corpus") or {}).get("sha256")
    if recorded is not None and recorded != text.sha256:
        remarks.append(f"read on the corpus {text.name!r}, which is not that of the store")
    metadata = sae.sae.cfg.metadata.to_dict()
    run = metadata.get("training_run") or {}
    own = run.get("n_samples")
    end = metadata.get("training_end") or {}
    if end.get("reason", "n_samples") != "n_samples":
        own = end.get("n_samples", own)
        remarks.append("the SAE's own training ended early, before its schedule did")
    n = n_samples or own or TrainConfig().n_samples
    arch, k, said = _recipe(sae, run)
    if said:
        remarks.append(said)
    settings = {name: run[name] for name in _KEPT_SETTINGS if name in run}
    prefixed = {name: f"sparsity.{name}" for name in SparsityConfig.model_fields}
    settings["sparsity"] = {name: run[key] for name, key in prefixed.items() if key in run}
    settings |= {"arch": arch, "k": k, "d_sae": sae.d_sae, "n_samples": n, "seed": seed}
    kept = ("context_length", "tokens_per_batch", "outlier_factor", "max_tokens")
    config = made.get("config") or {}
    harvest = {name: config[name] for name in kept if config.get(name) is not None}
    # No more text than the samples need (one document in ten is held out), nor than the store has.
    wanted = max(int(n * 1.15), MIN_TOKENS)
    harvest["max_tokens"] = min(harvest.get("max_tokens", wanted), wanted)
    comparable = own == n and not remarks and store is not None
    train = TrainConfig.parse(settings)
    return NullPlan(text, harvest, train, comparable, recorded == text.sha256, tuple(remarks))


def _recipe(sae: SparseAutoencoder, run: dict[str, Any]) -> tuple[str, int, str]:
    """Architecture and k to train, and what to say where they are not the SAE's own."""
    card, _ = card_l0(sae)
    k = max(1, round(card if card is not None else sae.d_in / 16))
    recorded = run.get("arch")
    if recorded in SPARSE_ARCHS:
        return str(recorded), int(run.get("k") or k), ""
    if "topk" in sae.info.architecture:
        return "topk", k, ""
    return "topk", k, f"trained as topk with k = {k}, the SAE's own recipe being unknown"
