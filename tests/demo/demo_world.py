"""A tiny model that is steered, its catalogue with hostile names, and a listener to its events."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.demo.asked import Asked, Turned
from affectlens.demo.presets import Catalogue, FeatureCard, Finding, Preset
from affectlens.demo.world import World, world_of
from affectlens.sae.model import SparseAutoencoder

from ..features.made_saes import make_sae

D_SAE, LOUD, SILENT = 96, 3, 20
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "<jupyter_script>",
    "\u202egnitrever\u202c",
    "\x1b[31mred\x1b[0m",
)
"""Texts that break pages which do not escape."""


def made_world(lm: LanguageModel | None = None, sae: SparseAutoencoder | None = None) -> World:
    """A world of its own; the first feature is named by hostile tokens."""
    lm = lm or tiny_model("llama", n_layers=3)
    sae = sae or make_sae(lm, d_sae=D_SAE)
    maxima = {f: 2.0 for f in range(D_SAE) if f != SILENT}
    found = Finding("grief", True, "contextual", "Because <b>of</b> a test.")
    cards = {f: FeatureCard(f, maxima.get(f), 0.01) for f in range(D_SAE)}
    cards[LOUD] = FeatureCard(LOUD, 2.0, 0.01, HOSTILE, HOSTILE, (found,))
    presets = (Preset("grief", (LOUD, 5), (7,), "A verdict in words."),)
    catalogue = Catalogue(
        "run <i>", lm.name, sae.info.hook_name, "ab" * 32, D_SAE, cards, presets, maxima
    )
    return world_of(lm, sae, catalogue)


def endless(world: World) -> World:
    """The same world, with texts that no stop token ends."""
    config: Any = world.lm.model.generation_config
    config.eos_token_id = []
    world.lm.__dict__.pop("stop_ids", None)
    assert not world.lm.stop_ids
    return world


def wanted(*turned: Turned, **more: Any) -> Asked:
    """A request with defaults."""
    given: dict[str, Any] = {
        "prompt": "The day began",
        "features": tuple(turned),
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 12,
        "sae": "",
    }
    return Asked(**(given | more))


class Heard:
    """Collects the events of one request."""

    def __init__(self) -> None:
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self._events.put(event)

    def until(self, *kinds: str, timeout: float = 120) -> dict[str, Any]:
        """The first event of one of these kinds."""
        while True:
            event = self._events.get(timeout=timeout)
            self.seen.append(event)
            if event["type"] in kinds:
                return event

    def texts(self) -> tuple[str, str]:
        """The two texts that were told so far."""
        steps = [e for e in self.seen if e["type"] == "step"]
        rest = next((e["rest"] for e in self.seen if e["type"] == "written"), ["", ""])
        both = ["".join(e["tokens"][k] or "" for e in steps) + rest[k] for k in (0, 1)]
        return both[0], both[1]


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it does not come true in time.
    """
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def hooks_of(lm: LanguageModel) -> int:
    """Hooks that are registered anywhere in the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())
