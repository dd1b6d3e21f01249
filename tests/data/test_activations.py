import errno
import logging
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.activations import harvest, length_batches, split_shards
from affectlens.data.artifacts import folder_lock
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import TokenWindow, build_corpus
from affectlens.data.errors import (
    ArtifactError,
    ConfigError,
    CorpusError,
    HookError,
    MachineError,
)
from affectlens.data.hooks import capture
from affectlens.data.store import ActivationStore
from affectlens.data.tiny import tiny_model

CONFIG = HarvestConfig(layers=(1, 2), context_length=48, tokens_per_batch=200, tokens_per_shard=600)


def make_corpus(n: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    return build_corpus(
        "letters",
        [
            (f"d{i}", "".join(rng.choice(list("abcdefgh "), rng.integers(1, 120))) + "x")
            for i in range(n)
        ],
    )


CORPUS = make_corpus()


@pytest.fixture(scope="module")
def lm():
    return tiny_model("llama", n_layers=3, d_model=16)


@pytest.fixture(scope="module")
def reference(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "acts"
    harvest(lm, CORPUS, CONFIG, folder, quiet=True)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_rows_equal_those_of_single_unpadded_texts(family, tmp_path):
    lm = tiny_model(family, n_layers=3, d_model=16)
    store = harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert store.hook_names == ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    at = 0
    for window in store.token_windows("all"):
        single = capture(lm, [1, 2], lm.pad([window.token_ids]))
        stop = at + len(window.token_ids)
        for name, resid in single.items():
            rows = store.rows(name, at, stop)
            error = (rows.acts - resid[0]).norm(dim=1) / resid[0].norm(dim=1)
            assert error.max() < 1e-4
            assert rows.position.tolist() == list(range(len(window.token_ids)))
            assert set(rows.doc.tolist()) == {window.doc_index}
        at = stop
    assert at == store.n_rows


def test_windows_of_the_store_are_those_of_the_corpus(lm, tmp_path):
    store = harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    texts: dict[int, list[int]] = {}
    for window in store.token_windows("all"):
        assert window.start == len(texts.setdefault(window.doc_index, []))
        texts[window.doc_index] += window.token_ids
    assert [lm.tokenizer.decode(t) for t in texts.values()] == [d.text for d in CORPUS.documents]


def test_mask_rule_is_calibrated_on_the_first_windows(lm, tmp_path):
    config = CONFIG.model_copy(update={"outlier_factor": 1.2, "tokens_per_shard": 100_000})
    store = harvest(lm, CORPUS, config, tmp_path, quiet=True)
    for name in store.hook_names:
        rows = store.rows(name)
        stop = np.flatnonzero(rows.position == 0)[64]
        norms = rows.acts[:stop][rows.position[:stop] > 0].norm(dim=1)
        limit = store.mask_rule(name).norm_limit
        assert limit == pytest.approx(1.2 * float(norms.double().quantile(0.5)), rel=1e-5)
        keep = (rows.position > 0) & (rows.acts.norm(dim=1).numpy() <= limit)
        assert np.array_equal(rows.keep, keep)
        assert 0 < store.n_kept(name) < (rows.position > 0).sum()
        assert torch.allclose(store.mean(name), rows.acts[keep].double().mean(0).float(), atol=1e-6)
        masked = store.manifest["hooks"][name]["n_masked"]
        assert masked == store.n_rows - store.n_kept(name)


def test_provenance_says_what_made_the_store(lm, tmp_path):
    made = harvest(
        lm, CORPUS, CONFIG, tmp_path, avoid=["a text of fewer words"], quiet=True
    ).provenance
    assert made["model"]["fingerprint"] == lm.fingerprint
    assert made["tokenizer_sha256"] == lm.tokenizer_sha256
    assert made["corpus"]["sha256"] == CORPUS.sha256
    assert made["config"] == CONFIG.model_dump(mode="json")
    assert made["overlap"]["n_short"] == 1
    assert made["versions"]["torch"] == torch.__version__
    assert str(tmp_path) not in str(made)


def test_same_command_again_returns_the_store_without_work(lm, tmp_path, reference, monkeypatch):
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    monkeypatch.setattr("affectlens.data.activations.capture", None)
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert contents(tmp_path) == reference


def test_a_folder_of_another_store_is_refused(lm, tmp_path):
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    before = contents(tmp_path)
    other = CONFIG.model_copy(update={"layers": (0,)})
    with pytest.raises(ArtifactError, match=r"config\.layers \(there \[1, 2\], now \[0\]\)"):
        harvest(lm, CORPUS, other, tmp_path)
    with pytest.raises(ArtifactError, match="corpus_sha256"):
        harvest(lm, make_corpus(seed=1), CONFIG, tmp_path)
    with pytest.raises(ArtifactError, match="model_fingerprint"):
        harvest(tiny_model("llama", seed=1, n_layers=3, d_model=16), CORPUS, CONFIG, tmp_path)
    assert contents(tmp_path) == before


def test_an_unfinished_folder_of_another_store_is_refused(lm, tmp_path):
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.storage"):
        harvest(lm, CORPUS, CONFIG.model_copy(update={"storage": "bfloat16"}), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "first_flip", "empty"])
def test_damaged_stores_are_completed_to_the_same_bytes(lm, tmp_path, reference, damage, caplog):
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    shard = tmp_path / ("shard-00000.h5" if damage == "first_flip" else "shard-00002.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    changed = {"cut": content[:1000], "missing": None, "empty": b""}.get(damage, content)
    shard.unlink() if changed is None else shard.write_bytes(changed)
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert contents(tmp_path) == reference
    assert "made again" in caplog.text
    ActivationStore.open(tmp_path, verify=True)


def test_finished_shards_are_kept(lm, tmp_path, reference, monkeypatch):
    interrupt_after(monkeypatch, n_calls=8)
    with pytest.raises(KeyboardInterrupt):
        harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    monkeypatch.undo()
    before = {p.name: p.stat().st_ino for p in tmp_path.glob("shard-*")}
    assert 0 < len(before) < len([n for n in reference if n.startswith("shard")])
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert contents(tmp_path) == reference
    assert before.items() <= {p.name: p.stat().st_ino for p in tmp_path.glob("shard-*")}.items()


def interrupt_after(monkeypatch, n_calls: int) -> None:
    calls = iter(range(n_calls))

    def limited(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return capture(*args)

    monkeypatch.setattr("affectlens.data.activations.capture", limited)


def test_other_library_versions_do_not_go_on_with_an_unfinished_store(lm, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, n_calls=8)
    with pytest.raises(KeyboardInterrupt):
        harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr("affectlens.data.activations.version", lambda name: "0")
    with pytest.raises(ArtifactError, match=r"torch \(there "):
        harvest(lm, CORPUS, CONFIG, tmp_path)


def test_disk_full_in_the_middle(lm, tmp_path, reference, monkeypatch):
    real = Path.write_bytes
    calls = iter(range(2))

    def full(self, content):
        if next(calls, None) is None:
            real(self, bytes(content)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineError, match=r"disk is full while writing .*shard-00002\.h5"):
        harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    monkeypatch.undo()
    left = {n: c for n, c in contents(tmp_path).items() if n.startswith("shard")}
    assert left == {n: reference[n] for n in ("shard-00000.h5", "shard-00001.h5")}
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert contents(tmp_path) == reference


def test_a_limit_on_file_size_is_no_crash(lm, tmp_path, reference):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(MachineError, match=r"disk is full while writing .*shard-00000\.h5"):
            harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(contents(tmp_path)) == {"plan.json"}
    harvest(lm, CORPUS, CONFIG, tmp_path, quiet=True)
    assert contents(tmp_path) == reference


def test_too_small_a_disk_is_refused_before_the_work(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr("affectlens.data.activations.capture", None)
    with pytest.raises(MachineError, match=r"tokens need .* GB, but .* set storage to bfloat16"):
        harvest(lm, CORPUS, CONFIG, tmp_path)


def test_two_writers(lm, tmp_path):
    with folder_lock(tmp_path), pytest.raises(MachineError, match="written by another run"):
        harvest(lm, CORPUS, CONFIG, tmp_path)


def test_half_precision_overflow_names_the_value(tmp_path):
    lm = tiny_model("llama", n_layers=2, d_model=16)
    lm.model.get_input_embeddings().weight.data *= 1e6
    config = CONFIG.model_copy(update={"layers": (0,), "storage": "float16"})
    with pytest.raises(
        ConfigError, match=r"blocks\.0\.hook_resid_post: the activation [\d,]+ does not fit"
    ):
        harvest(lm, CORPUS, config, tmp_path, quiet=True)
    config = config.model_copy(update={"storage": "bfloat16"})
    assert (
        harvest(lm, CORPUS, config, tmp_path / "b", quiet=True).manifest["hooks"][
            "blocks.0.hook_resid_post"
        ]["max_abs"]
        > 65_504
    )


def test_wrong_layers_and_shared_text(lm, tmp_path):
    with pytest.raises(HookError, match="layer 3 does not exist"):
        harvest(lm, CORPUS, CONFIG.model_copy(update={"layers": (3,)}), tmp_path)
    for layers in ((), (1, 1)):
        with pytest.raises(ConfigError, match="distinct"):
            harvest(lm, CORPUS, CONFIG.model_copy(update={"layers": layers}), tmp_path)
    corpus = build_corpus("c", [("a", "one two three four five six seven eight nine")])
    with pytest.raises(CorpusError, match="document 'a' shares the words"):
        harvest(lm, corpus, CONFIG, tmp_path, avoid=["two three four five six seven eight nine"])
    assert not (tmp_path / "manifest.json").exists()


def test_max_tokens_and_log(lm, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="affectlens")
    config = CONFIG.model_copy(update={"max_tokens": 300})
    store = harvest(lm, CORPUS, config, tmp_path)
    assert 300 <= store.n_rows < 348
    assert len(store.documents) < 40
    assert f"{store.n_rows:,} tokens kept" in caplog.text


def test_order_of_batches_does_not_reach_the_rows(lm, tmp_path):
    small = harvest(lm, CORPUS, CONFIG, tmp_path / "a", quiet=True)
    config = CONFIG.model_copy(update={"tokens_per_batch": 5000, "tokens_per_shard": 1500})
    large = harvest(lm, CORPUS, config, tmp_path / "b", quiet=True)
    name = small.hook_names[0]
    assert torch.allclose(small.rows(name).acts, large.rows(name).acts, atol=1e-4)
    assert np.array_equal(small.rows(name).token, large.rows(name).token)


@pytest.mark.default_model
def test_the_default_model_parks_its_variance_on_masked_tokens(default_lm, tmp_path):
    text = "The bus was late again, so she walked along the river and counted the boats. "
    corpus = build_corpus("c", [(f"d{i}", f"Note {i}. " + text * (1 + i % 3)) for i in range(24)])
    config = HarvestConfig(layers=(15,), tokens_per_batch=512)
    store = harvest(default_lm, corpus, config, tmp_path, quiet=True)
    (name,) = store.hook_names
    rows = store.rows(name)
    power = (rows.acts.double() - rows.acts.double().mean(0)).square().sum(1).numpy()
    assert power[~rows.keep].sum() / power.sum() > 0.9
    assert rows.keep.mean() > 0.9


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 60), max_size=60), tokens=st.integers(1, 300))
def test_length_batches_take_each_window_once_and_fit(lengths, tokens):
    batches = list(length_batches(lengths, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= tokens


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 60), max_size=60), tokens=st.integers(1, 300))
def test_shards_keep_the_order(lengths, tokens):
    text = [TokenWindow(i, 0, (0,) * n) for i, n in enumerate(lengths)]
    shards = split_shards(text, tokens)
    assert [w for shard in shards for w in shard] == text
    for shard in shards[:-1]:
        sizes = [len(w.token_ids) for w in shard]
        assert sum(sizes) >= tokens > sum(sizes[:-1])
