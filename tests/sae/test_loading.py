import json
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch
from safetensors.torch import save_file

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import check_fit, convert, load_sae, save_sae
from affectlens.sae.model import SparseAutoencoder


@pytest.fixture
def folder(raw, tmp_path) -> Path:
    return save_sae(SparseAutoencoder(raw()), tmp_path / "sae")


def edit_cfg(folder: Path, **changes) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**cfg, **changes}))


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "abstopk", "jumprelu"])
def test_save_and_load_round_trip(raw, rows, tmp_path, architecture):
    metadata = {
        "hook_name": "blocks.1.hook_resid_post",
        "norm_limit": 9.0,
        "model_fingerprint": "f",
    }
    sae = SparseAutoencoder(raw(architecture, metadata=metadata))
    again = load_sae(save_sae(sae, tmp_path / "sae"))
    assert torch.equal(again.encode(rows), sae.encode(rows))
    assert again.fingerprint == sae.fingerprint
    assert (again.info.hook_name, again.info.norm_limit, again.info.model_fingerprint) == (
        "blocks.1.hook_resid_post", 9.0, "f")  # fmt: skip


def test_sae_lens_opens_what_we_save(folder, raw, rows):
    assert torch.equal(sae_lens.SAE.load_from_disk(folder).encode(rows), raw().encode(rows))


def test_saving_replaces_an_sae_but_nothing_else(raw, folder, tmp_path):
    newer = SparseAutoencoder(raw(seed=5))
    assert load_sae(save_sae(newer, folder)).fingerprint == newer.fingerprint
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(SAEError, match="holds no SAE"):
        save_sae(newer, other)
    assert (other / "chapter.txt").exists()
    assert [p.name for p in tmp_path.glob(".staged*")] == []


def test_centring_can_be_declared_and_survives(raw, tmp_path, rows):
    sae = SparseAutoencoder(raw(), centre=True)
    again = load_sae(save_sae(sae, tmp_path / "sae"))
    assert again.info.centre
    assert torch.equal(again.encode(rows), sae.encode(rows))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_in": "8"}, "d_in is '8'"),
        ({"d_in": True}, "d_in is True"),
        ({"d_sae": 10**12}, "d_sae is"),
        ({"d_sae": 25}, r"W_enc is \[8, 24\].*\[8, 25\]"),
        ({"k": -1}, "k is -1"),
        ({"architecture": "magic"}, "unknown architecture 'magic'"),
        ({"architecture": ["topk"]}, "unknown architecture"),
        ({"metadata": 3}, "metadata must be"),
        ({"dtype": "float99"}, "cannot be loaded"),
    ],
)
def test_bad_configurations(folder, changes, message):
    edit_cfg(folder, **changes)
    with pytest.raises(SAEError, match=message):
        load_sae(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 50_000])
def test_configuration_that_is_no_object(folder, text):
    (folder / "cfg.json").write_text(text)
    with pytest.raises(SAEError, match=r"JSON|expected an object"):
        load_sae(folder)


def test_huge_configuration(folder):
    (folder / "cfg.json").write_text(" " * 1_000_001)
    with pytest.raises(SAEError, match="1,000,001 bytes"):
        load_sae(folder)


def test_missing_and_damaged_weights(folder):
    weights = folder / "sae_weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(SAEError, match="cut short"):
        load_sae(folder)
    weights.unlink()
    with pytest.raises(SAEError, match=r"no sae_weights\.safetensors"):
        load_sae(folder)


def test_nan_weights_are_refused(raw, tmp_path):
    sae = raw()
    sae.b_enc.data[3] = float("nan")
    sae.save_model(tmp_path / "nan")
    with pytest.raises(SAEError, match="b_enc hold values that are not finite"):
        load_sae(tmp_path / "nan")


def test_unknown_names_suggest_the_nearest(tmp_path):
    with pytest.raises(SAEError, match="gpt2-small-res-jb"):
        load_sae("gpt2-small-res-bj", "blocks.8.hook_resid_pre")
    with pytest.raises(SAEError, match=r"blocks\.8\.hook_resid_pre"):
        load_sae("gpt2-small-res-jb", "blocks.8.hook_resid_per")
    with pytest.raises(SAEError, match="several SAEs"):
        load_sae("gpt2-small-res-jb")
    with pytest.raises(SAEError, match="neither a folder"):
        load_sae(tmp_path / "nothing")


