import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sae_lens
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig

from affectlens.data.artifacts import folder_lock
from affectlens.data.errors import ArtifactError, ConfigError, MachineError
from affectlens.features.results import SAEMetrics
from affectlens.sae.loading import load_sae
from affectlens.training import trainer
from affectlens.training.config import TrainConfig
from affectlens.training.steps import choose_backend
from affectlens.training.trainer import learning_rate, train

HOOK = "blocks.1.hook_resid_post"
DIRECTIONS_SEED = 77


@pytest.fixture(scope="module")
def topk(store, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "sae"
    return train(store, config, out, quiet=True), out


def test_planted_directions_are_found(topk, store):
    sae, _ = topk
    g = torch.Generator().manual_seed(DIRECTIONS_SEED)
    true = torch.nn.functional.normalize(torch.randn(48, 32, generator=g), dim=-1)
    best = (true @ sae.W_dec.T).amax(1)
    assert (best > 0.95).double().mean() > 0.9


def test_saved_sae_reads_raw_residuals(topk, store):
    sae, out = topk
    metrics = SAEMetrics.read(out.parent)
    assert metrics.fvu < 0.1
    assert metrics.l0 == pytest.approx(3, abs=0.05)
    reference = sae_lens.SAE.load_from_disk(out)
    assert torch.equal(reference.encode(store.held), sae.encode(store.held))
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(96))
    assert load_sae(out).fingerprint == sae.fingerprint


def test_metrics_and_metadata(topk, config):
    _, out = topk
    metrics = SAEMetrics.read(out.parent)
    assert (metrics.architecture, metrics.k, metrics.d_sae) == ("topk", 3.0, 96)
    assert metrics.n_training_samples == 235 * 256
    assert metrics.n_heldout_tokens == 512
    assert metrics.ce_clean is None
    curve = [point["fvu"] for point in metrics.history]
    assert len(curve) >= 20
    assert curve[-1] < curve[0] / 3
    info = load_sae(out).info
    assert (info.hook_name, info.model_name, info.model_fingerprint) == (HOOK, "m", "f" * 64)
    assert (info.norm_limit, info.skip_first, info.k) == (99.0, True, 3)
    run = json.loads((out / "cfg.json").read_text())["metadata"]["training_run"]
    assert (run["seed"], run["lr"], run["store_sha256"]) == (0, config.lr, "s" * 64)


def test_nothing_is_left_beside_the_result(topk):
    _, out = topk
    assert sorted(p.name for p in out.parent.iterdir()) == ["sae"]
    assert sorted(p.name for p in out.iterdir()) == [
        "cfg.json", "metrics.json", "sae_weights.safetensors"]  # fmt: skip


def test_a_finished_run_is_not_repeated_but_another_is_refused(topk, store, config, monkeypatch):
    sae, out = topk
    monkeypatch.setattr(trainer, "_run", None)
    assert train(store, config, out, quiet=True).fingerprint == sae.fingerprint
    with pytest.raises(ArtifactError, match=r"seed was 0, now 1"):
        train(store, config.model_copy(update={"seed": 1}), out, quiet=True)


def test_a_folder_of_something_else_is_refused(store, config, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match="holds no SAE"):
        train(store, config, tmp_path, quiet=True)


def test_equal_seed_equal_weights_other_seed_other_weights(store, config, tmp_path):
    short = config.model_copy(update={"n_samples": 2000})
    state = torch.random.get_rng_state()
    one = train(store, short, tmp_path / "a", quiet=True)
    two = train(store, short, tmp_path / "b", quiet=True)
    other = train(store, short.model_copy(update={"seed": 1}), tmp_path / "c", quiet=True)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_units_of_the_activations_do_not_matter(store, config, tmp_path, factor):
    from dataclasses import replace

    short = config.model_copy(update={"n_samples": 10_000})
    base = train(store, short, tmp_path / "a", quiet=True)
    scaled = replace(store, train=store.train * factor, held=store.held * factor)
    other = train(scaled, short, tmp_path / "b", quiet=True)
    a, b = (SAEMetrics.read(_as_run(tmp_path, n)).fvu for n in ("a", "b"))
    assert a == pytest.approx(b, rel=0.02)
    assert base.W_dec.shape == other.W_dec.shape


