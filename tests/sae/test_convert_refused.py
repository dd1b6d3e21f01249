"""SAEs of other projects: which files and settings are refused, and what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
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


def test_nothing_to_convert(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SAEError, match="no SAE of a known form"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(SAEError, match="nowhere does not exist; give the file or the folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(SAEError, match="a sae-lens folder already"):
        convert(folder, tmp_path / "out")
    write_npz(tmp_path)
    with pytest.raises(SAEError, match="pass hook_name"):
        convert(tmp_path / "params.npz", tmp_path / "out")
    write_npz(tmp_path, b_enc=np.zeros(8))
    with pytest.raises(SAEError, match=r"b_enc is \[8\], expected \[24\]; .* do not fit together"):
        convert(tmp_path / "params.npz", tmp_path / "out", hook_name="blocks.1.hook_resid_post")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("gemma-scope-2b-pt-att/layer_3/width_16k", "names 'att'"),
        ("gemma-scope-2b-pt-transcoders/layer_3/width_16k", "names 'transcoder'"),
        ("models--google--gemma-scope-2b-pt-mlp/snapshots/abc/layer_3", "names 'mlp'"),
    ],
)
def test_paths_that_name_another_place_are_refused(tmp_path, folder, message):
    source = tmp_path / folder
    source.mkdir(parents=True)
    write_npz(source)
    with pytest.raises(SAEError, match=message):
        convert(source, tmp_path / "out")


def test_npz_values_that_are_not_finite_or_scaled_are_refused(tmp_path):
    source = tmp_path / "layer_3"
    source.mkdir()
    write_npz(source, b_enc=np.full(D_SAE, np.nan))
    with pytest.raises(SAEError, match="b_enc hold values that are not finite"):
        convert(source, tmp_path / "out")
    write_npz(source, scaling_factor=np.full(D_SAE, 2.0))
    with pytest.raises(SAEError, match="scaling_factor"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path):
    source = tmp_path / "layer_3"
    source.mkdir()
    np.savez_compressed(source / "params.npz", W_enc=np.zeros((3000, 3000)))
    with pytest.raises(SAEError, match="would unpack to 72,000,"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"place": "model.layers.5.self_attn.o_proj.input"}, "only the residual stream"),
        ({"hf_hook_point_out": "model.layers.5.output"}, "is a transcoder"),
        ({"architecture": "top_k"}, "expected jump_relu"),
    ],
)
def test_gemma_scope_2_of_another_kind_is_refused(tmp_path, changes, message):
    name = gemma_3_folder(tmp_path, **changes)
    with pytest.raises(SAEError, match=message):
        convert(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hook_point_out": "blocks.7.hook_mlp_out"}, "is a transcoder"),
        ({"dataset_average_activation_norm": {"in": 0}}, "in is 0, expected a number above 0"),
        ({"dataset_average_activation_norm": None}, "in is None"),
        ({"jump_relu_threshold": "0.4"}, "jump_relu_threshold is 0.4"),
        ({"jump_relu_threshold": float("nan")}, "jump_relu_threshold is nan"),
        ({"act_fn": "topk"}, "act_fn is 'topk'"),
    ],
)
def test_llama_scope_with_bad_settings(tmp_path, changes, message):
    with pytest.raises(SAEError, match=message):
        convert(llama_folder(tmp_path, **changes), tmp_path / "out")


def test_llama_scope_of_attention_or_mlp_is_refused(tmp_path):
    place = "blocks.7.hook_attn_out"
    folder = llama_folder(tmp_path, hook_point_in=place, hook_point_out=place)
    with pytest.raises(SAEError, match=r"hook_attn_out.*only SAEs of the residual"):
        convert(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["params.safetensors", "sae.safetensors"])
def test_a_pickle_under_another_name_is_refused(tmp_path, name):
    source = tmp_path / "layer_3"
    source.mkdir()
    torch.save({"w_enc": normal(D_IN, D_SAE)}, source / name)
    (source / "cfg.json").write_text('{"k": 4}')
    with pytest.raises(SAEError, match="cannot be read as safetensors"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("k", [0, -1, 25, 1e300, "4", None, True, [4]])
def test_sparsify_with_a_bad_k(tmp_path, k):
    (tmp_path / "layers.7").mkdir()
    (tmp_path / "layers.7" / "cfg.json").write_text(json.dumps({"d_in": 8, "k": k}))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "W_dec": normal(D_SAE, D_IN, seed=1)}
    save_file(tensors, tmp_path / "layers.7" / "sae.safetensors")
    with pytest.raises(SAEError, match=r"k is .*expected a whole number in 1\.\.24"):
        convert(tmp_path / "layers.7", tmp_path / "out")


def test_sparsify_of_an_mlp_is_refused(tmp_path):
    (tmp_path / "layers.7.mlp").mkdir()
    (tmp_path / "layers.7.mlp" / "cfg.json").write_text('{"k": 4}')
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "W_dec": normal(D_SAE, D_IN, seed=1)}
    save_file(tensors, tmp_path / "layers.7.mlp" / "sae.safetensors")
    with pytest.raises(SAEError, match="names 'mlp'"):
        convert(tmp_path / "layers.7.mlp", tmp_path / "out")


def test_a_folder_of_several_layers_names_them(tmp_path):
    for name in ("layers.3", "layers.7", "deep/layer_9"):
        sparsify_folder(tmp_path, name)
    message = r"give one of them, such as layers\.3, layers\.7, deep/layer_9"
    with pytest.raises(SAEError, match=message):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(SAEError, match=message):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_in": 9}, "d_in is 9, but the tensors have 8"),
        ({"num_latents": 25}, "num_latents is 25, but the tensors have 24"),
        ({"d_in": "8"}, "d_in is 8, but the tensors have 8"),
        ({"d_in": True}, "d_in is True"),
    ],
)
def test_a_configuration_of_another_sae_is_refused(tmp_path, changes, message):
    with pytest.raises(SAEError, match=message):
        convert(sparsify_folder(tmp_path, **changes), tmp_path / "out")
    with pytest.raises(SAEError, match="d_sae is 99, but the tensors have 24"):
        convert(llama_folder(tmp_path, d_sae=99), tmp_path / "out")


@pytest.mark.parametrize(
    "hook", ["model.embed_tokens", "blocks.x.hook_resid_post", "hook_embed", "lm_head", " ", ""]
)
def test_a_hook_that_is_no_place_is_refused(tmp_path, hook):
    with pytest.raises(SAEError, match="expected a place on the residual stream such as"):
        convert(sparsify_folder(tmp_path), tmp_path / "out", hook_name=hook)


def test_the_source_is_never_replaced(tmp_path):
    source = sparsify_folder(tmp_path)
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    for out in (source, source / ".." / source.name):
        with pytest.raises(SAEError, match="would be replaced"):
            convert(source, out)
    with pytest.raises(SAEError, match=r"holds sae\.safetensors too, which would be lost"):
        convert(source / "sae.safetensors", source)
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before


def test_empty_arrays_are_refused(tmp_path):
    (tmp_path / "layer_3").mkdir()
    empty = {"W_enc": np.zeros((D_IN, 0)), "W_dec": np.zeros((0, D_IN)), "b_enc": np.zeros(0),
             "threshold": np.zeros(0)}  # fmt: skip
    write_npz(tmp_path / "layer_3", **empty)
    with pytest.raises(SAEError, match=r"W_enc is \[8, 0\], which holds nothing"):
        convert(tmp_path / "layer_3", tmp_path / "out")


def test_an_sae_is_not_replaced_unasked(tmp_path: Path) -> None:
    source, out = sparsify_folder(tmp_path), tmp_path / "out"
    convert(source, out)
    before = (out / "cfg.json").read_bytes()
    with pytest.raises(SAEError, match="holds an SAE already"):
        convert(source, out, model_name="other")
    assert (out / "cfg.json").read_bytes() == before
    assert convert(source, out, model_name="other", overwrite=True).info.model_name == "other"