def test_registry_applies_the_release_settings(raw, monkeypatch, rows):
    metadata = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    monkeypatch.setattr(
        sae_lens.SAE, "from_pretrained", lambda *a, **k: raw("standard", metadata=metadata)
    )
    sae = load_sae("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert sae.info.centre
    assert sae.info.source == "gpt2-small-res-jb/blocks.8.hook_resid_pre"


def test_hub_failures_are_explained(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("offline mode is enabled")

    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", offline)
    with pytest.raises(SAEError, match=r"cannot be fetched.*offline mode"):
        load_sae("gpt2-small-res-jb", "blocks.8.hook_resid_pre")


def test_batchtopk_checkpoint_is_explained_and_converted(tmp_path, rows):
    config = sae_lens.BatchTopKTrainingSAEConfig(d_in=8, d_sae=24, k=4)
    training = sae_lens.BatchTopKTrainingSAE(config)
    training.topk_threshold.fill_(0.05)
    training.save_model(tmp_path / "checkpoint")
    with pytest.raises(SAEError, match="training checkpoint"):
        load_sae(tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "out", hook_name="blocks.3.hook_resid_post")
    again = load_sae(tmp_path / "out")
    assert again.info.architecture == "jumprelu"
    assert again.info.hook_name == "blocks.3.hook_resid_post"
    training.save_inference_model(tmp_path / "reference")
    expected = sae_lens.SAE.load_from_disk(tmp_path / "reference").encode(rows)
    torch.testing.assert_close(again.encode(rows), expected)


def test_gemma_scope_file(tmp_path, rows):
    g = np.random.default_rng(0)
    arrays = {
        "W_enc": g.normal(size=(8, 24)),
        "W_dec": g.normal(size=(24, 8)),
        "b_enc": g.normal(size=24),
        "b_dec": g.normal(size=8),
        "threshold": np.abs(g.normal(size=24)),
    }
    source = tmp_path / "layer_20" / "width_16k"
    source.mkdir(parents=True)
    np.savez(source / "params.npz", **arrays)
    with pytest.raises(SAEError, match=r"Gemma Scope.*convert"):
        load_sae(source)
    sae = convert(source, tmp_path / "out", model_name="gemma-2-2b")
    assert sae.info.hook_name == "blocks.20.hook_resid_post"
    pre = rows.numpy().astype(np.float32) @ arrays["W_enc"] + arrays["b_enc"]
    z = pre * (pre > arrays["threshold"])
    loaded = load_sae(tmp_path / "out")
    np.testing.assert_allclose(loaded.encode(rows).numpy(), z, atol=1e-5)
    np.testing.assert_allclose(
        loaded.reconstruct(rows).numpy(), z @ arrays["W_dec"] + arrays["b_dec"], atol=1e-4
    )


def test_gemma_scope_file_with_objects_or_gaps_is_refused(tmp_path):
    bad = tmp_path / "layer_1" / "params.npz"
    bad.parent.mkdir()
    np.savez(bad, W_enc=np.zeros((8, 24)))
    with pytest.raises(SAEError, match="has no W_dec, b_enc, b_dec, threshold"):
        convert(bad, tmp_path / "out")
    np.savez(bad, W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SAEError, match="cannot be read as npz"):
        convert(bad, tmp_path / "out")
    bad.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(SAEError, match="cannot be read as npz"):
        convert(bad, tmp_path / "out")


def test_sparsify_folder(tmp_path, rows):
    g = torch.Generator().manual_seed(0)
    source = tmp_path / "layers.7"
    source.mkdir()
    (source / "cfg.json").write_text(json.dumps({"d_in": 8, "expansion_factor": 3, "k": 4}))
    tensors = {
        "encoder.weight": torch.randn(24, 8, generator=g),
        "encoder.bias": torch.randn(24, generator=g),
        "W_dec": torch.randn(24, 8, generator=g),
        "b_dec": torch.randn(8, generator=g),
    }
    save_file(tensors, source / "sae.safetensors")
    sae = convert(source, tmp_path / "out")
    assert (sae.info.hook_name, sae.info.k) == ("blocks.7.hook_resid_post", 4)
    x = rows - tensors["b_dec"]
    top = (x @ tensors["encoder.weight"].T + tensors["encoder.bias"]).relu().topk(4, dim=-1)
    z = torch.zeros(5, 3, 24).scatter(-1, top.indices, top.values)
    torch.testing.assert_close(sae.encode(rows), z)
    torch.testing.assert_close(sae.reconstruct(rows), z @ tensors["W_dec"] + tensors["b_dec"])


def test_nothing_to_convert(tmp_path):
    with pytest.raises(SAEError, match="no SAE of a known form"):
        convert(tmp_path, tmp_path / "out")
    np.savez(tmp_path / "params.npz", **{n: np.zeros((8, 8)) for n in
             ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")})  # fmt: skip
    with pytest.raises(SAEError, match="pass hook_name"):
        convert(tmp_path / "params.npz", tmp_path / "out")
    with pytest.raises(SAEError, match="do not fit"):
        convert(tmp_path / "params.npz", tmp_path / "out", hook_name="blocks.1.hook_resid_post")


def test_check_fit(raw):
    metadata = {"hook_name": "blocks.1.hook_resid_post", "model_fingerprint": "a" * 64}
    sae = SparseAutoencoder(raw(metadata=metadata))
    check_fit(sae, d_model=8, hook_name="blocks.1.hook_resid_post", fingerprint="a" * 64)
    with pytest.raises(SAEError, match=r"d_in=8.*d_model=9"):
        check_fit(sae, d_model=9)
    with pytest.raises(SAEError, match=r"blocks\.1.*blocks\.2"):
        check_fit(sae, hook_name="blocks.2.hook_resid_post")
    with pytest.raises(SAEError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        check_fit(sae, fingerprint="b" * 64)
    check_fit(SparseAutoencoder(raw(metadata={})), hook_name="anything", fingerprint="b")


def test_error_carries_the_exit_code():
    assert SAEError.exit_code == 3
