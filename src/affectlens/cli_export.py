"""`affectlens export`: what a run found, in the forms that other tools read."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_arguments import Emotions, Run, Sae
from affectlens.cli_export_vectors import (
    HubOptions,
    VectorOptions,
    write_sae_folder,
    write_vectors,
)
from affectlens.cli_inputs import load_searched_sae, made_with, open_store, require_search
from affectlens.cli_options import Common, verb
from affectlens.data.artifacts import read_json
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.features.validation_config import NamingConfig
from affectlens.run_config import RunConfig

if TYPE_CHECKING:
    from affectlens.features.contexts import HeldoutScan
    from affectlens.features.search import SearchResult
    from affectlens.sae.model import SparseAutoencoder


class Form(enum.StrEnum):
    """What to write."""

    DELPHI = "delphi"
    NEURONPEDIA = "neuronpedia"
    CSV = "csv"
    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    SAE = "sae"


_OWN = {
    Form.DELPHI: ("blocks.*",),
    Form.NEURONPEDIA: ("neuronpedia.json", "export"),
    Form.CSV: ("features.csv", "contexts.csv"),
    Form.GGUF: ("*.gguf",),
    Form.SAFETENSORS: ("*.safetensors", "*.json"),
    Form.SAE: ("README.md", "blocks.*"),
}
"""Names of what each form writes: `--force` replaces a folder that holds nothing else."""


@dataclass(frozen=True)
class DelphiOptions:
    """What only delphi's cache needs."""

    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="what delphi loads the tokenizer by: hub id or folder  [default: the run's model]",
            metavar="NAME",
        ),
    ] = None
    ctx_len: Annotated[
        int,
        typer.Option(
            min=1,
            help="tokens in a row for delphi, a multiple of its examples' 32; at least 96 for its "
            "center_examples=False",
            metavar="N",
        ),
    ] = 32


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "export",
        limit="held-out tokens to read for delphi  [default: those that names are made from]",
        examples="""affectlens export runs/a --to csv --out tables
        affectlens export runs/a --to gguf --out vectors --emotion grief --n 5
        affectlens export runs/a --to safetensors --out vectors --method diff-of-means
        affectlens export runs/a --to sae --out my-sae --licence mit
        affectlens export runs/a --to delphi --out cache --emotion grief""",
    )(export)


def export(
    common: Common,
    run: Run,
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="gguf: steering vectors for llama.cpp; safetensors: the same with a JSON record; "
            "sae: the SAE with a model card for the hub; neuronpedia: list and links, where the "
            "SAE is public there, and the named features in its export form; delphi: activations "
            "on held-out text as its cache; csv: names and contexts",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="folder to write; new or empty", metavar="FOLDER", file_okay=False)
    ],
    vector: VectorOptions,
    hub: HubOptions,
    delphi: DelphiOptions,
    sae: Sae = None,
    emotion: Emotions = None,
    force: Annotated[  # noqa: FBT002
        bool, typer.Option("--force", help="replace what an earlier export of this form wrote")
    ] = False,
) -> None:
    """Write what was found for other tools: vectors, the SAE, features, activations, tables."""
    check_out(out, to, force=force)
    made = made_with(run)
    if to is Form.SAE:
        write_sae_folder(run, sae, out, hub, force=force, common=common)
        return
    require_search(run)
    if to in (Form.GGUF, Form.SAFETENSORS):
        write_vectors(run, str(to), out, emotion, vector, hub.licence, sae, made, common)
        return
    from affectlens.features.stored import read_search
    from affectlens.features.validity import retained

    found = read_search(run)
    table = found.table
    chosen = _of_emotions(retained(table), emotion)
    if to is Form.CSV:
        _csv(run, table, list(chosen), out, common)
        return
    if not any(chosen.values()):
        raise ConfigError(f"the search in {run} retained no feature for {', '.join(chosen)}")
    if to is Form.NEURONPEDIA:
        loaded, _ = load_searched_sae(sae, run, found, common)
        _neuronpedia(run, loaded, chosen, out, common)
    else:
        read = _scan(run, sae, found, chosen, made.allow_misfit, common)
        _delphi(read, out, delphi.tokenizer or _tokenizer(made), delphi.ctx_len, common)


def check_out(out: Path, to: Form, *, force: bool) -> None:
    """Refuse a folder with anything in it; with `force`, with anything but an export of this form.

    Raises:
        ConfigError: as said.
    """
    names = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if not names:
        return
    if not force:
        raise ConfigError(
            f"--out {out} is not empty; give a new folder, or --force to replace an export"
        )
    others = [n for n in names if not any(fnmatchcase(n, own) for own in _OWN[to])]
    if others:
        raise ConfigError(
            f"--out {out} holds {others[0]!r}, which no export to {to} writes and --force would "
            "delete; give another folder"
        )


def _of_emotions(
    found: Mapping[str, Sequence[int]], emotions: list[str] | None
) -> dict[str, list[int]]:
    wanted = emotions or list(found)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise ConfigError(f"--emotion {unknown[0]}: the search has {', '.join(found)}")
    return {name: list(found[name]) for name in wanted}


