"""What the machine offers, one line at a time. Nothing is sent or fetched, except by `online`.

A line is "fail" only where a run cannot work; where it is slower, or one extra is missing, "warn".
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
NEEDED_DISK = 2 * GIB
NEEDED_MEMORY = 3 * GIB
SLOW_DISK = 50 * 2**20
"""Bytes a second below which a harvest waits for the disk: 8,000 tokens/s of 576 float32 numbers
write 18 MB/s for one layer."""
_WRITTEN = 16 * 2**20
_HUB = ("huggingface.co", 443)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        status: "ok", "warn" (works, with a loss that the detail names) or "fail" (must be cured).
        detail: what was found.
        cure: what to do; empty where nothing need be done.
    """

    name: str
    status: Status
    detail: str
    cure: str = ""


def machine(folder: Path) -> Iterator[Check]:
    """Cores, threads, memory, and the disk of `folder`."""
    cores = usable_cores()
    yield Check(
        "cores",
        "ok" if cores > 1 else "warn",
        f"{cores} usable",
        "" if cores > 1 else "training and harvesting take twice as long as on two",
    )
    yield threads(cores)
    from affectlens.training.memory import available_bytes

    free = available_bytes()
    if free is not None:
        enough = free >= NEEDED_MEMORY
        cure = "" if enough else "close other programs, or give fewer tokens a batch"
        yield Check("memory", "ok" if enough else "warn", f"{free / GIB:.1f} GiB available", cure)
    yield from disk(folder)


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(cores: int) -> Check:
    """What the variables that set numbers of threads ask for, against the cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    given = {n: os.environ[n] for n in names if os.environ.get(n)}
    said = ", ".join(f"{n}={v}" for n, v in given.items()) or "not limited by a variable"
    too_many = [n for n, v in given.items() if v.isdigit() and int(v) > cores]
    if too_many:
        cure = f"set {too_many[0]} to {cores} or less: more threads than cores wait for each other"
        return Check("threads", "warn", said, cure)
    return Check("threads", "ok", said)


def disk(folder: Path) -> Iterator[Check]:
    """Room, file locks and write speed of the disk that `folder` lies on, or would lie on."""
    place = next((p for p in (folder, *folder.resolve().parents) if p.is_dir()), Path.cwd())
    room = shutil.disk_usage(place).free
    enough = room >= NEEDED_DISK
    cure = "" if enough else "free some space, or put the run folder on another disk"
    detail = f"{room / GIB:.1f} GiB free at {place.resolve()}"
    yield Check("disk", "ok" if enough else "warn", detail, cure)
    try:
        with tempfile.TemporaryDirectory(prefix=".affectlens-doctor-", dir=place) as scratch:
            yield locks(Path(scratch))
            if room > 4 * _WRITTEN:
                yield write_speed(Path(scratch))
    except OSError as error:
        cure = "give a folder you may write to: affectlens doctor --folder FOLDER"
        yield Check("write", "fail", f"{place}: {error.strerror or error}", cure)


def locks(scratch: Path) -> Check:
    """Whether HDF5 files can be written and locked there, and a folder held for one writer."""
    import h5py

    from affectlens.data.artifacts import folder_lock

    path = scratch / "lock.h5"
    setting = os.environ.get("HDF5_USE_FILE_LOCKING", "not set")
    try:
        with h5py.File(path, "w") as handle:
            handle.create_dataset("x", data=[1.0, 2.0], fletcher32=True)
        with h5py.File(path, "r") as handle:
            right = handle["x"][:].tolist() == [1.0, 2.0]
        with folder_lock(scratch):
            pass
    except (OSError, RuntimeError) as error:
        cure = (
            "use a local disk; on a network disk without locks, HDF5_USE_FILE_LOCKING=FALSE lets "
            "HDF5 work, and you must see to it that one process writes at a time"
        )
        return Check("file locks", "fail", f"{error}", cure)
    detail = f"HDF5 {h5py.version.hdf5_version} writes and locks (HDF5_USE_FILE_LOCKING {setting})"
    return Check("file locks", "ok" if right else "fail", detail)


def write_speed(scratch: Path) -> Check:
    """Speed of a write that reaches the disk."""
    data = os.urandom(2**20)
    start = time.perf_counter()
    with (scratch / "speed").open("wb") as handle:
        for _ in range(_WRITTEN // len(data)):
            handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    speed = _WRITTEN / max(time.perf_counter() - start, 1e-9)
    fast = speed >= SLOW_DISK
    cure = "" if fast else "a harvest may wait for this disk; use a local one"
    return Check("write speed", "ok" if fast else "warn", f"{speed / 2**20:.0f} MiB/s", cure)


def models() -> Iterator[Check]:
    """The model cache: can it be written, and what does it hold?"""
    from affectlens.data.model_cache import DEFAULT, cache_root, is_cached

    root = cache_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    writable = os.access(existing, os.W_OK)
    yield Check(
        "cache folder",
        "ok" if writable else "fail",
        str(root) if writable else f"{root} cannot be written",
        "" if writable else "set AFFECTLENS_CACHE to a folder you may write to",
    )
    ready = is_cached()
    yield Check(
        DEFAULT.name,
        "ok" if ready else "warn",
        "cached" if ready else "not cached; the first use fetches it (93 MB)",
        "" if ready else "affectlens model fetch, while there is a network",
    )
    names = hub_models()
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    yield Check("hub cache", "ok", listed or "no models of the hub on this machine")


def hub_models() -> list[str]:
    """Ids of models in the Hugging Face cache, by their folders' names."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    if not folder.is_dir():
        return []
    found = (p.name for p in folder.glob("models--*") if any(p.glob("snapshots/*")))
    return sorted(name.removeprefix("models--").replace("--", "/") for name in found)


def demo(port: int) -> Iterator[Check]:
    """What the live page needs: its server and a free port; and a browser for the tests."""
    missing = [n for n in ("starlette", "uvicorn") if importlib.util.find_spec(n) is None]
    yield Check(
        "demo server",
        "warn" if missing else "ok",
        f"{' and '.join(missing)} not installed" if missing else "starlette and uvicorn are here",
        f"pip install {' '.join(missing)}" if missing else "",
    )
    yield free_port(port)
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    driver = importlib.util.find_spec("playwright") is not None
    yield Check(
        "browser tests",
        "ok" if browser and driver else "warn",
        f"{browser or 'no Chromium'}, playwright {'is' if driver else 'is not'} installed",
        ""
        if browser and driver
        else "only for developers: apt install chromium; pip install playwright",
    )


def free_port(port: int) -> Check:
    """Whether a server can listen on a local port."""
    name = f"port {port}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            cure = "give the demo another port with --port, or end the program that holds this one"
            return Check(name, "warn", f"not free on 127.0.0.1 ({error})", cure)
    return Check(name, "ok", "free on 127.0.0.1")


def online(timeout: float = 5.0) -> Iterator[Check]:
    """Whether the Hugging Face hub answers: one connection, nothing but the handshake is sent."""
    start = time.perf_counter()
    try:
        with socket.create_connection(_HUB, timeout=timeout):
            took = time.perf_counter() - start
    except OSError as error:
        cure = "only for models and SAEs that are not here yet; HF_ENDPOINT names a mirror"
        yield Check("hub", "warn", f"{_HUB[0]} cannot be reached ({error})", cure)
        return
    yield Check("hub", "ok", f"{_HUB[0]} answers in {1000 * took:.0f} ms")
