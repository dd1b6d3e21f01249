"""Files that are complete or absent: write aside, fsync, rename; one writer for a folder.

Staging happens in the same folder, so the final rename never crosses a file system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from affectlens.data.errors import ArtifactError, MachineError

_SAFETENSORS_TEMPORARY = ".tmp??????"
"""What the safetensors library writes to before it renames."""
_STAGED = ".staged-"
# No space, over the quota, over the process's file size limit.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed onto `path`.

    Raises:
        MachineError: the disk is full; what stood at `path` before is untouched.
    """
    path = Path(path)
    staged = path.with_name(f"{_STAGED}{os.getpid()}-{path.name}")
    try:
        with disk_errors(path):
            yield staged
            _fsync(staged)
            staged.replace(path)
            _fsync(path.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path` as a whole.

    Raises:
        MachineError: the disk is full; what stood at `path` before is untouched.
    """
    path = Path(path)
    staged = path.with_name(f"{_STAGED}{os.getpid()}-{path.name}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with disk_errors(path):
            staged.mkdir(parents=True)
            yield staged
            for file in sorted(staged.rglob("*")):
                if file.is_file():
                    _fsync(file)
            old = path.with_name(f"{_STAGED}{os.getpid()}-old-{path.name}")
            if path.exists():
                path.replace(old)
            staged.replace(path)
            _fsync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left', whoever says it, into a `MachineError` that names the path."""
    try:
        yield
    except Exception as error:
        # safetensors and HDF5 raise errors of their own, with the system's words inside.
        told = any(f"os error {number})" in str(error) for number in _FULL)
        known = isinstance(error, OSError) and error.errno in _FULL
        if not (known or told or "No space left" in str(error)):
            raise
        raise MachineError(
            f"the disk is full while writing {path}; free some space and run the same command "
            "again: finished parts are kept"
        ) from error


def clear_staged(folder: Path, name: str = "") -> int:
    """Remove what an interrupted writer left in `folder`; return how many entries.

    With `name` only what was meant to become the entry of that name. Call it only while holding
    the lock of the folder, or of that entry.
    """
    count = 0
    entries = list(Path(folder).glob(f"{_STAGED}*{glob.escape(name)}"))
    if not name:
        entries += Path(folder).glob(_SAFETENSORS_TEMPORARY)
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
        count += 1
    return count


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one writer; the kernel releases the lock when the process dies.

    Raises:
        MachineError: another process is writing to the folder.
    """
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise MachineError(
                f"{folder} is being written by another run (process {holder}); wait for it or "
                "choose another folder"
            ) from None
        # The number is only for the message above, so a full disk need not stop us here.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def write_versioned(path: Path, version: int, payload: Mapping[str, Any]) -> Path:
    """Write a JSON object with its `format_version`, atomically; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format_version": version, **payload})
    return path


def read_versioned(path: Path, version: int, *, cure: str = "") -> dict[str, Any]:
    """Read what `write_versioned` wrote, without the version.

    `cure` ends the message where the version is another one ("run the audit again").

    Raises:
        ArtifactError: absent, not JSON, or of another version (no object has none).
    """
    payload = read_json(path)
    found = payload.pop("format_version", None) if isinstance(payload, dict) else None
    if found != version:
        raise ArtifactError(
            f"{path} has format version {found!r}; this release reads {version}"
            + (f": {cure}" if cure else "")
        )
    return dict(payload)


def write_json(path: Path, payload: Any) -> None:
    """Write JSON with sorted keys, atomically; NaN is refused."""
    with atomic_path(path) as tmp:
        tmp.write_text(
            json.dumps(payload, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
            + "\n",
            encoding="utf-8",
        )


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: the file is absent or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: this stage has not been run") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); run its stage again") from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(payload: Any) -> str:
    """Hex SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
