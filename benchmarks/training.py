"""Training an SAE against the `SAETrainer` of sae-lens: same data, batches, learning rates, sizes.

For each architecture both train on the same batches of real activations, in alternating blocks of
steps, so that other work on the machine disturbs the comparison little; the rates come from the
median step. sae-lens counts no latent as dead in a run this short, so it revives none; ours does by
default, and is timed a second time without. Our step is the trainer's own, with the check for rows
that are not finite and the scaling; sae-lens is handed scaled rows, outside of the measured time.
Reported are tokens per second, the held-out FVU after equal samples, the time of our whole step
against the bare matrix product of the encoder, and the memory of a step against the parameters,
Adam's moments and one batch (a whole run also holds rows for shuffling and evaluation). `--widths`
adds the cost of width.

    python benchmarks/training.py [--json] [--store FOLDER] [--archs topk,batchtopk,matryoshka]
                                  [--samples N] [--threads N]
                                  [--widths 2048,4096,16384,65536] [--plot FILE]
"""

import argparse
import ctypes
import gc
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The neighbour statistics.py bears the name of a standard module that other libraries import, so
# the folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import numba  # noqa: E402
import numpy as np  # noqa: E402
import sae_lens  # noqa: E402
import torch  # noqa: E402
from lines import Line, multiple, show  # noqa: E402
from sae_lens.config import LoggingConfig, SAETrainerConfig  # noqa: E402

from affectlens.data.store import ActivationStore  # noqa: E402
from affectlens.sae.metrics import QualityMeter  # noqa: E402
from affectlens.training.config import TrainConfig, matryoshka_widths  # noqa: E402
from affectlens.training.loop import learning_rate, train_step  # noqa: E402
from affectlens.training.trainer import fresh_state  # noqa: E402

BLOCK = 4
"""Steps that one side does before the other has its turn."""


def open_store(folder: str | None, tokens: int, stack: str) -> ActivationStore:
    """The given store, or activations of the embedded corpus in a temporary folder."""
    if folder:
        return ActivationStore.open(folder)
    from affectlens.data.activations import harvest
    from affectlens.data.config import HarvestConfig
    from affectlens.data.corpus import load_corpus
    from affectlens.data.models import load_model

    lm = load_model("smollm2-135m-instruct")
    config = HarvestConfig(max_tokens=tokens)
    return harvest(lm, load_corpus("default"), config, Path(stack) / "acts", quiet=True)


class Data:
    """Batches and held-out rows in the units of training."""

    def __init__(self, store: ActivationStore) -> None:
        self.store, self.hook = store, store.hook_names[0]
        self.sample = next(self._raw(32_768, epochs=1))
        distances = (self.sample.double() - self.sample.double().mean(0)).norm(dim=-1)
        self.scale = store.d_model**0.5 / float(distances.mean())
        self.heldout = store.heldout(self.hook, 16_384).acts * self.scale

    def batches(self, size: int, *, scaled: bool) -> Iterator[torch.Tensor]:
        for rows in self._raw(size):
            yield rows.mul_(self.scale) if scaled else rows

    def _raw(self, size: int, epochs: int | None = None) -> Iterator[torch.Tensor]:
        return self.store.iter_batches(
            self.hook, size, generator=np.random.default_rng(0), epochs=epochs
        )


class Ours:
    scaled = False

    def __init__(self, config: TrainConfig, sample: torch.Tensor) -> None:
        self.config, self.n_steps = config, config.n_samples // config.batch_size
        self.state = fresh_state(config, sample)
        self.sae = self.state.sae

    def step(self, rows: torch.Tensor) -> None:
        lr = learning_rate(self.config, self.state.step, self.n_steps)
        train_step(rows, self.config, self.state, lr)


