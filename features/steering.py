"""Texts written while features are clamped, beside the unedited model's.

Illustrations, not evidence: the effect is measured in `effects`. Prompts are plain openers that
name no emotion; every arm gets the same prompts and the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.features.controls import clamp_targets
from affectlens.features.effects_config import SteerConfig
from affectlens.features.fit import require_fit
from affectlens.features.interventions import residual_edit
from affectlens.features.results import Generation, write_lines
from affectlens.features.selection import FeatureSet
from affectlens.features.specs import Clamp
from affectlens.sae.model import SparseAutoencoder

PARTIAL_FILE = "effects/generations.partial.jsonl"
"""Where a run folder keeps the texts of a call that has not ended, or was stopped."""


def steer(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    config: SteerConfig | None = None,
    *,
    out: Path | None = None,
    quiet: bool = False,
    allow_misfit: Sequence[str] = (),
) -> list[Generation]:
    """Generate with each set clamped at each strength, and once without an edit.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: one set or several, from `SearchResult.top`.
        config: prompts, strengths (in units of each latent's maximum on held-out text), length,
            seed.
        out: run folder to write `effects/generations.jsonl` to. A call that is stopped leaves what
            it has written in `effects/generations.partial.jsonl`.
        quiet: no progress.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in every row.

    Returns:
        One row a prompt, set and strength; strength 0 is the unedited model.

    Raises:
        SAEError: the SAE does not fit the model.
        ConfigError: no feature set.
        HookError: an edit did not run.
    """
    config = config or SteerConfig()
    sets = [features] if isinstance(features, FeatureSet) else list(features)
    if not sets:
        raise ConfigError("no feature set to steer with; pick some with SearchResult.top")
    passed = require_fit(sae, lm, allow=allow_misfit)
    rows: list[Generation] = []
    partial = None if out is None else Path(out) / PARTIAL_FILE
    with track(len(sets) * len(config.strengths) + 1, "batches", "steer", quiet=quiet) as bar:
        plain = _texts(lm, config)
        bar.update(1)
        for chosen in sets:
            before = _rows(chosen, "unedited", 0.0, config, plain)
            rows += [replace(row, misfits=passed) for row in before]
            for strength in config.strengths:
                targets = clamp_targets(chosen.stats, chosen, strength)
                spec = Clamp(tuple(chosen), tuple(float(v) for v in targets))
                edit_fn, _ = residual_edit(sae, [spec])
                with edit(lm, {sae.info.hook_name: edit_fn}):
                    texts = _texts(lm, config)
                written = _rows(chosen, "clamped", strength, config, texts)
                rows += [replace(row, misfits=passed) for row in written]
                if partial is not None:
                    write_lines(partial, rows)
                bar.update(1)
    if partial is not None:
        write_lines(partial.with_name("generations.jsonl"), rows)
        partial.unlink(missing_ok=True)
    return rows


def _texts(lm: LanguageModel, config: SteerConfig) -> list[str]:
    texts = lm.generate(
        list(config.prompts),
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    return [texts] if isinstance(texts, str) else list(texts)


def _rows(
    chosen: FeatureSet, arm: str, strength: float, config: SteerConfig, texts: Sequence[str]
) -> list[Generation]:
    return [
        Generation(
            emotion=chosen.emotion,
            features=list(chosen),
            arm=arm,
            strength=strength,
            prompt=prompt,
            text=text,
            seed=config.seed,
        )
        for prompt, text in zip(config.prompts, texts, strict=True)
    ]
