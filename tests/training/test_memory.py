"""What a run needs, against hand-worked sizes, and what is refused before it begins."""

import subprocess
import sys

import pytest

from affectlens.data.errors import MachineError
from affectlens.data.store import BUFFER_BYTES
from affectlens.training import memory
from affectlens.training.building import build_training_sae
from affectlens.training.config import TrainConfig, WatchConfig
from affectlens.training.memory import (
    CALIBRATION_ROWS,
    check_machine,
    human,
    n_parameters,
    plan,
)
from affectlens.training.trainer import train

ALL = ("topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated")


def test_the_sparse_backend_by_hand():
    config = TrainConfig(d_sae=4608, k=32, batch_size=2048)
    needed = plan(config, 576, 100_000)
    numbers = 2 * 576 * 4608 + 576 + 4608
    assert (needed.parameters, needed.gradients) == (4 * numbers, 4 * numbers)
    assert needed.optimiser == 8 * numbers
    assert needed.batch == 2 * 2048 * 576 * 4
    assert needed.hidden == 5 * 1024 * 4608 * 4
    wide = plan(config.model_copy(update={"batch_size": 2**18}), 576, 100_000)
    assert wide.hidden == 256 * 4608 * 4 + 2**18 * 32 * 24
    assert needed.buffer == 100_000 * 576 * 4 + 100_000 * 21
    assert needed.checkpoint_bytes_on_disk == 3 * (12 * numbers + 8 * 4608) + 4 * numbers
    parts = ("parameters", "optimiser", "gradients", "batch", "hidden", "buffer", "evaluation")
    assert needed.total == needed.on_device == sum(getattr(needed, p) for p in parts)


def test_dense_autograd_holds_the_hidden_layer_of_the_batch():
    config = TrainConfig(d_sae=4608, batch_size=2048, backend="sae_lens")
    assert plan(config, 576, 0).hidden == 7 * 2048 * 4608 * 4
    standard = TrainConfig(d_sae=4608, batch_size=2048, arch="standard")
    assert plan(standard, 576, 0).hidden == 7 * 2048 * 4608 * 4


@pytest.mark.parametrize("arch", ALL)
def test_parameters_are_counted_as_they_are(arch, store):
    config = TrainConfig(arch=arch, d_sae=64, k=3)
    sae = build_training_sae(config, store.train)
    assert n_parameters(config, 32) == sum(p.numel() for p in sae.parameters())


def test_the_buffer_is_bounded_and_can_be_lowered():
    rows = 10 * BUFFER_BYTES // (4 * 576)
    assert plan(TrainConfig(), 576, rows).buffer == BUFFER_BYTES + 21 * rows
    quarter = plan(TrainConfig(buffer_share=0.25), 576, 10_000)
    assert quarter.buffer == 2500 * 576 * 4 + 21 * 10_000


def test_on_a_gpu_buffer_and_evaluation_stay_outside():
    needed = plan(TrainConfig(), 576, 10_000, "cuda:0")
    assert needed.on_device == needed.total - needed.buffer - needed.evaluation


def test_a_million_latents_at_width_4096():
    needed = plan(TrainConfig(d_sae=10**6, k=64, batch_size=8192), 4096, 10**9)
    assert needed.parameters == 4 * (2 * 4096 * 10**6 + 4096 + 10**6)
    assert human(needed.parameters) == "30.5 GiB"
    assert needed.total > 120 * 2**30


@pytest.mark.parametrize(
    ("changed", "available", "told"),
    [
        ({"d_sae": 10**6}, 10**9, r"training needs about .*optimiser.*; lower d_sae \(1000000\)"),
        ({"batch_size": 10**7, "backend": "sae_lens"}, 10**9, r"lower batch_size \(10000000\)"),
        ({}, 10**6, "cpu has 976.6 KiB free"),
    ],
)
def test_too_little_memory(monkeypatch, tmp_path, changed, available, told):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": available)
    config = TrainConfig(**changed)
    with pytest.raises(MachineError, match=told):
        check_machine(plan(config, 576, 1000), config, tmp_path)


def test_a_large_buffer_names_its_setting(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 2**30)
    config = TrainConfig(d_sae=64, k=4)
    with pytest.raises(MachineError, match=r"lower buffer_share \(1.0\)"):
        check_machine(plan(config, 576, 10**7), config, tmp_path)


def test_too_little_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": None)
    monkeypatch.setattr(memory, "free_disk", lambda place: 10**6)
    config = TrainConfig(watch=WatchConfig(keep_checkpoints=5))
    with pytest.raises(MachineError, match=r"checkpoints and SAE need .*keep_checkpoints \(5\)"):
        check_machine(plan(config, 576, 1000), config, tmp_path)


def test_checkpoints_that_will_be_replaced_do_not_count_twice(monkeypatch, tmp_path, store, config):
    """A run that began with just enough room can be continued."""
    every = WatchConfig(checkpoint_every_s=0)
    short = config.model_copy(update={"n_samples": 2048, "watch": every})
    needed = plan(short, 32, 4096).checkpoint_bytes_on_disk
    monkeypatch.setattr("affectlens.training.trainer.finish", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(store, short, tmp_path / "sae", quiet=True)
    saved = sum(p.stat().st_size for p in (tmp_path / "sae.training").glob("checkpoint-*"))
    monkeypatch.setattr(memory, "free_disk", lambda place: needed - saved)
    with pytest.raises(ZeroDivisionError):
        train(store, short, tmp_path / "sae", quiet=True)
    monkeypatch.setattr(memory, "free_disk", lambda place: needed - saved - 1)
    with pytest.raises(MachineError, match="checkpoints and SAE need"):
        train(store, short, tmp_path / "sae", quiet=True)


def test_the_rows_for_the_starting_values_are_counted_for_streams_too():
    row = 576 * 4
    assert plan(TrainConfig(), 576, 0).evaluation == 3 * CALIBRATION_ROWS * row
    assert plan(TrainConfig(), 576, 10**6).evaluation == 2 * CALIBRATION_ROWS * row


PEAK = """
import resource
import torch
from affectlens.training.config import TrainConfig
from affectlens.training.trainer import fresh_state

rows = torch.randn(40_000, 512)
config = TrainConfig(d_sae=32, k=2, backend="sae_lens")
fresh_state(config, rows[:100])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fresh_state(config, rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_the_starting_values_take_one_more_copy_of_their_rows():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * 40_000 * 512 * 4


@pytest.mark.parametrize("changed", [{"d_sae": 10**18}, {"batch_size": 10**18}])
def test_sizes_beyond_any_tensor(changed):
    with pytest.raises(MachineError, match="more bytes than a tensor can have"):
        plan(TrainConfig(**changed), 576, 1000)


def test_training_refuses_before_anything_is_read(monkeypatch, tmp_path, store, config):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 10)
    monkeypatch.setattr(type(store), "iter_batches", None)
    with pytest.raises(MachineError, match="training needs about"):
        train(store, config, tmp_path / "sae", quiet=True)
    assert not (tmp_path / "sae").exists()


def test_what_the_machine_tells(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert memory._system_bytes(meminfo) == 2048 * 1024
    assert memory._system_bytes(tmp_path / "absent") is not None
    assert memory._cgroup_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    assert memory._cgroup_bytes(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 150\n")
    assert memory._cgroup_bytes(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_bytes(tmp_path) is None
    assert memory.available_bytes() > 2**20
    assert memory.free_disk(tmp_path / "not" / "there") > 2**20


def test_sizes_in_words():
    assert [human(n) for n in (0, 1023, 1536, 3 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
    ]
