"""Arms and interventions in words and signs, the same in every figure and on every page.

A sign is a marker, filled or hollow, and a colour; no two arms of one figure differ by colour
alone, and every arm is also named where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .look import THEME

Ink = Literal["red", "blue", "muted", "ink"]


@dataclass(frozen=True)
class Arm:
    """How an arm is named and drawn; `family` groups arms that answer the same question."""

    label: str
    family: str
    marker: str = "o"
    ink: Ink = "muted"
    filled: bool = False

    @property
    def colour(self) -> str:
        """Its colour."""
        return str(getattr(THEME, self.ink))


CHANCE = "chance"
_SAE, _DENSE, _PROMPT, _ERROR = "SAE", "without the SAE", "prompt", "SAE error"

EFFECT_ARMS: Mapping[str, Arm] = {
    "chosen": Arm("chosen features", _SAE, "o", "red", filled=True),
    "no_edit": Arm("no edit", CHANCE, "o"),
    "random": Arm("random features", CHANCE, "|"),
    "shuffled_labels": Arm("shuffled labels", CHANCE, "d"),
    "random_direction": Arm("random directions", CHANCE, "x"),
    "diff_of_means": Arm("difference of means", _DENSE, "s", "blue"),
    "dense_probe": Arm("dense probe", _DENSE, "D", "blue"),
    "neurons": Arm("neurons", _DENSE, "v", "blue"),
    "prompt": Arm("prompt naming it", _PROMPT, "^", "ink", filled=True),
    "prompt_neutral": Arm("neutral prompt", _PROMPT, "^", "ink"),
    "splice": Arm("SAE in place, no edit", _ERROR, "p"),
    "chosen_no_error": Arm("chosen, SAE in place", _ERROR, "p", filled=True),
    "error_only": Arm("SAE error alone", _ERROR, "h"),
    "chosen_error_only": Arm("chosen on SAE error", _ERROR, "h", filled=True),
}
"""Arms of the interventions, in the order of the figures."""

STUDY_ARMS: Mapping[str, Arm] = {
    "unedited": Arm("unedited", CHANCE, "+"),
    "sae_input": Arm("SAE by input", _SAE, "o", "red"),
    "sae_output_score": Arm("SAE by output score", _SAE, "s", "red"),
    "sae_output": Arm("SAE by output", _SAE, "D", "red", filled=True),
    "sae_both": Arm("SAE by both", _SAE, "o", "red", filled=True),
    "sae_single": Arm("single SAE latent", _SAE, "d", "red"),
    "random": Arm("random latents", CHANCE, "x"),
    "random_best": Arm("best random set", CHANCE, "*"),
    "random_direction": Arm("random direction", CHANCE, "1"),
    "shuffled": Arm("shuffled labels", CHANCE, "2"),
    "diff_of_means": Arm("difference of means", _DENSE, "v", "blue"),
    "probe": Arm("dense probe", _DENSE, "D", "blue"),
    "prompt": Arm("prompt naming it", _PROMPT, "^", "ink", filled=True),
    "prompt_plain": Arm("neutral prompt", _PROMPT, "^", "ink"),
    "prompt_sae": Arm("prompt and SAE", _PROMPT, "p", "ink", filled=True),
}
"""Arms of the steering study, in the order of the tables."""

TITLES: Mapping[str, str] = {
    "ablate_zero": "features switched off",
    "ablate_mean": "features set to their corpus mean",
    "ablate_neutral": "features set to neutral",
    "project_out": "features’ directions removed",
    "clamp": "features turned up",
    "min_clamp": "features raised to a floor",
    "scale": "features scaled",
    "add": "features’ directions added",
    "patch_clinical": "features set to emotional values",
}
"""What each intervention does, in a few words."""

INTERVENTION_WORDS: Mapping[str, str] = {
    "ablate_zero": "switching the features off",
    "ablate_mean": "setting the features to their corpus mean",
    "ablate_neutral": "setting the features to their value on neutral text",
    "project_out": "removing the features’ directions",
    "clamp": "turning the features up",
    "min_clamp": "raising the features to a floor",
    "scale": "scaling the features",
    "add": "adding the features’ directions",
    "patch_clinical": "giving neutral text the features’ emotional values",
}
"""What each intervention does, as the subject of a sentence."""


def effect_arm(name: str) -> Arm:
    """An arm of the interventions; an unknown one keeps its own name."""
    return EFFECT_ARMS.get(name) or Arm(name, "other", ".")


def study_arm(name: str) -> Arm:
    """An arm of the steering study; an unknown one keeps its own name."""
    return STUDY_ARMS.get(name) or Arm(name, "other", ".")


def in_order(names: Iterable[str], known: Mapping[str, Arm]) -> list[str]:
    """The names once each, known ones first and in their order."""
    place = {name: i for i, name in enumerate(known)}
    return sorted(dict.fromkeys(map(str, names)), key=lambda n: place.get(n, len(place)))
