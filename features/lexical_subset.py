"""The pairs of a battery on which a bag of words is at chance.

Pairs are dropped, those that words give away most clearly first, and the classifier is fitted again
to what is left, until its paired accuracy with whole clusters left out is at most the target. The
subset is chosen by the classifier that then scores it, so that its accuracy there says nothing;
another control (characters) and the next reader's own model are the test. On a battery whose
register differs nothing may be left: that is a finding about the battery.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectlens.data.errors import StimulusError
from affectlens.data.pairing import with_variants
from affectlens.data.stimuli import Battery, Pair, make_battery
from affectlens.features._words import tokens
from affectlens.features.config import AuditConfig

_SMALLEST = 8
_STEP = 0.5


@dataclass(frozen=True)
class SubsetStep:
    """One round: pairs left, and the paired accuracy of words and characters on them."""

    n_pairs: int
    words: float
    characters: float


@dataclass(frozen=True)
class ChanceSubset:
    """The pairs kept (`ids` of their clinical members) and how the search went.

    `reached` is False if fewer than eight pairs, or a single cluster, were left before words came
    down to `target`.
    """

    battery: str
    target: float
    ids: tuple[str, ...]
    history: tuple[SubsetStep, ...]
    reached: bool

    def apply(self, battery: Battery) -> Battery:
        """The battery with these pairs only; what retells a member of another pair goes too.

        Raises:
            StimulusError: no pair is left.
        """
        kept = set(self.ids)
        if not kept:
            raise StimulusError(
                f"no pair of {self.battery!r} is left on which a bag of words is at chance"
            )
        left = {i.id for p in battery.pairs if p.id not in kept for i in (p.clinical, p.neutral)}
        gone = with_variants(left, battery.unpaired)
        items = [i for i in battery.items if i.id not in gone]
        return make_battery(
            f"{battery.name}~chance", items, battery.source, battery.licence, battery.warnings
        )


def chance_subset(
    battery: Battery,
    config: AuditConfig | None = None,
    *,
    target: float = 0.5,
    **settings: Any,
) -> ChanceSubset:
    """Drop pairs until a bag of words, fitted to the rest, is at chance on them.

    Args:
        battery: a battery with two clusters or more.
        config: folds, repeats and seed of the audit.
        target: paired accuracy to come down to.
        **settings: fields of `AuditConfig` instead of `config`.

    Raises:
        StimulusError: fewer than two clusters, or a target outside 0.5 to 1.
        ConfigError: an unknown setting, or settings beside `config`.
    """
    config = AuditConfig.given(config, settings, "audit.")
    if not 0.5 <= target <= 1:
        raise StimulusError(f"target is {target}; a paired accuracy of 0.5 to 1 is needed")
    if len(battery.clusters) < 2:
        raise StimulusError(f"battery {battery.name!r} has fewer than two clusters of pairs")
    kept = list(battery.pairs)
    history: list[SubsetStep] = []
    while len(kept) >= _SMALLEST and len({p.cluster for p in kept}) > 1:
        step, margins = _measure(kept, config)
        history.append(step)
        if step.words <= target:
            ids = tuple(p.id for p in kept)
            return ChanceSubset(battery.name, target, ids, tuple(history), reached=True)
        n_drop = max(1, math.ceil((step.words - target) * len(kept) * _STEP))
        worst = set(np.argsort(-margins, kind="stable")[:n_drop].tolist())
        kept = [p for i, p in enumerate(kept) if i not in worst]
    return ChanceSubset(battery.name, target, (), tuple(history), reached=False)


def _measure(pairs: Sequence[Pair], config: AuditConfig) -> tuple[SubsetStep, np.ndarray]:
    from affectlens.features import _lexical_models as models

    words = [tokens(p.clinical.text) for p in pairs] + [tokens(p.neutral.text) for p in pairs]
    clusters = [p.cluster for p in pairs]

    def scored(documents: Sequence[Sequence[str]], n_repeats: int) -> models.CrossValidated:
        return models.cross_validated(
            models.TermDesign(documents),
            clusters,
            clusters,
            n_folds=config.n_folds,
            n_repeats=n_repeats,
            n_bootstrap=0,
            seed=config.seed,
        )

    by_word = scored(words, config.n_repeats or 3)
    by_character = scored([models.character_ngrams(ws) for ws in words], 1)
    step = SubsetStep(len(pairs), by_word.paired_accuracy, by_character.paired_accuracy)
    return step, by_word.margins
