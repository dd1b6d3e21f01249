"""What the steering study compares: chosen latents, matched random ones, and rival directions.

Everything is chosen on discovery pairs, as the search chose. The input-side sets respond to an
emotion, the output-side sets were screened for what they do (`screen.select`). Rivals need no SAE:
a random direction, the difference of means, and the weights of a logistic probe, as in AxBench (Wu
et al. 2025, arXiv:2501.17148). 'shuffled' repeats the input-side choice on labels that mean
nothing. How an arm becomes an edit is said in `steering_treatments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.choosing import select
from affectlens.features.controls import (
    difference_of_means,
    live_latents,
    pair_means,
    probe_direction,
    random_sets,
    searched_pairs,
    shuffled_selections,
    unit,
)
from affectlens.features.encode import encode_battery
from affectlens.features.search import SearchResult
from affectlens.features.study_config import SteeringStudyConfig
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.screened import Screen

Array = npt.NDArray[np.float64]

SET_ARMS = ("sae_input", "sae_output_score", "sae_output", "sae_both")
"""Arms that are sets of `features_per_emotion` latents, and what random sets are matched to."""
SCREENED = ("sae_output_score", "sae_output", "sae_both", "sae_single", "prompt_sae")
"""Arms whose latents are chosen by the screen."""
DIRECTIONS = ("random_direction", "diff_of_means", "probe")
UNDOSED = ("unedited", "prompt", "prompt_plain")
"""Arms without an edit."""
PROMPTED = ("prompt", "prompt_sae")

_BY: dict[str, Literal["input", "output_score", "output", "both"]] = {
    "sae_input": "input",
    "sae_output_score": "output_score",
    "sae_output": "output",
    "sae_both": "both",
    "sae_single": "output",
    "prompt_sae": "both",
}
_RANDOM, _DIRECTION, _SHUFFLE = 1, 2, 3


@dataclass(frozen=True, eq=False)
class EmotionArms:
    """What is steered with for one emotion.

    Attributes:
        emotion: the emotion.
        sets: arm -> its latents, best first.
        random: matched random sets in order, each with the arm it is matched to.
        directions: arm -> unit vector [d_model].
    """

    emotion: str
    sets: Mapping[str, tuple[int, ...]]
    random: tuple[tuple[tuple[int, ...], str], ...]
    directions: Mapping[str, Array]

    @property
    def reference_arm(self) -> str:
        """The arm whose written norm directions are given where doses are clamps."""
        return "sae_both" if "sae_both" in self.sets else "sae_input"

    @property
    def reference(self) -> tuple[int, ...]:
        """The latents of that arm."""
        return self.sets[self.reference_arm]


def build_arms(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    screen: Screen | None,
    emotions: Sequence[str],
    config: SteeringStudyConfig,
    *,
    quiet: bool | None = None,
) -> tuple[EmotionArms, ...]:
    """Choose every arm's latents and directions, on discovery pairs alone.

    Raises:
        ConfigError: an arm needs a screen and there is none, an emotion without latents, or no
            firing statistics for random sets or clamps.
    """
    wanted = set(config.arms)
    require_inputs(found, screen, config)
    sets = {e: chosen_sets(found, screen, e, config) for e in emotions}
    if "shuffled" in wanted:
        chance = _shuffled(lm, sae, battery, found, emotions, config, quiet=quiet)
        for emotion, features in chance.items():
            sets[emotion]["shuffled"] = features
    directions = _directions(lm, sae, battery, found, emotions, config)
    taken = {f for own in sets.values() for features in own.values() for f in features}
    return tuple(
        EmotionArms(e, sets[e], _random(found, e, sets[e], taken, config), directions[e])
        for e in emotions
    )


def require_inputs(found: SearchResult, screen: Screen | None, config: SteeringStudyConfig) -> None:
    """Refuse settings that ask for a screen or for firing statistics that are not there.

    Raises:
        ConfigError: one of them is missing.
    """
    needing = [arm for arm in config.arms if arm in SCREENED]
    if screen is None and needing:
        raise ConfigError(
            f"the arms {', '.join(needing)} choose latents by the screen, which was not made; run "
            "the screen of this search first, or leave these arms out"
        )
    if found.stats.empty and ("random" in config.arms or config.dose_unit != "residual_norm"):
        raise ConfigError(
            "the search holds no firing statistics, which random sets and clamps need; search with "
            "a store of activations, or leave 'random' out and keep dose_unit residual_norm"
        )


def chosen_sets(
    found: SearchResult, screen: Screen | None, emotion: str, config: SteeringStudyConfig
) -> dict[str, tuple[int, ...]]:
    """Latents of each arm that has some, best first.

    'sae_input' is always among them, and where doses are clamps the reference set.

    Raises:
        ConfigError: an arm finds no latent for the emotion.
    """
    needed = {*config.arms, "sae_input"}
    if config.dose_unit != "residual_norm" and screen is not None:
        needed.add("sae_both")
    out: dict[str, tuple[int, ...]] = {}
    for arm in (a for a in _BY if a in needed):
        n = 1 if arm == "sae_single" else config.features_per_emotion
        features = tuple(select(found, screen, emotion, n, by=_BY[arm]))
        if not features:
            raise ConfigError(
                f"{emotion!r} has no latent for the arm {arm!r}; leave the emotion or the arm out"
            )
        out[arm] = features
    return out


def _random(
    found: SearchResult,
    emotion: str,
    sets: Mapping[str, tuple[int, ...]],
    taken: set[int],
    config: SteeringStudyConfig,
) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Matched sets: `n_random` for each norm, so for all sets together where doses are shares.

    Where all sets are steered at one norm, the random sets are matched in firing to the chosen
    sets in turn. Where clamps give each set a norm of its own, each has `n_random` of its own.
    """
    if "random" not in config.arms:
        return ()
    matched = [arm for arm in SET_ARMS if arm in config.arms and arm in sets] or ["sae_input"]
    number = found.contrasts.index(emotion)
    out = []
    for place, arm in enumerate(matched):
        rng = np.random.default_rng([config.seed, _RANDOM, number, SET_ARMS.index(arm)])
        n = config.n_random
        if config.dose_unit == "residual_norm":
            n = len(range(place, config.n_random, len(matched)))
        if n:
            drawn = random_sets(found.stats, sets[arm], taken, n, rng)
            out += [(features, arm) for features in drawn]
    return tuple(out)


