"""Run by test_kill: harvests in child processes that are killed at random times, then compares.

One process imports the libraries and forks the harvests, so that a kill costs no start-up.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from affectlens.data.activations import harvest
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import build_corpus
from affectlens.data.tiny import tiny_model

CONFIG = HarvestConfig(layers=(0, 1), context_length=32, tokens_per_batch=64, tokens_per_shard=200)
ROUNDS, KILLS = 4, 3


def run_harvest(folder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcde "), 60)) + "x" for _ in range(60)]
    corpus = build_corpus("letters", [(f"d{i}", text) for i, text in enumerate(texts)])
    harvest(tiny_model("llama", n_layers=2, d_model=16), corpus, CONFIG, folder, quiet=True)


def start(folder: Path) -> int:
    """Fork a harvest; its exit status is 0 only if it came to the end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run_harvest(folder)
            status = 0
        finally:
            os._exit(status)
    return child


def kill_after(child: int, delay: float) -> bool:
    """True if the child was still at work."""
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def main(base: Path) -> None:
    begin = time.monotonic()
    if os.waitpid(start(base / "whole"), 0)[1] != 0:
        raise SystemExit("the uninterrupted harvest failed")
    length = time.monotonic() - begin
    rng = np.random.default_rng()
    killed = resumed = 0
    different = []
    for round_number in range(ROUNDS):
        folder = base / f"killed-{round_number}"
        for _ in range(KILLS):
            if not kill_after(start(folder), float(rng.uniform(0.1, 0.8)) * length):
                break
            killed += 1
            resumed += any(folder.glob("shard-*")) and not (folder / "manifest.json").exists()
        if os.waitpid(start(folder), 0)[1] != 0:
            raise SystemExit(f"the harvest could not be finished after {killed} kills")
        if contents(folder) != contents(base / "whole"):
            different.append(folder.name)
    sys.stdout.write(json.dumps({"killed": killed, "resumed": resumed, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
