"""`affectlens model`: what can be loaded and fetched."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from affectlens.cli_inputs import load_lm
from affectlens.cli_options import Common, group, verb

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
    lm = load_lm(name, revision, common)
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
