import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from affectlens.data.artifacts import (
    atomic_folder,
    atomic_path,
    clear_staged,
    disk_errors,
    folder_lock,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from affectlens.data.errors import ArtifactError, MachineError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_atomic_path_replaces_only_on_success(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(target) as staged:
        staged.write_text("half")
        assert staged.parent == target.parent
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    with atomic_path(target) as staged:
        staged.write_text("new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_atomic_folder_replaces_as_a_whole(tmp_path):
    target = tmp_path / "run"
    for content in ("one", "two"):
        with atomic_folder(target) as staged:
            (staged / "sub").mkdir()
            (staged / "sub" / content).write_text(content)
    with pytest.raises(RuntimeError), atomic_folder(target) as staged:
        (staged / "half").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["run"]
    assert names(target / "sub") == ["two"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_a_machine_error_and_leaves_the_old_file(tmp_path, code):
    target = tmp_path / "a.txt"
    target.write_text("old")
    message = r"the disk is full while writing .*a\.txt"
    with pytest.raises(MachineError, match=message) as caught, atomic_path(target) as staged:
        staged.write_text("half")
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 4
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_full_disk_reported_by_a_library_and_other_errors_pass(tmp_path):
    with pytest.raises(MachineError), disk_errors(tmp_path):
        raise OSError("Can't write (errno = 28, error message = 'No space left on device')")
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_clear_staged_takes_what_safetensors_left(tmp_path):
    (tmp_path / ".tmpg3Cvty").write_bytes(b"half")
    (tmp_path / ".tmp").write_bytes(b"somebody's")
    assert clear_staged(tmp_path, "x") == 0
    assert clear_staged(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == [".tmp"]


def test_clear_staged_takes_what_an_interrupted_writer_left(tmp_path):
    (tmp_path / ".staged-1-a").write_text("x")
    (tmp_path / ".staged-1-b").mkdir()
    (tmp_path / "kept").write_text("x")
    assert clear_staged(tmp_path) == 2
    assert names(tmp_path) == ["kept"]


def test_second_writer_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    message = f"written by another run .process {os.getpid()}"
    with folder_lock(folder), pytest.raises(MachineError, match=message), folder_lock(folder):
        pytest.fail("two writers")
    with folder_lock(folder):
        pass


def test_lock_of_another_process_ends_with_it(tmp_path):
    code = (
        "import sys, time, affectlens.data.artifacts as a\n"
        "with a.folder_lock(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match=f"process {child.pid}"), folder_lock(tmp_path):
            pytest.fail("two writers")
        child.kill()
    with folder_lock(tmp_path):
        pass


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": "ä"})
    assert read_json(path) == {"a": "ä", "b": 1}
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index(
        '"b"'
    )
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": "ä", "b": 1}
    path.write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(ArtifactError, match="has not been run"):
        read_json(tmp_path / "absent.json")


def test_hashes(tmp_path):
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")
