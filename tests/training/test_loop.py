"""The loop over an iterator: schedules, bad rows, early stop, evaluations."""

import itertools
import json

import pytest
import torch

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.shards import decode
from affectlens.data.store_writer import write_store
from affectlens.training.config import SparsityConfig, TrainConfig, WatchConfig
from affectlens.training.loop import (
    current_rate,
    fit,
    learning_rate,
    run_length,
    sparsity_factor,
    train_step,
)
from affectlens.training.trainer import fresh_state, train
from affectlens.training.watch import Watch, held_out_quality, no_more_gain


@pytest.fixture
def small(config):
    return config.model_copy(update={"n_samples": 2048})


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.points = []

    def log(self, point):
        self.points.append(dict(point))

    def close(self):
        self.points.append("closed")


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


def test_sparsity_rises_with_the_samples_and_not_for_topk():
    sparsity = SparsityConfig(warmup_share=0.5)
    config = TrainConfig(arch="standard", n_samples=1000, sparsity=sparsity)
    assert [sparsity_factor(config, n) for n in (0, 250, 500, 900)] == [0, 0.5, 1, 1]
    assert sparsity_factor(config.model_copy(update={"arch": "topk"}), 0) == 1
    none = config.model_copy(update={"sparsity": SparsityConfig(warmup_share=0)})
    assert sparsity_factor(none, 0) == 1


def test_progress_does_not_pass_the_end(store, small, caplog):
    config = small.model_copy(update={"n_samples": 600})
    state = fresh_state(config, store.train)
    with caplog.at_level("INFO", logger="affectlens"):
        fit(store.train[:1024].clone().split(256), config, state, quiet=False)
    assert state.n_samples == 768
    assert "train: 600 of 600 activations (100%)" in caplog.text


def test_the_weight_reaches_the_backend(store, small):
    """With the coefficient still at zero, a huge one changes nothing."""
    losses = []
    for coefficient in (0.0, 1e6):
        sparsity = SparsityConfig(l1_coefficient=coefficient, warmup_share=1)
        config = small.model_copy(update={"arch": "standard", "sparsity": sparsity})
        state = fresh_state(config, store.train)
        losses.append([])
        for rows in store.train[:512].clone().split(256):
            lr = current_rate(config, state)
            losses[-1].append(train_step(rows, config, state, lr))
    assert losses[0][0] == losses[1][0]
    assert losses[1][1] > 10 * losses[0][1]


@pytest.mark.parametrize("sizes", [[256] * 8, [100, 1, 700, 512, 5, 900]])
def test_any_batch_sizes_follow_the_samples(store, small, sizes):
    state, notes = fresh_state(small, store.train), Notes()
    watched = small.model_copy(update={"watch": WatchConfig(n_evals=4)})
    rows = (store.train[:n].clone() for n in sizes)
    ended = fit(rows, watched, state, watch=Watch(watched, store.held, [notes]), quiet=True)
    done = list(itertools.accumulate(sizes))
    n_steps = next(i for i, n in enumerate(done, 1) if n >= 2048)
    assert (ended, state.n_samples, state.step) == ("n_samples", done[n_steps - 1], n_steps)
    wanted = [
        n
        for before, n in itertools.pairwise([0, *done[:n_steps]])
        if before * 4 // 2048 < n * 4 // 2048
    ]
    assert [p["n_samples"] for p in notes.points] == wanted
    assert [p["n_samples"] for p in state.history] == wanted
    fields = [
        "step",
        "n_samples",
        "loss",
        "fvu",
        "l0",
        "dead_share",
        "lr",
        "tokens_per_s",
        "seconds",
    ]
    assert list(notes.points[0]) == fields


def test_data_that_ends_early_ends_the_training(store, small):
    state, notes = fresh_state(small, store.train), Notes()
    watch = Watch(small, store.held, [notes])
    assert fit(iter(store.train[:300].clone().split(150)), small, state, watch=watch) == "data"
    assert (state.n_samples, state.step) == (300, 2)
    assert notes.points[-1]["n_samples"] == 300
    before = state.sae.W_dec.clone()
    assert fit(iter([]), small, state, quiet=True) == "data"
    assert torch.equal(before, state.sae.W_dec)


