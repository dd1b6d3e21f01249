"""Code to copy from a feature page: clamp the feature, steer with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from .loading import RunData

SAE_FOLDER = "sae"
STEP = 0.2
"""Share of the residual's norm that is added; the steering study chooses it from texts."""
GUESS = 10.0
"""Activation to clamp at where the feature never fired on held-out text."""
PROMPT = "The day began like any other, and then"


@dataclass(frozen=True)
class Setup:
    """How the run's model and SAE are loaded again, as Python expressions."""

    model: str
    sae: str

    @property
    def lines(self) -> str:
        """The lines that both pieces of code begin with."""
        return (
            f"import affectlens as al\n\nlm = {self.model}\nsae = {self.sae}\n"
            f"prompt = {literal(PROMPT)}\n"
        )


def setup(data: RunData) -> Setup:
    """The lines that load the run's model and SAE.

    The model stands as config.yaml names it, else as run.json does. An SAE that does not lie in
    the run folder is left for the reader to name.
    """
    config = _config(data)
    recorded = data.lookup("model", "name")
    fallback = "MODEL" if recorded == "not recorded" else recorded
    name = config.get("model") if isinstance(config.get("model"), str) else fallback
    revision = config.get("revision")
    pinned = f", revision={literal(revision)}" if isinstance(revision, str) else ""
    here = (data.path / SAE_FOLDER / "cfg.json").exists()
    sae = (
        f"al.load_sae({literal(SAE_FOLDER)})  # beside this report"
        if here
        else 'al.load_sae("SAE")  # folder of the SAE'
    )
    return Setup(f"al.load_model({literal(str(name))}{pinned})", sae)


def clamp_code(start: Setup, feature: int, max_active: float | None) -> str:
    """Code that writes a text with the feature held at its largest activation."""
    known = max_active is not None and math.isfinite(max_active) and max_active > 0
    value = f"{max_active if known else GUESS:.4g}"
    value += "" if any(mark in value for mark in ".e") else ".0"
    why = "its largest on held-out text" if known else "a guess, as it never fired"
    return (
        f"{start.lines}\n"
        f"# in activation units: {why}\n"
        f"with al.clamped(lm, sae, {{{feature}: {value}}}):\n"
        "    print(lm.generate(prompt, max_new_tokens=40))\n"
    )


def steer_code(start: Setup, feature: int) -> str:
    """Code that writes a text with the feature's direction added to what is generated."""
    return (
        f"{start.lines}\n"
        "# added to each new token: a share of its norm\n"
        f"edits = [al.AddLatents(({feature},), ({STEP},))]\n"
        'with al.applied(lm, sae, edits, scope="generated"):\n'
        "    print(lm.generate(prompt, max_new_tokens=40))\n"
    )


def literal(text: str) -> str:
    """A Python string literal on one line, whatever the text holds."""
    made = repr(text)
    return f'"{made[1:-1]}"' if made[0] == "'" and '"' not in made else made


def _config(data: RunData) -> Mapping[str, object]:
    """config.yaml as read; empty where it is absent, cut off or no mapping."""
    try:
        # The loader in C reads the same some ten times faster, where PyYAML was built with it.
        read = yaml.load(data.config_text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return {}
    return read if isinstance(read, Mapping) else {}
