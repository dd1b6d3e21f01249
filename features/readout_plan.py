"""Where the tokens of a readout's words are read: rows of a text, and places in their log-probs.

The first token of a word is read at the end of a template, each further one at the end of the
template and the tokens before it. Each such suffix is one row of a text, shared by all words that
need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affectlens.features.readout_words import Labels

Suffix = tuple[str, tuple[int, ...]]
"""A template and the tokens of a word that are appended to it."""


@dataclass(frozen=True, eq=False)
class Question:
    """One template and the words read after it.

    Attributes:
        steps: long [n_words, longest], for each token of a word its place in a text's flattened
            [n_suffixes * n_tokens] log-probabilities; the place after the last holds a zero.
        base: float64 [n_words], what is subtracted from each log-likelihood.
    """

    steps: Tensor
    base: Tensor

    def log_likelihoods(self, flat: Tensor) -> Tensor:
        """Log-likelihood of every word less its base: [n_texts, n_words] from [n_texts, n + 1]."""
        return flat[:, self.steps.to(flat.device)].sum(-1) - self.base.to(flat)


def flatten(logp: Tensor) -> Tensor:
    """[n_texts, n_suffixes * n_tokens + 1]: the zero at the end ends words of fewer tokens."""
    return torch.cat([logp.flatten(1), logp.new_zeros(len(logp), 1)], dim=-1)


def plan_suffixes(asked: Sequence[tuple[Labels, tuple[str, ...]]]) -> tuple[Suffix, ...]:
    """Every template with every prefix that its words need, each once; the bare template first."""
    found: dict[Suffix, None] = {}
    for labels, templates in asked:
        for k, template in enumerate(templates):
            found.setdefault((template, ()))
            for label in labels.kept:
                for n in range(1, len(label.ids[k])):
                    found.setdefault((template, label.ids[k][:n]))
    return tuple(found)


def plan_questions(
    labels: Labels, templates: tuple[str, ...], suffixes: tuple[Suffix, ...], tokens: Sequence[int]
) -> tuple[Question, ...]:
    """A question for each template, its words in the order of `labels.kept`, without a base."""
    row = {suffix: k for k, suffix in enumerate(suffixes)}
    column = {token: k for k, token in enumerate(tokens)}
    end = len(suffixes) * len(tokens)
    asks = []
    for k, template in enumerate(templates):
        longest = max(len(label.ids[k]) for label in labels.kept)
        steps = torch.full((len(labels.kept), longest), end, dtype=torch.long)
        for i, label in enumerate(labels.kept):
            for n, token in enumerate(label.ids[k]):
                place = row[template, label.ids[k][:n]] * len(tokens) + column[token]
                steps[i, n] = place
        asks.append(Question(steps, torch.zeros(len(labels.kept), dtype=torch.float64)))
    return tuple(asks)
