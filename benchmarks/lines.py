"""What several benchmarks share: the best of some runs, a comparison as one line, its printing.

Scripts beside this one look through their folder last when they import it: `statistics.py` bears
the name of a standard module that other libraries import.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

Line = dict[str, Any]


def best(call: Callable[[], object], repeat: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def cost(name: str, ours: float, peer: float, unit: str = "s") -> Line:
    """Seconds or bytes, the less the better; the ratio says how many times less ours is."""
    ratio = round(peer / ours, 2)
    return {
        "name": name,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "ratio": ratio,
        "unit": unit,
    }


def multiple(name: str, ours: float, peer: float, unit: str, digits: int = 1) -> Line:
    """Ours as a multiple of the peer."""
    return {
        "name": name,
        "ours": round(ours, digits),
        "peer": round(peer, digits),
        "ratio": round(ours / peer, 3),
        "unit": unit,
    }


def show(line: Line, *, as_json: bool, more: str = "") -> None:
    """Print a line for a machine, or for a person with `more` at its end."""
    text = json.dumps(line) if as_json else (
        f"{line['name']}: {line['ours']:,} against {line['peer']:,} {line['unit']}, "
        f"ratio {line['ratio']}{more}"
    )  # fmt: skip
    print(text, flush=True)
