"""Checkpoints: whatever happens to the file, the state that was saved or an error that says so."""

import errno
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from affectlens.training.config import TrainConfig, WatchConfig
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


@pytest.mark.parametrize("backend", ["sae_lens", "numba"])
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


def attempt(content, folder, saved_state):
    """Load `content`; it must be refused, or be the saved state."""
    path = folder / "checkpoint-3.safetensors"
    path.write_bytes(content)
    other = state()
    try:
        load_checkpoint(path, other, IDENTITY)
    except ArtifactError as error:
        assert str(path) in str(error)
        assert "delete" in str(error)
        return False
    assert same(saved_state, other)
    return True


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_prefix_is_refused(saved, tmp_path_factory, data):
    length = data.draw(st.integers(0, len(saved[1]) - 1))
    assert not attempt(saved[1][:length], tmp_path_factory.getbasetemp(), saved[0])


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_every_flipped_byte_is_refused_or_harmless(saved, tmp_path_factory, data):
    content = bytearray(saved[1])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.sampled_from([1, 2, 0x20, 0x80, 0xFF]))
    attempt(bytes(content), tmp_path_factory.getbasetemp(), saved[0])


def test_flips_in_the_tensors_are_always_noticed(saved, tmp_path):
    for place in range(len(saved[1]) - 200, len(saved[1]), 7):
        content = bytearray(saved[1])
        content[place] ^= 1
        assert not attempt(bytes(content), tmp_path, saved[0])


def test_foreign_files_and_pickles(saved, tmp_path):
    path = tmp_path / "checkpoint-3.safetensors"
    save_file({"W": torch.ones(2)}, path)
    foreign = path.read_bytes()
    save_file({"W": torch.ones(2)}, path, metadata={"affectlens": "[]"})
    listed = path.read_bytes()
    save_file({"W": torch.ones(2)}, path, metadata={"affectlens": '{"format_version": 99}'})
    for content in (foreign, listed, path.read_bytes(), pickle.dumps({"a": 1}), b"", b"PK\x03\x04"):
        assert not attempt(content, tmp_path, saved[0])


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
