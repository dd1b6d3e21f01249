"""The three-method defence of an emotion battery, re-runnable on any battery.

The authors of AIPsy-Affect (arXiv 2604.23719) defend theirs with three methods that need no
training: a valence lexicon (VADER; Hutto and Gilbert 2014), an emotion lexicon (NRC; Mohammad and
Turney 2013) and a contextual emotion classifier. This module computes the same on any battery, and
adds what matched pairs call for: paired tests, by pair and by emotion x domain cluster. The card
(`defence_card`) says what a difference means and puts the published numbers beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from affectlens.data.config import StageConfig
from affectlens.data.emotion_lexicon import EmotionLexicon, own_lexicon
from affectlens.data.errors import StimulusError
from affectlens.data.pairing import retold
from affectlens.data.stimuli import SPLITS, Battery, Pair, Stimulus
from affectlens.data.taxonomy import LABELS
from affectlens.features._words import tokens
from affectlens.features.defence_card import (
    OWN_LIST_NOTE,
    DefenceCard,
    DefenceRow,
    PairTest,
)
from affectlens.features.effects_config import InterveneConfig

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.features.defence_classifier import EmotionClassifier

__all__ = ["DefenceCard", "DefenceConfig", "DefenceRow", "Measured", "PairTest", "defend"]

Array = npt.NDArray[np.float64]

_VALENCES = ("negative", "positive")
"""Categories of NRC that are no emotion."""

_FEW_CLUSTERS = 6


class DefenceConfig(StageConfig):
    """Battery to defence card."""

    templates: tuple[str, ...] = Field(
        default=InterveneConfig().templates,
        min_length=1,
        description="suffixes after which the model's emotion words are read",
    )
    batch_size: int = Field(default=16, ge=1, description="texts in one forward pass")
    n_permutations: int = Field(
        default=10_000, ge=100, description="sign flips where they cannot be enumerated"
    )
    seed: int = Field(default=0, ge=0, description="seed of the sign flips")


@dataclass(frozen=True, eq=False)
class Measured:
    """One measure of one method: a number for every item of the battery, NaN where undefined.

    `values` is [n_items] in the battery's order. With `by_emotion` the paired test is also made for
    each emotion's own pairs.
    """

    method: str
    measure: str
    values: Array
    by_emotion: bool = False


def defend(
    battery: Battery,
    *,
    nrc: EmotionLexicon | None = None,
    classifier: EmotionClassifier | None = None,
    lm: LanguageModel | None = None,
    config: DefenceConfig | None = None,
    **settings: Any,
) -> DefenceCard:
    """Run the methods on a battery. Deterministic in its seed.

    Args:
        battery: at least two pairs; the other splits are summarised too.
        nrc: the NRC Emotion Lexicon (`affectlens.data.emotion_lexicon.read_nrc`); our own list is
            counted in any case.
        classifier: a contextual classifier (`defence_classifier.load_classifier`).
        lm: a language model whose emotion-word readout is taken, with or without a classifier.
        config: settings, where they are held in one object.
        **settings: fields of `DefenceConfig` instead, such as `n_permutations=1000`.

    Raises:
        StimulusError: fewer than two pairs, or a text too long for a model.
        ConfigError: the classifier has no neutral label, the model's tokenizer splits too many
            readout words, an unknown setting, or settings beside `config`.
    """
    config = DefenceConfig.given(config, settings, "defend.")
    if len(battery.pairs) < 2:
        raise StimulusError(
            f"battery {battery.name!r} has {len(battery.pairs)} pairs; the defence compares "
            "clinical with neutral members and needs at least 2"
        )
    words = [tokens(item.text) for item in battery.items]
    measured = [*_valence(battery.items), *_lexicon("lexicon_own", own_lexicon(), words)]
    notes = [OWN_LIST_NOTE]
    if nrc is not None:
        measured += _lexicon("lexicon_nrc", nrc, words)
    if classifier is not None:
        from affectlens.features.defence_classifier import classifier_measures

        found, remarks = classifier_measures(classifier, battery.items, config.batch_size)
        measured, notes = measured + found, notes + remarks
    if lm is not None:
        from affectlens.features.defence_classifier import readout_measures

        found, remarks = readout_measures(lm, battery.items, config.templates, config.batch_size)
        measured, notes = measured + found, notes + remarks
    if len(battery.clusters) < _FEW_CLUSTERS:
        notes.append(
            f"With {len(battery.clusters)} clusters no test by clusters can go below "
            f"p = {2.0 ** (1 - len(battery.clusters)):.2g}."
        )
    return DefenceCard(
        battery=battery.name,
        battery_sha256=battery.sha256,
        classifier=classifier.name if classifier is not None else "",
        model=lm.name if lm is not None else "",
        n_pairs=len(battery.pairs),
        n_clusters=len(battery.clusters),
        n_permutations=config.n_permutations,
        seed=config.seed,
        rows=tuple(r for m in measured for r in _rows(m, battery.items)),
        tests=tuple(t for m in measured for t in _tests(m, battery, config)),
        notes=tuple(notes),
    )


def _valence(items: Sequence[Stimulus]) -> list[Measured]:
    from vader import SentimentIntensityAnalyzer

    vader = SentimentIntensityAnalyzer()
    compound = [vader.polarity_scores(item.text)["compound"] for item in items]
    hits = [sum(word in vader.lexicon for word in tokens(item.text)) for item in items]
    return [
        # Emotions of either valence cancel in the mean over all pairs, hence both.
        Measured("valence", "compound", np.array(compound, dtype=float), by_emotion=True),
        Measured("valence", "strength", np.abs(np.array(compound, dtype=float))),
        Measured("valence", "hits", np.array(hits, dtype=float)),
    ]


def _lexicon(
    method: str, lexicon: EmotionLexicon, words: Sequence[Sequence[str]]
) -> list[Measured]:
    """Share of an item's words in any emotion category, and in 'negative' if there is one."""
    emotional = [c for c in lexicon.categories if c not in _VALENCES]
    rates = {"emotion_rate": _rates(lexicon, emotional, words)}
    if "negative" in lexicon.categories:
        rates["negative_rate"] = _rates(lexicon, ["negative"], words)
    return [Measured(method, measure, values) for measure, values in rates.items()]


