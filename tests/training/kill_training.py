"""Train in forked processes that are killed at random moments; compare with an unbroken run.

    python kill_training.py FOLDER SEED

Forking saves the imports; the parent runs no kernel, so no thread of a pool is lost.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from conftest import MemoryStore, planted_rows

from affectlens.training.config import SPARSE_ARCHS, TrainConfig
from affectlens.training.trainer import train

FILES = ("sae_weights.safetensors", "metrics.json", "cfg.json")
CASES = [
    *((arch, "sae_lens") for arch in (*SPARSE_ARCHS, "jumprelu", "standard", "gated")),
    *((arch, backend) for arch in SPARSE_ARCHS for backend in ("numba", "torch")),
]


def start(store: MemoryStore, config: TrainConfig, out: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        train(store, config, out, quiet=True)
        code = 0
    finally:
        os._exit(code)


def killed(child: int, folder: Path, wait: float) -> bool:
    """Kill `child` some time after its first checkpoint; False if it was faster."""
    while not list(folder.glob("checkpoint-*")):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.002)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def finish(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    if status:
        sys.exit(f"training ended with {status}")


def main() -> None:
    root, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    torch.set_num_threads(1)
    store = MemoryStore(planted_rows(512), planted_rows(64, seed=1))
    for arch, backend in CASES:
        watch = {"checkpoint_every_samples": 160, "n_evals": 4}
        config = TrainConfig.parse(
            {
                "arch": arch,
                "backend": backend,
                "d_sae": 40,
                "k": 3,
                "n_samples": 1600,
                "batch_size": 16,
                "dead_window": 300,
                "watch": watch,
            }
        )
        name = f"{arch}-{backend}"
        finish(start(store, config, root / f"{name}-whole"))
        parts, work = root / f"{name}-parts", root / f"{name}-parts.training"
        kills, longest = 0, 0.05
        # The sparse backends stop once: loading compiled kernels takes a process a second.
        for _ in range(20):
            if killed(start(store, config, parts), work, rng.uniform(0, longest)):
                kills += 1
            elif not kills and parts.exists():
                # On a fast machine it was done before the blow; again, and hit earlier.
                shutil.rmtree(parts)
                longest /= 2
            if kills == (2 if backend == "sae_lens" else 1) or parts.exists():
                break
        finish(start(store, config, parts))
        if not kills:
            sys.exit(f"{name} was never interrupted")
        for file in FILES:
            one, two = root / f"{name}-whole" / file, parts / file
            if one.read_bytes() != two.read_bytes():
                sys.exit(f"{name}: {file} differs after {kills} kills")
        if work.exists():
            sys.exit(f"{work} is left behind")
        sys.stdout.write(f"{name} {kills}\n")


if __name__ == "__main__":
    main()
