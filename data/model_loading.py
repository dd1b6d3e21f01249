"""How each kind of model name becomes a `LanguageModel`: tiny, default, GGUF file, folder, hub."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from affectlens.data import model_cache
from affectlens.data.artifacts import read_json
from affectlens.data.devices import device_fault
from affectlens.data.errors import AffectLensError, ModelError
from affectlens.data.models import DEFAULT_MODEL, LanguageModel, ModelSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TINY = "tiny:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Weights as safetensors at the top of the repository, and what the tokenizer needs; never pickles.
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
_HUB_SKIPPED = ["*/*", "consolidated*"]


def load(
    name: str,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    cache_dir: str | Path | None,
) -> LanguageModel:
    """Load a model by name; see `models.load_model`, whose work this does."""
    if fault := device_fault(device):
        raise ModelError(fault)
    number = _dtype(dtype)
    path = Path(name).expanduser()
    if revision is not None and (name == DEFAULT_MODEL or name.startswith(_TINY) or path.exists()):
        raise ModelError(
            f"revision={revision!r} has a meaning for hub models only, not for {name!r}"
        )
    if name.startswith(_TINY):
        lm = _tiny(name, number)
    elif name == DEFAULT_MODEL:
        lm = _converted(name, "default", model_cache.default_model(cache_dir), number)
    elif path.is_file():
        lm = _file(path, number, cache_dir)
    elif path.is_dir():
        source = _folder_source(path.resolve())
        lm = _from_folder(path.resolve().name, path, source, number)
    elif _HUB_ID.fullmatch(name) and not name.startswith((".", "/", "~")):
        lm = _hub(name, revision, number)
    else:
        raise _unknown(name)
    module: nn.Module = lm.model
    # Not cast here: the loader has set the number format and kept what must stay in float32.
    module.to(torch.device(device))
    module.eval().requires_grad_(requires_grad=False)
    _ = lm.blocks  # a model whose blocks cannot be found is refused here, not in a later stage
    return lm


def read_gguf(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a GGUF file through transformers, dequantised to float32, as an ordinary model.

    Raises:
        ModelError: transformers cannot read it.
    """
    folder, file = str(gguf.parent), gguf.name
    with _explained(f"the GGUF file {gguf}"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.float32, local_files_only=True
        )
    # The weights are plain float32 now; these marks would forbid saving and confuse other tools.
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        model.__dict__.pop(mark, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _tiny(name: str, dtype: torch.dtype) -> LanguageModel:
    from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS
    from affectlens.data.tiny import tiny_model

    words = [word for group in (*EMOTION_WORDS.values(), CALM_WORDS) for word in group]
    lm = tiny_model(name.removeprefix(_TINY), words=words)
    for parameter in lm.model.parameters():
        parameter.data = parameter.data.to(dtype)
    return lm


def _file(path: Path, dtype: torch.dtype, cache_dir: str | Path | None) -> LanguageModel:
    if path.suffix.lower() != ".gguf":
        raise ModelError(
            f"{path} is a file but not a .gguf file; give the folder that holds config.json and "
            "*.safetensors, or a .gguf file"
        )
    return _converted(path.stem, "gguf", model_cache.converted_gguf(path, cache_dir), dtype)


def _converted(name: str, kind: Any, folder: Path, dtype: torch.dtype) -> LanguageModel:
    made = read_json(folder / model_cache.SOURCE_FILE)
    source = ModelSource(
        kind=kind, path=str(folder), revision=made.get("package"), sha256=made["gguf_sha256"]
    )
    return _from_folder(name, folder, source, dtype)


def _folder_source(folder: Path) -> ModelSource:
    """A folder's origin; an intact copy of a converted model keeps its GGUF file's identity."""
    made = folder / model_cache.SOURCE_FILE
    digest = None
    if made.is_file() and model_cache.folder_fault(folder, deep=True) is None:
        digest = str(read_json(made)["gguf_sha256"])
    return ModelSource(kind="folder", path=str(folder), revision=None, sha256=digest)


def _hub(name: str, revision: str | None, dtype: torch.dtype) -> LanguageModel:
    folder, commit = fetch_hub(name, revision)
    source = ModelSource(kind="hub", path=str(folder), revision=commit, sha256=None)
    return _from_folder(name, folder, source, dtype)


def fetch_hub(name: str, revision: str | None) -> tuple[Path, str]:
    """Bring a hub model into the hub's cache; return its folder and its commit.

    Raises:
        ModelError: unknown, gated, or neither reachable nor cached.
    """
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = revision or "main"
    try:
        commit = wanted
        if not _COMMIT.fullmatch(wanted):
            commit = str(huggingface_hub.HfApi().model_info(name, revision=wanted).sha)
        folder = huggingface_hub.snapshot_download(
            name, revision=commit, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_SKIPPED
        )
        return Path(folder), commit
    except HFValidationError as error:
        raise ModelError(f"{name!r} is not a valid hub id: {error}") from error
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise ModelError(
                f"the hub has no model {name!r} at revision {wanted!r} that you may read (status "
                f"{status}); check the name, accept its licence on its page, or log in with "
                "'hf auth login'"
            ) from error
        reason = str(error)
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        reason = str(error)
    return _cached_hub(name, wanted, reason)


def _cached_hub(name: str, wanted: str, reason: str) -> tuple[Path, str]:
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, revision=wanted, local_files_only=True)
        )
    except (OSError, ValueError) as error:
        shown = (reason.splitlines() or ["offline"])[0]
        raise ModelError(
            f"{name!r} at revision {wanted!r} is neither reachable ({shown}) nor in the hub's "
            "cache; connect once to fetch it, copy its folder here and give the path, or use the "
            f"default model {DEFAULT_MODEL!r}"
        ) from error
    return folder, folder.name


def _from_folder(name: str, folder: Path, source: ModelSource, dtype: torch.dtype) -> LanguageModel:
    config = _read_config(folder)
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{name} is an encoder-decoder; only decoder-only language models fit")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no *.safetensors file; other weight formats can run code when they "
            "are read and are refused. Convert it with model.save_pretrained(folder)"
        )
    with _explained(f"the model in {folder}"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        loader: Any = AutoModelForCausalLM
        model, info = loader.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing from {folder} (first: {missing[0]}) and would be "
            "random: the files are incomplete or hold another kind of model"
        )
    return LanguageModel(name=name, model=model, tokenizer=tokenizer, source=source)


def _read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        ModelError: it is absent or not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no config.json; a model folder in the Hugging Face layout holds "
            "config.json, *.safetensors and the tokenizer's files"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return config


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the libraries raise for unreadable files into one error that names the files."""
    try:
        yield
    except AffectLensError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{what} could not be read: {reason}. The files are damaged or incomplete, or need a "
            "model class that the installed transformers does not have"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of the library where there is no terminal."""
    if sys.stderr.isatty():
        yield
        return
    # The library's switch does not reach every bar of its own, so the stream is turned away too;
    # log handlers keep the stream they were made with.
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def _dtype(dtype: str) -> torch.dtype:
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _unknown(name: str) -> ModelError:
    from affectlens.data.tiny import FAMILIES

    known = [DEFAULT_MODEL, *(f"{_TINY}{family}" for family in FAMILIES)]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ModelError(
        f"no model {name!r}: {hint}Allowed are {', '.join(known)}, an existing folder or .gguf "
        "file, or a hub id such as 'openai-community/gpt2'"
    )
