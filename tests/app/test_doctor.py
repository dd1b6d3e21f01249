"""`affectlens doctor`: what each line says of machines made for the purpose."""

from __future__ import annotations

import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectlens import doctor, doctor_checks
from affectlens.doctor_smoke import numba_state, torch_state

Usage = namedtuple("Usage", "total used free")


def test_the_table_says_what_to_do(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("smoke_test", "hook_parity", "torch_state", "numba_state"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "online", lambda: pytest.fail("not asked for"))
    done = cli("doctor", "--folder", tmp_path / "new/run", "--json")
    lines = {c["name"]: c for c in done.json["checks"]}
    assert (done.code, done.json["ok"]) == (0, True)
    assert {"python", "cores", "threads", "disk", "file locks", "cache folder"} <= set(lines)
    assert all(c["cure"] for c in lines.values() if c["status"] == "fail")
    assert list(tmp_path.iterdir()) == []

    def broken() -> Any:
        yield doctor.Check("first", "ok", "seen")
        raise RuntimeError("no device")

    monkeypatch.setattr(doctor, "torch_state", broken)
    done = cli("doctor", "--folder", tmp_path)
    assert done.code == 4
    assert "no device" in done.out and "first" in done.out
    assert "fail  torch: install the tested versions" in done.out
    assert "not ready: torch" in done.err


def test_tested_versions(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    assert list(doctor.tested(file)) == []
    import numpy as np

    file.write_text(f"# tested\nnumpy=={np.__version__}\nnot-installed-here==1\n")
    (line,) = doctor.tested(file)
    assert line.status == "ok"
    file.write_text("numpy==0.1\n")
    (line,) = doctor.tested(file)
    assert line.status == "warn" and "(tested 0.1)" in line.detail


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {c.name: c for c in doctor_checks.disk(tmp_path / "not/there")}
    assert found["file locks"].status == "ok" and "HDF5" in found["file locks"].detail
    assert "MiB/s" in found["write speed"].detail
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda _: Usage(9, 8, 1))
    found = {c.name: c for c in doctor_checks.disk(tmp_path)}
    assert found["disk"].status == "warn" and "free some space" in found["disk"].cure
    assert "write speed" not in found

    def refused(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_checks.tempfile, "TemporaryDirectory", refused)
    found = {c.name: c for c in doctor_checks.disk(tmp_path)}
    assert found["write"].status == "fail" and "--folder" in found["write"].cure


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert "OMP_NUM_THREADS to 2" in doctor_checks.threads(2).cure
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert doctor_checks.threads(2).status == "ok"


def test_ports_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = doctor_checks.free_port(port)
        assert line.status == "warn" and "another port" in line.cure
    assert doctor_checks.free_port(port).status == "ok"
    monkeypatch.setattr(doctor_checks.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor_checks.importlib.util, "find_spec", lambda _: None)
    found = {c.name: c for c in doctor_checks.demo(port)}
    assert found["demo server"].cure == "pip install starlette uvicorn"
    assert found["browser tests"].status == "warn"


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--openai-community--gpt2/snapshots/abc").mkdir(parents=True)
    (tmp_path / "models--half--fetched").mkdir()
    found = {c.name: c for c in doctor_checks.models()}
    assert found["hub cache"].detail == "openai-community/gpt2"
    assert found["smollm2-135m-instruct"].status == "warn"
    assert "model fetch" in found["smollm2-135m-instruct"].cure


def test_the_hub_is_asked_only_by_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unreachable(place: Any, timeout: float) -> None:
        asked.append((place, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr(doctor_checks.socket, "create_connection", unreachable)
    (line,) = doctor_checks.online()
    assert line.status == "warn" and "timed out" in line.detail
    assert asked == [(("huggingface.co", 443), 5.0)]


def test_torch_and_numba() -> None:
    found = {c.name: c for c in (*torch_state(), *numba_state())}
    assert found["formats on cpu"].status == "ok"
    assert "float32" in found["formats on cpu"].detail
    assert found["numba"].status == "ok"
    assert "triton" in found
