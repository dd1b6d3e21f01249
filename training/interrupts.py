"""Ctrl-C and SIGTERM wait for the end of a step, so that the state can be saved between two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn


@dataclass
class Interrupt:
    """Which signal asked for an end, 0 for none; the loop looks at it between two steps."""

    requested: int = 0
    previous: dict[int, Any] = field(default_factory=dict)

    def act(self, number: int, frame: FrameType | None = None) -> NoReturn:
        """Do what the signal would have done before it was deferred."""
        self.previous[number](number, frame)
        raise KeyboardInterrupt


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Let Ctrl-C and a handled SIGTERM wait for the end of the step; a second one acts at once.

    One that nobody has looked at by the end of the block acts then.

    An exception raised by a handler inside a compiled kernel would surface as a SystemError.
    """
    state = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if state.requested:
            state.act(number, frame)
        state.requested = number

    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(s))]
    state.previous = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield state
    finally:
        for number, handler in state.previous.items():
            signal.signal(number, handler)
    if state.requested:
        state.act(state.requested)
