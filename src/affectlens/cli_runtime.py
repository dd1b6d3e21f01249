"""What surrounds every command: log, warnings, signals, and the exit code of each kind of error."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from affectlens.console import note, plain

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141
_AGAIN = "the same command goes on from what it has saved, if anything"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
)
"""The system does not let us write or read there, or something else stands in the place."""


class Terminated(SystemExit):
    """The process was asked to end; unlike the default action, `finally` blocks still run."""


def quiet_environment() -> None:
    """No telemetry of libraries, and no download bars where there is no terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def configure(*, quiet: bool, verbose: bool) -> None:
    """Set the log of a command: notes on standard error unless quiet."""
    logger = logging.getLogger("affectlens")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    level = logging.DEBUG if verbose else logging.INFO
    logger.setLevel(logging.ERROR if quiet else level)
    if not verbose:
        # Libraries warn about their own plans; what concerns the user is said by our log.
        warnings.simplefilter("ignore")


@contextlib.contextmanager
def guarded_process() -> Iterator[None]:
    """Environment, SIGTERM handler, log and warnings of one call; put back afterwards."""
    quiet_environment()
    logger = logging.getLogger("affectlens")
    before = (logger.handlers, logger.propagate, logger.level)
    with warnings.catch_warnings():
        # Only the main thread may set handlers; a caller's thread keeps the process' own.
        own = threading.current_thread() is threading.main_thread()
        old = signal.signal(signal.SIGTERM, _terminate) if own else None
        try:
            yield
        finally:
            if own:
                signal.signal(signal.SIGTERM, old)
            logger.handlers, logger.propagate = before[0], before[1]
            logger.setLevel(before[2])


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated(TERMINATED)


@contextlib.contextmanager
def _unwrapped_interrupts() -> Iterator[None]:
    """Give back the interrupt that a compiled kernel returned wrapped in a SystemError."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KeyboardInterrupt | Terminated):
            raise error.__cause__ from None
        raise


def call(command: Any, argv: Sequence[str]) -> int:
    """Run a typer command and turn whatever it raises into an exit code and a message."""
    try:
        with _unwrapped_interrupts(), guarded_process():
            outcome = command.main(args=list(argv), prog_name="affectlens", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, typer.Abort):
        message = f"interrupted; {_AGAIN}"
        return _fail(message, INTERRUPTED, argv)
    except Terminated:
        message = f"terminated; {_AGAIN}"
        return _fail(message, TERMINATED, argv)
    except BrokenPipeError:
        # Nobody reads any more; keep the interpreter from failing once more at its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user
        return _explain(error, argv)


def _explain(error: Exception, argv: Sequence[str]) -> int:
    if hasattr(error, "format_message"):  # typer's own errors about arguments
        context = getattr(error, "ctx", None)
        if context is not None:
            note(context.get_usage())
            note(f"Try '{context.command_path} --help'.")
        return _fail(error.format_message(), getattr(error, "exit_code", 2), argv)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return _fail(_with_traceback(error, argv), code, argv)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        message = f"the disk is full ({error.filename or error.strerror}); free some space"
        return _fail(f"{message} and run the same command again", 4, argv)
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        message = f"{error.filename}: {error.strerror}; see to this place, or give another folder"
        return _fail(_with_traceback(error, argv, message), 4, argv)
    if isinstance(error, MemoryError):
        return _fail("not enough memory; use smaller batches or a smaller model", 4, argv)
    place = _write_traceback(error)
    what = str(error).strip().splitlines()
    first = f": {what[0]}" if what else ""
    message = f"unexpected {type(error).__name__}{first} (traceback: {place})"
    return _fail(_with_traceback(error, argv, message), 1, argv)


def _with_traceback(error: Exception, argv: Sequence[str], message: str | None = None) -> str:
    if {"-v", "--verbose"} & set(argv):
        note("".join(traceback.format_exception(error)).rstrip())
    return message if message is not None else str(error)


def _write_traceback(error: Exception) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="affectlens-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as handle:
            handle.write("".join(traceback.format_exception(error)))
        return str(Path(handle.name))
    except OSError:
        return "not written: no temporary folder"


def _fail(message: str, code: int, argv: Sequence[str]) -> int:
    note(f"error: {message}")
    if "--json" in argv:
        typer.echo(json.dumps(plain({"error": message, "exit_code": code}), ensure_ascii=False))
    return code
