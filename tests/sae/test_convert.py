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

D_IN, D_SAE = 8, 24


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.5


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


def write_npz(folder: Path, **changes) -> None:
    arrays = {"W_enc": normal(D_IN, D_SAE), "W_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
              "b_dec": normal(D_IN), "threshold": normal(D_SAE).abs()}  # fmt: skip
    named = {k: np.asarray(v) for k, v in {**arrays, **changes}.items()}
    np.savez(folder / "params.npz", **named)


def test_the_nearest_layer_of_a_path_counts(tmp_path):
    source = tmp_path / "layer_3_study" / "layer_20"
    source.mkdir(parents=True)
    write_npz(source)
    assert convert(source, tmp_path / "out").info.hook_name == "blocks.20.hook_resid_post"


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


def gemma_3_folder(root: Path, place: str = "model.layers.5.output", **changes) -> str:
    name = "resid_post/layer_5_width_16k_l0_small"
    (root / name).mkdir(parents=True)
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt",
              "hf_hook_point_in": place}  # fmt: skip
    (root / name / "config.json").write_text(json.dumps({**config, **changes}))
    tensors = {"w_enc": normal(D_IN, D_SAE), "w_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
               "b_dec": normal(D_IN), "threshold": normal(D_SAE).abs()}  # fmt: skip
    save_file(tensors, root / name / "params.safetensors")
    return name


def test_gemma_scope_2(tmp_path, rows, monkeypatch):
    name = gemma_3_folder(tmp_path)
    ours = convert(tmp_path / name, tmp_path / "out")
    agree(ours, by_sae_lens(monkeypatch, "gemma_3", tmp_path, "google/gemma-scope-2-270m-pt", name),
          rows)  # fmt: skip
    assert ours.info.model_name == "gemma-3-270m-pt"


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


def llama_folder(root: Path, **changes) -> Path:
    folder = root / "Llama3_1-8B-Base-L7R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    config = {"d_model": D_IN, "d_sae": D_SAE, "jump_relu_threshold": 0.4,
              "dataset_average_activation_norm": {"in": 5.5, "out": 5.5}, "act_fn": "jumprelu",
              "hook_point_in": "blocks.7.hook_resid_post",
              "hook_point_out": "blocks.7.hook_resid_post"}  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps({**config, **changes}))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "decoder.weight": normal(D_IN, D_SAE),
               "encoder.bias": normal(D_SAE), "decoder.bias": normal(D_IN)}  # fmt: skip
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return folder


def test_llama_scope(tmp_path, rows, monkeypatch):
    folder = llama_folder(tmp_path)
    reference = by_sae_lens(monkeypatch, "llama_scope", tmp_path, "fnlp/x", folder.name)
    # What from_pretrained does with the factor of its table, which is this one.
    reference.fold_activation_norm_scaling_factor(D_IN**0.5 / 5.5)
    ours = convert(folder, tmp_path / "out")
    agree(ours, reference, rows)
    assert load_sae(tmp_path / "out").info.notes == ()


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


def sparsify_folder(root: Path, name: str = "layers.7", **changes) -> Path:
    (root / name).mkdir(parents=True)
    config = {"d_in": D_IN, "num_latents": 0, "expansion_factor": 3, "k": 4, **changes}
    (root / name / "cfg.json").write_text(json.dumps(config))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "encoder.bias": normal(D_SAE),
               "W_dec": normal(D_SAE, D_IN, seed=1), "b_dec": normal(D_IN)}  # fmt: skip
    save_file(tensors, root / name / "sae.safetensors")
    return root / name


def test_the_file_is_as_good_as_the_folder(tmp_path, rows):
    sparsify, llama = sparsify_folder(tmp_path), llama_folder(tmp_path)
    for folder, file in ((sparsify, "sae.safetensors"), (llama, "checkpoints/final.safetensors")):
        of_folder = convert(folder, tmp_path / "out", overwrite=True)
        of_file = convert(folder / file, tmp_path / "out", overwrite=True)
        assert of_file.info.hook_name == of_folder.info.hook_name == "blocks.7.hook_resid_post"
        assert torch.equal(of_file.encode(rows), of_folder.encode(rows))


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
