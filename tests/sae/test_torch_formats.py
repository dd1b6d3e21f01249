"""`.pt` files: the classes of dictionary_learning, Qwen Scope, and files that run code."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens.loading import pretrained_sae_loaders as theirs
from torch import Tensor

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import convert, load_sae

D_IN, D_SAE, K = 8, 24, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.5


LINEAR = {"encoder.weight": normal(D_SAE, D_IN), "decoder.weight": normal(D_IN, D_SAE, seed=1)}
DENSE = {"W_enc": normal(D_IN, D_SAE), "W_dec": normal(D_SAE, D_IN, seed=1),
         "b_enc": normal(D_SAE, seed=2), "b_dec": normal(D_IN, seed=3)}  # fmt: skip
K_NOW, THRESHOLD = torch.tensor(K, dtype=torch.int), torch.tensor(0.3)
STATES: dict[str, dict[str, Tensor]] = {
    "AutoEncoder": {**LINEAR, "encoder.bias": normal(D_SAE, seed=2), "bias": normal(D_IN, seed=3)},
    "AutoEncoderNew": {**LINEAR, "encoder.bias": normal(D_SAE, seed=2),
                       "decoder.bias": normal(D_IN, seed=3)},
    "AutoEncoderTopK": {**LINEAR, "encoder.bias": normal(D_SAE, seed=2),
                        "b_dec": normal(D_IN, seed=3), "k": K_NOW, "threshold": THRESHOLD},
    "BatchTopKSAE": {**LINEAR, "encoder.bias": normal(D_SAE, seed=2),
                     "b_dec": normal(D_IN, seed=3), "k": K_NOW, "threshold": THRESHOLD},
    "MatryoshkaBatchTopKSAE": {**DENSE, "k": K_NOW, "threshold": THRESHOLD,
                               "group_sizes": torch.tensor([8, 16])},
    "JumpReluAutoEncoder": {**DENSE, "threshold": normal(D_SAE, seed=4).abs()},
    "GatedAutoEncoder": {**LINEAR, "decoder_bias": normal(D_IN, seed=3),
                         "r_mag": normal(D_SAE, seed=4), "gate_bias": normal(D_SAE, seed=5),
                         "mag_bias": normal(D_SAE, seed=6)},
}  # fmt: skip


def latents(name: str, s: dict[str, Tensor], x: Tensor) -> Tensor:
    """What each class computes, written down from its definition."""
    if name == "GatedAutoEncoder":
        inner = (x - s["decoder_bias"]) @ s["encoder.weight"].T
        return (inner + s["gate_bias"] > 0) * (s["r_mag"].exp() * inner + s["mag_bias"]).relu()
    bias = {"AutoEncoder": "bias"}.get(name, "b_dec")
    if name not in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        x = x - s[bias]
    weight = s["W_enc"] if "W_enc" in s else s["encoder.weight"].T
    pre = (x @ weight + s["b_enc" if "b_enc" in s else "encoder.bias"]).relu()
    if name == "AutoEncoderTopK":
        top = pre.topk(K, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values)
    return pre * (pre > s["threshold"]) if "threshold" in s else pre


def trainer_folder(root: Path, name: str, state: Any = None, **trainer: Any) -> Path:
    folder = root / "resid_post_layer_3" / "trainer_0"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(STATES[name] if state is None else state, folder / "ae.pt")
    config = {"dict_class": name, "layer": 3, "activation_dim": D_IN, "dict_size": D_SAE, "k": K,
              "lm_name": "EleutherAI/pythia-70m-deduped"}  # fmt: skip
    (folder / "config.json").write_text(
        json.dumps({"trainer": {**config, **trainer}, "buffer": {"ctx_len": 128, "io": "out"}})
    )
    return folder


@pytest.mark.parametrize("name", STATES)
def test_each_class_encodes_as_defined(tmp_path, rows, name):
    folder = trainer_folder(tmp_path, name)
    with pytest.raises(SAEError, match=r"dictionary_learning.*convert"):
        load_sae(folder)
    convert(folder, tmp_path / "out")
    sae = load_sae(tmp_path / "out")
    expected = latents(name, STATES[name], rows)
    torch.testing.assert_close(sae.encode(rows), expected)
    assert expected.count_nonzero() > 20
    decoder = STATES[name].get("W_dec", LINEAR["decoder.weight"].T)
    bias = next(STATES[name][b] for b in ("b_dec", "bias", "decoder.bias", "decoder_bias")
                if b in STATES[name])  # fmt: skip
    torch.testing.assert_close(sae.reconstruct(rows), expected @ decoder + bias)
    assert sae.info.hook_name == "blocks.3.hook_resid_post"
    assert sae.info.model_name == "pythia-70m-deduped"
    assert sae.info.k == (K if "TopK" in name else None)


@pytest.mark.parametrize("name", [n for n in STATES if n != "AutoEncoderNew"])
def test_each_class_equals_the_reader_of_sae_lens(tmp_path, rows, name, monkeypatch):
    folder = trainer_folder(tmp_path, name)
    ours = convert(folder, tmp_path / "out")
    monkeypatch.setattr(theirs, "hf_hub_download", lambda filename, **k: str(tmp_path / filename))
    cfg, state, _ = theirs.dictionary_learning_sae_huggingface_loader_1(
        "repo", "resid_post_layer_3/trainer_0"
    )
    reference = sae_lens.SAE.from_dict(theirs.handle_config_defaulting(cfg))
    reference.process_state_dict_for_loading(state)
    reference.load_state_dict(state)
    torch.testing.assert_close(ours.encode(rows), reference.encode(rows))
    torch.testing.assert_close(ours.reconstruct(rows), reference(rows))
    assert ours.info.hook_name == reference.cfg.metadata.hook_name
    assert ours.info.model_name == reference.cfg.metadata.model_name


@pytest.mark.parametrize("name", STATES)
def test_without_config_json_the_class_is_told_from_the_tensors(tmp_path, rows, name):
    torch.save(STATES[name], tmp_path / "ae.pt")
    if name in ("AutoEncoderTopK", "BatchTopKSAE"):
        with pytest.raises(SAEError, match=r"AutoEncoderTopK or BatchTopKSAE.*config\.json"):
            convert(tmp_path / "ae.pt", tmp_path / "out", hook_name="blocks.1.hook_resid_post")
        return
    sae = convert(tmp_path / "ae.pt", tmp_path / "out", hook_name="blocks.1.hook_resid_post")
    torch.testing.assert_close(sae.encode(rows), latents(name, STATES[name], rows))


def test_an_old_topk_file_without_threshold_is_told_apart(tmp_path, rows):
    state = {k: v for k, v in STATES["AutoEncoderTopK"].items() if k != "threshold"}
    torch.save(state, tmp_path / "ae.pt")
    sae = convert(tmp_path, tmp_path / "out", hook_name="blocks.1.hook_resid_post")
    assert (sae.info.architecture, sae.info.k) == ("topk", K)


def test_the_input_of_a_block_is_its_pre(tmp_path):
    folder = trainer_folder(tmp_path, "AutoEncoder")
    config = json.loads((folder / "config.json").read_text())
    config["buffer"]["io"] = "in"
    (folder / "config.json").write_text(json.dumps(config))
    assert convert(folder, tmp_path / "out").info.hook_name == "blocks.3.hook_resid_pre"


@pytest.mark.parametrize(
    ("name", "trainer", "message"),
    [
        ("BatchTopKSAE", {"dict_class": "GatedAutoEncoder"}, "tensors are those of"),
        ("AutoEncoder", {"dict_class": "CrossCoder"}, "'CrossCoder'"),
        ("AutoEncoder", {"dict_class": ["AutoEncoder"]}, "tensors are those of AutoEncoder"),
        ("AutoEncoderTopK", {"k": 5}, "k is given as 4 and 5"),
        ("AutoEncoderTopK", {"k": 1e300}, r"k is 1e\+300"),
        ("AutoEncoder", {"activation_dim": 9}, "activation_dim is 9, but the tensors have 8"),
        ("GatedAutoEncoder", {"dict_size": 99}, "dict_size is 99, but the tensors have 24"),
        ("BatchTopKSAE", {"k": 5}, "k is given as 4 and 5"),
        ("AutoEncoder", {"layer": "3"}, "layer is 3, expected a whole number"),
        ("AutoEncoder", {"layer": -1}, "layer is -1"),
        ("AutoEncoder", {"submodule_name": "mlp_layer3"}, "only SAEs of the residual stream"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, name, trainer, message):
    with pytest.raises(SAEError, match=message):
        convert(trainer_folder(tmp_path, name, **trainer), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": torch.tensor(-1.0)}, "before it was estimated"),
        ({"threshold": torch.tensor(float("nan"))}, "threshold is nan"),
        ({"encoder.weight": normal(D_SAE, 9)}, r"decoder\.weight is \[8, 24\], expected \[9, 24\]"),
        ({"encoder.weight": normal(D_SAE)}, r"expected \[any, any\]"),
        ({"encoder.weight": "text"}, "encoder.weight is str"),
        ({"encoder.weight": torch.ones(D_SAE, D_IN, dtype=torch.int64)}, r"is torch\.int64"),
        ({"encoder.weight": normal(D_SAE, D_IN).to_sparse()}, "expected a tensor of floats"),
        ({"encoder.weight": torch.ones(1, 1).expand(10**9, 10**9)}, "over fewer bytes"),
        ({"b_dec": normal(D_IN) / 0}, "b_dec hold values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, changes, message):
    state = {**STATES["BatchTopKSAE"], **changes}
    with pytest.raises(SAEError, match=message):
        convert(trainer_folder(tmp_path, "BatchTopKSAE", state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_foreign_tensors_and_values_are_named(tmp_path):
    torch.save({"conv.weight": normal(3)}, tmp_path / "ae.pt")
    with pytest.raises(SAEError, match=r"holds conv\.weight: no class of dictionary_learning"):
        convert(tmp_path / "ae.pt", tmp_path / "out")
    torch.save([normal(3)], tmp_path / "ae.pt")
    with pytest.raises(SAEError, match="holds a list, expected a state dictionary"):
        convert(tmp_path / "ae.pt", tmp_path / "out")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("name", ["ae.pt", "layer3.sae.pt", "params.npz", "params.safetensors"])
def test_files_that_would_run_code_are_not_opened(tmp_path, how, name, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    evil = {**LINEAR, "encoder.weight": Malicious(tmp_path / "made")}
    with (tmp_path / name).open("wb") as handle:
        torch.save(evil, handle) if how == "torch" else pickle.dump(evil, handle)
    with pytest.raises(SAEError, match=r"run code|cannot be read"):
        convert(tmp_path / name, tmp_path / "out", hook_name="blocks.1.hook_resid_post")
    assert not (tmp_path / "made").exists()


QWEN = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"


def qwen_file(root: Path, n: int = 64) -> Path:
    folder = root / QWEN
    folder.mkdir()
    state = {"W_enc": normal(n, D_IN), "W_dec": normal(D_IN, n), "b_enc": normal(n, seed=2),
             "b_dec": normal(D_IN, seed=3)}  # fmt: skip
    torch.save(state, folder / "layer7.sae.pt")
    return folder


def test_qwen_scope(tmp_path, rows, monkeypatch):
    folder = qwen_file(tmp_path)
    ours = convert(folder, tmp_path / "out")
    assert (ours.info.hook_name, ours.info.k) == ("blocks.7.hook_resid_post", 50)
    assert ours.info.model_name == "Qwen/Qwen3-1.7B-Base"
    monkeypatch.setattr(theirs, "hf_hub_download", lambda filename, **k: str(folder / filename))
    monkeypatch.setitem(theirs.QWEN_SCOPE_MODEL_INFO, "Qwen3-1.7B-Base", ("Qwen/Q", D_IN))
    cfg, state, _ = theirs.qwen_scope_sae_huggingface_loader(
        f"Qwen/{QWEN}", "layer7.sae.pt", cfg_overrides={"d_sae": 64}
    )
    reference = sae_lens.SAE.from_dict(theirs.handle_config_defaulting(cfg))
    reference.load_state_dict(state)
    torch.testing.assert_close(ours.encode(rows), reference.encode(rows))
    torch.testing.assert_close(ours.reconstruct(rows), reference(rows))


def test_qwen_scope_away_from_its_folder_needs_k(tmp_path):
    file = qwen_file(tmp_path).rename(tmp_path / "copied") / "layer7.sae.pt"
    with pytest.raises(SAEError, match="pass k"):
        convert(file, tmp_path / "out")
    assert convert(file, tmp_path / "out", k=3).info.k == 3
    with pytest.raises(SAEError, match=r"k is 65, expected a whole number in 1\.\.64"):
        convert(file, tmp_path / "out", k=65, overwrite=True)
    torch.save({}, tmp_path / "copied" / "layer8.sae.pt")
    with pytest.raises(SAEError, match="holds 2 files of that form"):
        convert(tmp_path / "copied", tmp_path / "out", k=3, overwrite=True)


@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.data())
def test_damaged_torch_files_are_refused_or_read(tmp_path, data):
    folder = trainer_folder(tmp_path, "BatchTopKSAE")
    original = (folder / "ae.pt").read_bytes()
    cut = data.draw(st.integers(0, len(original)) | st.just(len(original)))
    damaged = bytearray(original[:cut])
    for _ in range(data.draw(st.integers(0, 3)) if cut else 0):
        damaged[data.draw(st.integers(0, cut - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "ae.pt").write_bytes(damaged)
    try:
        sae = convert(folder, tmp_path / "out")
    except SAEError:
        return
    assert sae.encode(torch.ones(1, D_IN)).shape == (1, D_SAE)


@settings(max_examples=100, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    key=st.sampled_from(["dict_class", "layer", "k", "lm_name", "submodule_name"]),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.integers()),
)  # fmt: skip
def test_any_value_in_a_trainer_configuration(tmp_path, key, value):
    folder = trainer_folder(tmp_path, "AutoEncoderTopK", **{key: value})
    try:
        sae = convert(folder, tmp_path / "out")
    except SAEError:
        return
    assert sae.encode(torch.ones(1, D_IN)).shape == (1, D_SAE)
