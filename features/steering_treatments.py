"""The steering study's conditions: each arm's latents or direction as an edit at every dose.

Which unit gives a sparse autoencoder a fair chance? A latent's maximum on held-out text says
little about what it takes to steer: a rare latent has a small one, so a clamp to it writes next to
nothing, while rivals have no such ceiling. AxBench (Wu et al. 2025, arXiv:2501.17148) gives every
method a grid of factors and lets it choose on held-out prompts. The same is done here, in a unit
that all arms share: `dose_unit="residual_norm"` writes

    x <- x + dose |x| u,     u = unit(sum of the set's decoder rows at unit norm)

on every kept token of prompt and text, with u the direction for arms that need no SAE. Arms then
differ in direction alone, every one of them over the same range from hardly visible to broken. It
is the default. The other units are the edit that users of SAEs make, a clamp: latents are set to
dose x their maximum on held-out text, random sets are scaled so that their decoded sum has the
norm of the set they are matched to, and directions are added at the mean norm that the reference
set (`sae_both`; `sae_input` without a screen) writes at that dose, measured on the prompts. Norms
written in the texts themselves stand in the tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.features.controls import clamp_targets, matched_targets, unit
from affectlens.features.interventions import residual_edit
from affectlens.features.search import SearchResult
from affectlens.features.specs import AddDirection, Clamp, MinClamp, Spec
from affectlens.features.steering_arms import DIRECTIONS, PROMPTED, UNDOSED, EmotionArms
from affectlens.features.study_config import SteeringStudyConfig
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Treatment:
    """One condition of one emotion: what is edited and what the prompt asks for.

    `dose` is 0 without an edit. `key` names what is done, whatever the arm is called, so that
    texts of equal treatments are written once.
    """

    emotion: str
    arm: str
    set_index: int
    dose: float
    features: tuple[int, ...]
    matched_to: str
    instruction: str
    specs: tuple[Spec, ...]
    key: str


def written_norms(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    found: SearchResult,
    arms: Sequence[EmotionArms],
    prompts: Sequence[Sequence[int]],
    config: SteeringStudyConfig,
) -> dict[tuple[str, float], float]:
    """Mean norm per kept token that each emotion's reference set writes on the prompts at a dose.

    Empty for doses that are shares of the norm, which need no reference.
    """
    if config.dose_unit == "residual_norm":
        return {}
    batch, out = lm.pad(prompts), {}
    for own in arms:
        for dose in config.doses:
            targets = clamp_targets(found.stats, own.reference, dose)
            spec, _ = _clamp(own.reference, targets, config)
            edit_fn, tally = residual_edit(sae, [spec])
            with edit(lm, {sae.info.hook_name: edit_fn}):
                lm.forward_logits(batch)
            out[own.emotion, dose] = tally.mean_norm
    return out


def treatments(
    sae: SparseAutoencoder,
    found: SearchResult,
    arms: Sequence[EmotionArms],
    norms: Mapping[tuple[str, float], float],
    config: SteeringStudyConfig,
) -> tuple[Treatment, ...]:
    """Every condition, in the order of emotions, arms, sets and doses."""
    maker = _Maker(sae, found, norms, config)
    listed = dict.fromkeys(("unedited", *config.arms))
    return tuple(t for own in arms for arm in listed for t in maker.of(own, arm))


@dataclass(frozen=True, eq=False)
class _Maker:
    sae: SparseAutoencoder
    found: SearchResult
    norms: Mapping[tuple[str, float], float]
    config: SteeringStudyConfig

    def of(self, own: EmotionArms, arm: str) -> list[Treatment]:
        asked = own.emotion if arm in PROMPTED else "plain" if arm == "prompt_plain" else ""
        if arm in UNDOSED:
            return [Treatment(own.emotion, arm, 0, 0.0, (), "", asked, (), f"{asked}|")]
        sets = own.random if arm == "random" else ((own.sets.get(arm, ()), ""),)
        out = []
        for index, (features, matched_to) in enumerate(sets):
            for dose in sorted(self.config.doses):
                spec, key = self._edit(own, arm, features, matched_to, dose)
                out.append(
                    Treatment(
                        own.emotion,
                        arm,
                        index,
                        dose,
                        features,
                        matched_to,
                        asked,
                        (spec,),
                        f"{asked}|{key}",
                    )
                )
        return out

    def _edit(
        self, own: EmotionArms, arm: str, features: tuple[int, ...], matched_to: str, dose: float
    ) -> tuple[Spec, str]:
        share = self.config.dose_unit == "residual_norm"
        # In one order, so that equal sets are one edit however they were ranked.
        features = tuple(sorted(features))
        if arm in DIRECTIONS or share:
            vector = own.directions[arm] if arm in DIRECTIONS else self._summed(features)
            strength = dose if share else self.norms[own.emotion, dose]
            return _direction(vector, strength, share=share)
        targets = clamp_targets(self.found.stats, features, dose)
        if matched_to:
            reference = own.sets[matched_to]
            goal = clamp_targets(self.found.stats, reference, dose)
            targets = matched_targets(targets, self.sae.W_dec, features, reference, goal)
        return _clamp(features, targets, self.config)

    def _summed(self, features: tuple[int, ...]) -> Array:
        rows = self.sae.W_dec[list(features)].detach().double().cpu().numpy()
        # At unit norm, so that every latent of the set has the same say.
        summed = unit(np.sum([unit(row) for row in rows], axis=0))
        if not summed.any():
            raise ConfigError(
                f"the decoder rows of the latents {list(features)} add up to nothing, so they name "
                "no direction; choose other latents"
            )
        return summed


def _direction(vector: Array, strength: float, *, share: bool) -> tuple[Spec, str]:
    name = "residual_norm" if share else "absolute"
    digest = hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()
    spec = AddDirection(vector, strength, "residual_norm" if share else "absolute")
    return spec, f"add {name} {strength!r} {digest}"


def _clamp(
    features: tuple[int, ...], targets: Array, config: SteeringStudyConfig
) -> tuple[Spec, str]:
    values = tuple(float(v) for v in targets)
    floor = config.dose_unit == "max_activation_floor"
    spec = MinClamp(features, values) if floor else Clamp(features, values)
    return spec, f"{'floor' if floor else 'clamp'} {features!r} {values!r}"
