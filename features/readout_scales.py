"""Valence and arousal as expected values over answers.

For a scale with answers a of value v_a, a text t and a template s,

    value(t, s) = sum_a v_a q_a,   q_a proportional to P(a | t + s),

or to P(a | t + s) / P(a | content-free + s) where the readout is calibrated. The answers' own
likelihoods are used, never a generated answer. The column is the mean over the scale's templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from affectlens.data.taxonomy import AROUSAL_WORDS, VALENCE_WORDS


@dataclass(frozen=True)
class Scale:
    """A scale that is read off answers.

    Attributes:
        name: the column's name.
        values: the value of each answer.
        templates: suffixes that ask for an answer.
    """

    name: str
    values: Mapping[str, float]
    templates: tuple[str, ...]


VALENCE = Scale(
    "valence",
    VALENCE_WORDS,
    (
        "\n\nFor the person in this scene, the experience is",
        "\n\nAll in all, what happened here is",
    ),
)
"""From -1 (terrible) to 1 (wonderful)."""

AROUSAL = Scale(
    "arousal",
    AROUSAL_WORDS,
    (
        "\n\nThe atmosphere in this scene is",
        "\n\nThe feelings in this scene are",
    ),
)
"""From 0 (calm) to 1 (overwhelming)."""

SCALES = (VALENCE, AROUSAL)
SCALE_NAMES = tuple(scale.name for scale in SCALES)
"""Their columns."""


def expected_value(log_likelihoods: Tensor, values: Tensor) -> Tensor:
    """Expected value over answers: [n_texts] from [n_texts, n_answers] and [n_answers]."""
    return torch.softmax(log_likelihoods, dim=-1) @ values.to(log_likelihoods)
