"""AffectLens: find the SAE features that carry emotion, control them for words, test what they do.

The public names below are loaded on first use, so `import affectlens` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from affectlens.api import (
        harvest,
        intervene,
        sae_check,
        search,
        steer,
        train,
        train_many,
        train_on,
    )
    from affectlens.data.appraisals import load_appraised
    from affectlens.data.corpus import load_corpus
    from affectlens.data.errors import AffectLensError
    from affectlens.data.models import load_model
    from affectlens.data.scramble import scrambled
    from affectlens.data.stimuli import load_battery
    from affectlens.data.store import ActivationStore
    from affectlens.data.taxonomy import map_label
    from affectlens.features.contextual import contextual_card, static_means
    from affectlens.features.defence import defend
    from affectlens.features.findings import validate
    from affectlens.features.interventions import applied, clamped
    from affectlens.features.lexical import audit
    from affectlens.features.lexical_subset import chance_subset
    from affectlens.pipeline import RunConfig, run
    from affectlens.report import build_report
    from affectlens.sae.loading import load_sae
    from affectlens.training.sweep import latent_overlap
    from affectlens.training.trainer import samples_seen

_HOMES = {
    "ActivationStore": "data.store",
    "AffectLensError": "data.errors",
    "RunConfig": "pipeline",
    "applied": "features.interventions",
    "audit": "features.lexical",
    "build_report": "report",
    "chance_subset": "features.lexical_subset",
    "clamped": "features.interventions",
    "contextual_card": "features.contextual",
    "defend": "features.defence",
    "harvest": "api",
    "intervene": "api",
    "latent_overlap": "training.sweep",
    "load_appraised": "data.appraisals",
    "load_battery": "data.stimuli",
    "load_corpus": "data.corpus",
    "load_model": "data.models",
    "load_sae": "sae.loading",
    "map_label": "data.taxonomy",
    "run": "pipeline",
    "sae_check": "api",
    "samples_seen": "training.trainer",
    "scrambled": "data.scramble",
    "search": "api",
    "static_means": "features.contextual",
    "steer": "api",
    "train": "api",
    "train_many": "api",
    "train_on": "api",
    "validate": "features.findings",
}

__all__ = [
    "ActivationStore",
    "AffectLensError",
    "RunConfig",
    "__version__",
    "applied",
    "audit",
    "build_report",
    "chance_subset",
    "clamped",
    "contextual_card",
    "defend",
    "harvest",
    "intervene",
    "latent_overlap",
    "load_appraised",
    "load_battery",
    "load_corpus",
    "load_model",
    "load_sae",
    "map_label",
    "run",
    "sae_check",
    "samples_seen",
    "scrambled",
    "search",
    "static_means",
    "steer",
    "train",
    "train_many",
    "train_on",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'affectlens' has no attribute {name!r}; it offers {', '.join(__all__)}"
        )
    return getattr(import_module(f"affectlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
