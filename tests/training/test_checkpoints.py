"""Checkpoints: whatever happens to the file, the state that was saved or an error that says so."""

import errno
import json
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from affectlens.data.errors import ArtifactError, MachineError
from affectlens.training import checkpoints
from affectlens.training.checkpoints import (
    checkpoint_path,
    load_checkpoint,
    prune_checkpoints,
    restore_newest,
    samples_in,
    save_checkpoint,
)
from affectlens.training.config import SPARSE_ARCHS, TrainConfig, WatchConfig
from affectlens.training.loop import Saver, train_step
from affectlens.training.trainer import fresh_state, train

IDENTITY = {"seed": 0, "k": 2}
CONFIG = TrainConfig(d_sae=6, k=2, n_samples=64, batch_size=8, backend="sae_lens")


def rows(seed=0):
    return torch.randn(64, 3, generator=torch.Generator().manual_seed(seed))


def state(config=CONFIG, n_steps=0):
    made = fresh_state(config, rows())
    for i in range(n_steps):
        train_step(rows(i)[:8], config, made, 1e-2)
    return made


def tensors(of):
    found = {f"sae.{n}": t for n, t in of.sae.state_dict().items()}
    return found | of.backend.state() | {"since": of.since_fired, "scale": torch.tensor(of.scale)}


def same(a, b):
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x) and a.step == b.step


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    made = state(n_steps=3)
    made.history = [{"fvu": 0.5, "n_samples": 8.0}]
    path = checkpoint_path(tmp_path_factory.mktemp("c"), 3)
    save_checkpoint(path, made, IDENTITY)
    return made, path.read_bytes()


@pytest.mark.parametrize("backend", ["sae_lens", "numba", "torch"])
@pytest.mark.parametrize("n_steps", [0, 3])
def test_what_was_saved_comes_back_and_goes_on_alike(tmp_path, backend, n_steps):
    config = CONFIG.model_copy(update={"backend": backend})
    made, other = state(config, n_steps), state(config.model_copy(update={"seed": 1}), 1)
    other = other if n_steps else state(config.model_copy(update={"seed": 1}))
    path = tmp_path / "checkpoint-3.safetensors"
    save_checkpoint(path, made, IDENTITY)
    load_checkpoint(path, other, IDENTITY)
    assert same(made, other)
    for one in (made, other):
        train_step(rows(9)[:8], config, one, 1e-2)
    assert same(made, other)


def test_history_and_counts_come_back(saved, tmp_path):
    path = tmp_path / "checkpoint-3.safetensors"
    path.write_bytes(saved[1])
    other = state()
    load_checkpoint(path, other, IDENTITY)
    assert (other.step, other.n_samples, other.stopped_at) == (3, 24, None)
    assert other.history == [{"fvu": 0.5, "n_samples": 8.0}]
    assert samples_in(tmp_path) == 24
    assert samples_in(tmp_path / "absent") == 0


def attempt(content, folder, untouched):
    """Load `content`, which must be refused and leave the state as it was."""
    path = folder / "checkpoint-3.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(path, untouched, IDENTITY)
    assert str(path) in str(caught.value)
    assert "delete" in str(caught.value)


def test_every_prefix_is_refused(saved, tmp_path):
    content, other = saved[1], state()
    assert len(content) < 4096
    for length in range(len(content)):
        attempt(content[:length], tmp_path, other)
    assert same(other, state())


def test_every_flipped_byte_is_refused(saved, tmp_path):
    """Each byte once with one bit and once with all bits turned."""
    other = state()
    for place in range(len(saved[1])):
        for mask in (1 << place % 8, 0xFF):
            content = bytearray(saved[1])
            content[place] ^= mask
            attempt(bytes(content), tmp_path, other)
    assert same(other, state())


def test_another_spelling_of_the_same_content_is_refused(saved, tmp_path):
    """A byte may change and leave the meaning: in a number's exponent, in the padding."""
    path, other = tmp_path / "checkpoint-3.safetensors", state()
    for i in range(8):
        save_checkpoint(path, saved[0], {**IDENTITY, "lr": 1e-05, "text": "x" * i})
        content = path.read_bytes()
        assert content.count(b"1e-05") == 1
        attempt(content.replace(b"1e-05", b"1E-05"), tmp_path, other)
        end = 8 + int.from_bytes(content[:8], "little")
        for place in range(len(content[:end].rstrip(b" ")), end):
            attempt(content[:place] + b"\t" + content[place + 1 :], tmp_path, other)


