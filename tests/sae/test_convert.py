"""SAEs of other projects: each format against a reference, and against sae-lens' own reader."""

import json
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch
from sae_lens.loading import pretrained_sae_loaders as theirs
from sae_lens.saes.sae import SAE
from safetensors.torch import save_file

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import convert, load_sae

from .foreign_files import (
    D_IN,
    D_SAE,
    gemma_3_folder,
    llama_folder,
    normal,
    sparsify_folder,
    write_npz,
)


def by_sae_lens(monkeypatch, reader: str, root: Path, repo_id: str, folder: str) -> SAE:
    """The SAE as the reader of sae-lens builds it, with the files of `root` for the hub's."""

    def local(repo_id, filename, subfolder=None, **kwargs):
        path = root / (subfolder or "") / filename
        if not path.is_file():
            raise theirs.EntryNotFoundError(filename)
        return str(path)

    def shapes(repo_id, filename):
        return {k: list(v.shape) for k, v in theirs.load_safetensors_weights(
            root / filename).items()}  # fmt: skip

    monkeypatch.setattr(theirs, "hf_hub_download", local)
    monkeypatch.setattr(theirs, "get_safetensors_tensor_shapes", shapes)
    cfg, state, _ = theirs.NAMED_PRETRAINED_SAE_LOADERS[reader](
        repo_id, folder, "cpu", False, {"device": "cpu", "dtype": "float32"}
    )
    cfg = theirs.handle_config_defaulting(cfg)
    sae = sae_lens.SAE.from_dict(cfg)
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    return sae


def agree(ours, sae: SAE, rows: torch.Tensor) -> None:
    torch.testing.assert_close(ours.encode(rows), sae.encode(rows))
    torch.testing.assert_close(ours.reconstruct(rows), sae.decode(sae.encode(rows)))
    assert ours.info.hook_name == sae.cfg.metadata.hook_name
    assert ours.encode(rows).count_nonzero() > 0


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


def test_the_sparsify_reader_of_sae_lens_fails_on_these_files(tmp_path, rows, monkeypatch):
    source = tmp_path / "layers.7"
    source.mkdir()
    (source / "cfg.json").write_text(json.dumps({"d_in": D_IN, "expansion_factor": 3, "k": 4}))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "encoder.bias": normal(D_SAE),
               "W_dec": normal(D_SAE, D_IN), "b_dec": normal(D_IN)}  # fmt: skip
    save_file(tensors, source / "sae.safetensors")
    with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
        by_sae_lens(monkeypatch, "sparsify", tmp_path, "EleutherAI/sae-pythia", source.name)
    # With the decoder the other way round it reads what we read.
    ours = convert(source, tmp_path / "out")
    save_file({**tensors, "W_dec": tensors["W_dec"].T.contiguous()}, source / "sae.safetensors")
    agree(ours, by_sae_lens(monkeypatch, "sparsify", tmp_path, "EleutherAI/x", source.name), rows)


def test_the_nearest_layer_of_a_path_counts(tmp_path):
    source = tmp_path / "layer_3_study" / "layer_20"
    source.mkdir(parents=True)
    write_npz(source)
    assert convert(source, tmp_path / "out").info.hook_name == "blocks.20.hook_resid_post"


def test_gemma_scope_2(tmp_path, rows, monkeypatch):
    name = gemma_3_folder(tmp_path)
    ours = convert(tmp_path / name, tmp_path / "out")
    agree(ours, by_sae_lens(monkeypatch, "gemma_3", tmp_path, "google/gemma-scope-2-270m-pt", name),
          rows)  # fmt: skip
    assert ours.info.model_name == "gemma-3-270m-pt"


def test_llama_scope(tmp_path, rows, monkeypatch):
    folder = llama_folder(tmp_path)
    reference = by_sae_lens(monkeypatch, "llama_scope", tmp_path, "fnlp/x", folder.name)
    # What from_pretrained does with the factor of its table, which is this one.
    reference.fold_activation_norm_scaling_factor(D_IN**0.5 / 5.5)
    ours = convert(folder, tmp_path / "out")
    agree(ours, reference, rows)
    assert load_sae(tmp_path / "out").info.notes == ()


def test_gemma_scope_equals_the_reader_of_sae_lens(tmp_path, rows, monkeypatch):
    name = "layer_20/width_16k/average_l0_71"
    (tmp_path / name).mkdir(parents=True)
    write_npz(tmp_path / name)
    with monkeypatch.context() as patched:
        patched.setattr(theirs, "hf_hub_download", lambda filename, subfolder, **k: str(
            tmp_path / subfolder / filename))  # fmt: skip
        cfg, state, _ = theirs.gemma_2_sae_huggingface_loader(
            "google/gemma-scope-2b-pt-res", name, cfg_overrides={"d_in": D_IN, "d_sae": D_SAE}
        )
    reference = SAE.from_dict(theirs.handle_config_defaulting(cfg))
    reference.load_state_dict(state)
    agree(convert(tmp_path / name, tmp_path / "out"), reference, rows)


def test_the_file_is_as_good_as_the_folder(tmp_path, rows):
    sparsify, llama = sparsify_folder(tmp_path), llama_folder(tmp_path)
    for folder, file in ((sparsify, "sae.safetensors"), (llama, "checkpoints/final.safetensors")):
        of_folder = convert(folder, tmp_path / "out", overwrite=True)
        of_file = convert(folder / file, tmp_path / "out", overwrite=True)
        assert of_file.info.hook_name == of_folder.info.hook_name == "blocks.7.hook_resid_post"
        assert torch.equal(of_file.encode(rows), of_folder.encode(rows))
