import itertools
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sae_lens
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig

from affectlens.data.artifacts import folder_lock
from affectlens.data.errors import ArtifactError, ConfigError, MachineError
from affectlens.features.results import SAEMetrics
from affectlens.sae.loading import load_sae
from affectlens.training import finish as finishing
from affectlens.training import trainer
from affectlens.training.config import SparsityConfig
from affectlens.training.finish import to_inference
from affectlens.training.loop import train_step
from affectlens.training.thresholds import BATCH_ARCHS
from affectlens.training.trainer import fresh_state, train, train_on

HOOK = "blocks.1.hook_resid_post"
DIRECTIONS_SEED = 77
ALL = ("topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated")


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
        "cfg.json", "metrics.json", "metrics.jsonl", "sae_weights.safetensors"]  # fmt: skip


def test_a_finished_run_is_not_repeated_but_another_is_refused(topk, store, config, monkeypatch):
    sae, out = topk
    monkeypatch.setattr(trainer, "fit", None)
    assert train(store, config, out, quiet=True).fingerprint == sae.fingerprint
    with pytest.raises(ArtifactError, match=r"seed was 0, now 1"):
        train(store, config.model_copy(update={"seed": 1}), out, quiet=True)


def test_a_folder_of_something_else_is_refused(store, config, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match="holds no SAE"):
        train(store, config, tmp_path, quiet=True)


def test_a_file_or_a_foreign_sae_in_the_way_is_refused(store, config, tmp_path):
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ArtifactError, match="holds no SAE"):
        train(store, config, tmp_path / "file", quiet=True)
    for i, cfg in enumerate(("[]", '{"metadata": 3}', '{"architecture": "standard"}')):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "cfg.json").write_text(cfg)
        with pytest.raises(ArtifactError, match="was not trained here"):
            train(store, config, tmp_path / str(i), quiet=True)


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


@pytest.mark.parametrize("n_steps", [1, 10, 100])
@pytest.mark.parametrize("arch", BATCH_ARCHS)
def test_l0_of_inference_holds_on_fresh_rows(store, fresh_rows, config, tmp_path, arch, n_steps):
    """Not those that trained it, nor those that set its threshold."""
    changed = {"arch": arch, "n_samples": n_steps * 64, "batch_size": 64, "k": 6}
    held = replace(store, held=fresh_rows[:4096])
    sae = train(held, config.model_copy(update=changed), tmp_path / "sae", quiet=True)
    active = (sae.encode(fresh_rows[4096:]) > 0).sum(1)
    assert float(active.double().mean()) == pytest.approx(6, rel=0.05)


def test_works_outside_the_main_thread(store, config, tmp_path):
    short = config.model_copy(update={"n_samples": 1000})
    found = []
    thread = threading.Thread(
        target=lambda: found.append(train(store, short, tmp_path / "sae", quiet=True))
    )
    thread.start()
    thread.join()
    assert found[0].d_sae == 96


def test_two_trainers_on_one_folder(store, config, tmp_path):
    with folder_lock(tmp_path / "sae.training"), pytest.raises(MachineError, match="being written"):
        train(store, config, tmp_path / "sae", quiet=True)


def test_impossible_settings(store, config, tmp_path):
    with pytest.raises(ConfigError, match=r"k \(96\).*d_sae \(96\)"):
        train(store, config.model_copy(update={"k": 96}), tmp_path / "sae")
    with pytest.raises(ConfigError, match="layer 4 is not in the store"):
        train(store, config.model_copy(update={"layer": 4}), tmp_path / "sae")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(store, config, tmp_path, device):
    with pytest.raises(ConfigError, match=rf"device '{device}' cannot be used: .*; try 'cpu'"):
        train(store, config, tmp_path / "sae", quiet=True, device=device)


@pytest.mark.parametrize("arch", ["standard", "gated"])
def test_k_is_nothing_where_it_is_not_read(store, config, tmp_path, arch):
    changed = {"arch": arch, "k": 1000, "n_samples": 512}
    sae = train(store, config.model_copy(update=changed), tmp_path / "sae", quiet=True)
    assert sae.info.k is None
    assert load_sae(tmp_path / "sae").info.k is None
    metrics = SAEMetrics.read(tmp_path)
    assert metrics.k == metrics.l0


@dataclass
class Model:
    """What training looks at before it needs a model."""

    name: str = "other"
    d_model: int = 32
    fingerprint: str = "0" * 64


@pytest.mark.parametrize("lm", [Model(), Model(d_model=31, fingerprint="f" * 64)])
def test_another_model_is_refused_before_the_training(store, config, tmp_path, monkeypatch, lm):
    monkeypatch.setattr(trainer, "fit", None)
    with pytest.raises(ConfigError, match=r"harvested from model 'm' .* lm is 'other'"):
        train(store, config, tmp_path / "sae", lm=lm, quiet=True)


