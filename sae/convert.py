"""From the files of other projects, and from training checkpoints, to sae-lens inference SAEs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sae_lens
import torch
from torch import Tensor

from affectlens.sae.cfg_checks import CFG_FILE, WEIGHTS_FILE
from affectlens.sae.errors import SAEError, SAERequestError
from affectlens.sae.formats import (
    GEMMA_2_WEIGHTS,
    LLAMA_CONFIG,
    LLAMA_WEIGHTS,
    NPZ,
    SPARSIFY_WEIGHTS,
    Reader,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    place_from_path,
    sparsify,
)
from affectlens.sae.torch_formats import (
    DICTIONARY_FILE,
    QWEN_FILE,
    dictionary_learning,
    qwen_scope,
)

_LOOKED_AT = 500
_SHOWN = 5
_READERS: dict[str, Reader] = {
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
    "sparsify": sparsify,
    "Llama Scope": llama_scope,
    "Qwen Scope": qwen_scope,
    "dictionary_learning": dictionary_learning,
}


def convertible(path: Path) -> str:
    """Name of the foreign format at `path`, or an empty string."""
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if path.suffix == ".npz":
        return "Gemma Scope"
    if QWEN_FILE.fullmatch(path.name):
        return "Qwen Scope"
    if path.name == GEMMA_2_WEIGHTS:
        return "Gemma Scope 2"
    if path.name == SPARSIFY_WEIGHTS:
        return "sparsify"
    if path.as_posix().endswith(LLAMA_WEIGHTS):
        return "Llama Scope"
    return "dictionary_learning" if path.suffix == ".pt" else ""


def saes_within(folder: Path) -> list[str]:
    """Names of folders below `folder`, at most three deep, that hold an SAE of a known form."""
    found, level = [], [folder]
    for _ in range(3):
        level = [p for parent in level for p in sorted(parent.iterdir()) if p.is_dir()][:_LOOKED_AT]
        found += [p for p in level if convertible(p) or (p / WEIGHTS_FILE).is_file()]
    return [p.relative_to(folder).as_posix() for p in found]


def read_foreign(
    source: Path, *, hook_name: str | None, model_name: str | None, k: int | None = None
) -> Any:
    """Read an SAE of another project as a sae-lens SAE.

    Args:
        source: the file or the folder that holds it.
        hook_name: where it belongs; overrides what the files and the path say.
        model_name: overrides what the files say.
        k: latents per token, for the formats that do not record it.

    Raises:
        SAERequestError: `source` does not exist, or the layer is neither given nor in the files or
            the path.
        SAEError: nothing known lies at `source`, or arrays are missing or of the wrong shape.
    """
    if not source.exists():
        raise SAERequestError(
            f"{source} does not exist; give the file or the folder that holds the SAE"
        )
    kind = convertible(source)
    if not kind and (source / CFG_FILE).is_file() and (source / WEIGHTS_FILE).is_file():
        raise SAEError(f"{source} is a sae-lens folder already; open it as it is (load_sae). What "
                       f"it does not say, such as hook_name, goes into metadata of its {CFG_FILE} "
                       "(without the key integrity)")  # fmt: skip
    if not kind and source.is_dir() and (within := saes_within(source)):
        raise SAEError(f"{source} is no SAE, but holds folders that are; give one of them, such as "
                       f"{', '.join(within[:_SHOWN])}")  # fmt: skip
    if not kind:
        raise SAEError(
            f"{source} holds no SAE of a known form; looked for params.npz (Gemma Scope), "
            "params.safetensors (Gemma Scope 2), sae.safetensors (sparsify), ae.pt "
            "(dictionary_learning), layerN.sae.pt (Qwen Scope), hyperparams.json with "
            "checkpoints/final.safetensors (Llama Scope) and a sae-lens training checkpoint"
        )
    foreign = _READERS[kind](source, k)
    place = hook_name or foreign.hook_name or place_from_path(source)
    metadata = {
        "hook_name": place,
        "model_name": model_name or foreign.model_name,
        "converted_from": kind,
        **({} if foreign.k is None else {"k": foreign.k}),
    }
    return build_sae({**foreign.cfg, "metadata": metadata}, foreign.state)


def build_sae(cfg: Mapping[str, Any], state: dict[str, Tensor]) -> Any:
    """A sae-lens inference SAE from a configuration dictionary and its tensors.

    The tensors are taken over, not copied, where they are dense float32 already.

    Raises:
        SAEError: tensors are missing, unknown or of the wrong shape.
    """
    # Nothing is allocated and no random number drawn for weights that are replaced at once.
    with torch.random.fork_rng(devices=[]):
        sae = sae_lens.SAE.from_dict({**cfg, "device": "meta"})
    sae.cfg.device = "cpu"
    sae.process_state_dict_for_loading(state)
    dense = {name: tensor.float().contiguous() for name, tensor in state.items()}
    try:
        sae.load_state_dict(dense, assign=True)
    except RuntimeError as error:
        raise SAEError(f"the tensors do not fit the configuration: {error}") from error
    return sae.to(dtype=torch.float32, device="cpu")


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


def _of_folder(path: Path) -> str:
    if (path / NPZ).is_file():
        return "Gemma Scope"
    if (path / GEMMA_2_WEIGHTS).is_file():
        return "Gemma Scope 2"
    if (path / SPARSIFY_WEIGHTS).is_file():
        return "sparsify"
    if (path / LLAMA_CONFIG).is_file() and (path / LLAMA_WEIGHTS).is_file():
        return "Llama Scope"
    if (path / DICTIONARY_FILE).is_file():
        return "dictionary_learning"
    if any(QWEN_FILE.fullmatch(p.name) for p in path.iterdir()):
        return "Qwen Scope"
    return ""
