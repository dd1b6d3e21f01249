"""Steered generation: against the same without an edit, one prompt against many, and sae-lens.

Called by `interventions.py`. Tokens are chosen greedily, with a KV cache everywhere, and no row
ends early, so that both sides write equally many tokens.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from lines import Line, best, multiple

from affectlens.data.generation import Sampling, generate_ids
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.features.interventions import residual_edit
from affectlens.features.specs import AddLatents, Clamp, Spec
from affectlens.sae.model import SparseAutoencoder

PROMPT = "The letter had come in the morning, and when she had read it twice she"


@contextlib.contextmanager
def _endless(lm: LanguageModel) -> Iterator[None]:
    """No token ends a text."""
    config: Any = lm.model.generation_config
    before = config.eos_token_id
    config.eos_token_id = []
    try:
        yield
    finally:
        config.eos_token_id = before


class _Ours:
    def __init__(self, lm: LanguageModel, sae: SparseAutoencoder, n_new: int) -> None:
        self.lm, self.sae, self.n_new = lm, sae, n_new
        self.row = lm.token_ids(PROMPT)

    def write(self, batch: int, spec: Spec | None) -> list[list[int]]:
        """Tokens after `batch` copies of the prompt."""
        settings = Sampling(max_new_tokens=self.n_new)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_endless(self.lm))
            if spec is not None:
                function, _ = residual_edit(self.sae, [spec])
                stack.enter_context(edit(self.lm, {self.sae.info.hook_name: function}))
            return generate_ids(self.lm, [self.row] * batch, settings)

    def speed(self, batch: int, spec: Spec | None) -> float:
        """Tokens per second."""
        return batch * self.n_new / best(lambda: self.write(batch, spec), 1)


def generation_lines(
    lm: LanguageModel, sae: SparseAutoencoder, feature: int, bridge: Any, *, quick: bool
) -> Iterator[Line]:
    """Comparisons in tokens per second; alternating, the best of each side."""
    n_new, repeats, many = (8, 1, 8) if quick else (48, 3, 32)
    ours = _Ours(lm, sae, n_new)
    specs: dict[str, Spec] = {
        "a clamped latent": Clamp((feature,), (5.0,)),
        "an added direction": AddLatents((feature,), (0.1,)),
    }
    ours.speed(1, None)
    speeds: dict[tuple[str, int], float] = {}
    for _ in range(repeats):
        for batch in (1, many):
            for kind in ("plain", *specs):
                found = ours.speed(batch, specs.get(kind))
                speeds[kind, batch] = max(found, speeds.get((kind, batch), 0.0))
    for batch in (1, many):
        for kind in specs:
            yield multiple(
                f"generation with {kind} against none, batch {batch}, {n_new} tokens",
                speeds[kind, batch],
                speeds["plain", batch],
                "tokens/s",
            )
    yield multiple(
        f"generation with a clamped latent, batch {many} against batch 1, {n_new} tokens",
        speeds["a clamped latent", many],
        speeds["a clamped latent", 1],
        "tokens/s",
    )
    if bridge is not None:
        yield _against_sae_lens(ours, bridge, feature, repeats)


def _against_sae_lens(ours: _Ours, bridge: Any, feature: int, repeats: int) -> Line:
    """The same clamp through `generate` of sae-lens' bridge, with its KV cache and error term."""
    sae = ours.sae.sae
    name = bridge.get_sae_hook_name(sae)

    def clamp(z: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        # In the prompt the first token is left alone, as our mask rule does.
        z[:, 1 if z.shape[1] > 1 else 0 :, feature] = 5.0
        return z

    def write() -> list[int]:
        with (
            torch.inference_mode(),
            warnings.catch_warnings(),
            bridge.saes([sae], use_error_term=True),
            bridge.hooks(fwd_hooks=[(name, clamp)]),
        ):
            warnings.simplefilter("ignore")
            ids: torch.Tensor = bridge.generate(
                torch.tensor([ours.row]),
                max_new_tokens=ours.n_new,
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
            )
            return ids[0, len(ours.row) :].tolist()

    spec = Clamp((feature,), (5.0,))
    same = sum(a == b for a, b in zip(ours.write(1, spec)[0], write(), strict=True))
    rounds = [(ours.speed(1, spec), ours.n_new / best(write, 1)) for _ in range(repeats)]
    speed, peer = (max(found) for found in zip(*rounds, strict=True))
    line = multiple(
        f"generation with a clamped latent, one prompt, {ours.n_new} tokens; peer: sae-lens bridge",
        speed,
        peer,
        "tokens/s",
    )
    return {**line, "equal_tokens": same}
