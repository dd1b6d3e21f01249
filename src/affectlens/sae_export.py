"""An SAE as a folder that can be put on the Hugging Face hub as it is.

    FOLDER/README.md                      the model card
    FOLDER/<hook name>/cfg.json           sae-lens form, which `SAE.load_from_disk` opens
    FOLDER/<hook name>/sae_weights.safetensors
    FOLDER/<hook name>/metrics.json       what was measured, where a run gives it

One repository for a release and a folder for a place is how sae-lens uploads; once it is there,
`SAE.from_pretrained("owner/repository", "<hook name>")` reads it. Nothing is uploaded here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from affectlens.data.artifacts import atomic_folder, read_json
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.run_state import CHECK_FILE
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.model_card import CardFacts, model_card
from affectlens.sae.saving import save_sae

METRICS = "metrics.json"
_SHOWN = ("sae-lens", "torch", "transformers")
_FOLDER = re.compile(r"[\w.-]{1,200}", re.ASCII)
_MEASURES = {
    "fvu": ("fraction of variance unexplained (FVU)", "{:.4f}"),
    "l0": ("active latents a token (L0)", "{:.2f}"),
    "dead_share": ("latents that never fired", "{:.2%}"),
    "ce_clean": ("next-token loss of the model", "{:.4f} nats"),
    "ce_spliced": ("the same with the SAE spliced in", "{:.4f} nats"),
    "ce_recovered_mean": ("loss recovered, against mean ablation", "{:.3f}"),
    "ce_recovered_zero": ("loss recovered, against zero ablation", "{:.3f}"),
}


def export_sae(
    sae: SparseAutoencoder,
    out: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    licence: str = "",
    base_model: str = "",
    force: bool = False,
) -> Path:
    """Write an SAE with a model card, ready for the hub.

    Args:
        sae: the SAE.
        out: folder to write, new or empty.
        run: run folder; its measurements and its record of the training text go into the card.
        licence: of the weights, by the hub's name, such as "mit"; the card says so if there is
            none.
        base_model: hub id of the language model.
        force: replace a folder that this function wrote.

    Returns:
        The folder.

    Raises:
        ConfigError: no hook name, or a folder that holds anything else, or an export without
            `force`.
        ArtifactError: the run belongs to another SAE, or its files cannot be read.
        MachineError: the disk is full; what stood there before is untouched.
    """
    out = Path(out)
    sae_id = sae.info.hook_name
    if not _FOLDER.fullmatch(sae_id) or not sae_id.strip("."):
        raise ConfigError(
            f"this SAE's hook name is {sae_id!r}, which cannot name its folder; put hook_name into "
            "metadata of its cfg.json"
        )
    check_target(out, force=force)
    facts = CardFacts() if run is None else run_facts(sae, Path(run))
    facts = replace(facts, licence=licence.strip(), base_model=base_model)
    metrics = None if run is None else Path(run) / "sae" / METRICS
    with atomic_folder(out) as staged:
        save_sae(sae, staged / sae_id)
        if metrics is not None and metrics.is_file():
            shutil.copyfile(metrics, staged / sae_id / METRICS)
        card = model_card(sae.info, sae_id, facts)
        (staged / "README.md").write_text(card, encoding="utf-8")
    return out


def check_target(out: Path, *, force: bool) -> None:
    """Refuse a folder that holds anything but an earlier export, and that one without `force`.

    Raises:
        ConfigError: as said.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder")
    names = sorted(p.name for p in out.iterdir())
    if not names:
        return
    saes = [n for n in names if (out / n / "cfg.json").is_file()]
    if len(saes) != 1 or names != sorted(["README.md", *saes]):
        raise ConfigError(f"{out} is not empty and holds no exported SAE; give a new folder")
    if not force:
        raise ConfigError(f"{out} holds an exported SAE already; use --force to replace it")


def run_facts(sae: SparseAutoencoder, run: Path) -> CardFacts:
    """What a run says of its SAE: measurements, the check's verdict, the text it was trained on.

    Raises:
        ArtifactError: the run holds another SAE, or a file cannot be read.
    """
    metrics = _optional(run / "sae" / METRICS)
    check = _optional(run / CHECK_FILE)
    made = _optional(run / "run.json")
    if (made.get("sae") or {}).get("trained") is False:
        # The run's text is what a loaded SAE was measured on, not what it learned from.
        made = {key: made[key] for key in ("model", "versions") if key in made}
    _require_same(sae, run, metrics, check)
    quality = {
        label: form.format(metrics[key])
        for key, (label, form) in _MEASURES.items()
        if isinstance(metrics.get(key), int | float)
    }
    if check.get("verdict"):
        quality["check on the model"] = str(check.get("summary") or check["verdict"])
    fvu = metrics.get("fvu")
    limits = (
        ()
        if not isinstance(fvu, float)
        else (f"It leaves {fvu:.0%} of the variance unexplained; what lies there no latent sees.",)
    )
    trained = _training(made, sae.sae.cfg.metadata.to_dict())
    n_tokens = metrics.get("n_heldout_tokens")
    return CardFacts(
        training=trained,
        quality=quality,
        measured_on=f"{n_tokens:,} held-out tokens" if isinstance(n_tokens, int) else "",
        limits=limits + _corpus_limits(made),
    )


def _require_same(
    sae: SparseAutoencoder, run: Path, metrics: Mapping[str, Any], check: Mapping[str, Any]
) -> None:
    info, checked = sae.info, check.get("sae") or {}
    for found, own in (
        (checked.get("sha256"), info.sha256),
        (metrics.get("hook_name"), info.hook_name),
        (metrics.get("d_sae"), info.d_sae),
    ):
        if found not in (None, own):
            raise ArtifactError(
                f"{run} measured another SAE ({str(found)[:40]}, this is {str(own)[:40]}); give "
                "the run of this SAE"
            )


def _training(made: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    """What is known of the training, label -> text."""
    corpus, trained = made.get("corpus") or {}, metadata.get("training_run") or {}
    origin = corpus.get("origin") or {}
    known = {
        "corpus": corpus.get("name"),
        "licence of the text": origin.get("licence"),
        "sampled from": origin.get("sampled_from"),
        "documents": corpus.get("n_documents"),
        "tokens of text": corpus.get("n_tokens"),
        "SHA-256 of the text": corpus.get("sha256"),
        "samples drawn": trained.get("n_samples"),
        "context length": metadata.get("context_size"),
        "learning rate": trained.get("lr"),
        "batch size": trained.get("batch_size"),
        "seed": trained.get("seed"),
        "language model": (made.get("model") or {}).get("name"),
        "revision of the model": (made.get("model") or {}).get("revision"),
        "made with": _versions(made),
    }
    return {
        label: f"{value:,}" if isinstance(value, int) else str(value)
        for label, value in known.items()
        if value not in (None, "")
    }


def _versions(made: Mapping[str, Any]) -> str:
    versions = made.get("versions") or {}
    named = {"affectlens": made.get("affectlens"), **{n: versions.get(n) for n in _SHOWN}}
    return ", ".join(f"{name} {found}" for name, found in named.items() if found)


def _corpus_limits(made: Mapping[str, Any]) -> tuple[str, ...]:
    corpus = made.get("corpus") or {}
    tokens = corpus.get("n_tokens")
    if not isinstance(tokens, int):
        return ()
    return (
        f"It was trained on text of one corpus of {tokens:,} tokens; other text it may reconstruct "
        "less well.",
    )


def _optional(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        ArtifactError: it is there and no JSON object.
    """
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object; run its stage again")
    return found
