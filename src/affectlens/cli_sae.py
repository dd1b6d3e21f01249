"""`affectlens sae`: whether an SAE fits and is any good, and SAEs of other projects converted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_inputs import load_lm
from affectlens.cli_options import Common, group, verb
from affectlens.data.errors import ConfigError

if TYPE_CHECKING:
    from affectlens.data.store import ActivationStore
    from affectlens.training.check import SAECheck
    from affectlens.training.check_lines import CheckLine

MISFIT = 3
"""Exit code of a check that ends in a misfit; see `data/errors.py`."""


def SAE() -> typer.Typer:  # noqa: N802 - made once, named like the group
    """The group of commands about SAEs."""
    app = group(
        "Sparse autoencoders.",
        """affectlens sae check runs/a/sae --model tiny:llama --store runs/a/activations
        affectlens sae convert params.npz my-sae --hook blocks.12.hook_resid_post""",
    )
    verb(
        app,
        "check",
        limit="tokens to measure on",
        examples="""affectlens sae check runs/a/sae --store runs/a/activations
        affectlens sae check gpt2-small-res-jb:blocks.8.hook_resid_pre \\
          --model openai-community/gpt2 --out check.json
        affectlens sae check runs/a/sae --model smollm2-135m-instruct \\
          --null random-model,embedding --null-samples 200000""",
    )(check)
    verb(
        app,
        "convert",
        examples="""affectlens sae convert params.npz my-sae --hook blocks.12.hook_resid_post
        affectlens sae convert pythia/layer_3/trainer_0 my-sae
        affectlens sae convert sparsify-run/layers.10 my-sae --model-name EleutherAI/pythia-160m""",
    )(convert)
    return app


def check(
    common: Common,
    sae: Annotated[
        str, typer.Argument(help="folder, or RELEASE:ID[@COMMIT] of sae-lens", metavar="SAE")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="model to check the fit with; without --store it reads held-out text of the "
            "embedded corpus",
            metavar="MODEL",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="revision of a hub model", metavar="REVISION")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="activations to measure on", metavar="FOLDER")
    ] = None,
    corpus: Annotated[
        str,
        typer.Option(
            help="text for a check without --store and for nulls: default, file or folder",
            metavar="CORPUS",
        ),
    ] = "default",
    null: Annotated[
        list[str] | None,
        typer.Option(
            "--null",
            help="also train the SAE where there is nothing to find: random-model, embedding "
            "(slow; repeatable, or comma-separated)",
            metavar="NAME",
        ),
    ] = None,
    null_samples: Annotated[
        int | None,
        typer.Option(min=1, help="activations for each null  [default: the SAE's]", metavar="N"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write the check as JSON", metavar="FILE", dir_okay=False)
    ] = None,
    strict: Annotated[  # noqa: FBT002
        bool, typer.Option("--strict", help="end with code 3 also for 'usable with care'")
    ] = False,
) -> None:
    """Check that an SAE fits a model and activations, that it is any good, and better than nothing.

    Ends with code 3 if it does not fit.
    """
    nulls = _null_names(null, model)
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    from affectlens.api import sae_check
    from affectlens.data.store import ActivationStore
    from affectlens.sae.loading import load_sae_named

    loaded = load_sae_named(sae, common.device or "cpu")
    opened = ActivationStore.open(store) if store is not None else None
    lm = load_lm(model, revision, common) if model is not None else None
    found = sae_check(
        loaded,
        lm=lm,
        store=opened,
        corpus=corpus if lm is not None and (nulls or opened is None) else None,
        nulls=nulls,
        null_samples=null_samples,
        max_tokens=common.limit,
        seed=common.seed or 0,
        quiet=common.quiet,
    )
    if out is not None:
        found.write(out)
    _show(found, nulls, opened, common)
    if found.verdict == "misfit" or (strict and found.verdict != "fits"):
        raise typer.Exit(MISFIT)


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
    k: Annotated[
        int | None,
        typer.Option(min=1, help="active latents, where neither file nor folder says", metavar="N"),
    ] = None,
    overwrite: Annotated[  # noqa: FBT002
        bool, typer.Option("--overwrite", help="replace an SAE that OUT holds already")
    ] = False,
) -> None:
    """Turn an SAE of another project into a sae-lens folder.

    Reads Gemma Scope, Gemma Scope 2, Llama Scope, Qwen Scope, dictionary_learning, sparsify, and
    training checkpoints of sae-lens.
    """
    if not source.exists():
        raise ConfigError(f"no such file or folder: {source}")
    from affectlens.sae.loading import convert as convert_sae

    made = convert_sae(source, out, hook_name=hook, model_name=model_name, k=k, overwrite=overwrite)
    common.console.say(f"wrote {made!r} to {out}")
    common.console.result({"sae": asdict(made.info), "path": out})


def _null_names(given: list[str] | None, model: str | None) -> list[str]:
    names = [part.strip() for value in given or [] for part in value.split(",") if part.strip()]
    if not names:
        return []
    from affectlens.training.null_names import check_names

    names = check_names(names)
    if model is None:
        raise ConfigError("--null trains on a model's activations; give --model")
    return names


def _show(found: SAECheck, nulls: list[str], store: ActivationStore | None, common: Common) -> None:
    console = common.console
    rows = [[line.verdict, line.name, _said(line), line.expected] for line in found.lines]
    console.table(["verdict", "check", "value", "expected"], rows)
    doubts = [line for line in found.lines if line.verdict in ("warn", "fail", "unknown")]
    if doubts:
        console.say()
    for line in doubts:
        console.say(f"{line.verdict}: {line.name}: {line.why}")
    if found.nulls:
        console.say()
        console.table(*_null_table(found))
        for remark in dict.fromkeys(n.remark for n in found.nulls if n.remark):
            console.say(f"  {remark}")
    elif nulls:
        console.say("\nNo null was trained: the SAE does not fit, so there is nothing to compare.")
    console.say(f"\n{found.summary}")
    console.result({"store": store.folder if store is not None else None, **found.as_dict()})


def _said(line: CheckLine) -> Any:
    if isinstance(line.value, dict):
        return ", ".join(f"{name} {value:.4g}" for name, value in line.value.items())
    return f"{line.value:.4g}" if isinstance(line.value, float) else line.value


def _null_table(found: SAECheck) -> tuple[list[str], list[list[Any]]]:
    names = ["trained on", "samples", "k", "FVU", "L0", "silent", "dense", "loss recovered"]

    def value(name: str) -> Any:
        return next((line.value for line in found.lines if line.name == name), None)

    own = ["this SAE", None, found.sae.get("k"), value("FVU"), value("L0")]
    own += [value("silent latents"), value("dense latents"), value("loss recovered (mean)")]
    rows = [
        [
            null.kind,
            null.n_samples,
            null.k,
            null.fvu,
            null.l0,
            null.dead_share,
            null.dense_share,
            null.ce_recovered_mean,
        ]
        for null in found.nulls
    ]
    return names, [own, *rows]