class Peer:
    """sae-lens' own trainer, classes and initial weights, with the same learning rates."""

    scaled = True

    def __init__(self, config: TrainConfig, d_in: int) -> None:
        n_steps = config.n_samples // config.batch_size
        sizes: dict[str, Any] = {"d_in": d_in, "d_sae": config.d_sae, "k": config.k}
        if config.arch == "topk":
            self.sae = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(**sizes))
        elif config.arch == "batchtopk":
            self.sae = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**sizes))
        else:
            widths = list(matryoshka_widths(config))
            self.sae = sae_lens.MatryoshkaBatchTopKTrainingSAE(
                sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(**sizes, matryoshka_widths=widths)
            )
        cfg = SAETrainerConfig(
            total_training_samples=n_steps * config.batch_size,
            train_batch_size_samples=config.batch_size,
            lr=config.lr,
            lr_end=config.lr / 1e6,
            lr_warm_up_steps=round(config.lr_warmup_share * n_steps),
            lr_decay_steps=round(config.lr_decay_share * n_steps),
            device="cpu",
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = sae_lens.SAETrainer(cfg=cfg, sae=self.sae, data_provider=iter(()))

    def step(self, rows: torch.Tensor) -> None:
        self.trainer.step(rows)
        self.trainer.n_training_steps += 1


@torch.no_grad()
def heldout_fvu(sae: Any, rows: torch.Tensor, batch_size: int) -> float:
    """FVU in the training form, batch by batch."""
    meter = QualityMeter(sae.cfg.d_sae)
    for chunk in rows.split(batch_size):
        meter.add(chunk, sae.decode(sae.encode(chunk)))
    return meter.fvu


def timed(side: Ours | Peer, batches: Iterator[torch.Tensor], n: int) -> list[float]:
    spent = []
    for _ in range(n):
        rows = next(batches)
        begin = time.perf_counter()
        side.step(rows)
        spent.append(time.perf_counter() - begin)
    return spent


def matmul_seconds(config: TrainConfig, d_in: int, repeats: int = 7) -> float:
    rows, weights = torch.randn(config.batch_size, d_in), torch.randn(d_in, config.d_sae)
    bias, spent = torch.zeros(config.d_sae), []
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.addmm(bias, rows, weights)
        spent.append(time.perf_counter() - begin)
    return float(np.median(spent))


def compare(config: TrainConfig, data: Data) -> list[Line]:
    """Train both to the end; the lines to print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        ours, peer = Ours(config, data.sample), Peer(config, data.store.d_model)
        none_dead = Ours(config.model_copy(update={"dead_window": 10**9}), data.sample)
    sides = (ours, peer, none_dead)
    streams = [data.batches(config.batch_size, scaled=s.scaled) for s in sides]
    n_steps = config.n_samples // config.batch_size
    times: tuple[list[float], ...] = ([], [], [])
    while len(times[0]) < n_steps:
        n = min(BLOCK, n_steps - len(times[0]))
        for side, stream, spent in zip(sides, streams, times, strict=True):
            spent += timed(side, stream, n)
    ours_s, peer_s, none_dead_s = (float(np.median(t[2:])) for t in times)
    matmul = matmul_seconds(config, data.store.d_model)
    size = f"{config.arch}, d_sae {config.d_sae}, k {config.k}, batch {config.batch_size}"
    quality = [heldout_fvu(s.sae, data.heldout, config.batch_size) for s in (ours, peer)]
    return [
        multiple(
            f"training {size} against sae_lens.SAETrainer",
            config.batch_size / ours_s,
            config.batch_size / peer_s,
            "tokens/s",
        ),
        multiple(
            f"the same without reviving dead latents ({size})",
            config.batch_size / none_dead_s,
            config.batch_size / peer_s,
            "tokens/s",
        ),
        multiple(
            f"held-out FVU after {n_steps * config.batch_size:,} samples ({size})",
            *quality,
            "FVU",
            digits=4,
        ),
        multiple(
            f"whole step against the encoder's bare matrix product ({size})",
            ours_s * 1e3,
            matmul * 1e3,
            "ms",
        ),
    ]


def memory_line(config: TrainConfig, d_in: int, threads: int) -> Line:
    """Peak memory of some steps in a fresh process against parameters + Adam + one batch."""
    # The first steps of a long run: in a short one the rate leaps and selections vary wildly.
    config = config.model_copy(update={"n_samples": 1_000_000})
    words = [sys.executable, __file__, "--memory-child", config.model_dump_json(), str(d_in)]
    words.append(str(threads))
    grown = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    parameters = 2 * d_in * config.d_sae + d_in + config.d_sae
    needed = 4 * (3 * parameters + config.batch_size * d_in)
    name = f"memory of a step of training {config.arch} against parameters + Adam + one batch"
    return multiple(name, grown / 2**20, needed / 2**20, "MiB")


def memory_child(config: TrainConfig, d_in: int) -> None:
    """Print by how many bytes the peak grows from before the SAE exists to after some steps."""
    generator = torch.Generator().manual_seed(0)

    def rows(n: int) -> torch.Tensor:
        return torch.randn(n, d_in, generator=generator)

    small = config.model_copy(update={"d_sae": 64, "k": 4, "batch_size": 64})
    warm = Ours(small, rows(64))
    warm.step(rows(64))
    torch.addmm(torch.zeros(256), torch.randn(256, 256), torch.randn(256, 256))
    sample = rows(256)
    release()
    before = status("VmRSS")
    side = Ours(config, sample)
    release()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that building left behind
    batch = rows(config.batch_size)
    for _ in range(5):
        side.step(batch.normal_(generator=generator))
    print(status("VmHWM") - before)


def release() -> None:
    """Give memory that is free but still held back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def status(field: str) -> int:
    """A size of this process in bytes, from the kernel."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def widths(config: TrainConfig, data: Data, sizes: list[int], steps: int) -> list[Line]:
    """Tokens per second of both at several widths."""
    out = []
    for d_sae in sizes:
        at = config.model_copy(
            update={"d_sae": d_sae, "n_samples": 100 * config.batch_size, "dead_window": 10**9}
        )
        rates = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for make in (lambda: Ours(at, data.sample), lambda: Peer(at, data.store.d_model)):  # noqa: B023
                side = make()
                spent = timed(side, data.batches(at.batch_size, scaled=side.scaled), steps)
                rates.append(at.batch_size / float(np.median(spent[1:])))
                del side
        out.append(
            {**multiple(f"training {at.arch} at d_sae {d_sae}", *rates, "tokens/s"), "d_sae": d_sae}
        )
    return out


def plot(lines: list[Line], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    sizes = [entry["d_sae"] for entry in lines]
    for side, name, marker in (("ours", "AffectLens", "o"), ("peer", "sae-lens", "s")):
        rates = [entry[side] for entry in lines]
        axes.plot(sizes, rates, marker=marker, label=name)
        for x, y in zip(sizes, rates, strict=True):
            axes.annotate(f"{y:,.0f}", (x, y), textcoords="offset points", xytext=(5, 5), size=8)
    axes.set(xscale="log", yscale="log", xlabel="d_sae", ylabel="tokens per second")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    threads = torch.get_num_threads()
    axes.set_title(f"TopK training, d_in 576, k 32, batch 4096, {threads} threads", size=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def use_threads(n: int) -> None:
    """The same number for torch's products and for the compiled kernels."""
    torch.set_num_threads(n)
    numba.set_num_threads(n)


def main() -> None:
    if sys.argv[1:2] == ["--memory-child"]:
        use_threads(int(sys.argv[4]))
        memory_child(TrainConfig.model_validate_json(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--store", help="activations; by default some are harvested")
    parser.add_argument("--tokens", type=int, default=60_000, help="tokens to harvest")
    parser.add_argument("--archs", default="topk,batchtopk,matryoshka")
    parser.add_argument("--samples", type=int, default=262_144)
    parser.add_argument("--d-sae", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", default="", help="d_sae values, comma-separated")
    parser.add_argument("--width-steps", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="picture of the cost of width")
    options = parser.parse_args()
    logging.getLogger("affectlens").setLevel(logging.ERROR)
    if not 1 <= options.threads <= numba.config.NUMBA_NUM_THREADS:
        parser.error(f"--threads must be 1 to {numba.config.NUMBA_NUM_THREADS} here")
    use_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = Data(open_store(options.store, options.tokens, folder))
        base = TrainConfig(
            d_sae=options.d_sae,
            k=options.k,
            batch_size=options.batch_size,
            n_samples=options.samples,
        )
        for arch in filter(None, options.archs.split(",")):
            config = base.model_copy(update={"arch": arch})
            for entry in compare(config, data):
                show(entry, as_json=options.json)
            entry = memory_line(config, data.store.d_model, options.threads)
            show(entry, as_json=options.json)
        sizes = [int(size) for size in options.widths.split(",") if size]
        lines = widths(base, data, sizes, options.width_steps)
        for entry in lines:
            show(entry, as_json=options.json)
        if options.plot and lines:
            plot(lines, options.plot)


if __name__ == "__main__":
    main()
