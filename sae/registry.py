"""SAEs of the sae-lens registry, every file of one from the same commit.

sae-lens has a reader for each project and asks the hub for `main`. What `main` is can change
between two files and between two runs, so the commit is settled here: the first file is asked for
at the wanted revision, the folder of the cache that it arrives in names the commit, and all
further files are asked for at that commit. No attribute of a shared module is replaced for this:
the readers run in a private copy of their module, one for each call, in which the download function
is ours. Calls in several threads do not see each other.

Two things the readers do are left out. The sparsity file is not fetched, since nothing reads it.
And the shapes of Gemma Scope 2 are read from the downloaded file, where sae-lens asks the hub for a
range of bytes, so that a filled cache is enough.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import sae_lens
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from sae_lens.constants import SPARSITY_FILENAME
from sae_lens.loading.pretrained_saes_directory import (
    get_pretrained_saes_directory,
    get_releases_for_repo_id,
    get_repo_id_and_folder_name,
)
from safetensors import safe_open

from affectlens.sae.cfg_checks import check_cfg
from affectlens.sae.errors import SAEError, SAERequestError
from affectlens.sae.files import explained
from affectlens.sae.integrity import file_sha256
from affectlens.sae.model import RESIDUAL, check_architecture, check_place

_READERS = "sae_lens.loading.pretrained_sae_loaders"
_REFUSED_READERS = {
    "gemma_2_transcoder": "transcoders",
    "mwhanna_transcoder": "transcoders",
    "mntss_clt_layer_transcoder": "cross-layer transcoders",
    "connor_rob_hook_z": "SAEs of attention heads",
    "temporal": "temporal SAEs",
}
_REFUSED_FOLDERS = re.compile(r"^(transcoder|clt|attn_out|mlp_out|crosscoder)")
# Their SAEs are single files; those of the other readers are folders, also where a name has a dot.
_SINGLE_FILES = frozenset({"goodfire", "deepseek_r1", "qwen_scope"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class PinnedHub:
    """Downloads from one repository at one commit.

    Attributes:
        revision: commit, branch or tag that is wanted; None for `main`.
        commit: what the first download settled.
        verified: whether the large files, which the hub keeps under their SHA-256, matched it; the
            small ones, such as a configuration, are not checked.
    """

    revision: str | None = None
    commit: str | None = None
    verified: bool = False
    _seen: dict[Path, bool] = field(default_factory=dict)

    def download(
        self,
        repo_id: str,
        filename: str,
        *,
        subfolder: str | None = None,
        force_download: bool = False,
        revision: str | None = None,
    ) -> str:
        """Path of a file in the local cache; stands in for `huggingface_hub.hf_hub_download`.

        Raises:
            SAEError: a cached file that does not match its own name's hash.
        """
        if filename.endswith(SPARSITY_FILENAME):
            raise EntryNotFoundError("the sparsity file is not read")
        path = huggingface_hub.hf_hub_download(
            repo_id,
            filename,
            subfolder=subfolder,
            force_download=force_download,
            revision=self.commit or self.revision or revision,
        )
        self.commit = self.commit or _commit_of(path)
        self._check(Path(path))
        return path

    def shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        """Shapes of the tensors of a safetensors file, which is downloaded for that."""
        with safe_open(self.download(repo_id, filename), framework="pt") as handle:
            return {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118

    def _check(self, path: Path) -> None:
        """Large files lie in the cache under the SHA-256 that the hub recorded for them."""
        blob = path.resolve()
        if blob in self._seen or not _SHA256.fullmatch(blob.name):
            return
        found = file_sha256(blob)
        if found != blob.name:
            raise SAEError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, the hub recorded "
                f"{blob.name[:12]}…; delete {blob} and fetch it again"
            )
        self._seen[blob] = self.verified = True


def from_registry(
    release: str, sae_id: str, *, revision: str | None, device: str
) -> tuple[sae_lens.SAE[Any], bool]:
    """Read a published SAE; its metadata then name release, id, repository and commit.

    Args:
        release: name in the registry, or a hub repository in sae-lens form.
        sae_id: the SAE within it.
        revision: commit, branch or tag of the repository; None for its newest commit.
        device: where the weights go.

    Returns:
        The SAE, and whether its weights were checked against the hash that the hub recorded.

    Raises:
        SAEError: unknown names, another kind of model, files that are neither cached nor
            reachable, or broken files.
    """
    repo_id, folder, reader = _look_up(release, sae_id)
    where = f"{release}/{sae_id}"
    if reader in _REFUSED_READERS:
        raise SAEError(f"{where}: {_REFUSED_READERS[reader]} are not supported; only SAEs of the "
                       "residual stream are")  # fmt: skip
    if reader == "gemma_3" and _REFUSED_FOLDERS.match(folder):
        kind = folder.split("/")[0]
        raise SAEError(f"{where}: {kind} is not supported; only SAEs of the residual stream are")
    if reader == "sae_lens" and repo_id != release:
        check_place(sae_id)  # the ids of these releases are hook names
    _refuse_unpickling()
    hub = PinnedHub(revision)
    try:
        with explained(f"{where} cannot be read"):
            # The release's own overrides (centring, input scaling) are applied here alone.
            sae = sae_lens.SAE.from_pretrained(
                release, sae_id, device=device, converter=_converter(reader, hub, where)
            )
    except SAEError as error:
        _explain_hub(error, repo_id, _pattern(folder, reader), revision, where)
        raise
    metadata = sae.cfg.metadata
    metadata.release, metadata.sae_id = release, sae_id
    metadata.repo_id, metadata.revision = repo_id, hub.commit
    return sae, hub.verified


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: those that look like it, or a few examples."""
    # Transcoders and their like would be refused next.
    usable = [k for k in known if not any(word in k for word in ("transcoder", "clt", "-mlp"))]
    near = difflib.get_close_matches(name, usable, n=3, cutoff=0.4)
    return f"; nearest: {', '.join(near)}" if near else f"; for example {', '.join(usable[:3])}"


