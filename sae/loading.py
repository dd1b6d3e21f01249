"""Opening, converting and checking SAEs; nothing here unpickles.

A folder is in sae-lens' form: `cfg.json` and `sae_weights.safetensors`. Its integrity record, where
there is one, is compared first, then the configuration is checked field by field, and the tensors'
shapes against it, before anything is built from them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.activation_scaler import ActivationScaler

from affectlens.sae.cfg_checks import (
    CFG_FILE,
    WEIGHTS_FILE,
    check_cfg,
    read_cfg,
    read_json,
    unknown_keys,
)
from affectlens.sae.convert import convertible, inference_form, read_foreign, saes_within
from affectlens.sae.errors import SAEError, SAERequestError
from affectlens.sae.files import check_safetensors, explained
from affectlens.sae.formats import positive
from affectlens.sae.integrity import verify
from affectlens.sae.model import (
    FOLDED_NORMS,
    RESIDUAL,
    SparseAutoencoder,
    check_architecture,
    check_place,
)
from affectlens.sae.registry import from_registry, nearest
from affectlens.sae.saving import check_target, save_sae

_NAMED = 8


def load_sae(
    path_or_release: str | os.PathLike[str],
    sae_id: str | None = None,
    *,
    revision: str | None = None,
    centre: bool | None = None,
    device: str = "cpu",
) -> SparseAutoencoder:
    """Load an SAE from a folder, or from the sae-lens registry by release and id.

    What a release consists of is read from the hub, or from its local cache if that holds the
    files; all of them from one commit, which `info.revision` names. With that commit given as
    `revision`, the very same weights are read again.

    Args:
        path_or_release: a folder in sae-lens form, a release such as `gpt2-small-res-jb`, or a hub
            repository in sae-lens form.
        sae_id: the SAE within the release, such as `blocks.8.hook_resid_pre`.
        revision: commit, branch or tag of the release's repository; None for its newest commit.
        centre: whether the residual's mean over d_model is removed before encoding. None takes what
            the release or the folder says; a folder copied by hand from GPT-2 `res-jb` does not
            say it and needs True.
        device: where the weights go.

    Raises:
        SAERequestError: the device is not there, or the folder, release or id is unknown (the
            message names the nearest known ones).
        SAEError: the files are broken, of another form, or neither cached nor reachable, or it is
            not an SAE of the residual stream.
    """
    name = os.fspath(path_or_release)
    _check_device(device)
    if sae_id is not None:
        _refuse_id_of_folder(name, sae_id)
        raw, verified = from_registry(name, sae_id, revision=revision, device=device)
        source = f"{name}/{sae_id}"
        _check_finite(raw, source)
        return SparseAutoencoder(raw, source=source, centre=centre, verified=verified)
    if revision is not None:
        raise SAERequestError("revision goes with a release and an id; a folder has no revisions")
    folder = Path(name)
    if folder.is_dir():
        return _from_folder(folder, device, centre=centre)
    directory = get_pretrained_saes_directory()
    if name in directory:
        some = ", ".join(list(directory[name].saes_map)[:5])
        raise SAERequestError(
            f"release {name!r} holds several SAEs; name one of its ids, such as {some}"
        )
    if folder.is_file() and convertible(folder):
        raise _to_convert(folder)
    if folder.is_file():
        raise SAERequestError(
            f"{name} is a file; give the folder that holds {CFG_FILE} and {WEIGHTS_FILE}"
        )
    hub = "; an SAE of a hub repository needs its folder as sae_id" if name.count("/") == 1 else ""
    raise SAERequestError(
        f"{name!r} is neither a folder nor a known release{nearest(name, directory)}{hub}"
    )


def load_sae_named(name: str, device: str = "cpu") -> SparseAutoencoder:
    """An SAE by one name: a folder, or RELEASE:ID of the sae-lens registry, @COMMIT to pin it.

    Raises:
        SAERequestError, SAEError: as `load_sae`.
    """
    release, colon, sae_id = name.partition(":")
    if colon and not Path(name).exists():
        sae_id, _, revision = sae_id.partition("@")
        return load_sae(release, sae_id, revision=revision or None, device=device)
    return load_sae(name, device=device)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hook_name: str | None = None,
    model_name: str | None = None,
    k: int | None = None,
    overwrite: bool = False,
) -> SparseAutoencoder:
    """Turn another project's files into a sae-lens folder at `out` and return the SAE.

    Reads Gemma Scope (`params.npz`), Gemma Scope 2 (`params.safetensors`), Llama Scope
    (`hyperparams.json`), Qwen Scope (`layerN.sae.pt`), sparsify (`cfg.json` + `sae.safetensors`),
    dictionary_learning (`ae.pt`) and the training form of sae-lens (checkpoints).

    Args:
        source: the file or the folder that holds it.
        out: folder to write.
        hook_name: where the SAE belongs; needed where neither files nor path tell the layer.
        model_name: recorded as is.
        k: latents per token, where the files do not say it (a renamed Qwen Scope folder).
        overwrite: replace an SAE that `out` holds already.

    Raises:
        SAERequestError: `source` does not exist, `hook_name` is no place on the residual stream,
            or it is needed.
        SAEError: nothing known lies there, `out` holds an SAE already or other files (such as those
            of `source`), another needed fact is missing, or the files are broken.
    """
    source = Path(source)
    if hook_name is not None and not RESIDUAL.fullmatch(hook_name):
        raise SAERequestError(
            f"hook_name (--hook) is {hook_name[:80]!r}, expected a place on the residual stream "
            "such as blocks.12.hook_resid_post"
        )
    if source.exists() and source.resolve() == Path(out).resolve():
        raise SAEError(f"{source} would be replaced by what is made of it; choose another folder "
                       "to write")  # fmt: skip
    check_target(out)
    if not overwrite and (Path(out) / CFG_FILE).exists():
        raise SAEError(f"{out} holds an SAE already; choose another folder, or replace it "
                       "(overwrite=True, --overwrite)")  # fmt: skip
    with explained(f"{source} cannot be converted"):
        if _is_training_form(source):
            raw = _from_training_form(source)
        else:
            raw = read_foreign(source, hook_name=hook_name, model_name=model_name, k=k)
    _check_finite(raw, str(source))
    if hook_name is not None:
        raw.cfg.metadata.hook_name = hook_name
    if model_name is not None:
        raw.cfg.metadata.model_name = model_name
    wrapped = SparseAutoencoder(raw, source=str(source))
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


def _from_folder(folder: Path, device: str, *, centre: bool | None) -> SparseAutoencoder:
    if convertible(folder) and not _has_both(folder):
        raise _to_convert(folder)
    with explained(f"{folder} cannot be searched"):
        within = [] if (folder / CFG_FILE).is_file() else saes_within(folder)
    if within:
        raise SAEError(f"{folder} is no SAE, but holds folders that are; give one of them, such as "
                       f"{', '.join(within[:_NAMED])}")  # fmt: skip
    cfg = read_cfg(folder)
    verified = verify(cfg, folder)
    _check(cfg, folder)
    if _is_training_form(folder):
        raise SAEError(
            f"{folder} is a training checkpoint ({cfg['architecture']}), whose latents depend on "
            "the batch; turn it into an inference SAE first (affectlens sae convert)"
        )
    with explained(f"{folder} cannot be loaded"):
        sae = sae_lens.SAE.load_from_disk(folder, device=device)
        _fold_scale(sae, folder)
    _check_finite(sae, str(folder))
    return SparseAutoencoder(
        sae, source=str(folder), centre=centre, verified=verified, notes=_left_aside(cfg)
    )


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SAERequestError(f"device is {device!r}, expected cpu, cuda, cuda:N or mps") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SAERequestError(f"device is {device!r}, but there is no CUDA device here; use cpu")


def _refuse_id_of_folder(name: str, sae_id: str) -> None:
    if Path(name).is_dir() and name not in get_pretrained_saes_directory():
        raise SAERequestError(
            f"{name} is a folder, where SAEs have no ids; open the SAE by its own folder, such as "
            f"load_sae({str(Path(name, sae_id))!r})"
        )


def _to_convert(path: Path) -> SAEError:
    return SAEError(
        f"{path} holds a {convertible(path)} SAE; turn it into a sae-lens folder first "
        "(affectlens sae convert)"
    )


def _has_both(folder: Path) -> bool:
    return (folder / CFG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()


def _check(cfg: dict[str, Any], folder: Path) -> None:
    check_cfg(cfg, str(folder / CFG_FILE))
    check_architecture(cfg.get("architecture", "standard"))
    metadata = cfg.get("metadata") or {}
    for held in (cfg, metadata):
        for key in ("hook_name", "hook_point"):
            check_place(str(held.get(key) or ""))
    if cfg.get("reshape_activations", "none") != "none":
        raise SAEError(f"{folder} reads attention heads ({cfg['reshape_activations']}); only SAEs "
                       "of the residual stream are supported")  # fmt: skip
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise SAEError(f"{folder} has no {WEIGHTS_FILE}; copy it next to {CFG_FILE}")
    d_in, d_sae = cfg["d_in"], cfg["d_sae"]
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    if cfg.get("architecture") == "matching_pursuit":  # encodes with its decoder
        del shapes["W_enc"]
    check_safetensors(weights, shapes)


def _left_aside(cfg: dict[str, Any]) -> list[str]:
    names = unknown_keys(cfg)
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    shown = ", ".join(name[:40] for name in names[:_NAMED])
    return [f"keys of {CFG_FILE} that nothing reads: {shown}{more}"]


def _is_training_form(folder: Path) -> bool:
    if not _has_both(folder):
        return False
    architecture = read_cfg(folder).get("architecture", "standard")
    return (
        isinstance(architecture, str)
        and architecture in SAE_TRAINING_CLASS_REGISTRY
        and architecture not in SAE_CLASS_REGISTRY
    )


def _from_training_form(folder: Path) -> sae_lens.SAE[Any]:
    cfg = read_cfg(folder)
    _check(cfg, folder)
    training = sae_lens.TrainingSAE.load_from_disk(folder, device="cpu")
    _fold_scale(training, folder)
    raw = inference_form(training)
    if raw.cfg.metadata.k is None:
        # The threshold takes the place of k, which is what its L0 is measured against.
        raw.cfg.metadata.k = cfg.get("k")
    return raw


def _fold_scale(sae: sae_lens.SAE[Any] | sae_lens.TrainingSAE[Any], folder: Path) -> None:
    """Put the input scale of a checkpoint into the weights, as sae-lens does when training ends."""
    path = folder / ACTIVATION_SCALER_CFG_FILENAME
    if sae.cfg.normalize_activations not in FOLDED_NORMS or not path.is_file():
        return
    scale = read_json(path).get("scaling_factor")
    if scale is not None:
        positive(scale, "scaling_factor", path)
    scaler = ActivationScaler()
    scaler.load(path)
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if (white := scaler.whitening) is not None:
        sae.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)


def _check_finite(sae: sae_lens.SAE[Any], where: str) -> None:
    bad = [name for name, value in sae.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise SAEError(f"{where}: {', '.join(bad)} hold values that are not finite; fetch it again")