def _as_run(root: Path, name: str) -> Path:
    run = root / f"run-{name}"
    run.mkdir()
    (run / "sae").symlink_to(root / name)
    return run


def test_batchtopk_keeps_its_l0_at_inference(store, config, tmp_path):
    settings = config.model_copy(update={"arch": "batchtopk", "n_samples": 20_000})
    sae = train(store, settings, tmp_path / "sae", quiet=True)
    assert sae.info.architecture == "jumprelu"
    metrics = SAEMetrics.read(tmp_path)
    assert metrics.k == 3.0
    assert metrics.l0 == pytest.approx(3, rel=0.05)
    assert metrics.fvu < 0.3
    single = torch.cat([sae.encode(row[None]) for row in store.held[:20]])
    torch.testing.assert_close(single, sae.encode(store.held[:20]))


def test_interrupted_and_resumed_equals_uninterrupted(store, config, tmp_path, monkeypatch):
    short = config.model_copy(update={"n_samples": 10_000, "checkpoint_every_s": 0})
    whole = train(store, short, tmp_path / "whole", quiet=True)
    for stop_at in (1, 7, 30):
        with monkeypatch.context() as patch:
            original = trainer._step

            def stop(*args, limit=stop_at, step=original, **kwargs):
                if args[2].step >= limit:
                    raise RuntimeError("power cut")
                return step(*args, **kwargs)

            patch.setattr(trainer, "_step", stop)
            with pytest.raises(RuntimeError, match="power cut"):
                train(store, short, tmp_path / "parts", quiet=True)
        assert not (tmp_path / "parts").exists()
    resumed = train(store, short, tmp_path / "parts", quiet=True)
    assert resumed.fingerprint == whole.fingerprint
    names = ("whole", "parts")
    a, b = ((tmp_path / n / "metrics.json").read_text() for n in names)
    assert a == b


def test_a_checkpoint_of_other_settings_is_refused(store, config, tmp_path, monkeypatch):
    short = config.model_copy(update={"n_samples": 2000, "checkpoint_every_s": 0})
    monkeypatch.setattr(trainer, "_finish", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(store, short, tmp_path / "sae", quiet=True)
    with pytest.raises(ArtifactError, match=r"k was 3, now 4"):
        train(store, short.model_copy(update={"k": 4}), tmp_path / "sae", quiet=True)
    path = tmp_path / "sae.training" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="cannot be read as a checkpoint"):
        train(store, short, tmp_path / "sae", quiet=True)


def test_control_c_saves_and_stops(store, config, tmp_path, monkeypatch):
    short = config.model_copy(update={"n_samples": 5_000, "checkpoint_every_s": 1e9})
    whole = train(store, short, tmp_path / "whole", quiet=True)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        original = trainer._step

        def press(*args, **kwargs):
            if args[2].step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*args, **kwargs)

        patch.setattr(trainer, "_step", press)
        with pytest.raises(KeyboardInterrupt):
            train(store, short, tmp_path / "parts", quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "parts.training" / "checkpoint.safetensors").exists()
    assert train(store, short, tmp_path / "parts", quiet=True).fingerprint == whole.fingerprint


