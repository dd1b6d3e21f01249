"""AffectLens: find the SAE features that carry emotion, control them for words, test what they do.

The public names below are loaded on first use, so `import affectlens` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from affectlens.api import harvest, intervene, search, steer, train
    from affectlens.data.corpus import load_corpus
    from affectlens.data.errors import AffectLensError
    from affectlens.data.models import load_model
    from affectlens.data.stimuli import load_battery
    from affectlens.data.store import ActivationStore
    from affectlens.features.interventions import applied, clamped
    from affectlens.features.lexical import audit
    from affectlens.pipeline import RunConfig, run
    from affectlens.report import build_report
    from affectlens.sae.loading import load_sae

_HOMES = {
    "ActivationStore": "data.store",
    "AffectLensError": "data.errors",
    "RunConfig": "pipeline",
    "applied": "features.interventions",
    "audit": "features.lexical",
    "build_report": "report",
    "clamped": "features.interventions",
    "harvest": "api",
    "intervene": "api",
    "load_battery": "data.stimuli",
    "load_corpus": "data.corpus",
    "load_model": "data.models",
    "load_sae": "sae.loading",
    "run": "pipeline",
    "search": "api",
    "steer": "api",
    "train": "api",
}

__all__ = [
    "ActivationStore",
    "AffectLensError",
    "RunConfig",
    "__version__",
    "applied",
    "audit",
    "build_report",
    "clamped",
    "harvest",
    "intervene",
    "load_battery",
    "load_corpus",
    "load_model",
    "load_sae",
    "run",
    "search",
    "steer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'affectlens' has no attribute {name!r}; it offers {', '.join(__all__)}"
        )
    return getattr(import_module(f"affectlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
