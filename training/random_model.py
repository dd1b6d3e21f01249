"""A copy of a language model that has learned nothing: the same shapes, weights drawn anew.

Each matrix is drawn from a normal distribution with the mean and standard deviation of the trained
one, embeddings included (the "re-randomised" control of Heap et al. 2025, arXiv:2501.17727). Norm
scales and biases are vectors whose sign and size keep the forward pass finite, so their own values
are put in a random order instead, which keeps their whole distribution.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from affectlens.data.models import LanguageModel, ModelSource


@torch.no_grad()
def random_weights(lm: LanguageModel, generator: torch.Generator) -> LanguageModel:
    """A copy of `lm` with weights drawn by `generator`; the loaded model stays as it is.

    Weights that are tied stay tied. Memory: one more copy of the model.

    Args:
        lm: a loaded model.
        generator: a CPU generator; equal states give equal weights.
    """
    model = copy.deepcopy(lm.model)
    for parameter in model.parameters():
        parameter.copy_(_redrawn(parameter, generator))
    model.eval().requires_grad_(requires_grad=False)
    source = ModelSource(
        kind="random", path=None, revision=f"seed{generator.initial_seed()}", sha256=None
    )
    return LanguageModel(
        name=f"{lm.name} (random weights)", model=model, tokenizer=lm.tokenizer, source=source
    )


def _redrawn(weight: Tensor, generator: torch.Generator) -> Tensor:
    trained = weight.detach().to("cpu", torch.float32)
    if trained.ndim < 2:
        order = torch.randperm(trained.numel(), generator=generator)
        return trained.flatten()[order].reshape(trained.shape).to(weight)
    drawn = torch.randn(trained.shape, generator=generator)
    # In float64, because the mean of millions of small values is what is wanted here.
    mean, std = trained.double().mean(), trained.double().std()
    return (drawn * float(std) + float(mean)).to(weight)
