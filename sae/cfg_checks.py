"""Reading `cfg.json` of a sae-lens folder and checking every field that sae-lens acts on.

sae-lens takes the values as they come: a string where a flag belongs counts as true, and a metadata
key that is the name of a method replaces the method. So each field is checked here first, and
nothing is built from a configuration that fails. Keys that sae-lens does not know are left alone,
as sae-lens does; `unknown_keys` names them for the record.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sae_lens.constants import DTYPE_MAP
from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata

from affectlens.sae.errors import SAEError

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
MAX_CFG_BYTES = 1_000_000
MAX_WIDTH = 16_777_216
_NAMED_SINCE = 6
"""Version of sae-lens from which on it does not take a missing architecture for standard."""

_NORMS = (
    "none",
    "expected_average_only_in",
    "constant_norm_rescale",
    "layer_norm",
    "covariance_whitening",
)
_OLD_KEYS = frozenset({"hook_point", "hook_point_head_index", "activation_fn_str",
                       "activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor",
                       "sae_lens_version", "architecture", "integrity"})  # fmt: skip
_Test = Callable[[Any], bool]


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _object_or_none(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _number(value: Any) -> bool:
    """A finite number; a whole one of thousands of digits does not fit a float and is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


_TOP: dict[str, tuple[_Test, str]] = {
    "dtype": (
        lambda v: _text(v) and v in DTYPE_MAP,
        f"one of {', '.join(sorted(DTYPE_MAP))}",
    ),
    "apply_b_dec_to_input": (_flag, "true or false"),
    "finetuning_scaling_factor": (lambda v: v is None or _flag(v), "true or false"),
    "rescale_acts_by_decoder_norm": (_flag, "true or false"),
    "stop_on_duplicate_support": (_flag, "true or false"),
    # None and flags are what sae-lens before version 6 wrote.
    "normalize_activations": (
        lambda v: v is None or _flag(v) or (_text(v) and v in _NORMS),
        f"one of {', '.join(_NORMS)}",
    ),
    "reshape_activations": (
        lambda v: _text(v) and v in ("none", "hook_z"),
        "none or hook_z",
    ),
    "residual_threshold": (lambda v: _number(v) and v >= 0, "a number from 0"),
    "max_iterations": (lambda v: v is None or _whole(v, MAX_WIDTH), "a whole number from 1"),
    "activation_fn": (
        lambda v: v is None or (_text(v) and v in ("relu", "topk")),
        "relu or topk",
    ),
    "activation_fn_kwargs": (_object_or_none, "an object"),
    "hook_point": (_text_or_none, "text"),
}
_TOP["activation_fn_str"] = _TOP["activation_fn"]

