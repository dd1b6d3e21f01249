"""Readers of `.pt` files: dictionary_learning and Qwen Scope.

dictionary_learning (Marks et al.) writes `ae.pt`, the state dictionary of one of six classes, and
`config.json` beside it. Its gated and JumpReLU classes multiply a latent by the norm of its decoder
row, and divide by it before decoding; like sae-lens we leave both out, which changes the unit of a
latent and not the reconstruction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.sae.errors import SAEError
from affectlens.sae.files import read_torch, take
from affectlens.sae.formats import Foreign, agree, base_cfg, config_beside, k_of

DICTIONARY_FILE = "ae.pt"
QWEN_FILE = re.compile(r"layer(\d{1,6})\.sae\.pt")

_CLASSES = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "GatedAutoEncoder",
            "JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")  # fmt: skip
_LINEAR_TOPK = ("AutoEncoderTopK", "BatchTopKSAE")
_BATCH = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def qwen_scope(path: Path, k: int | None) -> Foreign:
    """Qwen Scope: `layerN.sae.pt` with `W_enc` [d_sae, d_in] and `W_dec` [d_in, d_sae], TopK.

    The number of latents per token stands in the name of the repository only
    (`SAE-Res-Qwen3-1.7B-Base-W32K-L0_50`).
    """
    file = _only(path, QWEN_FILE)
    state = read_torch(file)
    encoder = take(state, "W_enc", (None, None), file)
    d_sae, d_in = encoder.shape
    named = re.findall(r"SAE-Res-([\w.-]+?)-W\d+K-L0_(\d{1,6})", str(file.absolute()))
    if k is None and not named:
        raise SAEError(f"{file} does not say how many latents are active per token, which stands "
                       "in the name of its repository (…-L0_50); pass k (--k)")  # fmt: skip
    tensors = {
        "W_enc": encoder.T,
        "W_dec": take(state, "W_dec", (d_in, d_sae), file).T,
        "b_enc": take(state, "b_enc", (d_sae,), file),
        "b_dec": take(state, "b_dec", (d_in,), file),
    }
    k = k_of(int(named[-1][1]) if k is None else k, d_sae, file)
    layer = QWEN_FILE.fullmatch(file.name)
    hook = f"blocks.{int(layer.group(1))}.hook_resid_post" if layer else ""
    cfg = base_cfg("topk", d_in, d_sae, subtract=False, k=k)
    return Foreign(cfg, tensors, hook, f"Qwen/{named[-1][0]}" if named else "")


def dictionary_learning(path: Path, k: int | None) -> Foreign:
    """dictionary_learning: `ae.pt`, and `config.json` beside it where there is one.

    Without `config.json` the class is told from the tensors. AutoEncoderTopK and BatchTopKSAE hold
    the same ones and encode differently, so that these two need it.

    Raises:
        SAEError: broken files, a class of another kind, or one that cannot be told.
    """
    file = path / DICTIONARY_FILE if path.is_dir() else path
    state = read_torch(file)
    beside = file.parent / "config.json"
    config = config_beside(file)
    trainer = _object(config, "trainer", beside)
    name = _class_of(state, trainer, file)
    cfg, tensors = _tensors(name, state, trainer, k, file)
    d_in, d_sae = tensors["W_enc"].shape
    agree(trainer, "activation_dim", d_in, beside)
    agree(trainer, "dict_size", d_sae, beside)
    # The threshold takes the place of k, which is what its L0 is measured against.
    batch = name in _BATCH and any(v is not None for v in (k, trainer.get("k"), state.get("k")))
    trained_for = _k(state, trainer, k, d_sae, file) if batch else None
    hook = _hook(config, trainer, beside)
    return Foreign(cfg, tensors, hook, _model(trainer), trained_for)


def _class_of(state: Mapping[str, Any], trainer: Mapping[str, Any], file: Path) -> str:
    fitting = _fitting(state)
    if not fitting:
        held = ", ".join(sorted(state))[:300]
        raise SAEError(f"{file} holds {held}: no class of dictionary_learning that is supported "
                       f"({', '.join(_CLASSES)})")  # fmt: skip
    named = trainer.get("dict_class")
    if named is None:
        if len(fitting) > 1:
            raise SAEError(f"{file} is {' or '.join(fitting)}, which encode differently and hold "
                           "the same tensors; put its config.json beside it")  # fmt: skip
        return fitting[0]
    if named not in fitting:
        raise SAEError(f"config.json beside {file} says dict_class {str(named)[:60]!r}, but its "
                       f"tensors are those of {' or '.join(fitting)}; supported: "
                       f"{', '.join(_CLASSES)}")  # fmt: skip
    return str(named)


def _fitting(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes whose tensors these are."""
    has = set(state)
    if {"gate_bias", "mag_bias", "r_mag", "decoder_bias", "encoder.weight"} <= has:
        return ("GatedAutoEncoder",)
    if {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"} <= has:
        return ("MatryoshkaBatchTopKSAE",) if "group_sizes" in has else ("JumpReluAutoEncoder",)
    if not {"encoder.weight", "encoder.bias", "decoder.weight"} <= has:
        return ()
    if "b_dec" in has:
        return _LINEAR_TOPK if "threshold" in has else _LINEAR_TOPK[:1]
    if "decoder.bias" in has:
        return ("AutoEncoderNew",)
    return ("AutoEncoder",) if "bias" in has else ()


def _tensors(
    name: str, state: Mapping[str, Any], trainer: Mapping[str, Any], k: int | None, file: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if "W_enc" in state:
        encoder = take(state, "W_enc", (None, None), file)
        d_in, d_sae = encoder.shape
        decoder = take(state, "W_dec", (d_sae, d_in), file)
    else:
        encoder = take(state, "encoder.weight", (None, None), file).T
        d_in, d_sae = encoder.shape
        decoder = take(state, "decoder.weight", (d_in, d_sae), file).T
    tensors = {"W_enc": encoder, "W_dec": decoder}
    tensors["b_dec"] = take(state, _decoder_bias(name), (d_in,), file)
    if name == "GatedAutoEncoder":
        for ours, theirs in (("b_gate", "gate_bias"), ("b_mag", "mag_bias"), ("r_mag", "r_mag")):
            tensors[ours] = take(state, theirs, (d_sae,), file)
        return base_cfg("gated", d_in, d_sae, subtract=True), tensors
    bias = "b_enc" if "b_enc" in state else "encoder.bias"
    tensors["b_enc"] = take(state, bias, (d_sae,), file)
    if name == "JumpReluAutoEncoder":
        tensors["threshold"] = take(state, "threshold", (d_sae,), file)
        return base_cfg("jumprelu", d_in, d_sae, subtract=False), tensors
    if name in _BATCH:
        tensors["threshold"] = _one_threshold(state, d_sae, file)
        return base_cfg("jumprelu", d_in, d_sae, subtract=True), tensors
    if name == "AutoEncoderTopK":
        cfg = base_cfg("topk", d_in, d_sae, subtract=True, k=_k(state, trainer, k, d_sae, file))
        return cfg, tensors
    return base_cfg("standard", d_in, d_sae, subtract=name == "AutoEncoder"), tensors


def _decoder_bias(name: str) -> str:
    names = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias",
             "GatedAutoEncoder": "decoder_bias"}  # fmt: skip
    return names.get(name, "b_dec")


def _one_threshold(state: Mapping[str, Any], d_sae: int, file: Path) -> Tensor:
    value = take(state, "threshold", (), file)
    if not value >= 0:
        raise SAEError(f"{file}: the threshold is {value.item()}, so training ended before it was "
                       "estimated; without one a token's latents depend on its batch")  # fmt: skip
    return torch.full((d_sae,), value.item())


def _k(
    state: Mapping[str, Any], trainer: Mapping[str, Any], k: int | None, d_sae: int, file: Path
) -> int:
    said = [v for v in (k, trainer.get("k"), state.get("k")) if v is not None]
    values = {k_of(value, d_sae, file) for value in said or [None]}
    if len(values) > 1:
        raise SAEError(f"{file}: k is given as {' and '.join(map(str, sorted(values)))}; they "
                       "should agree")  # fmt: skip
    return values.pop()


def _hook(config: Mapping[str, Any], trainer: Mapping[str, Any], where: Path) -> str:
    layer = trainer.get("layer")
    if layer is None:
        return ""
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < 10**6:
        raise SAEError(f"{where}: layer is {str(layer)[:40]}, expected a whole number from 0")
    submodule = str(trainer.get("submodule_name") or "")
    io = _object(config, "buffer", where).get("io", "out")
    if re.search("mlp|attn|attention", submodule) or io not in ("in", "out"):
        raise SAEError(f"{where}: submodule_name is {submodule[:60]!r} and io is {str(io)[:20]!r}; "
                       "only SAEs of the residual stream are supported")  # fmt: skip
    return f"blocks.{layer}.hook_resid_{'pre' if io == 'in' else 'post'}"


def _model(trainer: Mapping[str, Any]) -> str:
    name = trainer.get("lm_name")
    return name.split("/")[-1] if isinstance(name, str) else ""


def _object(config: Mapping[str, Any], key: str, where: Path) -> dict[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SAEError(f"{where}: {key} is {str(value)[:40]}, expected an object")
    return value


def _only(path: Path, name: re.Pattern[str]) -> Path:
    if not path.is_dir():
        return path
    files = sorted(p for p in path.iterdir() if name.fullmatch(p.name))
    if len(files) != 1:
        raise SAEError(f"{path} holds {len(files)} files of that form; give one of them, such as "
                       f"{files[0] if files else path / 'layer0.sae.pt'}")  # fmt: skip
    return files[0]
