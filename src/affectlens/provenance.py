"""What made a run: versions, seeds, hashes of model, texts, battery, SAE and settings."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from affectlens import __version__
from affectlens.data.artifacts import read_json, sha256_file, sha256_json

_PACKAGES = (
    "torch",
    "transformers",
    "sae-lens",
    "transformer-lens",
    "numpy",
    "numba",
    "h5py",
    "scipy",
    "pandas",
)


def provenance(
    folder: Path, config: dict[str, Any], stages: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The content of run.json, read from the artefacts of a finished run.

    Raises:
        ArtifactError: an artefact is absent or unreadable.
    """
    manifest = read_json(folder / "activations/manifest.json")
    search = read_json(folder / "search/search.json")
    metrics = read_json(folder / "sae/metrics.json")
    made = manifest["provenance"]
    trained = config["sae"] is None
    seeded = [*(["train"] if trained else []), "search", "intervene", "steer"]
    return {
        "format_version": 1,
        "affectlens": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "model": made["model"],
        "tokenizer_sha256": made["tokenizer_sha256"],
        "corpus": made["corpus"],
        "battery": {
            "name": search["battery"],
            "sha256": search["battery_sha256"],
            "n_pairs": search["n_pairs_discovery"] + search["n_pairs_confirmation"],
            "n_clusters": search["n_clusters_discovery"] + search["n_clusters_confirmation"],
            "emotions": search["emotions"],
        },
        "sae": {
            "sha256": sha256_file(folder / "sae/sae_weights.safetensors"),
            **{k: metrics[k] for k in ("architecture", "hook_name", "d_sae", "k")},
            "trained": trained,
            "name": config["sae"] or "",
            "revision": _metadata(folder / "sae").get("revision") or "",
        },
        "seeds": {n: config[n]["seed"] for n in seeded},
        "versions": {name: version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "stages": stages,
        "config_sha256": sha256_json(config),
    }


def _metadata(sae: Path) -> dict[str, Any]:
    """What the configuration of an SAE folder says of its origin."""
    found = read_json(sae / "cfg.json").get("metadata")
    return found if isinstance(found, dict) else {}
