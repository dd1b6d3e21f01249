"""What a failure of a command becomes, and what text may reach the terminal."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from affectlens.cli_runtime import call
from affectlens.console import plain, table_lines, visible
from affectlens.data.errors import AffectLensError, ArtifactError, ConfigError, MachineError
from affectlens.sae.errors import SAEError


class _Raises:
    """Stands for a typer command."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def main(self, **_: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AffectLensError("a"), 2),
        (ConfigError("a"), 2),
        (ArtifactError("a"), 3),
        (SAEError("a"), 3),
        (MachineError("a"), 4),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 4),
        (MemoryError(), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("one\ntwo"), 1),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(_Raises(error), ["--json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == code
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_an_unknown_error_leaves_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert call(_Raises(ZeroDivisionError("oh")), []) == 1
    (place,) = tmp_path.glob("affectlens-traceback-*.txt")
    err = capsys.readouterr().err
    assert f"unexpected ZeroDivisionError: oh (traceback: {place})" in err
    assert "ZeroDivisionError: oh" in place.read_text()
    call(_Raises(ZeroDivisionError("oh")), ["--verbose"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_text_from_models_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[31mb\u202ec\n") == "a<U+001B>[31mb<U+202E>c\n"
    assert table_lines(["a", "n"], [["x\ny", 1.0], ["z", 20.5]])[2:] == ["x y     1", "z    20.5"]


def test_json_has_no_nan() -> None:
    assert plain({"a": float("nan"), "b": (1, Path("x"))}) == {"a": None, "b": [1, "x"]}