def test_a_batch_without_a_row_is_no_step(store, small):
    state = fresh_state(small, store.train)
    rows = store.train[:256].clone()
    assert fit([rows[:0], rows, rows[:0]], small, state, quiet=True) == "data"
    assert (state.n_samples, state.step) == (256, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_never_touch_the_weights(store, small, bad):
    state = fresh_state(small, store.train)
    good, poisoned = store.train[:256].clone(), store.train[256:512].clone()
    poisoned[7, 3], poisoned[200] = bad, bad
    before = []

    def batches():
        yield good
        before.append(state.sae.W_dec.detach().clone())
        yield poisoned

    message = (
        r"2 of 256 activations in batch 1 \(counted from 0\) are not finite: rows 7, 200; told"
    )
    with pytest.raises(ArtifactError, match=message):
        fit(batches(), small, state, explain=lambda: "; told", quiet=True)
    assert torch.equal(before[0], state.sae.W_dec)
    assert state.step == 1


def test_large_finite_rows_are_no_error(store, small):
    state = fresh_state(small, store.train)
    state.scale = 1e-37
    rows = torch.full((4, 32), 3e38)
    assert not torch.isfinite(rows.sum())
    train_step(rows, small, state, 1e-3)
    assert state.step == 1


@pytest.mark.parametrize("batch", [torch.ones(3, 31), torch.ones(32), torch.ones(3, 32).long()])
def test_batches_of_another_form_are_refused(store, small, batch):
    with pytest.raises(ConfigError, match=r"expected \[n, 32\] of float32"):
        fit([batch], small, fresh_state(small, store.train), quiet=True)


def test_a_store_names_document_and_position(tmp_path, monkeypatch):
    """Damage that the checksums cannot know: the rows were written that way."""
    rows = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    rows[207] = 12_345.0
    hook, doc = "blocks.1.hook_resid_post", [i // 10 for i in range(300)]
    documents = [f"d{i}" for i in range(30)]
    store = write_store(tmp_path / "acts", {hook: rows}, doc, documents=documents)

    def damaged(array, encoding):
        out = decode(array, encoding)
        return torch.where(out == 12_345.0, torch.nan, out)

    assert store.first_not_finite(hook) is None
    monkeypatch.setattr("affectlens.data.store.decode", damaged)
    assert store.first_not_finite(hook) == ("d20", 7)
    config = TrainConfig(d_sae=16, k=2, n_samples=600, batch_size=50)
    assert not store.held_out[20]
    with pytest.raises(ArtifactError, match=r"the first in the store is position 7 of 'd20'"):
        train(store, config, tmp_path / "sae", quiet=True)


@pytest.mark.parametrize(
    ("fvus", "patience", "wanted"),
    [
        ([1, 0.5, 0.25], 2, False),
        ([1, 0.5, 0.5, 0.5], 2, True),
        ([1, 0.5, 0.4999, 0.4998], 2, True),
        ([1, 0.5, 0.6, 0.4], 2, False),
        ([1, 0.5, 0.6, 0.7], 0, False),
        ([0.5], 1, False),
        ([], 1, False),
    ],
)
def test_no_more_gain(fvus, patience, wanted):
    assert no_more_gain([{"fvu": f} for f in fvus], patience, 0.001) is wanted


def test_an_early_stop_decays_and_says_why(store, config, tmp_path):
    watch = WatchConfig(n_evals=50, patience=2, min_gain=0.5)
    settings = config.model_copy(update={"watch": watch, "n_samples": 50_000})
    train(store, settings, tmp_path / "sae", quiet=True)
    lines = [json.loads(x) for x in (tmp_path / "sae/metrics.jsonl").read_text().splitlines()]
    *points, end = lines
    meta = json.loads((tmp_path / "sae/cfg.json").read_text())["metadata"]["training_end"]
    assert end["end"] == meta["reason"] == "early_stop"
    stopped = meta["stopped_at"]
    assert stopped < meta["n_samples"] <= 1.2 * stopped + 256
    decay = [p["lr"] for p in points if p["n_samples"] > stopped]
    assert decay
    assert all(a > b for a, b in itertools.pairwise(decay))
    assert decay[-1] < 0.2 * max(p["lr"] for p in points)


def test_a_flat_rate_stops_at_once(store, config):
    watch = WatchConfig(n_evals=50, patience=1, min_gain=0.9)
    settings = config.model_copy(update={"watch": watch, "lr_decay_share": 0})
    state = fresh_state(settings, store.train)
    batches = itertools.cycle(store.train.split(256))
    rows = (b.clone() for b in batches)
    assert fit(rows, settings, state, watch=Watch(settings, store.held), quiet=True) == "early_stop"
    assert state.n_samples == state.stopped_at == run_length(settings, state)


def test_no_evaluations_when_none_are_asked_for(store, small):
    settings = small.model_copy(update={"watch": WatchConfig(n_evals=0)})
    state = fresh_state(settings, store.train)
    rows = (b.clone() for b in itertools.cycle(store.train.split(256)))
    fit(rows, settings, state, watch=Watch(settings, store.held), quiet=True)
    assert state.history == []


@pytest.mark.parametrize("arch", ["batchtopk", "matryoshka"])
def test_an_evaluation_measures_as_inference_will(store, config, arch):
    settings = config.model_copy(update={"arch": arch, "n_samples": 10_000})
    state = fresh_state(settings, store.train)
    rows = (b.clone() for b in itertools.cycle(store.train.split(256)))
    fit(rows, settings, state, quiet=True)
    found = held_out_quality(state, settings, store.held)
    assert found["l0"] == pytest.approx(3, rel=0.1)
    alone = held_out_quality(state, settings, store.held[:256])
    assert found["fvu"] == pytest.approx(alone["fvu"], rel=0.2)
