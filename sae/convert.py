"""Readers for SAEs of other projects: Gemma Scope and sparsify.

Gemma Scope (Lieberum et al. 2024) ships one `params.npz` with `W_enc [d_in, d_sae]`,
`W_dec [d_sae, d_in]`, `b_enc`, `b_dec` and `threshold`: a JumpReLU SAE whose decoder bias is not
subtracted from the input. sparsify (EleutherAI) ships `cfg.json` and `sae.safetensors` with
`encoder.weight [d_sae, d_in]`, `W_dec [d_sae, d_in]`: a TopK SAE that does subtract it.
"""

from __future__ import annotations

import copy
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sae_lens
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from affectlens.sae.errors import SAEError

_NPZ = "params.npz"
_SPARSIFY_WEIGHTS = "sae.safetensors"


def convertible(path: Path) -> str:
    """Name of the foreign format at `path`, or an empty string."""
    path = Path(path)
    if path.suffix == ".npz" or (path / _NPZ).is_file():
        return "Gemma Scope"
    if path.is_dir() and (path / _SPARSIFY_WEIGHTS).is_file():
        return "sparsify"
    return ""


def read_foreign(source: Path, *, hook_name: str | None, model_name: str | None) -> Any:
    """Read a Gemma Scope or sparsify SAE as a sae-lens SAE.

    Raises:
        SAEError: nothing known lies at `source`, arrays are missing or of the wrong shape, or the
            layer is neither given nor in the path.
    """
    kind = convertible(source)
    if kind == "Gemma Scope":
        cfg, state = _gemma_scope(source / _NPZ if source.is_dir() else source)
    elif kind == "sparsify":
        cfg, state = _sparsify(source)
    else:
        raise SAEError(
            f"{source} holds no SAE of a known form; looked for params.npz (Gemma Scope), "
            "sae.safetensors (sparsify) and a sae-lens training checkpoint"
        )
    place = hook_name or _hook_from_path(source)
    cfg["metadata"] = {"hook_name": place, "model_name": model_name or "", "converted_from": kind}
    return build_sae(cfg, state)


def build_sae(cfg: Mapping[str, Any], state: dict[str, Tensor]) -> Any:
    """A sae-lens inference SAE from a configuration dictionary and its tensors.

    Raises:
        SAEError: tensors are missing, unknown or of the wrong shape.
    """
    # The fresh weights are random; the caller's random state is not ours to advance.
    with torch.random.fork_rng(devices=[]):
        sae = sae_lens.SAE.from_dict(dict(cfg))
    sae.process_state_dict_for_loading(state)
    try:
        sae.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        raise SAEError(f"the tensors do not fit the configuration: {error}") from error
    return sae


@torch.no_grad()
def inference_form(training: Any) -> Any:
    """The inference SAE of a sae-lens training SAE, decoder norms folded, as a copy."""
    state = {name: value.detach().clone() for name, value in training.state_dict().items()}
    training.process_state_dict_for_saving_inference(state)
    cfg = copy.deepcopy(training.cfg.get_inference_sae_cfg_dict())
    if cfg.get("rescale_acts_by_decoder_norm"):
        # The norms were folded above; rows have norm one, so rescaling again would only cost time.
        cfg["rescale_acts_by_decoder_norm"] = False
    return build_sae(cfg, state)


def _gemma_scope(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    needed = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    try:
        # The handle is ours: NumPy leaves it open when the archive is damaged.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            state = {
                re.sub("^w_", "W_", name): torch.from_numpy(np.asarray(arrays[name], np.float32))
                for name in arrays.files
            }
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SAEError(f"{path} cannot be read as npz ({error}); fetch it again") from error
    missing = [name for name in needed if name not in state]
    if missing:
        raise SAEError(f"{path} has no {', '.join(missing)}; it holds {', '.join(sorted(state))}")
    if state["W_enc"].ndim != 2:
        raise SAEError(f"{path}: W_enc is {tuple(state['W_enc'].shape)}, expected [d_in, d_sae]")
    d_in, d_sae = state["W_enc"].shape
    cfg = {"architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": False}
    return cfg, {name: state[name] for name in needed}


def _sparsify(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        raw = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / _SPARSIFY_WEIGHTS)
        k = int(raw["k"])
        encoder, decoder = tensors["encoder.weight"], tensors["W_dec"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SAEError(
            f"{folder} cannot be read as a sparsify SAE ({type(error).__name__}: {error}); "
            "expected cfg.json with k, and encoder.weight and W_dec"
        ) from error
    if raw.get("transcode") or "W_skip" in tensors:
        raise SAEError(
            f"{folder} is a sparsify transcoder; only residual-stream SAEs are supported"
        )
    if raw.get("activation", "topk") != "topk" or raw.get("signed"):
        raise SAEError(f"{folder}: only the unsigned topk activation of sparsify is supported")
    d_sae, d_in = encoder.shape
    cfg = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "k": k,
        "apply_b_dec_to_input": True,
    }
    state = {
        "W_enc": encoder.T.contiguous(),
        "W_dec": decoder.contiguous(),
        "b_enc": tensors.get("encoder.bias", torch.zeros(d_sae)),
        "b_dec": tensors.get("b_dec", torch.zeros(d_in)),
    }
    return cfg, state


def _hook_from_path(path: Path) -> str:
    found = re.search(r"layers?[._](\d+)", str(path))
    if found is None:
        raise SAEError(
            f"the path {path} does not tell the layer; pass hook_name, for example "
            "hook_name='blocks.20.hook_resid_post'"
        )
    return f"blocks.{found.group(1)}.hook_resid_post"
