"""Reading, writing, converting and checking SAEs; nothing here unpickles.

A folder is in sae-lens' form: `cfg.json` and `sae_weights.safetensors`. The configuration is
checked field by field, and the tensors' shapes against it, before anything is built from them.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sae_lens
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors import SafetensorError, safe_open

from affectlens.sae.convert import convertible, inference_form, read_foreign
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
MAX_CFG_BYTES = 1_000_000
MAX_WIDTH = 16_777_216


def load_sae(
    path_or_release: str | os.PathLike[str], sae_id: str | None = None, *, device: str = "cpu"
) -> SparseAutoencoder:
    """Load an SAE from a folder, or from the sae-lens registry by release and id.

    Args:
        path_or_release: a folder in sae-lens form, or a release such as `gpt2-small-res-jb`.
        sae_id: the SAE within the release, such as `blocks.8.hook_resid_pre`.
        device: where the weights go.

    Raises:
        SAEError: the files are broken or of another form, or the release or id is unknown
            (the message names the nearest known ones).
    """
    name = os.fspath(path_or_release)
    if sae_id is not None:
        return _from_registry(name, sae_id, device)
    folder = Path(name)
    if folder.is_dir():
        return _from_folder(folder, device)
    directory = get_pretrained_saes_directory()
    if name in directory:
        some = ", ".join(list(directory[name].saes_map)[:5])
        raise SAEError(f"release {name!r} holds several SAEs; name one of its ids, such as {some}")
    raise SAEError(f"{name!r} is neither a folder nor a known release{_nearest(name, directory)}")


def save_sae(sae: SparseAutoencoder, folder: str | os.PathLike[str]) -> Path:
    """Write `sae` to `folder` in sae-lens form; an older SAE there is replaced as a whole.

    `sae_lens.SAE.load_from_disk` opens the result.
    """
    folder = Path(folder)
    staged = folder.with_name(f".staged-{os.getpid()}-{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        metadata = sae.sae.cfg.metadata
        for key in ("centre", "skip_first", "norm_limit", "k", "hook_name", "model_name"):
            metadata[key] = getattr(sae.info, key)
        sae.sae.save_model(staged)
        if folder.exists():
            _refuse_to_replace_other(folder)
            shutil.rmtree(folder)
        staged.replace(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hook_name: str | None = None,
    model_name: str | None = None,
) -> SparseAutoencoder:
    """Turn another project's files into a sae-lens folder at `out` and return the SAE.

    Reads Gemma Scope (`params.npz`), sparsify (`cfg.json` + `sae.safetensors`) and the training
    form of sae-lens (checkpoints).

    Args:
        source: the file or the folder that holds it.
        out: folder to write.
        hook_name: where the SAE belongs; needed where the path does not tell the layer.
        model_name: recorded as is.

    Raises:
        SAEError: nothing known lies there, or a needed fact is missing.
    """
    source = Path(source)
    if _is_training_form(source):
        sae = _from_training_form(source)
    else:
        sae = read_foreign(source, hook_name=hook_name, model_name=model_name)
    if hook_name is not None:
        sae.cfg.metadata.hook_name = hook_name
    if model_name is not None:
        sae.cfg.metadata.model_name = model_name
    wrapped = SparseAutoencoder(sae, source=str(source))
    save_sae(wrapped, out)
    return wrapped


def check_fit(
    sae: SparseAutoencoder,
    *,
    d_model: int | None = None,
    hook_name: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Refuse an SAE that belongs to another model or place; `None` is not checked.

    Args:
        sae: the SAE.
        d_model: width of the model's residual stream.
        hook_name: where it is about to be used.
        fingerprint: the model's fingerprint; passes when the SAE does not record one.

    Raises:
        SAEError: both values of the first thing that differs.
    """
    info = sae.info
    if d_model is not None and d_model != info.d_in:
        raise SAEError(
            f"the SAE reads d_in={info.d_in} but the model has d_model={d_model}; "
            f"it was made for {info.model_name or 'another model'}"
        )
    if hook_name is not None and info.hook_name and hook_name != info.hook_name:
        raise SAEError(
            f"the SAE belongs at {info.hook_name!r} but is used at {hook_name!r}; "
            "use its own place, or train one for this place"
        )
    known = info.model_fingerprint
    if fingerprint is not None and known is not None and fingerprint != known:
        raise SAEError(
            f"the SAE was trained on model {info.model_name!r} with fingerprint {known[:12]}, "
            f"the loaded model has {fingerprint[:12]}; load that model or train again"
        )


def read_cfg(folder: Path) -> dict[str, Any]:
    """Read and check `cfg.json` of a folder.

    Raises:
        SAEError: absent, too large, not a JSON object, or a field of the wrong type.
    """
    path = Path(folder) / CFG_FILE
    if not path.is_file():
        raise SAEError(f"{folder} has no {CFG_FILE}; expected {CFG_FILE} and {WEIGHTS_FILE}")
    size = path.stat().st_size
    if size > MAX_CFG_BYTES:
        raise SAEError(f"{path} has {size:,} bytes; a configuration has at most {MAX_CFG_BYTES:,}")
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SAEError(f"{path} is not valid JSON ({error}); copy it again") from error
    if not isinstance(cfg, dict):
        raise SAEError(f"{path} holds a {type(cfg).__name__}, expected an object")
    return cfg


