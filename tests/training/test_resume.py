"""An interrupted training, continued, ends with what an uninterrupted one gives, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from affectlens.data.errors import ArtifactError
from affectlens.training import loop, trainer
from affectlens.training.checkpoints import checkpoints
from affectlens.training.config import WatchConfig
from affectlens.training.interrupts import deferred_interrupt
from affectlens.training.trainer import train

ALWAYS = WatchConfig(checkpoint_every_s=0)
NEVER = WatchConfig(checkpoint_every_s=1e9)


def test_kill_9_at_random_moments_for_every_architecture(tmp_path):
    script = Path(__file__).with_name("kill_training.py")
    seed = str(os.getpid())
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), seed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) == 12


@pytest.mark.parametrize("backend", ["sae_lens", "numba", "torch"])
def test_interrupted_and_resumed_equals_uninterrupted(
    store, config, tmp_path, monkeypatch, backend
):
    changed = {"n_samples": 10_000, "watch": ALWAYS, "backend": backend}
    short = config.model_copy(update=changed)
    whole = train(store, short, tmp_path / "whole", quiet=True)
    for stop_at in (1, 7, 30):
        with monkeypatch.context() as patch:
            original = loop.train_step

            def stop(*args, limit=stop_at, step=original):
                if args[2].step >= limit:
                    raise RuntimeError("power cut")
                return step(*args)

            patch.setattr(loop, "train_step", stop)
            with pytest.raises(RuntimeError, match="power cut"):
                train(store, short, tmp_path / "parts", quiet=True)
        assert not (tmp_path / "parts").exists()
        assert len(checkpoints(tmp_path / "parts.training")) == min(stop_at, 2)
    resumed = train(store, short, tmp_path / "parts", quiet=True)
    assert resumed.fingerprint == whole.fingerprint
    a, b = ((tmp_path / n / "metrics.json").read_text() for n in ("whole", "parts"))
    assert a == b
    lines = [json.loads(x) for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "end" not in line]
    assert steps == sorted(set(steps))
    assert len(steps) == len(json.loads(a)["history"])
    assert lines[-1]["end"] == "n_samples"


def test_a_checkpoint_of_other_settings_is_refused(store, config, tmp_path, monkeypatch):
    short = config.model_copy(update={"n_samples": 2000, "watch": ALWAYS})
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(store, short, tmp_path / "sae", quiet=True)
    with pytest.raises(ArtifactError, match=r"k was 3, now 4"):
        train(store, short.model_copy(update={"k": 4}), tmp_path / "sae", quiet=True)
    # How often to save and what to show may change in between.
    train(store, short.model_copy(update={"watch": NEVER}), tmp_path / "sae", quiet=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(store, config, tmp_path, monkeypatch, number):
    short = config.model_copy(update={"n_samples": 5_000, "watch": NEVER})
    whole = train(store, short, tmp_path / "whole", quiet=True)

    def told(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, told)
    try:
        with monkeypatch.context() as patch:
            original = loop.train_step

            def press(*args):
                if args[2].step == 5:
                    os.kill(os.getpid(), number)
                return original(*args)

            patch.setattr(loop, "train_step", press)
            with pytest.raises(KeyboardInterrupt):
                train(store, short, tmp_path / "parts", quiet=True)
        assert signal.getsignal(number) is told
    finally:
        signal.signal(number, before)
    saved = checkpoints(tmp_path / "parts.training")
    assert [p.name for p in saved] == ["checkpoint-6.safetensors"]
    assert train(store, short, tmp_path / "parts", quiet=True).fingerprint == whole.fingerprint


@pytest.mark.parametrize("saves", [True, False])
def test_a_signal_while_waiting_for_data_that_ends_is_not_lost(store, config, tmp_path, saves):
    short = config.model_copy(update={"n_samples": 10**6, "watch": NEVER})
    state = trainer.fresh_state(short, store.train)

    def rows():
        yield from store.train.clone().split(256)[:3]
        os.kill(os.getpid(), signal.SIGINT)

    saver = loop.Saver(tmp_path, {}, short) if saves else None
    with pytest.raises(KeyboardInterrupt):
        loop.fit(rows(), short, state, saver=saver, quiet=True)
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == (["checkpoint-3.safetensors"] if saves else [])


def test_a_signal_that_nobody_looked_at_acts_at_the_end():
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested == signal.SIGINT


def test_a_closing_line_is_written_once(store, config, tmp_path, monkeypatch):
    """Saved after the last step, closed, but the folder could not be written: then again."""
    short = config.model_copy(update={"n_samples": 1024, "watch": NEVER})
    original = loop.train_step

    def press(*args):
        if args[2].step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", press)
        with pytest.raises(KeyboardInterrupt):
            train(store, short, tmp_path / "sae", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("affectlens.training.finish.write_sae", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(store, short, tmp_path / "sae", quiet=True)
    train(store, short, tmp_path / "sae", quiet=True)
    lines = [json.loads(x) for x in (tmp_path / "sae/metrics.jsonl").read_text().splitlines()]
    assert ["end" in line for line in lines] == [False] * (len(lines) - 1) + [True]
