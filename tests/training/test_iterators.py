"""Training on any iterator of activations: sizes, gaps, ends, going on after an interruption."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.training import loop, sources
from affectlens.training.config import WatchConfig
from affectlens.training.trainer import samples_seen, train_on


def batches_of(rows, sizes):
    """Views of one tensor, as a careless caller hands them over."""
    for start, size in sizes:
        yield rows[start : start + size]


def test_training_on_an_iterator_with_batches_of_any_sizes(store, config, tmp_path):
    sizes, start = [], 0
    while start < 4000:
        size = 1 + (7 * start + 13) % 200
        sizes.append((start, size))
        start += size
    before = store.train.clone()
    seen = sum(size for _, size in sizes)
    short = config.model_copy(update={"n_samples": 10**6})
    options = {"d_in": 32, "heldout": store.held, "quiet": True}
    sae = train_on(
        batches_of(store.train, sizes),
        short,
        tmp_path / "sae",
        metadata={"hook_name": "blocks.3.hook_resid_post"},
        **options,
    )
    assert torch.equal(before, store.train)
    assert sae.info.hook_name == "blocks.3.hook_resid_post"
    metrics = json.loads((tmp_path / "sae" / "metrics.json").read_text())
    assert metrics["n_training_samples"] == min(seen, 4096)
    end = json.loads((tmp_path / "sae" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (end["end"], end["step"]) == ("data", len(sizes))
    # A finished SAE needs no data.
    again = train_on(iter([]), short, tmp_path / "sae", **options)
    assert again.fingerprint == sae.fingerprint


def test_an_iterator_is_resumed_where_the_caller_puts_it(store, config, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CALIBRATION_ROWS", 512)
    watch = WatchConfig(checkpoint_every_samples=1024, checkpoint_every_s=1e9)
    short = config.model_copy(update={"n_samples": 4096, "watch": watch})
    options = {"d_in": 32, "heldout": store.held, "quiet": True}
    parts = tmp_path / "parts"
    whole = train_on(store.train.split(256), short, tmp_path / "whole", **options)

    def broken():
        yield from store.train.split(256)[:9]
        raise OSError("the stream broke")

    with pytest.raises(OSError, match="the stream broke"):
        train_on(broken(), short, parts, **options)
    assert samples_seen(parts) == 2048
    with pytest.raises(ConfigError, match=r"at sample 2,048 and start is 0; .*start=2048"):
        train_on(store.train.split(256), short, parts, **options)
    rest = store.train[2048:].split(256)
    resumed = train_on(rest, short, parts, start=2048, **options)
    assert resumed.fingerprint == whole.fingerprint
    assert samples_seen(parts) == 0


def test_an_iterator_that_does_not_fit(store, config, tmp_path):
    options = {"d_in": 32, "quiet": True}
    with pytest.raises(ArtifactError, match="gave no row"):
        train_on(iter([]), config, tmp_path / "sae", heldout=store.held, **options)
    with pytest.raises(ConfigError, match=r"a batch is \(4, 31\), expected \[n, 32\]"):
        train_on([torch.ones(4, 31)], config, tmp_path / "sae", heldout=store.held, **options)
    with pytest.raises(ConfigError, match=r"heldout is \(1, 32\)"):
        train_on([torch.ones(4, 32)], config, tmp_path / "sae", heldout=store.held[:1], **options)
    with pytest.raises(ConfigError, match=r"a batch is a ndarray, expected"):
        train_on([np.ones((4, 32))], config, tmp_path / "sae", heldout=store.held, **options)
    with pytest.raises(ConfigError, match=r"heldout is a ndarray, expected"):
        train_on([torch.ones(4, 32)], config, tmp_path / "sae", heldout=np.ones((4, 32)), **options)


def test_batches_without_a_row_are_passed_over(store, config, tmp_path):
    options = {"d_in": 32, "heldout": store.held, "quiet": True}
    parts = store.train[:1024].split(256)
    plain = train_on(parts, config, tmp_path / "plain", **options)
    none = store.train[:0]
    gaps = [none, *(part for pair in zip(parts, [none] * 4, strict=True) for part in pair)]
    assert train_on(gaps, config, tmp_path / "gaps", **options).fingerprint == plain.fingerprint
    with pytest.raises(ArtifactError, match="gave no row"):
        train_on([none] * 3, config, tmp_path / "none", **options)


def test_an_iterator_interrupted_at_its_end_is_finished_without_more(
    store, config, tmp_path, monkeypatch
):
    """The last batch is trained on and saved; nothing is left to hand over."""
    watch = WatchConfig(checkpoint_every_s=1e9)
    short = config.model_copy(update={"n_samples": 10**6, "watch": watch})
    options = {"d_in": 32, "heldout": store.held, "quiet": True}
    parts = store.train[:1024].split(256)
    whole = train_on(parts, short, tmp_path / "whole", **options)
    original = loop.train_step

    def press(*args):
        if args[2].step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", press)
        with pytest.raises(KeyboardInterrupt):
            train_on(parts, short, tmp_path / "parts", **options)
    assert samples_seen(tmp_path / "parts") == 1024
    resumed = train_on([], short, tmp_path / "parts", start=1024, **options)
    assert resumed.fingerprint == whole.fingerprint
    lines = [json.loads(x) for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["n_samples"] for line in lines] == [1024, 1024]
    assert "loss" not in lines[0]
    assert lines[1]["end"] == "data"