def _csv(run: Path, table: Any, contrasts: list[str], out: Path, common: Common) -> None:
    path = run / "naming/names.jsonl"
    if not path.exists():
        raise ArtifactError(f"{run} holds no names; run `affectlens name {run}` first")
    from affectlens.features.export_csv import write_csv
    from affectlens.features.naming_files import read_names

    names = read_names(path).of(contrasts)
    write_csv(names, table, out)
    common.console.say(f"{len(names.names)} features and their contexts: {out}")
    common.console.result({"out": out, "features": [name.feature for name in names.names]})


def _neuronpedia(
    run: Path,
    sae: SparseAutoencoder,
    chosen: Mapping[str, Sequence[int]],
    out: Path,
    common: Common,
) -> None:
    from affectlens.data.artifacts import atomic_folder
    from affectlens.features.exports import neuronpedia_list

    found = neuronpedia_list(sae, chosen)
    with atomic_folder(out) as staged:
        found.write(staged / "neuronpedia.json")
        source, n_named = _named_features(run, sae, chosen, found.neuronpedia_id, staged)
    address = found.quick_list(f"AffectLens {run.name}")
    if found.note:
        common.console.say(f"no links: {found.note}")
    for link in found.links:
        common.console.say(f"{link.index}  {', '.join(link.contrasts)}  {link.url}")
    if address:
        common.console.say(f"\nall as one list: {address}")
    common.console.say(f"list: {out / 'neuronpedia.json'}")
    if source is None:
        common.console.say(
            f"no feature files: {run} holds no names; run `affectlens name {run}` first"
        )
    else:
        common.console.say(f"{n_named} features as an import: {out / 'export' / source}")
    common.console.result(
        {
            "out": out / "neuronpedia.json",
            "note": found.note,
            "n_links": len(found.links),
            "quick_list": address,
            "source": source,
            "n_named": n_named,
        }
    )


def _named_features(
    run: Path,
    sae: SparseAutoencoder,
    chosen: Mapping[str, Sequence[int]],
    identity: str | None,
    staged: Path,
) -> tuple[str | None, int]:
    """The chosen features that have names, as Neuronpedia imports them; "model/source", how many.

    Raises:
        ArtifactError: the names are of another SAE.
    """
    path = run / "naming/names.jsonl"
    if not path.exists():
        return None, 0
    from affectlens.features.naming_files import read_names
    from affectlens.features.neuronpedia_files import source_of, write_feature_files

    names = read_names(path).of(list(chosen))
    if names.sae_sha256 != sae.info.sha256:
        raise ArtifactError(f"{path} names features of another SAE; run `affectlens name {run}`")
    record = read_json(run / "run.json") if (run / "run.json").exists() else {}
    created = str(record.get("created") or "1970-01-01T00:00:00+0000")
    source = source_of(names, identity=identity, release=run.resolve().name, created=created)
    folder = staged / "export" / source.model_id / source.source_id
    folder.mkdir(parents=True)
    return f"{source.model_id}/{source.source_id}", write_feature_files(names, source, folder)


@dataclass(frozen=True)
class _Scanned:
    """A pass over held-out text and where it was read."""

    scan: HeldoutScan
    hook: str
    d_sae: int


def _scan(
    run: Path,
    sae: str | None,
    found: SearchResult,
    chosen: Mapping[str, Sequence[int]],
    allow: Sequence[str],
    common: Common,
) -> _Scanned:
    """The chosen features on the run's held-out text."""
    store = open_store(None, run)
    if store is None:
        raise ArtifactError(
            f"{run} holds no activations; run `affectlens harvest --out {run / 'activations'}`"
        )
    loaded, _ = load_searched_sae(sae, run, found, common)
    from affectlens.features.contexts import scan_heldout
    from affectlens.features.fit import stored_hook

    hook = stored_hook(loaded, store, allow=allow)
    latents = sorted({f for own in chosen.values() for f in own})
    n_rows = common.limit or NamingConfig().n_heldout_tokens
    scan = scan_heldout(loaded, store, hook, features=latents, max_rows=n_rows)
    return _Scanned(scan, hook, loaded.d_sae)


def _delphi(read: _Scanned, out: Path, tokenizer: str, ctx_len: int, common: Common) -> None:
    from affectlens.features.exports import write_delphi

    done = write_delphi(
        read.scan,
        out,
        hook_name=read.hook,
        model_name=tokenizer,
        d_sae=read.d_sae,
        ctx_len=ctx_len,
    )
    n_written = len(read.scan.features) - len(done.silent)
    common.console.say(
        f"{n_written} features, {done.n_entries:,} activations on {done.n_rows:,} rows of text: "
        f"{done.folder}"
    )
    common.console.say(
        f"{done.n_tokens_left_out:,} tokens at the ends of texts are left out; "
        f"{len(done.silent)} features never fire there"
    )
    common.console.result(
        {"out": done.folder, **asdict(done), "features": list(read.scan.features)}
    )


def _tokenizer(made: RunConfig) -> str:
    """What `AutoTokenizer` loads the run's tokenizer by; our default model has no hub id."""
    from affectlens.data.model_cache import DEFAULT, default_folder

    return str(default_folder()) if made.model == DEFAULT.name else made.model
