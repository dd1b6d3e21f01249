"""Names of places in a model, and the modules they stand for.

The address language is that of TransformerLens, which SAE files use too: "blocks.N.hook_resid_post"
is the output of block N, "blocks.N.hook_resid_pre" its input. Integers mean the output.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

from torch import nn

from affectlens.data.errors import HookError, ModelError

Site = Literal["resid_pre", "resid_post"]

_HOOK = re.compile(r"blocks\.(\d{1,6})\.hook_(resid_pre|resid_post|in|out)")
_MODULE = re.compile(
    r"(?:(?:model\.)?(?:language_model\.)?layers|(?:transformer\.)?h|gpt_neox\.layers"
    r"|model\.decoder\.layers|resid_post)\.(\d{1,6})"
)
_PRE = re.compile(r"resid_pre\.(\d{1,6})")
_NUMBER = re.compile(r"\d{1,6}")

_BLOCK_PATHS = (
    "model.layers",  # Llama, Qwen, Gemma, Mistral, Phi-3, SmolLM
    "transformer.h",  # GPT-2, Bloom, Falcon
    "gpt_neox.layers",  # Pythia
    "model.decoder.layers",  # OPT
    "model.language_model.layers",  # multimodal Gemma 3
    "language_model.model.layers",
)


@dataclass(frozen=True, order=True)
class Address:
    """One place on the residual stream.

    Attributes:
        layer: block index, from 0.
        site: "resid_pre" for the block's input, "resid_post" for its output.
    """

    layer: int
    site: Site = "resid_post"

    @property
    def name(self) -> str:
        """The hook name, such as "blocks.15.hook_resid_post"."""
        return f"blocks.{self.layer}.hook_{self.site}"

    @classmethod
    def parse(cls, value: str | SupportsIndex | Address) -> Address:
        """Read an address.

        Accepts "blocks.N.hook_resid_post", "blocks.N.hook_resid_pre" (also "hook_out" and
        "hook_in"), "resid_post.N", "resid_pre.N", module paths such as "model.layers.N" or
        "transformer.h.N", and integers. Everything without "pre" or "in" means the output.

        Raises:
            HookError: anything else.
        """
        if isinstance(value, Address):
            return value
        if isinstance(value, str):
            return cls._parse_text(value.strip())
        if isinstance(value, bool):
            raise _unknown(value)
        try:
            layer = operator.index(value)
        except TypeError:
            raise _unknown(value) from None
        if layer < 0:
            raise _unknown(value)
        return cls(layer)

    @classmethod
    def _parse_text(cls, text: str) -> Address:
        if match := _HOOK.fullmatch(text):
            return cls(
                int(match[1]), "resid_pre" if match[2] in ("resid_pre", "in") else "resid_post"
            )
        if match := _PRE.fullmatch(text):
            return cls(int(match[1]), "resid_pre")
        if match := _MODULE.fullmatch(text):
            return cls(int(match[1]))
        if _NUMBER.fullmatch(text):
            return cls(int(text))
        raise _unknown(text)

    def among(self, names: Iterable[str]) -> str | None:
        """The first of `names` that means this place, by either of its names; None for none."""
        return next((n for n in names if Address.parse(n).as_output == self.as_output), None)

    @property
    def as_output(self) -> Address:
        """The same place named as a block's output; the input of block 0 has no other name."""
        if self.site == "resid_post" or self.layer == 0:
            return self
        return Address(self.layer - 1)

    def check(self, n_layers: int) -> Address:
        """Return the address itself if the model has that block.

        Raises:
            HookError: the layer lies outside the model.
        """
        if self.layer >= n_layers:
            raise HookError(
                f"layer {self.layer} does not exist: the model has {n_layers} blocks, "
                f"0 to {n_layers - 1} (asked for {self.name})"
            )
        return self


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """Find the list of decoder blocks.

    Known paths are tried first; else the single ModuleList whose length is the number of layers
    in the model's config is taken.

    Raises:
        ModelError: none or several lists fit; the message lists the candidates.
    """
    for path in _BLOCK_PATHS:
        found = _descend(model, path)
        if isinstance(found, nn.ModuleList) and len(found):
            return found
    expected = _configured_layers(model)
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = [m for m in lists.values() if len(m) == expected]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"{name} ({len(m)} modules)" for name, m in lists.items()) or "none"
    raise ModelError(
        f"cannot tell which modules of {type(model).__name__} are its decoder blocks (its config "
        f"says {expected} layers); lists found: {shown}. Only models with one stack of blocks fit"
    )


def _configured_layers(model: nn.Module) -> int | None:
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    return getattr(config, "num_hidden_layers", None)


def _descend(module: nn.Module, path: str) -> nn.Module | None:
    current: nn.Module | None = module
    for part in path.split("."):
        current = getattr(current, part, None)
        if not isinstance(current, nn.Module):
            return None
    return current


def _unknown(value: object) -> HookError:
    return HookError(
        f"unknown hook address {value!r}; use a block number from 0, 'blocks.N.hook_resid_post' "
        "(output of block N) or 'blocks.N.hook_resid_pre' (its input)"
    )
