"""`affectlens doctor`: is this machine fit for a run? Offline unless asked."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from affectlens import __version__
from affectlens.cli_options import Common, verb
from affectlens.console import note
from affectlens.data.errors import AffectLensError, MachineError
from affectlens.doctor_checks import Check, demo, machine, models, online
from affectlens.doctor_smoke import hook_parity, numba_state, smoke_test, torch_state

DEMO_PORT = 8642
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
"""Lies there in a clone; a wheel is without it."""
_PYTHON = (3, 11)


def register(app: typer.Typer) -> None:
    """Add `doctor` to the application."""
    verb(
        app,
        "doctor",
        examples="""affectlens doctor
        affectlens doctor --folder runs/a --online
        affectlens doctor --json""",
    )(doctor)


def doctor(
    common: Common,
    folder: Annotated[
        Path, typer.Option(help="folder whose disk is tried out", metavar="FOLDER", file_okay=False)
    ] = Path(),
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="port that the demo would use", metavar="N")
    ] = DEMO_PORT,
    to_hub: Annotated[  # noqa: FBT002
        bool, typer.Option("--online", help="also try to reach the Hugging Face hub")
    ] = False,
) -> None:
    """Say what works on this machine, what does not, and what to do about it.

    Looks at versions, cores, memory, disk, accelerators, caches and the demo's needs, and computes
    on tiny models. Takes a few seconds; nothing is sent unless --online is given. Ends with code 4
    if something must be repaired first.
    """
    checks = [*packages()]
    for name, group in (
        ("tested versions", lambda: tested(CONSTRAINTS)),
        ("machine", lambda: machine(folder)),
        ("model cache", models),
        ("demo", lambda: demo(port)),
        ("hub", online if to_hub else list),
        ("torch", torch_state),
        ("numba", numba_state),
        ("smoke test", lambda: smoke_test()),
        ("hooks as TransformerLens", hook_parity),
    ):
        checks += _guarded(name, group)
    _show(checks, common)
    failed = [c.name for c in checks if c.status == "fail"]
    warned = [c.name for c in checks if c.status == "warn"]
    common.console.result(
        {
            "ok": not failed,
            "warned": warned,
            "failed": failed,
            "checks": [asdict(c) for c in checks],
        }
    )
    if failed:
        note(f"error: not ready: {', '.join(failed)}")
        raise typer.Exit(MachineError.exit_code)
    common.console.say(f"\nready{f', {len(warned)} warnings' if warned else ''}")


def packages() -> Iterator[Check]:
    """Versions against the ranges that were tested."""
    from packaging.requirements import Requirement

    yield Check("affectlens", "ok", __version__)
    new = sys.version_info >= _PYTHON
    need = "" if new else f"install Python {_PYTHON[0]}.{_PYTHON[1]} or newer"
    yield Check("python", "ok" if new else "fail", platform.python_version(), need)
    for text in requires("affectlens") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        cure = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            detail = f"not installed; need {wanted.specifier}"
            yield Check(wanted.name, "fail", detail, cure)
            continue
        if wanted.specifier.contains(found, prereleases=True):
            yield Check(wanted.name, "ok", found)
        else:
            detail = f"{found}, tested range is {wanted.specifier}"
            yield Check(wanted.name, "fail", detail, cure)


def tested(constraints: Path) -> Iterator[Check]:
    """Installed versions against the exact ones of a constraints file; nothing without the file.

    Packages of the file that are not installed belong to extras and do not count.
    """
    if not constraints.is_file():
        return
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==", 1) for line in lines if "==" in line and line[0] != "#")
    other = []
    for name, wanted in pinned.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        # What follows a plus names the build, such as +cpu.
        if found.partition("+")[0] != wanted.strip().partition("+")[0]:
            other.append(f"{name} {found} (tested {wanted.strip()})")
    if not other:
        yield Check("tested versions", "ok", f"all as in {constraints.name}")
        return
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    cure = "only if something goes wrong: pip install -c constraints.txt affectlens"
    yield Check("tested versions", "warn", ", ".join(other[:3]) + more, cure)


def _show(checks: list[Check], common: Common) -> None:
    common.console.table(
        ["check", "status", "detail"], [[c.name, c.status, c.detail] for c in checks]
    )
    open_points = [c for c in checks if c.status != "ok"]
    if open_points:
        common.console.say()
    for check in open_points:
        todo = f": {check.cure}" if check.cure else ""
        common.console.say(f"{check.status}  {check.name}{todo}")


def _guarded(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks, or one failed line: a broken installation must not end the table."""
    done: list[Check] = []
    try:
        done.extend(checks())
    except (AffectLensError, ImportError, RuntimeError, OSError, ValueError, AttributeError) as e:
        cure = "install the tested versions: pip install -c constraints.txt affectlens"
        done.append(Check(name, "fail", f"{type(e).__name__}: {e}", cure))
    return done
