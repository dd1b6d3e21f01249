"""What `affectlens export` writes for steering and for the hub: vectors and the SAE itself."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_arguments import ChosenBy, Named
from affectlens.cli_inputs import (
    choose,
    load_run_sae,
    load_searched,
    load_searched_sae,
    open_store,
    read_run_search,
)
from affectlens.cli_options import Common
from affectlens.data.errors import AffectLensError, ConfigError
from affectlens.run_config import RunConfig

if TYPE_CHECKING:
    from affectlens.features.steering_vector import Length, SteeringVector


class Method(enum.StrEnum):
    """What a vector is made of."""

    FEATURES = "features"
    DIFF_OF_MEANS = "diff-of-means"
    PROBE = "probe"


@dataclass(frozen=True)
class VectorOptions:
    """How a steering vector is made."""

    method: Annotated[
        Method,
        typer.Option(
            help="gguf, safetensors: of the features' decoder rows, or of the discovery pairs' "
            "residuals without any feature (these read the model)"
        ),
    ] = Method.FEATURES
    n: Annotated[
        int, typer.Option("--n", min=1, help="gguf, safetensors: features for a vector")
    ] = 5
    by: ChosenBy = "input"
    length: Annotated[
        str,
        typer.Option(
            help="gguf, safetensors: L2 norm of the vector: unit, residual (that of the stream on "
            "held-out text, so strength 0.1 writes a tenth of it) or a number",
            metavar="residual|unit|X",
        ),
    ] = "residual"


@dataclass(frozen=True)
class HubOptions:
    """What a model card or a vector says beside what is known."""

    licence: Annotated[
        str,
        typer.Option(
            help="gguf, safetensors, sae: licence under which you give it away", metavar="NAME"
        ),
    ] = ""
    base_model: Annotated[
        str, typer.Option(help="sae: hub id of the language model", metavar="OWNER/NAME")
    ] = ""


def write_vectors(
    run: Path,
    form: str,
    out: Path,
    emotions: list[str] | None,
    how: VectorOptions,
    licence: str,
    sae: str | None,
    made: RunConfig,
    common: Common,
) -> None:
    """One file an emotion in `out`, which is replaced as a whole."""
    from affectlens.data.artifacts import atomic_folder
    from affectlens.features.vector_files import write_vector

    length = parsed_length(how.length)
    if how.method is Method.FEATURES:
        vectors = _of_features(run, emotions, how, length, licence, sae, made, common)
    else:
        vectors = _of_pairs(run, emotions, how, length, licence, sae, common)
    files = {f"{file_name(v.name)}.{form}": v for v in vectors}
    if len(files) != len(vectors):
        raise ConfigError("two emotions have the same file name; export them one by one")
    with atomic_folder(out) as staged:
        for name, vector in files.items():
            write_vector(vector, staged / name)
    _tell(files, out, form, common)


def write_sae_folder(
    run: Path, sae: str | None, out: Path, hub: HubOptions, *, force: bool, common: Common
) -> None:
    """The SAE with a model card in `out`."""
    from affectlens.sae_export import export_sae

    loaded = load_run_sae(sae, run, common)
    export_sae(
        loaded,
        out,
        run=None if sae else run,
        licence=hub.licence,
        base_model=hub.base_model,
        force=force,
    )
    place = out / loaded.info.hook_name
    common.console.say(f"{loaded!r}: {place}")
    if not hub.licence:
        common.console.say("the model card states no licence; give --licence before you publish it")
    common.console.say(f"put it on the hub:  hf upload OWNER/REPOSITORY {out}")
    common.console.result({"out": out, "sae": place, "info": asdict(loaded.info)})


def parsed_length(text: str) -> Length:
    """`--length` as the vectors take it.

    Raises:
        ConfigError: neither a name nor a positive number.
    """
    if text == "residual":
        return "residual"
    if text == "unit":
        return "unit"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--length {text!r}: give residual, unit or a number") from None


def file_name(text: str) -> str:
    """A file name for an emotion's name: letters, digits, points, hyphens; never hidden or empty.

    Other characters become hyphens. A name longer than 80 characters is cut.
    """
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    while len(kept.encode("utf-8")) > 80:
        kept = kept[:-1]
    return kept.strip(".-") or "vector"


def _of_features(
    run: Path,
    emotions: list[str] | None,
    how: VectorOptions,
    length: Length,
    licence: str,
    sae: str | None,
    made: RunConfig,
    common: Common,
) -> list[SteeringVector]:
    found, sets = choose(run, emotions, how.n, how.by)
    loaded, _ = load_searched_sae(sae, run, found, common)
    store = open_store(None, run) if length == "residual" else None
    _require_store(store, length, run)
    from affectlens.features.steering_vector import vector_of_features

    kind = model_type(made)
    return [
        vector_of_features(chosen, loaded, store, length=length, model_type=kind, licence=licence)
        for chosen in sets
    ]


def _of_pairs(
    run: Path,
    emotions: list[str] | None,
    how: VectorOptions,
    length: Length,
    licence: str,
    sae: str | None,
    common: Common,
) -> list[SteeringVector]:
    found = read_run_search(run)
    unknown = [name for name in emotions or [] if name not in found.contrasts]
    if unknown:
        raise ConfigError(f"--emotion {unknown[0]}: the search has {', '.join(found.contrasts)}")
    store = open_store(None, run) if length == "residual" else None
    _require_store(store, length, run)
    # Every discovery pair counts: `--limit` is delphi's.
    every = replace(common, limit=None)
    after = load_searched(run, Named(sae=sae), every, found=found).after
    from affectlens.features.steering_vector import vector_of_pairs

    return [
        vector_of_pairs(
            after.lm,
            after.sae,
            after.battery,
            found,
            emotion,
            store,
            method="probe" if how.method is Method.PROBE else "diff_of_means",
            length=length,
            licence=licence,
        )
        for emotion in emotions or found.contrasts
    ]


def _require_store(store: Any, length: Length, run: Path) -> None:
    if length == "residual" and store is None:
        raise ConfigError(
            f"{run} holds no activations, on which the norm of the residual is measured; give "
            "--length unit or a number"
        )


def model_type(made: RunConfig) -> str:
    """What transformers calls the run's model, from files on this machine; '' if none are here."""
    from affectlens.data.model_cache import DEFAULT, default_folder

    if made.model.startswith("tiny:"):
        return made.model.partition(":")[2]
    place = str(default_folder()) if made.model == DEFAULT.name else made.model
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(place, revision=made.revision, local_files_only=True)
    except (OSError, ValueError, AffectLensError):
        return ""
    return str(getattr(found, "model_type", ""))


def _tell(files: dict[str, SteeringVector], out: Path, form: str, common: Common) -> None:
    from affectlens.features.vector_files import gguf_layer, record_of

    rows = [
        [name, v.hook_name, v.norm, v.residual_norm, ", ".join(map(str, v.origin.features)) or "-"]
        for name, v in files.items()
    ]
    header = ["file", "place", "norm", "norm of the stream", "features"]
    common.console.table(header, rows)
    common.console.say(f"\n{len(files)} vector(s): {out}")
    name, vector = next(iter(files.items()))
    if form == "gguf":
        common.console.say(
            f"direction.{gguf_layer(vector.hook_name)} is added to the output of block "
            f"{gguf_layer(vector.hook_name)}, counted from 0\n"
            f"use it:  llama-cli -m MODEL.gguf --control-vector-scaled {out / name}:0.1"
            f"   (older releases: {out / name} 0.1)"
        )
    listed = {name: record_of(vector) for name, vector in files.items()}
    common.console.result({"out": out, "vectors": listed})