def test_works_outside_the_main_thread(store, config, tmp_path):
    short = config.model_copy(update={"n_samples": 1000})
    found = []
    thread = threading.Thread(
        target=lambda: found.append(train(store, short, tmp_path / "sae", quiet=True))
    )
    thread.start()
    thread.join()
    assert found[0].d_sae == 96


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
from affectlens.training.config import TrainConfig
from affectlens.training.trainer import train
from conftest import MemoryStore, planted_rows
torch.set_num_threads(1)
store = MemoryStore(planted_rows(1024), planted_rows(128, seed=1))
sys.stdout.write("ready\\n"); sys.stdout.flush()
train(store, TrainConfig.parse({settings!r}), Path({out!r}), quiet=True)
"""


def test_kill_9_and_run_again_gives_the_same_files(small_store, tmp_path):
    settings = {"d_sae": 64, "k": 3, "n_samples": 6_000, "batch_size": 16, "backend": "sae_lens"}
    often = {**settings, "checkpoint_every_s": 0.05}
    threads = torch.get_num_threads()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code = KILLED.format(here=str(Path(__file__).parent), settings=often, out=str(parts))
    checkpoint = tmp_path / "parts.training" / "checkpoint.safetensors"
    for delay in (0.05,):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert checkpoint.exists() or parts.exists()
    try:
        torch.set_num_threads(1)
        train(small_store, TrainConfig.parse(settings), parts, quiet=True)
        train(small_store, TrainConfig.parse(settings), whole, quiet=True)
    finally:
        torch.set_num_threads(threads)
    for name in ("sae_weights.safetensors", "metrics.json", "cfg.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]


def test_two_trainers_on_one_folder(store, config, tmp_path):
    with folder_lock(tmp_path / "sae.training"), pytest.raises(MachineError, match="being written"):
        train(store, config, tmp_path / "sae", quiet=True)


def test_learning_rate_shape():
    config = TrainConfig(lr=2.0, lr_warmup_share=0.1, lr_decay_share=0.2)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[79] == 2.0
    assert rates[99] == pytest.approx(0.1)
    assert all(a <= b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[79:]))
    flat = TrainConfig(lr=2.0, lr_warmup_share=0, lr_decay_share=0)
    assert {learning_rate(flat, step, 10) for step in range(10)} == {2.0}


def test_impossible_settings(store, config, tmp_path):
    with pytest.raises(ConfigError, match=r"k \(96\).*d_sae \(96\)"):
        train(store, config.model_copy(update={"k": 96}), tmp_path / "sae")
    with pytest.raises(ConfigError, match="layer 4 is not in the store"):
        train(store, config.model_copy(update={"layer": 4}), tmp_path / "sae")


def test_constant_activations_are_an_error(store, config, tmp_path):
    from dataclasses import replace

    flat = replace(store, train=torch.ones(100, 32))
    with pytest.raises(ArtifactError, match="constant or not finite"):
        train(flat, config, tmp_path / "sae", quiet=True)


def test_nan_activations_are_an_error(store, config, tmp_path):
    from dataclasses import replace

    rows = store.train.clone()
    rows[3, 3] = float("nan")
    with pytest.raises(ArtifactError, match="constant or not finite"):
        train(replace(store, train=rows), config, tmp_path / "sae", quiet=True)


@pytest.mark.parametrize("backend", ["sae_lens", "numba"])
def test_weights_follow_the_trainer_of_sae_lens(store, config, backend):
    settings = config.model_copy(
        update={"backend": backend, "lr_warmup_share": 0, "lr_decay_share": 0, "dead_window": 10**9}
    )
    rows = store.train[:2048]
    mine = trainer._fresh_state(store, settings, HOOK, "cpu")
    theirs = trainer._fresh_state(store, settings, HOOK, "cpu")
    reference = sae_lens.SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=2048,
            train_batch_size_samples=128,
            lr=settings.lr,
            lr_end=settings.lr,
            lr_scheduler_name="constant",
            n_checkpoints=0,
            checkpoint_path=None,
            device="cpu",
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=theirs.sae,
        data_provider=iter([]),
    )
    backend_used = choose_backend(settings, mine.sae)
    for batch in rows.split(128):
        trainer._step(batch, settings, mine, backend_used, 16)
        reference.step(batch * theirs.scale)
    for name, value in mine.sae.named_parameters():
        wanted = dict(theirs.sae.named_parameters())[name]
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-4)


def test_leftovers_of_a_killed_save_are_removed(store, config, tmp_path):
    left = tmp_path / ".staged-1-sae"
    left.mkdir()
    (left / "cfg.json").write_text("{", encoding="utf-8")
    other = tmp_path / ".staged-1-other"
    other.mkdir()
    train(store, config, tmp_path / "sae", quiet=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".staged-1-other", "sae"]


FULL = """
import resource, sys
from pathlib import Path

sys.path.insert(0, {here!r})
import torch
from affectlens.training.config import TrainConfig
from affectlens.training.trainer import train
from conftest import MemoryStore, planted_rows

store = MemoryStore(planted_rows(1024), planted_rows(128, seed=1))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    train(store, TrainConfig.parse({settings!r}), Path({out!r}), quiet=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_fills_leaves_no_half_file(tmp_path):
    settings = {"d_sae": 64, "k": 3, "n_samples": 320, "batch_size": 16, "checkpoint_every_s": 0}
    code = FULL.format(
        here=str(Path(__file__).parent), settings=settings, out=str(tmp_path / "sae"), limit=2000
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MachineError the disk is full while writing"), done.stderr
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert not left
