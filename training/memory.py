"""What a training run will need, worked out before it begins, against what the machine has.

P = 2 d_in d_sae + d_in + d_sae numbers (gated and jumprelu have d_sae or 2 d_sae more) of four
bytes; parameters and gradients take 4 P each, Adam's moments 8 P; a batch of b rows 8 b d_in. The
numba backend holds the hidden layer of one chunk of rows and 24 bytes for each of the b k active
entries; the torch backend a chunk of 128 MiB, thrice where dead latents are revived, and 100 bytes
an entry; dense autograd holds the hidden layer of the batch seven to nine times (measured). An
evaluation holds the hidden layer of at most 1,024 rows and 64 MiB, five to eight times (measured),
while nothing of a step is held.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from affectlens.data.devices import device_fault
from affectlens.data.errors import ConfigError, MachineError
from affectlens.data.store import BUFFER_BYTES
from affectlens.training.config import SPARSE_ARCHS, TrainConfig, matryoshka_widths
from affectlens.training.thresholds import rows_at_once

_FLOAT = 4
_ENTRY_BYTES = 24
_TORCH_ENTRY_BYTES = 100
_DENSE_COPIES = {"gated": 9}
_DENSE_COPIES_ELSE = 7
_EVALUATION_COPIES = {"gated": 8, "batchtopk": 6, "matryoshka": 6}
_EVALUATION_COPIES_ELSE = 5
_INDEX_BYTES = 21
"""A stored row's document, mask and place in the order."""
_LARGEST = 2**63 - 1
CHUNK_ROWS = 256
"""Rows that the numba backend encodes at once: their hidden layer stays in the cache."""
CHUNK_NUMBERS = 2**25
"""Numbers of the hidden layer that exist at once in the torch backend: 128 MiB."""
CALIBRATION_ROWS = 32_768
"""Rows from which scale, mean and the first directions are taken."""
THRESHOLD_ROWS = 16_384
"""Held-out rows that set the inference threshold of the batch architectures."""
CURVE_ROWS = 2048
"""Held-out rows of the evaluations on the way."""


@dataclass(frozen=True)
class TrainingPlan:
    """Bytes that a training run needs at its peak.

    Attributes:
        parameters: the SAE.
        optimiser: Adam's two moments.
        gradients: one gradient for each parameter.
        batch: the rows of a step and their errors.
        hidden: hidden layer and active entries of a step, or of an evaluation if that is more.
        buffer: rows held for shuffling, and the index of all stored rows.
        evaluation: rows for the starting values and the held-out measurements.
        checkpoint_bytes_on_disk: the kept checkpoints, the one being written, and the SAE itself.
        total: memory in all; on a GPU the buffer and the evaluation rows stay in main memory.
        on_device: the part of `total` on the training device.
    """

    parameters: int
    optimiser: int
    gradients: int
    batch: int
    hidden: int
    buffer: int
    evaluation: int
    checkpoint_bytes_on_disk: int
    total: int
    on_device: int

    def lines(self) -> list[tuple[str, str]]:
        """Pairs (part, size) for a table."""
        return [(name.replace("_", " "), human(size)) for name, size in asdict(self).items()]


def plan(config: TrainConfig, d_in: int, n_rows: int, device: str = "cpu") -> TrainingPlan:
    """What `config` needs for `n_rows` stored training rows of width `d_in`; 0 for a stream.

    Raises:
        MachineError: sizes beyond what a tensor can address.
    """
    numbers = n_parameters(config, d_in)
    refuse = numbers * _FLOAT > _LARGEST or config.batch_size * d_in * _FLOAT > _LARGEST
    if refuse:
        raise MachineError(
            f"d_sae {config.d_sae:,} x d_in {d_in:,}, batches of {config.batch_size:,} rows: "
            "more bytes than a tensor can have; lower d_sae or batch_size"
        )
    b, one = config.batch_size, numbers * _FLOAT
    hidden = max(_hidden_bytes(config, d_in, device), _evaluation_bytes(config))
    row = d_in * _FLOAT
    buffer = min(BUFFER_BYTES, int(config.buffer_share * n_rows) * row) + n_rows * _INDEX_BYTES
    held = max(config.watch.n_eval_rows, THRESHOLD_ROWS) + CURVE_ROWS
    # The rows for the starting values and the same ones scaled; of a stream they are also kept.
    sample = 2 * min(CALIBRATION_ROWS, n_rows) if n_rows else 3 * CALIBRATION_ROWS
    evaluation = max(sample, 2 * held) * row
    parts = {
        "parameters": one,
        "optimiser": 2 * one,
        "gradients": one,
        "batch": 2 * b * row,
        "hidden": hidden,
    }
    on_device = sum(parts.values())
    state = 3 * one + 8 * config.d_sae
    return TrainingPlan(
        **parts,
        buffer=buffer,
        evaluation=evaluation,
        checkpoint_bytes_on_disk=(config.watch.keep_checkpoints + 1) * state + one,
        total=on_device + buffer + evaluation,
        on_device=on_device if device.startswith("cuda") else on_device + buffer + evaluation,
    )