def _shuffled(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    emotions: Sequence[str],
    config: SteeringStudyConfig,
    *,
    quiet: bool | None,
) -> dict[str, tuple[int, ...]]:
    """The input selection repeated on labels without meaning (`controls.shuffled_selections`)."""
    settings, encoded = found.settings, found.encoded
    if encoded is None:
        (encoded,) = encode_battery(lm, [sae], battery, settings, quiet=quiet)
    data = searched_pairs(encoded, battery, settings)
    live = data.tested if found.stats.empty else live_latents(found.stats)
    rng = np.random.default_rng([config.seed, _SHUFFLE])
    (chance,) = shuffled_selections(data, live, settings, 1, rng)
    out = {e: chance[e][: config.features_per_emotion] for e in emotions if chance.get(e)}
    missing = [e for e in emotions if e not in out]
    if missing:
        raise ConfigError(
            f"no latent rises under shuffled labels for {', '.join(missing)}; leave the arm "
            "'shuffled' out"
        )
    return out


def _directions(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    emotions: Sequence[str],
    config: SteeringStudyConfig,
) -> dict[str, dict[str, Array]]:
    out: dict[str, dict[str, Array]] = {e: {} for e in emotions}
    if "random_direction" in config.arms:
        for emotion in emotions:
            number = found.contrasts.index(emotion)
            rng = np.random.default_rng([config.seed, _DIRECTION, number])
            out[emotion]["random_direction"] = unit(rng.standard_normal(lm.d_model))
    if not {"diff_of_means", "probe"} & set(config.arms):
        return out
    pairs = [p for p in battery.pairs if found.parts.get(p.cluster) == "discovery"]
    if not pairs:
        raise ConfigError(
            "no pair of this battery lies in the discovery part of the search; use the battery "
            "that was searched"
        )
    means = pair_means(lm, sae, battery, pairs)
    for emotion in emotions:
        if not means.own(emotion).any():
            raise ConfigError(
                f"{emotion!r} has no discovery pair for the arms diff_of_means and probe; leave "
                "them or the emotion out"
            )
        if "diff_of_means" in config.arms:
            out[emotion]["diff_of_means"] = difference_of_means(means, emotion)
        if "probe" in config.arms:
            out[emotion]["probe"] = probe_direction(means, emotion)
    return out