_META: dict[str, tuple[_Test, str]] = {
    "hook_name": (_text_or_none, "text"),
    "model_name": (_text_or_none, "text"),
    "model_fingerprint": (_text_or_none, "text"),
    "release": (_text_or_none, "text"),
    "sae_id": (_text_or_none, "text"),
    "repo_id": (_text_or_none, "text"),
    "revision": (_text_or_none, "text"),
    "sae_lens_version": (_text_or_none, "text"),
    "skip_first": (_flag, "true or false"),
    "centre": (_flag, "true or false"),
    "norm_limit": (lambda v: v is None or (_number(v) and v > 0), "a number above 0"),
    "model_from_pretrained_kwargs": (_object_or_none, "an object"),
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON file that holds an object.

    Raises:
        SAEError: absent, too large, not JSON, or not an object.
    """
    if not path.is_file():
        raise SAEError(f"{path} does not exist; copy it from where the SAE came from")
    size = path.stat().st_size
    if size > MAX_CFG_BYTES:
        raise SAEError(f"{path} has {size:,} bytes; a configuration has at most {MAX_CFG_BYTES:,}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        # ValueError: not UTF-8, not JSON, or a number of more than 4,300 digits.
        raise SAEError(f"{path} is not valid JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise SAEError(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def read_cfg(folder: Path) -> dict[str, Any]:
    """Read `cfg.json` of a folder; its fields are not checked yet.

    Raises:
        SAEError: absent, too large, not JSON, or not an object.
    """
    path = Path(folder) / CFG_FILE
    if not path.is_file():
        raise SAEError(f"{folder} has no {CFG_FILE}; expected {CFG_FILE} and {WEIGHTS_FILE}")
    return read_json(path)


def check_cfg(cfg: Mapping[str, Any], where: str) -> None:
    """Check every field that decides what is built and how it encodes.

    Args:
        cfg: a configuration in sae-lens' form, of any version.
        where: file or release, for the messages.

    Raises:
        SAEError: the first field that is missing, of the wrong type or out of range.
    """
    for key in ("d_in", "d_sae"):
        if not _whole(cfg.get(key), MAX_WIDTH):
            got = _shown(cfg.get(key))
            raise SAEError(f"{where}: {key} is {got}, expected a whole number in 1..{MAX_WIDTH}")
    architecture = _check_architecture(cfg, where)
    _check_fields(cfg, _TOP, where)
    if "dtype" not in cfg:
        raise SAEError(f"{where} has no dtype; expected {_TOP['dtype'][1]}")
    _check_k(cfg, architecture, where)
    _check_metadata(cfg, where)


def unknown_keys(cfg: Mapping[str, Any]) -> list[str]:
    """Names of the fields of a checked configuration that nothing reads."""
    architecture = cfg.get("architecture", "standard")
    registry = SAE_CLASS_REGISTRY if architecture in SAE_CLASS_REGISTRY else (
        SAE_TRAINING_CLASS_REGISTRY)  # fmt: skip
    known = {f.name for f in fields(registry[architecture][1])} | _OLD_KEYS | LLM_METADATA_KEYS
    return sorted(key for key in cfg if key not in known)


def _check_architecture(cfg: Mapping[str, Any], where: str) -> str:
    if "architecture" not in cfg and _version(cfg, where) >= _NAMED_SINCE:
        some = ", ".join(sorted(SAE_CLASS_REGISTRY))
        raise SAEError(f"{where} has no architecture; expected one of {some}")
    architecture = cfg.get("architecture", "standard")
    known = {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}
    if not isinstance(architecture, str) or architecture not in known:
        some = ", ".join(sorted(SAE_CLASS_REGISTRY))
        raise SAEError(f"{where}: unknown architecture {_shown(architecture)}; known: {some}")
    return architecture


def _version(cfg: Mapping[str, Any], where: str) -> int:
    """First number of the sae-lens version that wrote the configuration; 0 if it does not say."""
    metadata = cfg.get("metadata")
    held = metadata if isinstance(metadata, dict) else {}
    version = cfg.get("sae_lens_version") or held.get("sae_lens_version") or "0"
    found = re.match(r"\d{1,6}", version) if isinstance(version, str) else None
    if found is None:
        raise SAEError(f"{where}: sae_lens_version is {_shown(version)}, expected a version such "
                       "as 6.54.0")  # fmt: skip
    return int(found[0])


def _check_fields(
    values: Mapping[str, Any], rules: Mapping[str, tuple[_Test, str]], where: str
) -> None:
    for key, (fits, expected) in rules.items():
        if key in values and not fits(values[key]):
            raise SAEError(f"{where}: {key} is {_shown(values[key])}, expected {expected}")


def _check_k(cfg: Mapping[str, Any], architecture: str, where: str) -> None:
    kwargs = cfg.get("activation_fn_kwargs") or {}
    for found in (cfg, kwargs):
        k = found.get("k")
        if k is None:
            continue
        if not _number(k) or not 0 < k <= cfg["d_sae"]:
            raise SAEError(f"{where}: k is {_shown(k)}, expected a positive number up to "
                           f"d_sae={cfg['d_sae']}")  # fmt: skip
        # Only the batch variants, which train with a mean of k, may have a broken number.
        if architecture in SAE_CLASS_REGISTRY and not isinstance(k, int):
            raise SAEError(f"{where}: k is {_shown(k)}, expected a whole number")
    named = cfg.get("activation_fn", cfg.get("activation_fn_str"))
    needs = "topk" in architecture or (named == "topk" and architecture == "standard")
    if needs and cfg.get("k") is None and kwargs.get("k") is None:
        raise SAEError(f"{where} has no k, the number of latents per token of a topk SAE")


def _check_metadata(cfg: Mapping[str, Any], where: str) -> None:
    # Before version 6 some of these fields lay at the top.
    top = {key: rule for key, rule in _META.items() if key in LLM_METADATA_KEYS}
    _check_fields(cfg, top, where)
    metadata = cfg.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SAEError(f"{where}: metadata must be an object, is {_shown(metadata)}")
    taken = [k for k in metadata if k == "self" or k.startswith("__") or hasattr(SAEMetadata, k)]
    if taken:
        raise SAEError(f"{where}: metadata cannot hold a field named {taken[0]!r}; rename it")
    _check_fields(metadata, _META, f"{where}: metadata")
    k = metadata.get("k")
    if k is not None and not (_number(k) and 0 < k <= cfg["d_sae"]):
        raise SAEError(f"{where}: metadata: k is {_shown(k)}, expected a positive number up to "
                       f"d_sae={cfg['d_sae']}")  # fmt: skip
    for held in (cfg, metadata):
        centred = (held.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights")
        if centred is not None and not isinstance(centred, bool):
            raise SAEError(f"{where}: center_writing_weights is {_shown(centred)}, expected true "
                           "or false")  # fmt: skip


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits has no decimal form
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
