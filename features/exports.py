"""Found latents in the forms that other tools read. Nothing here uses the network.

Neuronpedia: a list of {modelId, layer, index}, the form of its quick lists as sae-lens builds them
(`sae_lens.analysis.neuronpedia_integration`), and the address of each latent's page. Only for SAEs
whose metadata or registry entry names a Neuronpedia id; any other SAE has no page there.

delphi (EleutherAI; Paulo et al. 2024, "Automatically Interpreting Millions of Features"): the
folder that its `LatentCache.save_splits` writes and its `LatentDataset` reads:

    <folder>/<hook>/0_<d_sae - 1>.safetensors   named by its range of latents, ends included, with
        locations    uint16, or uint32 where needed, [n, 3]: row of tokens, place in the row, and
                     latent minus the range's start
        activations  float16 [n]
        tokens       int64 [n_rows, ctx_len]
    <folder>/<hook>/config.json                 ctx_len, model_name and what was cached

A row of `tokens` is a piece of one window that the model read, so what a latent does at its start
may depend on text before it. Pieces of a window shorter than `ctx_len` are left out and counted,
since the form has no padding mask. With delphi's `center_examples=False` an example is joined with
those before and after it in its row, so a row needs the tokens of three examples or more. Values
beyond the range of float16 are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors.numpy import save_file

from affectlens.data.artifacts import atomic_folder, write_json
from affectlens.data.errors import ConfigError
from affectlens.features.contexts import HeldoutScan, check_latents, window_bounds
from affectlens.sae.model import SparseAutoencoder

DOMAIN = "https://www.neuronpedia.org"

CTX_LEN = 32
"""delphi's own length of an example; the cached length must be a multiple of it."""

MIN_ACTIVATION = 1e-5
"""delphi keeps activations above this."""


@dataclass(frozen=True)
class NeuronpediaLink:
    """One latent on Neuronpedia and the contrasts that found it."""

    model_id: str
    layer: str
    index: int
    url: str
    contrasts: tuple[str, ...]


