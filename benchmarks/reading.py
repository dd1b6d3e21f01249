"""Throughput of shuffled reading against a plain sequential read, and against what training eats.

The peer is h5py itself: every chunk of the same rows in file order, nothing masked, nothing
shuffled. Ours is `ActivationStore.iter_batches` with a buffer of a quarter of the rows, so that
nothing stays in memory between epochs. Both alternate in one run, and the best time of each counts.
The training rate is measured in the same run: steps of `TrainConfig`'s defaults on such rows.
The rows lie in the system's file cache, as they do after the first epoch where memory allows.

    python benchmarks/reading.py [--json] [--rows N] [--width N] [--share X] [--steps N]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The neighbour statistics.py bears the name of a standard module that other libraries import, so
# the folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lines import Line, multiple, show  # noqa: E402

from affectlens.data.shards import CHUNK_ROWS  # noqa: E402
from affectlens.data.store import ActivationStore  # noqa: E402
from affectlens.data.store_writer import write_store  # noqa: E402
from affectlens.training.config import TrainConfig  # noqa: E402
from affectlens.training.loop import train_step  # noqa: E402
from affectlens.training.trainer import fresh_state  # noqa: E402

HOOK = "blocks.1.hook_resid_post"
TOKENS_PER_DOCUMENT = 256


def make_store(folder: Path, n_rows: int, width: int) -> ActivationStore:
    """Rows near 64 random directions, so that training has something to find."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(64, width, generator=generator)
    chosen = torch.randint(64, (n_rows, 3), generator=generator)
    rows = directions[chosen].sum(1) + 0.1 * torch.randn(n_rows, width, generator=generator)
    doc = np.arange(n_rows) // TOKENS_PER_DOCUMENT
    documents = [f"d{i}" for i in range(int(doc[-1]) + 1)]
    return write_store(folder, {HOOK: rows}, doc, documents=documents)


def read_plain(store: ActivationStore) -> int:
    """Every chunk in file order; rows read."""
    total = 0
    for shard in store.manifest["shards"]:
        with h5py.File(store.folder / shard["file"], "r") as file:
            dataset = file[f"resid/{HOOK}"]
            for start in range(0, len(dataset), CHUNK_ROWS):
                total += len(dataset[start : start + CHUNK_ROWS])
    return total


def read_shuffled(store: ActivationStore, batch_size: int, share: float) -> int:
    """One shuffled epoch of all parts; rows read."""
    generator = np.random.default_rng(0)
    options: dict[str, Any] = {"part": "all", "epochs": 1, "buffer_share": share}
    batches = store.iter_batches(HOOK, batch_size, generator=generator, **options)
    return sum(len(batch) for batch in batches)


def best_rate(task: Callable[[], int], rates: list[float]) -> None:
    """Add the rows per second of one call."""
    begin = time.perf_counter()
    n = task()
    rates.append(n / (time.perf_counter() - begin))


def training_rate(store: ActivationStore, config: TrainConfig, n_steps: int) -> float:
    """Rows per second that training takes, the batches being in memory already."""
    generator = np.random.default_rng(0)
    batches = store.iter_batches(HOOK, config.batch_size, generator=generator)
    state = fresh_state(config, next(batches))
    # The first steps compile and find the batch's rhythm; they do not count.
    for _ in range(3):
        train_step(next(batches), config, state, config.lr)
    rows = [next(batches) for _ in range(n_steps)]
    begin = time.perf_counter()
    for batch in rows:
        train_step(batch, config, state, config.lr)
    return n_steps * config.batch_size / (time.perf_counter() - begin)


def compare(options: argparse.Namespace, folder: Path) -> Line:
    """Best throughput of both in rows per second, and training's beside them."""
    config = TrainConfig()
    store = make_store(folder / "acts", options.rows, options.width)
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(options.repeats):
        best_rate(lambda: read_shuffled(store, config.batch_size, options.share), ours)
        best_rate(lambda: read_plain(store), peer)
    training = training_rate(store, config, options.steps)
    size = f"width {options.width}, buffer {options.share:g} of {options.rows:,} rows"
    name = f"shuffled reading against plain h5py, {size}"
    return {
        **multiple(name, max(ours), max(peer), "rows/s"),
        "training_rows_per_s": round(training, 1),
        "times_training": round(max(ours) / training, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    more = (
        f"; training takes {result['training_rows_per_s']:,} rows/s, so "
        f"reading is {result['times_training']} times as fast"
    )
    show(result, as_json=options.json, more=more)


if __name__ == "__main__":
    main()
