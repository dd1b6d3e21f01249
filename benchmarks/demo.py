"""The live steering page against a bare generation with the same edit, in one process.

Measured over HTTP on a run folder: seconds to the first token, and tokens a second of one request
(two rows) and of two requests at once (four rows), each against `stream_ids` with as many rows,
the same edit and the same random streams. Rounds alternate; the median of each side counts.

    python benchmarks/demo.py runs/demo [--json] [--tokens 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from affectlens.cli_demo import load_world
from affectlens.cli_options import Common
from affectlens.console import Console
from affectlens.data.generation import Sampling, stream_ids
from affectlens.data.hooks import edit
from affectlens.demo.app import build_app
from affectlens.demo.asked import Asked, Turned
from affectlens.demo.batches import specs_of
from affectlens.demo.engine import Engine
from affectlens.demo.serve import LOCAL, bound
from affectlens.demo.settings import OPENINGS, DemoSettings
from affectlens.demo.world import World
from affectlens.features.interventions import residual_edit
from affectlens.features.specs import PerRow

TEMPERATURE = 0.8


def bare(world: World, asked: list[Asked], top_p: float) -> tuple[float, int]:
    """Seconds and tokens of the same rows without queue, traces, readout and HTTP."""
    lm, sae = world.lm, world.sae
    edits = [specs for one in asked for specs in ((), specs_of(one, world.catalogue.maxima))]
    rows = [lm.token_ids(one.prompt) for one in asked for _ in range(2)]
    function, _ = residual_edit(sae, [PerRow(tuple(edits))])
    sampling = Sampling(asked[0].max_tokens, TEMPERATURE, top_p, 0)
    streams = [one.seed for one in asked for _ in range(2)]
    start = time.perf_counter()
    with edit(lm, {sae.info.hook_name: function}):
        steps = list(stream_ids(lm, rows, sampling, streams=streams))
    n = sum(token is not None for step in steps for token in step)
    return time.perf_counter() - start, n


class Client:
    """One request over HTTP: when its first token came, when it was written, how many tokens."""

    def __init__(self, url: str, asked: Asked) -> None:
        self.url, self.asked = url, asked
        self.first = self.last = 0.0
        self.n = 0

    def run(self) -> None:
        turned = [vars(one) for one in self.asked.features]
        body = {
            "prompt": self.asked.prompt,
            "features": turned,
            "temperature": self.asked.temperature,
            "seed": self.asked.seed,
            "max_tokens": self.asked.max_tokens,
        }
        start = time.perf_counter()
        url = f"{self.url}api/generate"
        with httpx.stream("POST", url, json=body, timeout=600) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self._take(json.loads(line[6:]), time.perf_counter() - start)

    def _take(self, event: dict[str, Any], now: float) -> None:
        if event["type"] == "error":
            raise RuntimeError(event["message"])
        if event["type"] == "step":
            told = sum(token is not None for token in event["tokens"])
            self.first = self.first or now
            self.n += told
            self.last = now if told else self.last


def over_http(url: str, asked: list[Asked]) -> tuple[float, float, int]:
    """Seconds to the first token, seconds to the last, and tokens of all requests at once."""
    clients = [Client(url, one) for one in asked]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(c.first for c in clients), max(c.last for c in clients), sum(c.n for c in clients)


def measured(world: World, url: str, n_tokens: int, rounds: int, top_p: float) -> dict[str, Any]:
    """Rates and latencies of both sides."""
    first = next(iter(world.catalogue.maxima))
    chosen = world.catalogue.presets[0].by_input if world.catalogue.presets else (first,)
    turned = (Turned(chosen[0], "add", 0.2),)
    out: dict[str, Any] = {}
    for n in (1, 2):
        asked = [
            Asked(OPENINGS[k], turned, TEMPERATURE, seed=k, max_tokens=n_tokens, sae="")
            for k in range(n)
        ]
        ours, peer, firsts = [], [], []
        over_http(url, asked)
        bare(world, asked, top_p)
        for _ in range(rounds):
            first_s, seconds, tokens = over_http(url, asked)
            ours.append(tokens / seconds)
            firsts.append(first_s)
            seconds, tokens = bare(world, asked, top_p)
            peer.append(tokens / seconds)
        out[f"rate_{n}"] = (np.median(ours), np.median(peer))
        out[f"first_{n}"] = np.median(firsts)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with a search")
    parser.add_argument("--json", action="store_true", help="one JSON object a comparison")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    common = Common(
        quiet=True, verbose=False, seed=None, device=None, limit=None, console=Console(json=False)
    )
    world = load_world(common, given.run)
    settings = DemoSettings(per_minute=1_000)
    engine = Engine(lambda: world, settings)
    server = uvicorn.Server(uvicorn.Config(build_app(engine, settings), log_level="error"))
    with bound(LOCAL, 0) as (sock, url):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while engine.status.state != "ready":
            time.sleep(0.05)
        try:
            found = measured(world, url, given.tokens, given.rounds, settings.top_p)
        finally:
            server.should_exit = True
            thread.join()
    for n, name in ((1, "one request"), (2, "two requests at once")):
        ours, peer = found[f"rate_{n}"]
        line = {"name": f"demo, {name}", "ours": round(ours, 2), "peer": round(peer, 2)}
        line |= {"ratio": round(ours / peer, 3), "unit": "tokens/s"}
        first = {"name": f"demo, first token, {name}", "ours": round(found[f"first_{n}"], 3)}
        first |= {"peer": None, "ratio": None, "unit": "s"}
        for row in (line, first):
            print(json.dumps(row) if given.json else row)


if __name__ == "__main__":
    main()
