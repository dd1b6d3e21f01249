"""`affectlens export`: a run's features in the forms that other tools read."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_arguments import Emotions, Run, Sae
from affectlens.cli_inputs import load_searched_sae, made_with, open_store, require_search
from affectlens.cli_options import Common, verb
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


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "export",
        limit="held-out tokens to read for delphi  [default: those that names are made from]",
        examples="""affectlens export runs/a --to csv --out tables
        affectlens export runs/a --to delphi --out cache --emotion grief""",
    )(export)


def export(
    common: Common,
    run: Run,
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="delphi: activations on held-out text as its cache; neuronpedia: list and links, "
            "where the SAE is public there; csv: names and contexts",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="folder to write; new or empty", metavar="FOLDER", file_okay=False)
    ],
    sae: Sae = None,
    emotion: Emotions = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="what delphi loads the tokenizer by: hub id or folder  [default: the run's model]",
            metavar="NAME",
        ),
    ] = None,
    ctx_len: Annotated[
        int,
        typer.Option(
            min=1,
            help="tokens in a row for delphi, a multiple of its examples' 32; at least 96 for its "
            "center_examples=False",
            metavar="N",
        ),
    ] = 32,
) -> None:
    """Write the retained features, or with csv their names and contexts, for other tools."""
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty; give a new folder")
    made = made_with(run)
    require_search(run)
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
        _delphi(read, out, tokenizer or _tokenizer(made), ctx_len, common)


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
    from affectlens.features.exports import neuronpedia_list

    found = neuronpedia_list(sae, chosen)
    path = found.write(out / "neuronpedia.json")
    address = found.quick_list(f"AffectLens {run.name}")
    if found.note:
        common.console.say(f"no links: {found.note}")
    for link in found.links:
        common.console.say(f"{link.index}  {', '.join(link.contrasts)}  {link.url}")
    if address:
        common.console.say(f"\nall as one list: {address}")
    common.console.say(f"list: {path}")
    common.console.result(
        {"out": path, "note": found.note, "n_links": len(found.links), "quick_list": address}
    )


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