def _rates(
    lexicon: EmotionLexicon, categories: Sequence[str], words: Sequence[Sequence[str]]
) -> Array:
    wanted = set(categories)
    # A word of two emotions is one emotion word, so categories are not added up.
    listed = {word for word, found in lexicon.index.items() if wanted & set(found)}
    return np.array([sum(w in listed for w in ws) / max(len(ws), 1) for ws in words])


def _rows(measured: Measured, items: Sequence[Stimulus]) -> list[DefenceRow]:
    rows = []
    splits = _split_names(items)
    for split in sorted(set(splits), key=_place):
        values = np.array([v for v, s in zip(measured.values, splits, strict=True) if s == split])
        values = values[np.isfinite(values)]
        if len(values) == 0:
            continue
        rows.append(
            DefenceRow(
                measured.method,
                measured.measure,
                split,
                len(values),
                float(np.median(values)),
                float(values.mean()),
                float(np.abs(values).mean()),
                float(values.sum()),
            )
        )
    return rows


def _split_names(items: Sequence[Stimulus]) -> list[str]:
    """Split of every item; paraphrases of emotional and neutral items are kept apart."""
    known = {i.id: i for i in items}
    names = []
    for item in items:
        origin = retold(item, known)
        names.append(item.split if origin is item else f"{item.split}_of_{origin.split}")
    return names


def _place(split: str) -> tuple[int, str]:
    return SPLITS.index(split.partition("_of_")[0]), split


def _tests(measured: Measured, battery: Battery, config: DefenceConfig) -> list[PairTest]:
    from affectlens.features.stats import holm

    value = {i.id: v for i, v in zip(battery.items, measured.values, strict=True)}
    pairs = [
        p
        for p in battery.pairs
        if np.isfinite(value[p.clinical.id]) and np.isfinite(value[p.neutral.id])
    ]
    if not pairs:
        return []
    tests = [_test(measured, "all", pairs, value, config)]
    if not measured.by_emotion:
        return tests
    own = [
        _test(measured, e, group, value, config)
        for e in LABELS
        if (group := [p for p in pairs if p.emotion == e])
    ]
    adjusted = holm([t.p_pairs for t in own])
    return tests + [replace(t, p_holm=float(p)) for t, p in zip(own, adjusted, strict=True)]


def _test(
    measured: Measured,
    group: str,
    pairs: Sequence[Pair],
    value: Mapping[str, float],
    config: DefenceConfig,
) -> PairTest:
    from affectlens.features.stats import auroc_paired, cluster_totals, d_z, sign_flip

    clinical = np.array([value[p.clinical.id] for p in pairs])
    neutral = np.array([value[p.neutral.id] for p in pairs])
    difference = clinical - neutral
    clusters = [p.cluster for p in pairs]
    flips = sign_flip(difference, config.n_permutations, config.seed)
    whole = sign_flip(cluster_totals(difference, clusters), config.n_permutations, config.seed)
    effect = float(d_z(difference))
    u, p_u = _mann_whitney(clinical, neutral)
    return PairTest(
        method=measured.method,
        measure=measured.measure,
        group=group,
        n_pairs=len(pairs),
        n_clusters=len(set(clusters)),
        clinical=float(clinical.mean()),
        neutral=float(neutral.mean()),
        mean_diff=float(difference.mean()),
        d_z=effect if np.isfinite(effect) else None,
        share_higher=float(auroc_paired(difference)),
        mwu_u=u,
        mwu_p=p_u,
        p_wilcoxon=_wilcoxon(difference),
        p_pairs=float(flips.p[0]),
        p_clusters=float(whole.p[0]),
        exact=flips.exact,
    )


def _mann_whitney(clinical: Array, neutral: Array) -> tuple[float, float]:
    from scipy.stats import mannwhitneyu

    if np.ptp(np.concatenate([clinical, neutral])) == 0:
        return len(clinical) * len(neutral) / 2, 1.0
    found = mannwhitneyu(clinical, neutral, alternative="two-sided")
    return float(found.statistic), float(found.pvalue)


def _wilcoxon(difference: Array) -> float:
    from scipy.stats import wilcoxon

    if not difference.any():
        return 1.0
    return float(wilcoxon(difference).pvalue)
