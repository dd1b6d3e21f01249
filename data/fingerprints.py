"""Hashes that name a model and a tokenizer, equal on every machine that holds the same ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from affectlens.data.artifacts import sha256_file, sha256_json

if TYPE_CHECKING:
    from affectlens.data.models import ModelSource

# Keys of a config that say who wrote it or in which number format, not what the model computes.
_VOLATILE = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


def model_fingerprint(model: PreTrainedModel, source: ModelSource) -> str:
    """Hex SHA-256 over the source file, or config and weight files, or the state dict."""
    if source.sha256 is not None:
        return sha256_json({"file": source.sha256})
    if source.path is not None:
        return _folder_fingerprint(Path(source.path))
    return _state_fingerprint(model)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex SHA-256 over vocabulary, rules, special tokens and chat template."""
    return sha256_json(
        {
            "definition": _definition(tokenizer),
            "special": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
            "chat_template": tokenizer.chat_template,
        }
    )


def _definition(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    definition = json.loads(backend.to_str())
    # Calls that pad or cut leave these set; they are not part of what the tokenizer is.
    definition.pop("padding", None)
    definition.pop("truncation", None)
    return definition


def _folder_fingerprint(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    weights = {file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return sha256_json({"config": kept, "weights": weights})


def _state_fingerprint(model: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode("utf-8"))
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