@pytest.mark.parametrize("backend", ["sae_lens", "numba", "torch"])
@pytest.mark.parametrize(
    "arch", ["topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated"]
)
def test_a_step_draws_no_random_number(arch, backend):
    """So a checkpoint needs no state of a generator."""
    backend = backend if arch in SPARSE_ARCHS else "sae_lens"
    made = state(CONFIG.model_copy(update={"arch": arch, "backend": backend, "dead_window": 8}))
    before = torch.random.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    for i in range(4):
        train_step(rows(i)[:8], CONFIG.model_copy(update={"arch": arch}), made, 1e-2)
    after = torch.random.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_checkpoint_that_still_holds_a_random_state_is_read(saved, tmp_path, monkeypatch):
    """As earlier releases wrote it, into the same format."""
    path, original = tmp_path / "checkpoint-3.safetensors", checkpoints._digest

    def with_state(header, content):
        content["torch_random_state"] = torch.random.get_rng_state()
        return original(header, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_digest", with_state)
        save_checkpoint(path, saved[0], IDENTITY)
    assert path.stat().st_size > 5000
    other = state()
    load_checkpoint(path, other, IDENTITY)
    assert same(saved[0], other)


def test_foreign_files_and_pickles(saved, tmp_path):
    path = tmp_path / "checkpoint-3.safetensors"
    save_file({"W": torch.ones(2)}, path)
    foreign = path.read_bytes()
    save_file({"W": torch.ones(2)}, path, metadata={"affectlens": "[]"})
    listed = path.read_bytes()
    save_file({"W": torch.ones(2)}, path, metadata={"affectlens": '{"format_version": 99}'})
    for content in (foreign, listed, path.read_bytes(), pickle.dumps({"a": 1}), b"", b"PK\x03\x04"):
        attempt(content, tmp_path, state())


def test_a_run_of_other_settings_is_no_damage(saved, tmp_path):
    (tmp_path / "checkpoint-3.safetensors").write_bytes(saved[1])
    with pytest.raises(ArtifactError, match="k was 2, now 5"):
        restore_newest(tmp_path, state(), {**IDENTITY, "k": 5})
    assert (tmp_path / "checkpoint-3.safetensors").exists()


def test_weights_of_another_size_are_refused(saved, tmp_path):
    path = tmp_path / "checkpoint-3.safetensors"
    path.write_bytes(saved[1])
    with pytest.raises(ArtifactError, match="weights of another form"):
        load_checkpoint(path, state(CONFIG.model_copy(update={"d_sae": 7})), IDENTITY)


def test_a_bad_newest_falls_back_to_the_one_before(tmp_path, caplog):
    made = state()
    for step in (9, 10, 11):
        made.step = step
        save_checkpoint(checkpoint_path(tmp_path, step), made, IDENTITY)
    newest = checkpoint_path(tmp_path, 11)
    newest.write_bytes(newest.read_bytes()[:-9])
    other = state()
    assert restore_newest(tmp_path, other, IDENTITY)
    assert other.step == 10
    assert "training goes on from checkpoint-10.safetensors" in caplog.text
    assert not newest.exists()
    for path in checkpoints.checkpoints(tmp_path):
        path.write_bytes(b"junk")
    with pytest.raises(ArtifactError, match=r"checkpoint-10\.safetensors cannot be read"):
        restore_newest(tmp_path, state(), IDENTITY)
    assert not restore_newest(tmp_path / "none", state(), IDENTITY)


def test_only_the_newest_stay(tmp_path):
    for step in (8, 9, 10, 100):
        checkpoint_path(tmp_path, step).touch()
    (tmp_path / "checkpoint-x.safetensors").touch()
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-10.safetensors",
        "checkpoint-100.safetensors",
        "checkpoint-x.safetensors",
    ]


def test_by_count_and_by_time(tmp_path):
    watch = WatchConfig(checkpoint_every_s=1e9, checkpoint_every_samples=100)
    saver = Saver(tmp_path, IDENTITY, CONFIG.model_copy(update={"watch": watch}))
    assert [saver.due(n, n + 64) for n in (0, 64, 128, 192)] == [False, True, False, True]
    often = WatchConfig(checkpoint_every_s=0)
    assert Saver(tmp_path, IDENTITY, CONFIG.model_copy(update={"watch": often})).due(0, 1)


def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch, store, config):
    watch = WatchConfig(checkpoint_every_samples=256)
    short = config.model_copy(update={"n_samples": 2048, "watch": watch})
    original, calls = checkpoints.save_file, []

    def full(content, path, **options):
        calls.append(path)
        if len(calls) == 4:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(content, path, **options)

    whole = train(store, short, tmp_path / "whole", quiet=True)
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(MachineError, match=r"disk is full while writing.*checkpoint-4"):
        train(store, short, tmp_path / "sae", quiet=True)
    left = sorted(p.name for p in (tmp_path / "sae.training").glob("*.safetensors"))
    assert left == ["checkpoint-2.safetensors", "checkpoint-3.safetensors"]
    assert not list((tmp_path / "sae.training").glob(".staged*"))
    monkeypatch.undo()
    assert train(store, short, tmp_path / "sae", quiet=True).fingerprint == whole.fingerprint
    header = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert header["metadata"]["training_end"]["n_samples"] == 2048
