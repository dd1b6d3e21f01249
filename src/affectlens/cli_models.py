"""`affectlens model` and `affectlens sae`: what can be loaded, fetched, checked and converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_options import Common, group, verb
from affectlens.cli_stages import load_sae_named
from affectlens.data.errors import ArtifactError

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.data.store import ActivationStore
    from affectlens.sae.model import SparseAutoencoder

_TINY = ("llama", "gpt2", "gpt_neox", "gemma2")


def MODEL() -> typer.Typer:  # noqa: N802 - made once, named like the group
    """The group of commands about language models."""
    app = group(
        "Language models.", "affectlens model list\naffectlens model fetch smollm2-135m-instruct"
    )
    verb(app, "list", examples="affectlens model list", limit="first N models")(list_models)
    verb(
        app,
        "fetch",
        examples="""affectlens model fetch
        affectlens model fetch openai-community/gpt2 --revision 607a30d783df""",
    )(fetch)
    return app


def SAE() -> typer.Typer:  # noqa: N802
    """The group of commands about SAEs."""
    app = group(
        "Sparse autoencoders.",
        """affectlens sae check runs/a/sae --model tiny:llama --store runs/a/activations
        affectlens sae convert params.npz my-sae --hook blocks.12.hook_resid_post""",
    )
    verb(
        app,
        "check",
        limit="held-out tokens to measure on",
        examples="""affectlens sae check runs/a/sae --store runs/a/activations
        affectlens sae check gpt2-small-res-jb:blocks.8.hook_resid_pre""",
    )(check)
    verb(
        app,
        "convert",
        examples="""affectlens sae convert params.npz my-sae --hook blocks.12.hook_resid_post
        affectlens sae convert sparsify-run/layers.10 my-sae --model-name EleutherAI/pythia-160m""",
    )(convert)
    return app


def list_models(common: Common) -> None:
    """List models known by name, and what the cache holds."""
    from affectlens.data.model_cache import DEFAULT, cache_root, default_folder, is_cached

    ready = is_cached()
    folder = default_folder()
    models: list[dict[str, Any]] = [
        {"name": DEFAULT.name, "cached": ready, "place": folder if ready else "fetched when used"}
    ]
    root = cache_root()
    others = sorted(p.parent for p in root.glob("*/source.json")) if root.is_dir() else []
    models += [{"name": str(p), "cached": True, "place": p} for p in others if p != folder]
    models += [{"name": f"tiny:{f}", "cached": True, "place": "made in memory"} for f in _TINY]
    models = models[: common.limit]
    common.console.table(["name", "ready", "place"], [list(m.values()) for m in models])
    common.console.say("\nAlso: a Hugging Face hub id, a model folder, or a GGUF file.")
    common.console.result({"models": models, "cache": root})


def fetch(
    common: Common,
    name: Annotated[
        str, typer.Argument(help="name, hub id, folder or GGUF file", metavar="MODEL")
    ] = "smollm2-135m-instruct",
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of a hub model", metavar="REVISION")
    ] = None,
) -> None:
    """Fetch a model into the cache, load it once and show what it is."""
    lm = _load(name, revision, common)
    about = {
        "name": lm.name,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "context_length": lm.context_length,
        "fingerprint": lm.fingerprint,
        **lm.source.as_dict(),
    }
    common.console.table(["field", "value"], [[k, v] for k, v in about.items()])
    common.console.result(about)


def check(
    common: Common,
    sae: Annotated[str, typer.Argument(help="folder, or RELEASE:ID of sae-lens", metavar="SAE")],
    model: Annotated[
        str | None,
        typer.Option(
            help="model to check the fit with, and for cross-entropy recovered", metavar="MODEL"
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="revision of a hub model", metavar="REVISION")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="activations for FVU, L0 and dead share", metavar="FOLDER")
    ] = None,
) -> None:
    """Check that an SAE fits a model and activations, and measure it on held-out text.

    Ends with code 3 if it does not fit.
    """
    from affectlens.data.store import ActivationStore

    loaded = load_sae_named(sae, common.device or "cpu")
    opened = ActivationStore.open(store) if store is not None else None
    lm = _load(model, revision, common) if model is not None else None
    rows = _fit(loaded, lm, opened)
    measures: dict[str, float | None] = {}
    if opened is not None:
        measures = _measure(loaded, opened, lm, common)
        rows += [[name, value, ""] for name, value in measures.items()]
    verdict = _verdict(measures, fitted=lm is not None or opened is not None)
    common.console.table(["check", "value", "fits"], rows)
    common.console.say(f"\n{verdict}")
    common.console.result({"sae": asdict(loaded.info), "measures": measures, "verdict": verdict})


def convert(
    common: Common,
    source: Annotated[Path, typer.Argument(help="foreign SAE file or folder", metavar="SRC")],
    out: Annotated[Path, typer.Argument(help="folder to write", metavar="OUT")],
    hook: Annotated[
        str | None,
        typer.Option(help="place in the model, such as blocks.12.hook_resid_post", metavar="NAME"),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="model the SAE was trained on", metavar="NAME")
    ] = None,
) -> None:
    """Turn a Gemma Scope, sparsify or training-form SAE into a sae-lens folder."""
    if not source.exists():
        raise ArtifactError(f"no such file or folder: {source}")
    from affectlens.sae.loading import convert as convert_sae

    made = convert_sae(source, out, hook_name=hook, model_name=model_name)
    common.console.say(f"wrote {made!r} to {out}")
    common.console.result({"sae": asdict(made.info), "path": out})


def _load(name: str, revision: str | None, common: Common) -> LanguageModel:
    from affectlens.data.models import load_model

    return load_model(name, revision=revision, device=common.device or "cpu")


def _fit(
    sae: SparseAutoencoder, lm: LanguageModel | None, store: ActivationStore | None
) -> list[list[Any]]:
    """Rows of what fits; the first thing that does not raises."""
    from affectlens.data.addresses import Address
    from affectlens.sae.loading import check_fit

    info = sae.info
    rows: list[list[Any]] = [
        ["architecture", info.architecture, ""],
        ["shape", f"d_in {info.d_in}, d_sae {info.d_sae}, k {info.k}", ""],
        ["hook", info.hook_name or "not recorded", ""],
        ["mask", f"skip_first {info.skip_first}, norm_limit {info.norm_limit}", ""],
    ]
    if lm is not None:
        check_fit(sae, d_model=lm.d_model, fingerprint=lm.fingerprint)
        if info.hook_name:
            Address.parse(info.hook_name).check(lm.n_layers)
        known = info.model_fingerprint
        rows.append(["model", f"{lm.name}, d_model {lm.d_model}", "yes"])
        rows.append(["fingerprint", (known or "not recorded")[:16], "yes" if known else "unknown"])
    if store is not None:
        check_fit(sae, d_model=store.d_model)
        if info.hook_name and info.hook_name not in store.hook_names:
            raise ArtifactError(
                f"the SAE belongs at {info.hook_name!r}, but the store holds "
                f"{', '.join(store.hook_names)}; harvest that place"
            )
        made = (store.provenance.get("model") or {}).get("fingerprint")
        if made is not None:
            check_fit(sae, fingerprint=made)
        rows.append(["store", f"{store.n_rows:,} tokens", "yes"])
    return rows


def _measure(
    sae: SparseAutoencoder, store: ActivationStore, lm: LanguageModel | None, common: Common
) -> dict[str, float | None]:
    from affectlens.training.evaluate import evaluate

    hook = sae.info.hook_name or store.hook_names[0]
    most = {"max_tokens": common.limit, "max_ce_tokens": common.limit} if common.limit else {}
    measured = asdict(evaluate(sae, store, lm, hook_name=hook, **most))
    known = {name: None if value != value else value for name, value in measured.items()}
    return known if lm is not None else {k: v for k, v in known.items() if k[:3] != "ce_"}


def _verdict(measures: Mapping[str, float | None], *, fitted: bool) -> str:
    if not fitted:
        return "The files are sound. Give --model and --store to check the fit."
    if not measures:
        return "The SAE fits. Give --store to measure its quality."
    recovered, unexplained = measures.get("ce_recovered_mean"), measures["fvu"] or 0.0
    kept = f" and recovers {recovered:.1%} of the loss" if recovered is not None else ""
    said = f"leaves {unexplained:.1%} of the variance unexplained{kept}"
    worse = unexplained >= 1
    return (
        f"The SAE fits but {said}: no better than the mean."
        if worse
        else f"The SAE fits; it {said}."
    )