def test_held_out_rows_that_measure_nothing_are_refused_first(store, config, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "fit", None)
    poisoned = store.held.clone()
    poisoned[5, 3] = float("nan")
    with pytest.raises(ArtifactError, match=r"1 of 512 .* held-out part are not finite: rows 5;"):
        train(replace(store, held=poisoned), config, tmp_path / "sae", quiet=True)
    with pytest.raises(ArtifactError, match="held-out part are not finite"):
        train_on([store.train], config, tmp_path / "on", d_in=32, heldout=poisoned, quiet=True)
    for rows in (store.held[:1], store.held[:1].repeat(5, 1)):
        with pytest.raises(ArtifactError, match="no two of them different"):
            train(replace(store, held=rows), config, tmp_path / "sae", quiet=True)


def test_constant_activations_are_an_error(store, config, tmp_path):
    flat = replace(store, train=torch.ones(100, 32))
    with pytest.raises(ArtifactError, match="constant or not finite"):
        train(flat, config, tmp_path / "sae", quiet=True)


def test_nan_activations_are_an_error(store, config, tmp_path):
    rows = store.train.clone()
    rows[3, 3], rows[70] = float("nan"), float("inf")
    with pytest.raises(
        ArtifactError, match=r"2 of 4096 activations in the sample.*not finite.*position 3 of"
    ):
        train(replace(store, train=rows), config, tmp_path / "sae", quiet=True)


@pytest.mark.parametrize(
    ("arch", "n_steps"), [*itertools.product(ALL, [5, 50]), *itertools.product(BATCH_ARCHS, [500])]
)
def test_what_is_saved_is_what_was_trained(store, config, tmp_path, arch, n_steps):
    """After any number of steps: L0 of inference, the metrics, and what sae-lens makes of it."""
    changed = {"arch": arch, "n_samples": n_steps * 64, "batch_size": 64}
    sae = train(store, config.model_copy(update=changed), tmp_path / "sae", quiet=True)
    measured = float((sae.encode(store.held) > 0).sum(1).double().mean())
    if arch in ("topk", *BATCH_ARCHS):
        assert measured == pytest.approx(config.k, rel=0.05)
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert cfg["metadata"]["l0"] == pytest.approx(measured, rel=1e-6)
    assert cfg["metadata"]["training_end"]["reason"] == "n_samples"
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(96))
    reference = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    assert torch.equal(reference.encode(store.held), sae.encode(store.held))
    assert torch.equal(reference.decode(reference.encode(store.held)), sae.reconstruct(store.held))


@pytest.mark.parametrize("arch", ["jumprelu", "standard", "gated"])
def test_folding_changes_no_reconstruction(store, config, arch):
    settings = config.model_copy(update={"arch": arch})
    state = fresh_state(settings, store.train)
    for rows in store.train.clone().split(256):
        train_step(rows, settings, state, 1e-2)
    scaled = store.held * state.scale
    wanted = state.sae.decode(state.sae.encode(scaled)) / state.scale
    raw = to_inference(state, settings)
    torch.testing.assert_close(raw.decode(raw.encode(store.held)), wanted, rtol=1e-4, atol=1e-3)


def test_few_positive_latents_are_kept_and_told(store, config, tmp_path, monkeypatch, caplog):
    changed = {"arch": "batchtopk", "n_samples": 512, "lr": 1e-9}
    original = finishing.to_inference

    def shy(*args):
        raw = original(*args)
        raw.b_enc.data -= 1e3
        return raw

    monkeypatch.setattr(finishing, "to_inference", shy)
    sae = train(store, config.model_copy(update=changed), tmp_path / "sae", quiet=True)
    assert float(sae.sae.threshold.max()) == 0
    assert "L0 is below k" in (tmp_path / "sae" / "metrics.jsonl").read_text()
    assert "train longer or with a smaller k" in caplog.text


@pytest.mark.parametrize("backend", ["sae_lens", "numba"])
def test_weights_follow_the_trainer_of_sae_lens(store, config, backend):
    settings = config.model_copy(update={"backend": backend, "dead_window": 10**9})
    settings = settings.model_copy(update={"sparsity": SparsityConfig(decoder_norm="free")})
    rows = store.train[:2048]
    mine, theirs = fresh_state(settings, store.train), fresh_state(settings, store.train)
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
    for batch in rows.split(128):
        reference.step(batch * theirs.scale)
        train_step(batch.clone(), settings, mine, settings.lr)
    for name, value in mine.sae.named_parameters():
        wanted = dict(theirs.sae.named_parameters())[name]
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-4)


def test_leftovers_of_a_killed_save_are_removed(store, config, tmp_path):
    left = tmp_path / ".staged-1-sae"
    left.mkdir()
    (left / "cfg.json").write_text("{", encoding="utf-8")
    other = tmp_path / ".staged-1-other"
    other.mkdir()
    train(store, config.model_copy(update={"n_samples": 500}), tmp_path / "sae", quiet=True)
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
    settings = {"d_sae": 64, "k": 3, "n_samples": 320, "batch_size": 16}
    # Not numba: where its kernels are not cached yet, it would write them first.
    settings |= {"backend": "sae_lens", "watch": {"checkpoint_every_s": 0}}
    code = FULL.format(
        here=str(Path(__file__).parent), settings=settings, out=str(tmp_path / "sae"), limit=2000
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MachineError the disk is full while writing"), done.stderr
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert [p.name for p in left] in ([], ["metrics.jsonl"])
