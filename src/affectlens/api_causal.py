"""What features do to the model, as plain functions with keyword settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affectlens.after_search import checked, written
from affectlens.data.models import LanguageModel
from affectlens.data.scenarios import Scenarios
from affectlens.data.stimuli import Battery
from affectlens.features.effects import EffectResult
from affectlens.features.effects import intervene as _intervene
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.results import Generation
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.search import SearchResult
from affectlens.features.selection import FeatureSet
from affectlens.features.steering import steer as _steer
from affectlens.features.steering_study import SteeringStudy
from affectlens.features.steering_study import evaluate_steering as _evaluate
from affectlens.features.study_config import SteeringStudyConfig
from affectlens.features.text_scoring import TextScorer
from affectlens.guard import ensure_checked
from affectlens.sae.model import SparseAutoencoder


def screen(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> SearchResult:
    """Estimate, and for the leading ones measure, what latents do to the emotion readout.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched; only its discovery part is read.
        found: the search.
        out: run folder to write the search with its screen to.
        quiet: no progress.
        **settings: fields of `ScreenConfig`.

    Returns:
        The search with `screen`, and with the columns `attribution` and `output_score` filled.
    """
    config = ScreenConfig.parse(settings, "screen.")
    after = checked(lm, sae, battery, found, quiet=quiet)
    return written(after.screened(config), out)


def intervene(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    battery: Battery,
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    allow_misfit: Sequence[str] = (),
    **settings: Any,
) -> EffectResult:
    """Measure what features do to the emotion readout, against matched random features.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: from `SearchResult.top`.
        battery: the battery that was searched.
        out: run folder to write `effects/` to.
        quiet: no progress.
        allow_misfit: misfits of SAE and model to pass over, such as "fingerprint".
        **settings: fields of `InterveneConfig`.
    """
    config = InterveneConfig.parse(settings, "intervene.")
    ensure_checked(sae, lm)
    return _intervene(
        lm,
        sae,
        features,
        battery,
        config,
        out=Path(out) if out else None,
        quiet=quiet,
        allow_misfit=allow_misfit,
    )


def steer(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    allow_misfit: Sequence[str] = (),
    **settings: Any,
) -> list[Generation]:
    """Write texts with features clamped, beside the unedited model's.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: from `SearchResult.top`.
        out: run folder to write `effects/generations.jsonl` to.
        quiet: no progress.
        allow_misfit: misfits of SAE and model to pass over, such as "fingerprint".
        **settings: fields of `SteerConfig`.
    """
    config = SteerConfig.parse(settings, "steer.")
    ensure_checked(sae, lm)
    return _steer(
        lm,
        sae,
        features,
        config,
        out=Path(out) if out else None,
        quiet=quiet,
        allow_misfit=allow_misfit,
    )


def evaluate_steering(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    scorer: TextScorer | str | None = None,
    scenarios: Scenarios | str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    allow_misfit: Sequence[str] = (),
    **settings: Any,
) -> SteeringStudy:
    """Compare ways to steer: latents by input and output side, directions, prompts, random sets.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched; only its discovery pairs are read.
        found: the search, with its screen (made by `al.search` or `al.screen`).
        scorer: reader of emotions in texts, or its name ("default", "lexicon", a hub id, a folder).
        scenarios: scenes to write about, or a name or SEV file.
        out: run folder to write `steering/` to; a study that was stopped goes on there.
        quiet: no progress.
        allow_misfit: misfits of SAE and model to pass over, such as "fingerprint".
        **settings: other fields of `SteeringStudyConfig`.

    Raises:
        ConfigError: an arm chooses features by a screen, and the search has none.
    """
    named = {"scorer": scorer, "scenarios": scenarios}
    settings |= {name: given for name, given in named.items() if isinstance(given, str)}
    config = SteeringStudyConfig.parse(settings, "study.")
    ensure_checked(sae, lm)
    return _evaluate(
        lm,
        sae,
        battery,
        found,
        config,
        screen=found.screen,
        scorer=None if isinstance(scorer, str) else scorer,
        scenarios=None if isinstance(scenarios, str) else scenarios,
        out=Path(out) if out else None,
        quiet=quiet,
        allow_misfit=allow_misfit,
    )
