"""Limits of the demo, in one place; the page is told them and every request is held to them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from affectlens.data.errors import ConfigError

OPENINGS = (
    "The letter came on a Tuesday morning, and when she had read it she",
    "He opened the door of the old house and",
    "The meeting had lasted for two hours, and now everyone",
    "On the way home from work I",
)
"""Beginnings that name no emotion."""


@dataclass(frozen=True)
class DemoSettings:
    """What one request may ask for, and how many may be in work.

    Attributes:
        max_tokens: new tokens of each of the two texts.
        max_prompt_chars: characters of a prompt.
        max_prompt_tokens: tokens of a prompt.
        max_features: features edited at once.
        max_share: largest strength of "add" to either side, in units of the residual's norm.
        max_clamp: largest clamp, in units of the latent's largest held-out activation.
        max_temperature: highest temperature.
        max_seed: largest seed.
        top_p: share of probability that is kept when tokens are sampled.
        max_body: bytes of a request.
        max_waiting: texts that may wait for the model.
        max_batches: batches that write by turns.
        max_in_batch: requests of one batch, two rows each.
        per_client: requests of one address in work or waiting.
        per_minute: requests of one address in a minute.
        gather_s: how long the idle engine waits for further requests to share the batch.
    """

    max_tokens: int = 200
    max_prompt_chars: int = 2_000
    max_prompt_tokens: int = 400
    max_features: int = 8
    max_share: float = 1.0
    max_clamp: float = 3.0
    max_temperature: float = 2.0
    max_seed: int = 2**31 - 1
    top_p: float = 0.95
    max_body: int = 16_384
    max_waiting: int = 8
    max_batches: int = 3
    max_in_batch: int = 4
    per_client: int = 3
    per_minute: int = 60
    gather_s: float = 0.02

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be above 0, got {value}")

    def shown(self) -> dict[str, Any]:
        """What the page needs to know."""
        names = (
            "max_tokens",
            "max_prompt_chars",
            "max_features",
            "max_share",
            "max_clamp",
            "max_temperature",
            "max_seed",
            "top_p",
        )
        return {name: getattr(self, name) for name in names}
