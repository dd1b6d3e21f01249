"""What a browser asks for, checked field by field; whatever is odd is refused in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from affectlens.data.errors import ConfigError
from affectlens.demo.settings import DemoSettings

Mode = Literal["add", "clamp"]
MODES: tuple[Mode, ...] = get_args(Mode)
_FIELDS = {"prompt", "features", "temperature", "seed", "max_tokens", "sae"}


@dataclass(frozen=True)
class Turned:
    """One feature and what is done to it.

    Attributes:
        feature: latent of the SAE.
        mode: "add" adds its direction, "clamp" holds its activation.
        value: for "add" a share of the residual's norm at each token, for "clamp" a multiple of the
            latent's largest activation on held-out text.
    """

    feature: int
    mode: Mode
    value: float

    @property
    def edits(self) -> bool:
        """Whether anything is done: a clamp to 0 holds the latent at 0, adding 0 adds nothing."""
        return self.mode == "clamp" or self.value != 0


@dataclass(frozen=True)
class Asked:
    """A valid request for a default and a steered text."""

    prompt: str
    features: tuple[Turned, ...]
    temperature: float
    seed: int
    max_tokens: int
    sae: str


def parse_asked(body: bytes, settings: DemoSettings) -> Asked:
    """The request in a body of JSON.

    Raises:
        ConfigError: not JSON, other fields, or a value outside its limits.
    """
    given = _object(_json(body), "the request", _FIELDS)
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError("the opening is empty; write a few words for the model to go on from")
    if len(prompt) > settings.max_prompt_chars:
        raise ConfigError(
            f"the opening has {len(prompt):,} characters; at most {settings.max_prompt_chars:,} "
            "are allowed"
        )
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ConfigError("the opening holds half of a surrogate pair, which is not text") from None
    sae = given.get("sae", "")
    if not isinstance(sae, str) or len(sae) > 64:
        raise ConfigError("sae must be the hash of an SAE, or be left out")
    return Asked(
        prompt=prompt,
        features=_turned(given.get("features", []), settings),
        temperature=_number(given, "temperature", 0.0, 0.0, settings.max_temperature),
        seed=_whole(given, "seed", 0, 0, settings.max_seed),
        max_tokens=_whole(given, "max_tokens", 60, 1, settings.max_tokens),
        sae=sae,
    )


def check_features(asked: Asked, *, d_sae: int, sae: str, maxima: Mapping[int, float]) -> None:
    """Hold the features of a request against the SAE that is loaded.

    Args:
        asked: the request.
        d_sae: latents of the SAE.
        sae: its hash.
        maxima: largest held-out activation of each latent that fired there.

    Raises:
        ConfigError: features of another SAE, outside it, or without a unit for a clamp.
    """
    if asked.sae and not sae.startswith(asked.sae):
        raise ConfigError(
            f"these features are of the SAE {asked.sae[:12]}, but {sae[:12]} is loaded; a number "
            "means another feature in another SAE: choose features of this one"
        )
    for turned in asked.features:
        if turned.feature >= d_sae:
            raise ConfigError(
                f"feature {turned.feature} is outside the SAE: allowed are 0 to {d_sae - 1}"
            )
        if turned.mode == "clamp" and turned.feature not in maxima:
            raise ConfigError(
                f"feature {turned.feature} never fired on held-out text, so a clamp in units of "
                "its largest activation is not defined; add its direction instead"
            )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the request is not valid JSON ({error})") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _object(value: Any, what: str, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must be a JSON object")
    odd = sorted(set(value) - allowed)
    if odd:
        raise ConfigError(
            f"{what} has the unknown field {odd[0][:40]!r}; allowed are "
            f"{', '.join(sorted(allowed))}"
        )
    return value


def _turned(value: Any, settings: DemoSettings) -> tuple[Turned, ...]:
    if not isinstance(value, list):
        raise ConfigError("features must be a list")
    if len(value) > settings.max_features:
        raise ConfigError(
            f"{len(value)} features are turned at once; at most {settings.max_features} are allowed"
        )
    found = tuple(_one_turned(item, settings) for item in value)
    numbers = [turned.feature for turned in found]
    if len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise ConfigError(f"feature {twice} is named twice; turn each feature once")
    return found


def _one_turned(item: Any, settings: DemoSettings) -> Turned:
    given = _object(item, "a feature", {"feature", "mode", "value"})
    mode = given.get("mode", "add")
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}")
    low = -settings.max_share if mode == "add" else 0.0
    high = settings.max_share if mode == "add" else settings.max_clamp
    if "feature" not in given:
        raise ConfigError("a feature needs its number, as `feature`")
    feature = _whole(given, "feature", 0, 0, 2**31 - 1)
    return Turned(feature, mode, _number(given, "value", 0.0, low, high))


def _whole(given: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = given.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low:,} to {high:,}")
    return value


def _number(given: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)