def _look_up(release: str, sae_id: str) -> tuple[str, str, str]:
    """Repository, folder and name of the reader of an SAE."""
    directory = get_pretrained_saes_directory()
    if release in directory:
        if sae_id not in directory[release].saes_map:
            near = nearest(sae_id, directory[release].saes_map)
            raise SAERequestError(f"release {release!r} has no SAE {sae_id!r}{near}")
        return (
            *get_repo_id_and_folder_name(release, sae_id),
            directory[release].conversion_func or "sae_lens",
        )
    if release.count("/") != 1:
        raise SAERequestError(f"unknown release {release!r}{nearest(release, directory)}")
    if names := get_releases_for_repo_id(release):
        raise SAEError(
            f"{release} is known under its release name, which carries settings that the files "
            f"lack (such as centring); use {' or '.join(names[:3])}"
        )
    return release, sae_id, "sae_lens"


def _converter(reader: str, hub: PinnedHub, where: str) -> Any:
    """The reader of sae-lens, downloading through `hub`, with the configuration checked first."""
    readers = _private_readers()
    readers.hf_hub_download = hub.download  # type: ignore[attr-defined]
    readers.get_safetensors_tensor_shapes = hub.shapes  # type: ignore[attr-defined]
    read_cfg = readers.NAMED_PRETRAINED_SAE_CONFIG_GETTERS[reader]
    read = readers.NAMED_PRETRAINED_SAE_LOADERS[reader]

    def checked(
        repo_id: str,
        folder_name: str,
        device: str,
        force_download: bool,  # noqa: FBT001 - the protocol of sae-lens
        cfg_overrides: dict[str, Any] | None,
    ) -> Any:
        overrides = dict(cfg_overrides or {})
        cfg = read_cfg(repo_id, folder_name, device, force_download, dict(overrides))
        check_cfg(cfg, where)
        check_architecture(str(cfg.get("architecture", "standard")))
        metadata = cfg.get("metadata") or {}
        hook = cfg.get("hook_name") or cfg.get("hook_point") or metadata.get("hook_name") or ""
        check_place(hook)
        if not RESIDUAL.fullmatch(hook):
            raise SAEError(f"{where} reads {hook!r}; supported are blocks.N.hook_resid_pre and "
                           "blocks.N.hook_resid_post")  # fmt: skip
        return read(repo_id, folder_name, device, force_download, overrides)

    return checked


def _private_readers() -> ModuleType:
    spec = importlib.util.find_spec(_READERS)
    if spec is None or spec.loader is None:
        raise SAEError(f"this version of sae-lens has no {_READERS}; install sae-lens 6.54")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commit_of(path: str) -> str | None:
    """The commit in .../snapshots/<commit>/..., the layout of the hub's cache."""
    parts = Path(path).parts
    after = [b for a, b in pairwise(parts) if a == "snapshots" and _COMMIT.fullmatch(b)]
    return after[-1] if after else None


def _refuse_unpickling() -> None:
    """Some releases are `.pt` files, and this variable would have torch run what they contain."""
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if os.environ.get(name, "").lower() in ("1", "y", "yes", "true"):
        raise SAEError(f"{name} is set, so that reading weights could run code; unset it")


def _explain_hub(
    error: SAEError, repo_id: str, pattern: str, revision: str | None, where: str
) -> None:
    """Say what to do about the failures of the hub; the others pass."""
    cause = error.__cause__
    at = f" --revision {revision}" if revision else ""
    fetch = f"hf download {repo_id} --include '{pattern}'{at}"
    if isinstance(cause, GatedRepoError):
        advice = f"accept its terms at huggingface.co/{repo_id} and log in (hf auth login)"
    elif isinstance(cause, RevisionNotFoundError):
        advice = f"{repo_id} has no revision {revision!r}; give a commit, branch or tag of it"
    elif isinstance(cause, RepositoryNotFoundError | HFValidationError):
        advice = f"the hub has no repository {repo_id!r}; check the name, or log in"
    elif isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
        advice = f"{repo_id} holds no such SAE at that revision; check the id and the revision"
    elif isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | HfHubHTTPError
                    | ConnectionError):  # fmt: skip
        advice = f"it is not in the local cache, or not whole; with a connection, run: {fetch}"
    else:
        return
    raise SAEError(f"{where} cannot be fetched from the hub or its cache: {advice} "
                   f"({type(cause).__name__}: {_first_line(cause)})") from cause  # fmt: skip


def _pattern(folder: str, reader: str) -> str:
    """What `hf download --include` takes for the files of one SAE."""
    return folder if reader in _SINGLE_FILES else f"{folder}/*"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
