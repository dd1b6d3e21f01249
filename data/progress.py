"""One way to show progress: a bar on a terminal, else a log line every ten seconds."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

LOG_INTERVAL = 10.0
"""Seconds between two log lines where there is no terminal."""

logger = logging.getLogger("affectlens")


@dataclass(eq=False)
class Progress:
    """Counts finished units of a task; `done` starts at what an earlier run has finished."""

    total: int
    unit: str
    label: str
    done: int = 0
    clock: Callable[[], float] = time.monotonic
    _bar: tqdm | None = field(default=None, repr=False)
    _log: bool = True
    _first: float = field(default=0.0, repr=False)
    _last: float = field(default=0.0, repr=False)
    _offset: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self._first = self._last = self.clock()
        self._offset = self.done

    def update(self, n: int = 1) -> None:
        """Add `n` finished units."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            return
        now = self.clock()
        if self._log and now - self._last >= LOG_INTERVAL:
            self._last = now
            logger.info("%s", self.line())

    def line(self) -> str:
        """The state in one line: count, share, rate and expected time to the end."""
        elapsed = self.clock() - self._first
        rate = (self.done - self._offset) / elapsed if elapsed > 0 else 0.0
        share = 100 * self.done / self.total if self.total else 100.0
        rest = _clock((self.total - self.done) / rate) if rate > 0 else "unknown"
        return (
            f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f}%), "
            f"{rate:,.1f} {self.unit}/s, {rest} left"
        )


@contextlib.contextmanager
def track(
    total: int, unit: str, label: str, *, start: int = 0, quiet: bool | None = None
) -> Iterator[Progress]:
    """Show the progress of `total` units, from `start` on (what an earlier run has finished).

    `quiet` None means: quiet if the level of the logger "affectlens" was set above INFO. The bar
    goes to standard error, so that standard output holds results only.
    """
    if quiet is None:
        quiet = logger.level > logging.INFO
    bar = None
    if not quiet and sys.stderr.isatty():
        bar = tqdm(total=total, initial=start, unit=" " + unit, desc=label, unit_scale=True)
    progress = Progress(total, unit, label, done=start, _bar=bar, _log=not quiet)
    finished = False
    try:
        yield progress
        finished = True
    finally:
        if bar is not None:
            bar.close()
        elif finished and not quiet:
            logger.info("%s", progress.line())


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
