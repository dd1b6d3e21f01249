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
        sae_check,
        search,
        train,
        train_many,
        train_on,
    )
    from affectlens.api_causal import evaluate_steering, intervene, screen, steer
    from affectlens.api_validation import (
        baselines,
        calibrate,
        check_validity,
        compare_saes,
        lexical_controls,
        name_features,
        search_nulls,
    )
    from affectlens.data.appraisals import load_appraised
    from affectlens.data.corpus import load_corpus
    from affectlens.data.errors import AffectLensError
    from affectlens.data.models import load_model
    from affectlens.data.scenarios import load_scenarios
    from affectlens.data.scramble import scrambled
    from affectlens.data.stimuli import load_battery
    from affectlens.data.store import ActivationStore
    from affectlens.data.taxonomy import map_label
    from affectlens.features.contextual import contextual_card, static_means
    from affectlens.features.defence import defend
    from affectlens.features.findings import validate
    from affectlens.features.interventions import Intervention, applied, clamped, intervened
    from affectlens.features.lexical import audit
    from affectlens.features.lexical_subset import chance_subset
    from affectlens.features.scopes import FromPosition, Positions
    from affectlens.features.specs import (
        Ablate,
        AddDirection,
        AddLatents,
        Clamp,
        MinClamp,
        PerRow,
        ProjectOut,
        Scale,
        SetRows,
    )
    from affectlens.features.steering_vector import (
        SteeringVector,
        vector_of_features,
        vector_of_pairs,
    )
    from affectlens.features.stored import read_encoded, read_search
    from affectlens.features.vector_files import read_vectors, write_vector
    from affectlens.pipeline import run
    from affectlens.report import build_report
    from affectlens.run_config import RunConfig
    from affectlens.sae.loading import load_sae
    from affectlens.sae_export import export_sae
    from affectlens.training.sweep import latent_overlap
    from affectlens.training.trainer import samples_seen

_HOMES = {
    "Ablate": "features.specs",
    "ActivationStore": "data.store",
    "AddDirection": "features.specs",
    "AddLatents": "features.specs",
    "AffectLensError": "data.errors",
    "Clamp": "features.specs",
    "FromPosition": "features.scopes",
    "Intervention": "features.interventions",
    "MinClamp": "features.specs",
    "PerRow": "features.specs",
    "Positions": "features.scopes",
    "ProjectOut": "features.specs",
    "RunConfig": "run_config",
    "Scale": "features.specs",
    "SetRows": "features.specs",
    "SteeringVector": "features.steering_vector",
    "applied": "features.interventions",
    "audit": "features.lexical",
    "baselines": "api_validation",
    "build_report": "report",
    "calibrate": "api_validation",
    "chance_subset": "features.lexical_subset",
    "check_validity": "api_validation",
    "clamped": "features.interventions",
    "compare_saes": "api_validation",
    "contextual_card": "features.contextual",
    "defend": "features.defence",
    "evaluate_steering": "api_causal",
    "export_sae": "sae_export",
    "harvest": "api",
    "intervene": "api_causal",
    "intervened": "features.interventions",
    "latent_overlap": "training.sweep",
    "lexical_controls": "api_validation",
    "load_appraised": "data.appraisals",
    "load_battery": "data.stimuli",
    "load_corpus": "data.corpus",
    "load_model": "data.models",
    "load_sae": "sae.loading",
    "load_scenarios": "data.scenarios",
    "map_label": "data.taxonomy",
    "name_features": "api_validation",
    "read_encoded": "features.stored",
    "read_search": "features.stored",
    "read_vectors": "features.vector_files",
    "run": "pipeline",
    "sae_check": "api",
    "samples_seen": "training.trainer",
    "scrambled": "data.scramble",
    "screen": "api_causal",
    "search": "api",
    "search_nulls": "api_validation",
    "static_means": "features.contextual",
    "steer": "api_causal",
    "train": "api",
    "train_many": "api",
    "train_on": "api",
    "validate": "features.findings",
    "vector_of_features": "features.steering_vector",
    "vector_of_pairs": "features.steering_vector",
    "write_vector": "features.vector_files",
}

__all__ = [
    "Ablate",
    "ActivationStore",
    "AddDirection",
    "AddLatents",
    "AffectLensError",
    "Clamp",
    "FromPosition",
    "Intervention",
    "MinClamp",
    "PerRow",
    "Positions",
    "ProjectOut",
    "RunConfig",
    "Scale",
    "SetRows",
    "SteeringVector",
    "__version__",
    "applied",
    "audit",
    "baselines",
    "build_report",
    "calibrate",
    "chance_subset",
    "check_validity",
    "clamped",
    "compare_saes",
    "contextual_card",
    "defend",
    "evaluate_steering",
    "export_sae",
    "harvest",
    "intervene",
    "intervened",
    "latent_overlap",
    "lexical_controls",
    "load_appraised",
    "load_battery",
    "load_corpus",
    "load_model",
    "load_sae",
    "load_scenarios",
    "map_label",
    "name_features",
    "read_encoded",
    "read_search",
    "read_vectors",
    "run",
    "sae_check",
    "samples_seen",
    "scrambled",
    "screen",
    "search",
    "search_nulls",
    "static_means",
    "steer",
    "train",
    "train_many",
    "train_on",
    "validate",
    "vector_of_features",
    "vector_of_pairs",
    "write_vector",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'affectlens' has no attribute {name!r}; it offers {', '.join(__all__)}"
        )
    return getattr(import_module(f"affectlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
