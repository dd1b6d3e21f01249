"""The model card of an SAE: a README with the front matter that the Hugging Face hub reads.

`library_name: saelens` is what sae-lens itself puts into the cards it makes, and by which the hub
offers the code to load the SAE. A card states what was measured and leaves out what was not.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from affectlens.sae.model import SAEInfo

TAGS = ("sparse-autoencoder", "mechanistic-interpretability", "affectlens")
LIMITS = (
    "It stands for one place of one model; elsewhere, and in a fine-tuned copy, its latents mean "
    "something else.",
    "Another seed gives other latents. One that is found here is a direction that this dictionary "
    "chose, not a part of the model that must be there.",
    "A latent that fires on texts of some kind detects them, or their words; that it causes "
    "anything has to be shown by an intervention with controls.",
)
"""What holds for every SAE."""

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_MARKUP = re.compile(r"([\\`*_\[\]|#{}!~])")
_CODE = re.compile(r"[\w./:@+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the SAE's own record; what is empty is said to be unknown.

    Attributes:
        licence: of the weights, such as "mit".
        base_model: hub id of the language model.
        training: what it was trained on, label -> text.
        quality: what was measured, label -> text.
        measured_on: on what.
        limits: sentences on what it cannot do.
    """

    licence: str = ""
    base_model: str = ""
    training: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, str] = field(default_factory=dict)
    measured_on: str = ""
    limits: tuple[str, ...] = ()


def model_card(info: SAEInfo, sae_id: str, facts: CardFacts) -> str:
    """The text of README.md, UTF-8, ending in a newline.

    Args:
        info: record of the SAE.
        sae_id: name of its folder within the repository.
        facts: what else is known.
    """
    parts = [
        front_matter(info, facts),
        _title(info, facts),
        _use(info, sae_id),
        _about(info),
        "## Measured quality\n\n" + _measured(facts),
        "## Training\n\n"
        + (_table(facts.training) or "What it was trained on is not recorded with its files.\n"),
        "## Limits\n\n" + "".join(f"- {line}\n" for line in [*LIMITS, *facts.limits]),
        "## Licence\n\n" + _licence(facts),
    ]
    return "\n".join(parts).encode("utf-8", "backslashreplace").decode("utf-8")


def front_matter(info: SAEInfo, facts: CardFacts) -> str:
    """The YAML block that the hub reads."""
    head: dict[str, object] = {"library_name": "saelens"}
    if facts.licence:
        known = facts.licence.lower()
        head["license"] = known if _LICENCE.fullmatch(known) else "other"
    base = facts.base_model or info.model_name
    if _HUB_ID.fullmatch(base):
        head["base_model"] = base
    head["tags"] = [*TAGS, info.architecture]
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def escaped(text: str) -> str:
    """`text` on one line, without meaning to Markdown or HTML."""
    return html.escape(_MARKUP.sub(r"\\\1", " ".join(str(text).split())), quote=False)


def _title(info: SAEInfo, facts: CardFacts) -> str:
    model = escaped(facts.base_model or info.model_name or "a language model")
    place = escaped(info.hook_name or "an unstated place")
    return (
        f"# Sparse autoencoder for {model}, {place}\n\n"
        f"A {escaped(info.architecture)} sparse autoencoder (SAE) of the residual stream: "
        f"{info.d_sae:,} latents over {info.d_in:,} dimensions"
        + ("" if info.k is None else f", {info.k} active for each token")
        + ".\n"
    )


def _use(info: SAEInfo, sae_id: str) -> str:
    folder = sae_id if _CODE.fullmatch(sae_id) else "FOLDER"
    lines = [
        "## Use\n",
        "```python",
        "from sae_lens import SAE",
        "",
        f'sae = SAE.load_from_disk("{folder}")',
        "# once it is on the hub:",
        f'sae = SAE.from_pretrained("OWNER/REPOSITORY", "{folder}")',
        "```",
        "",
    ]
    outside = []
    if info.skip_first:
        outside.append("the first token of a text")
    if info.norm_limit is not None:
        outside.append(f"tokens whose residual has an L2 norm above {info.norm_limit:.6g}")
    if outside:
        lines.append(
            f"Leave out {' and '.join(outside)}: they were masked in training, and what the SAE "
            "says there means nothing. The rule is in `metadata` of `cfg.json`.\n"
        )
    if info.centre:
        lines.append("Remove the residual's mean over its dimensions before encoding.\n")
    return "\n".join(lines)


def _about(info: SAEInfo) -> str:
    rows = {
        "architecture": info.architecture,
        "place": info.hook_name,
        "width": f"{info.d_sae:,} latents, d_in {info.d_in:,}",
        "active latents a token (k)": "" if info.k is None else str(info.k),
        "SHA-256 of architecture and weights": info.sha256,
        "SHA-256 of the language model": info.model_fingerprint or "",
    }
    return "## What it is\n\n" + _table({k: v for k, v in rows.items() if v})


def _measured(facts: CardFacts) -> str:
    if not facts.quality:
        return "Nothing was measured on it.\n"
    on = f"\nMeasured on {escaped(facts.measured_on)}.\n" if facts.measured_on else ""
    return _table(facts.quality) + on


def _table(rows: Mapping[str, str]) -> str:
    if not rows:
        return ""
    body = "".join(f"| {escaped(label)} | {escaped(value)} |\n" for label, value in rows.items())
    return f"| | |\n|---|---|\n{body}"


def _licence(facts: CardFacts) -> str:
    if not facts.licence:
        return "No licence is stated. Without one, nobody may use these weights: choose one.\n"
    return f"{escaped(facts.licence)}\n"