def _check_cfg(cfg: Mapping[str, Any], path: Path) -> None:
    for key in ("d_in", "d_sae"):
        value = cfg.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_WIDTH:
            raise SAEError(f"{path}: {key} is {value!r}, expected a whole number in 1..{MAX_WIDTH}")
    k = cfg.get("k")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | float) or k <= 0):
        raise SAEError(f"{path}: k is {k!r}, expected a positive number")
    architecture = cfg.get("architecture", "standard")
    if str(architecture) not in {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}:
        known = ", ".join(sorted(SAE_CLASS_REGISTRY))
        raise SAEError(f"{path}: unknown architecture {architecture!r}; known: {known}")
    if not isinstance(cfg.get("metadata", {}), dict):
        raise SAEError(f"{path}: metadata must be an object")


def _check_weights(folder: Path, cfg: Mapping[str, Any]) -> None:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise SAEError(f"{folder} has no {WEIGHTS_FILE}; copy it next to {CFG_FILE}")
    expected = {"W_enc": [cfg["d_in"], cfg["d_sae"]], "W_dec": [cfg["d_sae"], cfg["d_in"]]}
    try:
        with safe_open(path, framework="pt") as handle:
            names = set(handle.keys())
            for name, shape in expected.items():
                if name not in names:
                    raise SAEError(f"{path} has no tensor {name}; it holds {sorted(names)}")
                got = handle.get_slice(name).get_shape()
                if got != shape:
                    raise SAEError(f"{path}: {name} is {got}, but {CFG_FILE} says {shape}")
    except (SafetensorError, OSError) as error:
        raise SAEError(f"{path} cannot be read ({error}); it is cut short or damaged") from error


def _from_folder(folder: Path, device: str) -> SparseAutoencoder:
    if not (folder / CFG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        kind = convertible(folder)
        if kind:
            raise SAEError(f"{folder} holds a {kind} SAE; turn it into a sae-lens folder first "
                           "(affectlens sae convert)")  # fmt: skip
    cfg = read_cfg(folder)
    _check_cfg(cfg, folder / CFG_FILE)
    _check_weights(folder, cfg)
    if _is_training_form(folder):
        raise SAEError(
            f"{folder} is a training checkpoint ({cfg['architecture']}), whose latents depend on "
            "the batch; turn it into an inference SAE first (affectlens sae convert)"
        )
    with _explained(f"{folder} cannot be loaded"):
        sae = sae_lens.SAE.load_from_disk(folder, device=device)
    _check_finite(sae, str(folder))
    return SparseAutoencoder(sae, source=str(folder))


def _from_registry(release: str, sae_id: str, device: str) -> SparseAutoencoder:
    directory = get_pretrained_saes_directory()
    if release not in directory and "/" not in release:
        raise SAEError(f"unknown release {release!r}{_nearest(release, directory)}")
    if release in directory and sae_id not in directory[release].saes_map:
        near = _nearest(sae_id, directory[release].saes_map)
        raise SAEError(f"release {release!r} has no SAE {sae_id!r}{near}")
    with _explained(f"{release}/{sae_id} cannot be fetched from the hub or its cache"):
        # The release's own overrides (centring, input scaling) are applied here and nowhere else.
        sae = sae_lens.SAE.from_pretrained(release, sae_id, device=device)
    _check_finite(sae, f"{release}/{sae_id}")
    return SparseAutoencoder(sae, source=f"{release}/{sae_id}")


def _is_training_form(folder: Path) -> bool:
    if not (folder / CFG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return False
    architecture = read_cfg(folder).get("architecture", "standard")
    return architecture in SAE_TRAINING_CLASS_REGISTRY and architecture not in SAE_CLASS_REGISTRY


def _from_training_form(folder: Path) -> sae_lens.SAE[Any]:
    cfg = read_cfg(folder)
    _check_cfg(cfg, folder / CFG_FILE)
    _check_weights(folder, cfg)
    with _explained(f"{folder} cannot be loaded"):
        return inference_form(sae_lens.TrainingSAE.load_from_disk(folder, device="cpu"))


def _check_finite(sae: sae_lens.SAE[Any], where: str) -> None:
    bad = [name for name, value in sae.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise SAEError(f"{where}: {', '.join(bad)} hold values that are not finite; fetch it again")


def _refuse_to_replace_other(folder: Path) -> None:
    if any(folder.iterdir()) and not (folder / CFG_FILE).is_file():
        raise SAEError(f"{folder} exists and holds no SAE; choose another folder")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever sae-lens raises on foreign files into one error of ours; silence its advice."""
    try:
        with warnings.catch_warnings():
            # It advises to load the model through HookedTransformer; `SAEInfo.centre` does instead.
            warnings.filterwarnings("ignore", "(?s).*model_from_pretrained_kwargs.*", UserWarning)
            yield
    except SAEError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise SAEError(f"{what}: {type(error).__name__}: {error}") from error


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return (
        f"; nearest: {', '.join(near)}" if near else f"; for example {', '.join(list(known)[:3])}"
    )
