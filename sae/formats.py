"""Readers of the folders and files that other projects publish, one function for each.

Every reader returns a `Foreign`: a sae-lens configuration, its tensors as [d_in, d_sae] and
[d_sae, d_in], and what the files say of place and model. Where sae-lens reads the same files from
the hub, the result equals its own; the tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.sae.cfg_checks import read_json
from affectlens.sae.errors import SAEError, SAERequestError
from affectlens.sae.files import read_npz, read_safetensors, take

NPZ = "params.npz"
SPARSIFY_WEIGHTS = "sae.safetensors"
GEMMA_2_WEIGHTS = "params.safetensors"
LLAMA_CONFIG = "hyperparams.json"
LLAMA_WEIGHTS = "checkpoints/final.safetensors"

_BESIDE = re.compile(
    r"(transcoder|\bclt\b|(?:^|[._/-])(?:mlp|attn|att|attention|embedding|embed_tokens)(?:[._/-]|$))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Foreign:
    """An SAE of another project, in the terms of sae-lens."""

    cfg: dict[str, Any]
    state: dict[str, Tensor]
    hook_name: str = ""
    """Where the files say that it belongs; empty if they do not."""
    model_name: str = ""
    k: int | None = None
    """Latents per token that it was trained for, where the configuration has no place for it."""


def gemma_scope(path: Path, k: int | None) -> Foreign:
    """Gemma Scope (Lieberum et al. 2024): `params.npz`, a JumpReLU SAE.

    Its decoder bias is not subtracted from the input.
    """
    del k
    file = path / NPZ if path.is_dir() else path
    arrays = {re.sub("^w_", "W_", name): value for name, value in read_npz(file).items()}
    needed = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    if missing := [name for name in needed if name not in arrays]:
        raise SAEError(f"{file} has no {', '.join(missing)}; it holds {', '.join(sorted(arrays))}")
    scale = arrays.get("scaling_factor")
    if scale is not None and not torch.allclose(scale, torch.ones_like(scale)):
        raise SAEError(f"{file} has a scaling_factor other than 1, which is not supported")
    cfg, state = _jumprelu(arrays, file)
    return Foreign(cfg, state)


def gemma_scope_2(path: Path, k: int | None) -> Foreign:
    """Gemma Scope 2 (Gemma 3): `params.safetensors` and `config.json`, a JumpReLU SAE."""
    del k
    file = path / GEMMA_2_WEIGHTS if path.is_dir() else path
    raw = {re.sub("^w_", "W_", n): v for n, v in read_safetensors(file).items()}
    config = config_beside(file)
    if "affine_skip_connection" in raw or "hf_hook_point_out" in config:
        raise SAEError(f"{file} is a transcoder; only residual-stream SAEs are supported")
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise SAEError(f"{file}: architecture is {config['architecture']!r}, expected jump_relu")
    cfg, state = _jumprelu(raw, file)
    place = _text(config, "hf_hook_point_in")
    found = re.fullmatch(r"model\.layers\.(\d{1,6})\.output", place)
    if place and not found:
        raise SAEError(f"{file} reads {place!r}; only the residual stream after a block "
                       "(model.layers.N.output) is supported")  # fmt: skip
    hook = f"blocks.{found.group(1)}.hook_resid_post" if found else ""
    name = _text(config, "model_name").replace("-v3", "-3")
    return Foreign(cfg, state, hook, name)


def sparsify(path: Path, k: int | None) -> Foreign:
    """sparsify (EleutherAI): `cfg.json` and `sae.safetensors`, a TopK SAE.

    `encoder.weight` and `W_dec` are both [d_sae, d_in]; the decoder bias is subtracted from the
    input. (sae-lens' own reader transposes `W_dec`, which then does not fit.)
    """
    path = path if path.is_dir() else path.parent
    raw = read_json(path / "cfg.json")
    tensors = read_safetensors(path / SPARSIFY_WEIGHTS)
    if raw.get("transcode") or "W_skip" in tensors:
        raise SAEError(f"{path} is a sparsify transcoder; only residual-stream SAEs are supported")
    if raw.get("activation", "topk") != "topk" or raw.get("signed"):
        raise SAEError(f"{path}: only the unsigned topk activation of sparsify is supported")
    if "encoder.weight" not in tensors or "W_dec" not in tensors:
        raise SAEError(f"{path} cannot be read as a sparsify SAE; expected cfg.json with k, and "
                       f"encoder.weight and W_dec, found {', '.join(sorted(tensors))}")  # fmt: skip
    encoder = take(tensors, "encoder.weight", (None, None), path)
    d_sae, d_in = encoder.shape
    agree(raw, "d_in", d_in, path)
    # 0 stands for "see expansion_factor".
    agree({"num_latents": raw.get("num_latents") or None}, "num_latents", d_sae, path)
    state = {
        "W_enc": encoder.T,
        "W_dec": take(tensors, "W_dec", (d_sae, d_in), path),
        "b_enc": _or_zeros(tensors, "encoder.bias", d_sae, path),
        "b_dec": _or_zeros(tensors, "b_dec", d_in, path),
    }
    k = k_of(raw.get("k") if k is None else k, d_sae, path)
    return Foreign(base_cfg("topk", d_in, d_sae, subtract=True, k=k), state)


def llama_scope(path: Path, k: int | None) -> Foreign:
    """Llama Scope (He et al. 2024): `hyperparams.json` and `checkpoints/final.safetensors`.

    A JumpReLU SAE with one threshold, trained on inputs scaled to norm sqrt(d_in); the scale, from
    the average norm in `hyperparams.json`, is folded into the weights, as sae-lens folds it.
    """
    del k
    path = path if path.is_dir() else path.parent.parent
    raw = read_json(path / LLAMA_CONFIG)
    file = path / LLAMA_WEIGHTS
    tensors = read_safetensors(file)
    hook = _text(raw, "hook_point_in")
    if _text(raw, "hook_point_out") not in ("", hook):
        raise SAEError(f"{path} is a transcoder; only residual-stream SAEs are supported")
    if raw.get("act_fn", "jumprelu") != "jumprelu":
        raise SAEError(f"{path}: act_fn is {raw['act_fn']!r}, expected jumprelu")
    encoder = take(tensors, "encoder.weight", (None, None), file)
    d_sae, d_in = encoder.shape
    agree(raw, "d_model", d_in, path)
    agree(raw, "d_sae", d_sae, path)
    norms = raw.get("dataset_average_activation_norm")
    norm = positive(norms.get("in") if isinstance(norms, dict) else None,
                     "dataset_average_activation_norm.in", path)  # fmt: skip
    scale = d_in**0.5 / norm
    threshold = positive(raw.get("jump_relu_threshold"), "jump_relu_threshold", path) * scale
    state = {
        "W_enc": encoder.T * scale,
        "W_dec": take(tensors, "decoder.weight", (d_in, d_sae), file).T / scale,
        "b_enc": take(tensors, "encoder.bias", (d_sae,), file),
        "b_dec": take(tensors, "decoder.bias", (d_in,), file) / scale,
        "threshold": torch.full((d_sae,), threshold),
    }
    cfg = base_cfg("jumprelu", d_in, d_sae, subtract=False)
    return Foreign(cfg, state, hook, "meta-llama/Llama-3.1-8B")


def place_from_path(path: Path) -> str:
    """The hook that the folders' names tell, such as `layer_20/width_16k`.

    Raises:
        SAERequestError: no layer.
        SAEError: a folder that names another kind of place.
    """
    text = str(path.absolute())
    found = list(re.finditer(r"layers?[._-]?(\d{1,6})(?!\d)", text))
    if not found:
        raise SAERequestError(
            f"the path {path} does not tell the layer; pass hook_name (--hook), such as "
            "blocks.20.hook_resid_post"
        )
    # The part of the path that the publisher named, from the repository's folder on.
    own = text[_repository_start(text, found[-1].start()) :]
    if other := _BESIDE.search(own):
        raise SAEError(
            f"the path {path} names {other.group(0).strip('._/-')!r}; only residual-stream SAEs "
            "are supported. If it is one, pass hook_name (--hook)"
        )
    return f"blocks.{found[-1].group(1)}.hook_resid_post"


def base_cfg(
    architecture: str, d_in: int, d_sae: int, *, subtract: bool, k: int | None = None
) -> dict[str, Any]:
    """A sae-lens configuration; `subtract`: whether `b_dec` is taken from the input first."""
    cfg: dict[str, Any] = {"architecture": architecture, "d_in": d_in, "d_sae": d_sae,
                           "dtype": "float32", "apply_b_dec_to_input": subtract}  # fmt: skip
    return cfg if k is None else {**cfg, "k": k}


def k_of(value: Any, d_sae: int, where: Path | str) -> int:
    """`value` as the number of latents per token.

    Raises:
        SAEError: not a whole number in 1..d_sae.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= d_sae:
        raise SAEError(f"{where}: k is {str(value)[:40]}, expected a whole number in 1..{d_sae}; "
                       "pass k (--k) if the files do not say it")  # fmt: skip
    return value


def agree(said: Mapping[str, Any], name: str, found: int, where: Path | str) -> None:
    """Compare a size that a configuration states, if it does, with that of the tensors.

    Raises:
        SAEError: they differ, or it is no whole number.
    """
    value = said.get(name)
    if value is not None and (isinstance(value, bool) or value != found):
        raise SAEError(f"{where}: {name} is {str(value)[:40]}, but the tensors have {found}; the "
                       "configuration belongs to another SAE: fetch both again")  # fmt: skip


def _jumprelu(tensors: dict[str, Tensor], file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if "W_enc" in tensors and tensors["W_enc"].ndim != 2:
        shape = tuple(tensors["W_enc"].shape)
        raise SAEError(f"{file}: W_enc is {shape}, expected [d_in, d_sae]")
    encoder = take(tensors, "W_enc", (None, None), file)
    d_in, d_sae = encoder.shape
    state = {
        "W_enc": encoder,
        "W_dec": take(tensors, "W_dec", (d_sae, d_in), file),
        "b_enc": take(tensors, "b_enc", (d_sae,), file),
        "b_dec": take(tensors, "b_dec", (d_in,), file),
        "threshold": take(tensors, "threshold", (d_sae,), file),
    }
    return base_cfg("jumprelu", d_in, d_sae, subtract=False), state


def _repository_start(text: str, end: int) -> int:
    """Where the publisher's part of a path begins: at most three folders above the layer's."""
    start = end
    for _ in range(4):
        start = max(text.rfind("/", 0, start), text.rfind("\\", 0, start), 0)
    return start


def config_beside(file: Path) -> dict[str, Any]:
    """The `config.json` in the folder of `file`; empty without one."""
    beside = file.parent / "config.json"
    return read_json(beside) if beside.is_file() else {}


def _text(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""


def positive(value: Any, name: str, where: Path) -> float:
    """`value` as a float.

    Raises:
        SAEError: no finite number above 0.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 < value <= 1e30:
        raise SAEError(f"{where}: {name} is {str(value)[:40]}, expected a number above 0")
    return float(value)


def _or_zeros(tensors: dict[str, Tensor], name: str, n: int, where: Path) -> Tensor:
    return take(tensors, name, (n,), where) if name in tensors else torch.zeros(n)


Reader = Callable[[Path, int | None], Foreign]