@dataclass(frozen=True)
class NeuronpediaList:
    """Found latents on Neuronpedia.

    Attributes:
        neuronpedia_id: "model/source"; None where the SAE is not public there.
        note: why there are no links; '' where there are.
        links: one a latent, by index; empty where the SAE is not public there.
    """

    neuronpedia_id: str | None
    note: str
    links: tuple[NeuronpediaLink, ...]

    def quick_list(self, name: str) -> str | None:
        """Address that opens all latents as a list called `name`; None without links."""
        if not self.links:
            return None
        listed = [_entry(link) for link in self.links]
        return f"{DOMAIN}/quick-list/?name={quote(name)}&features={quote(json.dumps(listed))}"

    def write(self, path: Path) -> Path:
        """Write JSON with the features in Neuronpedia's form, their pages and their contrasts.

        An SAE that is not public there gives an empty list and the note.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = {
            "neuronpedia_id": self.neuronpedia_id,
            "note": self.note,
            "features": [_entry(link) for link in self.links],
            "links": [asdict(link) for link in self.links],
        }
        write_json(path, payload)
        return path


@dataclass(frozen=True)
class DelphiExport:
    """What was written for delphi.

    Attributes:
        folder: the folder to give to `LatentDataset`.
        file: the tensor file. There is one: delphi takes the ranges of several to be contiguous.
        n_rows: rows of tokens.
        n_entries: activations written.
        n_tokens_left_out: tokens of pieces shorter than the row length.
        silent: latents without an entry; delphi will not list them.
    """

    folder: Path
    file: Path
    n_rows: int
    n_entries: int
    n_tokens_left_out: int
    silent: tuple[int, ...]


def neuronpedia_id(sae: SparseAutoencoder) -> str | None:
    """The "model/source" under which an SAE is shown on Neuronpedia; None if it is not known."""
    stated = sae.sae.cfg.metadata.neuronpedia_id
    if stated is None and sae.info.release is not None and sae.info.sae_id is not None:
        release = get_pretrained_saes_directory().get(sae.info.release)
        stated = None if release is None else release.neuronpedia_id.get(sae.info.sae_id)
    return str(stated) if stated else None


def neuronpedia_list(
    sae: SparseAutoencoder, features: Mapping[str, Sequence[int]]
) -> NeuronpediaList:
    """Links of found latents, given by contrast.

    Raises:
        ConfigError: a latent outside the SAE, or an id that is not "model/source".
    """
    found: dict[int, list[str]] = {}
    for contrast, latents in features.items():
        check_latents(latents, sae.d_sae)
        for latent in latents:
            found.setdefault(int(latent), []).append(contrast)
    identity = neuronpedia_id(sae)
    if identity is None:
        return NeuronpediaList(
            None, "this SAE states no Neuronpedia id: it is not public there", ()
        )
    if identity.count("/") != 1 or not all(identity.split("/")):
        raise ConfigError(f"Neuronpedia id {identity!r} is not of the form model/source")
    model, source = identity.split("/")
    base = f"{DOMAIN}/{quote(model, safe='')}/{quote(source, safe='')}"
    links = tuple(
        NeuronpediaLink(model, source, latent, f"{base}/{latent}", tuple(found[latent]))
        for latent in sorted(found)
    )
    return NeuronpediaList(identity, "", links)


def write_delphi(
    scan: HeldoutScan,
    folder: Path,
    *,
    hook_name: str,
    model_name: str,
    d_sae: int,
    ctx_len: int = CTX_LEN,
) -> DelphiExport:
    """Write the latents of a pass over held-out text as a cache that delphi reads.

    Args:
        scan: a pass that kept traces of the latents.
        folder: replaced as a whole.
        hook_name: name of the folder within; delphi's "module".
        model_name: what delphi loads the tokenizer by, unless it is given one.
        d_sae: number of latents of the SAE.
        ctx_len: tokens in a row; a multiple of delphi's example length.

    Raises:
        ConfigError: no latents, no window as long as `ctx_len`, an activation beyond float16, a
            hook name that is no folder name, or numbers out of range.
    """
    if not scan.features or ctx_len < 1:
        raise ConfigError(
            f"got {len(scan.features)} latents, ctx_len={ctx_len}; need at least 1 of each"
        )
    if not hook_name or hook_name in {".", ".."} or set(hook_name) & {"/", "\\", "\0"}:
        raise ConfigError(f"hook name {hook_name!r} cannot name a folder")
    check_latents(scan.features, d_sae)
    pieces = _pieces(scan, ctx_len)
    values = scan.activations[pieces]
    if float(values.max(initial=0.0)) > np.finfo(np.float16).max:
        raise ConfigError("an activation is too large for float16, in which delphi keeps them")
    row, place, column = np.nonzero(values > MIN_ACTIVATION)
    latents = np.asarray(scan.features, dtype=np.int64)[column]
    kept = values[row, place, column].astype(np.float16)
    tokens = scan.rows.token[pieces].astype(np.int64)
    if not len(kept):
        raise ConfigError("none of the latents fires in these tokens, so there is nothing to write")
    places = np.stack([row, place, latents], axis=1)
    arrays = {
        "locations": places.astype(np.uint16 if int(places.max()) < 2**16 else np.uint32),
        "activations": kept,
        "tokens": tokens,
    }
    name = f"0_{d_sae - 1}.safetensors"
    with atomic_folder(Path(folder)) as staged:
        inner = staged / hook_name
        inner.mkdir()
        save_file(arrays, inner / name)
        config = {
            "ctx_len": ctx_len,
            "n_tokens": int(tokens.size),
            "model_name": model_name,
            "latents": [int(f) for f in scan.features],
        }
        write_json(inner / "config.json", config)
    fired = set(latents.tolist())
    return DelphiExport(
        folder=Path(folder),
        file=Path(folder) / hook_name / name,
        n_rows=len(tokens),
        n_entries=len(kept),
        n_tokens_left_out=len(scan.rows) - int(tokens.size),
        silent=tuple(int(f) for f in scan.features if f not in fired),
    )


def _pieces(scan: HeldoutScan, ctx_len: int) -> npt.NDArray[np.int64]:
    """Rows of the scan in pieces of `ctx_len` that follow one another in one window."""
    starts = [
        start
        for low, high in pairwise(window_bounds(scan.rows).tolist())
        for start in range(low, high - ctx_len + 1, ctx_len)
    ]
    if not starts:
        raise ConfigError(f"no held-out window has {ctx_len} tokens; give a smaller ctx_len")
    pieces: npt.NDArray[np.int64] = np.asarray(starts)[:, None] + np.arange(ctx_len)[None]
    return pieces


def _entry(link: NeuronpediaLink) -> dict[str, str]:
    return {"modelId": link.model_id, "layer": link.layer, "index": str(link.index)}