def _hidden_bytes(config: TrainConfig, d_in: int, device: str) -> int:
    """What a backend holds of the hidden layer, the active latents and the errors."""
    b, d_sae = config.batch_size, config.d_sae
    if config.arch not in SPARSE_ARCHS or config.backend == "sae_lens":
        copies = _DENSE_COPIES.get(config.arch, _DENSE_COPIES_ELSE)
        return b * d_sae * _FLOAT * copies
    if config.backend == "numba" or (config.backend == "auto" and device == "cpu"):
        return min(b, CHUNK_ROWS) * d_sae * _FLOAT + b * config.k * _ENTRY_BYTES
    levels = len(matryoshka_widths(config)) if config.arch == "matryoshka" else 1
    chunk = min(b * d_sae, max(CHUNK_NUMBERS, d_sae)) * _FLOAT
    dead = b * min(d_sae, d_in // 2) * _TORCH_ENTRY_BYTES
    revives = config.sparsity.aux_loss_coefficient > 0
    entries = b * config.k * _TORCH_ENTRY_BYTES + 2 * b * levels * d_in * _FLOAT
    return chunk * (3 if revives else 1) + (dead if revives else 0) + entries


def _evaluation_bytes(config: TrainConfig) -> int:
    """What an evaluation, or setting the threshold, holds of the hidden layer."""
    copies = _EVALUATION_COPIES.get(config.arch, _EVALUATION_COPIES_ELSE)
    return copies * rows_at_once(config.d_sae) * config.d_sae * _FLOAT


def n_parameters(config: TrainConfig, d_in: int) -> int:
    """Numbers in the weights of an SAE."""
    extra = {"gated": 2, "jumprelu": 1}.get(config.arch, 0)
    return 2 * d_in * config.d_sae + d_in + (1 + extra) * config.d_sae


def check_machine(
    needed: TrainingPlan,
    config: TrainConfig,
    out: Path,
    device: str = "cpu",
    *,
    saved_bytes: int = 0,
) -> None:
    """Refuse a run that the machine cannot hold, before it begins.

    `saved_bytes` lie on the disk already: checkpoints of the run that is to be continued, counted
    in the plan and replaced by new ones.

    Raises:
        ConfigError: there is no such device.
        MachineError: what needs how much, what there is, and which settings to lower.
    """
    if fault := device_fault(device):
        raise ConfigError(fault)
    free = available_bytes(device)
    if free is not None and needed.on_device > free:
        parts = ["parameters", "optimiser", "gradients", "batch", "hidden"]
        parts += [] if device.startswith("cuda") else ["buffer", "evaluation"]
        sizes = sorted(((getattr(needed, p), p) for p in parts), reverse=True)[:3]
        told = ", ".join(f"{name} {human(size)}" for size, name in sizes)
        raise MachineError(
            f"training needs about {human(needed.on_device)} ({told}) and {device} has "
            f"{human(free)} free; {_cure(sizes[0][1], config)}"
        )
    room = free_disk(out)
    more = needed.checkpoint_bytes_on_disk - saved_bytes
    if room is not None and more > room:
        raise MachineError(
            f"checkpoints and SAE need {human(more)} on the disk of "
            f"{out}, which has {human(room)} free; lower d_sae ({config.d_sae}) or "
            f"watch.keep_checkpoints ({config.watch.keep_checkpoints}), or free some space"
        )


def available_bytes(device: str = "cpu") -> int | None:
    """Memory that a new allocation can have; None where the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    known = [n for n in (_system_bytes(), _cgroup_bytes()) if n is not None]
    return min(known) if known else None


def free_disk(place: Path) -> int | None:
    """Free bytes on the disk that holds `place`, which need not exist yet."""
    place = Path(place).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def human(size: float) -> str:
    """A size in words: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} EiB"


def _cure(largest: str, config: TrainConfig) -> str:
    if largest == "buffer":
        return f"lower buffer_share ({config.buffer_share})"
    if largest == "evaluation":
        return f"lower watch.n_eval_rows ({config.watch.n_eval_rows})"
    if largest in ("batch", "hidden"):
        return f"lower batch_size ({config.batch_size}), k ({config.k}) or d_sae ({config.d_sae})"
    return f"lower d_sae ({config.d_sae})"


def _system_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return int(os.sysconf("SC_AVPHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return None


def _cgroup_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the container may still take; None outside of one. Both cgroup versions."""
    for folder, limit, used in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):
            continue
        return max(0, left + _reclaimable(folder / "memory.stat"))
    return None


def _reclaimable(statistics: Path) -> int:
    """File pages that a container is charged for and gives up at once."""
    try:
        for line in statistics.read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0
