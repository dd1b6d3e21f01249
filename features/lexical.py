"""Lexical audit of a battery: how far do words alone separate emotional from neutral members?

A difference between a clinical item and its neutral is not yet emotion. On the published pairs a
bag of words separates the members without error, so a latent that follows negation, or
administrative prose, passes every paired test. The audit measures this before any model is loaded:

1. Classifiers on words, word pairs, the last words, function words, content words, character
   n-grams, surface statistics, negations, length, VADER valence and the emotion lexicon are fitted
   to all pairs but some and scored on those left out. Whole pairs are left out together, or whole
   emotion x domain clusters; intervals come from a bootstrap over clusters. With a model, the mean
   of its static token embeddings is one more control.
2. For each word, pairs with it on one side only are counted and put to an exact sign test.
3. Word overlap within pairs is set beside that of items put together at random.
4. On emotional items alone, with domains left out in turn: can words name the emotion?
5. Items with words of the emotion lexicon, and near-duplicates among different pairs, are listed.

The result goes into every later report. scikit-learn is imported when an audit starts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery, Pair
from affectlens.features._words import is_negator, tokens
from affectlens.features.config import AuditConfig
from affectlens.features.duplicates import near_duplicates
from affectlens.features.findings import Finding, plain_items, validate
from affectlens.features.lexical_card import (
    CONTROLS,
    ControlScore,
    DiscordantWord,
    KeywordHit,
    LexicalCard,
    PairCard,
)

__all__ = [
    "CONTROLS",
    "AuditConfig",
    "ControlScore",
    "DiscordantWord",
    "Finding",
    "LexicalCard",
    "StaticMeans",
    "audit",
    "validate",
]

_REPEATS, _MANY_PAIRS = 5, 2000
_N_RANDOM = 20_000


@dataclass(frozen=True, eq=False)
class StaticMeans:
    """Mean static token embedding of every paired text.

    Attributes:
        model: what the embeddings belong to.
        values: [2 n_pairs, d_model], clinical members first, pairs in the battery's order.
    """

    model: str
    values: npt.NDArray[np.floating]


def audit(
    battery: Battery,
    config: AuditConfig | None = None,
    *,
    static: StaticMeans | None = None,
    **settings: Any,
) -> LexicalCard:
    """Measure how far words alone separate the members of a battery's pairs.

    Deterministic in its seed. Clusters can be left out only if there are two or more; otherwise the
    card has no rows with that grouping.

    Args:
        battery: at least two pairs.
        config: settings, where they are held in one object.
        static: adds the static-embedding control (`contextual.static_means`).
        **settings: fields of `AuditConfig` instead, such as `n_bootstrap=0`.

    Raises:
        StimulusError: the battery has fewer than two pairs, or `static` is of another size.
        ConfigError: an unknown setting, or settings beside `config`.
    """
    from scipy.stats import binom

    config = AuditConfig.given(config, settings, "audit.")
    pairs = battery.pairs
    if len(pairs) < 2:
        raise StimulusError(
            f"battery {battery.name!r} has {len(pairs)} pairs; the lexical audit needs at least 2, "
            "one to fit on and one to test"
        )
    if static is not None and len(static.values) != 2 * len(pairs):
        raise StimulusError(
            f"static embeddings have {len(static.values)} rows; battery {battery.name!r} has "
            f"{len(pairs)} pairs, so {2 * len(pairs)} are needed"
        )
    texts = list(battery.pair_texts)
    words = [tokens(t) for t in texts]
    lengths = np.array([p.clinical.word_count - p.neutral.word_count for p in pairs], float)
    n_repeats = config.n_repeats or (1 if len(pairs) > _MANY_PAIRS else _REPEATS)
    controls, margins = _scores(pairs, words, texts, config, n_repeats, static)
    discordant = _discordant(pairs, words)
    cards = tuple(_pair_cards(pairs, words, margins))
    keywords = tuple(_keywords(battery))
    repeated = near_duplicates(pairs, words, config.near_duplicate)
    return LexicalCard(
        battery=battery.name,
        battery_sha256=battery.sha256,
        model=static.model if static is not None else "",
        n_pairs=len(pairs),
        n_clusters=len(battery.clusters),
        n_folds=config.n_folds,
        n_repeats=n_repeats,
        seed=config.seed,
        threshold=config.threshold,
        chance_95=float(binom.ppf(0.95, len(pairs), 0.5) / len(pairs)),
        controls=controls,
        n_words_one_sided=len(discordant),
        words=tuple(discordant[: config.n_words]),
        jaccard_mean=float(np.mean([c.jaccard for c in cards])),
        jaccard_min=float(np.min([c.jaccard for c in cards])),
        jaccard_random=_random_jaccard(words, len(pairs), config.seed),
        length_mean_diff=float(lengths.mean()),
        length_d_z=_d_z(lengths),
        length_longer_share=float(np.mean((lengths > 0) + 0.5 * (lengths == 0))),
        same_multiset=_same_multiset(words, len(pairs)),
        emotion_auroc=_emotion_auroc(pairs, words),
        n_keyword_items=len(keywords),
        keywords=keywords[: config.n_words],
        n_near_duplicates=len(repeated),
        near_duplicates=tuple(repeated[: config.n_near_duplicates]),
        pairs=cards,
    )


def _scores(
    pairs: Sequence[Pair],
    words: list[list[str]],
    texts: list[str],
    config: AuditConfig,
    n_repeats: int,
    static: StaticMeans | None,
) -> tuple[tuple[ControlScore, ...], np.ndarray]:
    """Every control under every grouping, and the margin [n_pairs] of the words control."""
    from affectlens.features import _lexical_models as models

    clusters = [p.cluster for p in pairs]
    designs = models.designs(words, texts)
    if static is not None:
        designs["static_embedding"] = models.NumberDesign(static.values, strength=0.01)
    rows: list[ControlScore] = []
    margins = np.zeros(len(pairs))
    for grouping, groups in {"pair": [p.id for p in pairs], "cluster": clusters}.items():
        if len(set(groups)) < 2:
            continue
        for name in CONTROLS:
            if name not in designs:
                continue
            found = models.cross_validated(
                designs[name],
                groups,
                clusters,
                n_folds=config.n_folds,
                n_repeats=n_repeats,
                n_bootstrap=config.n_bootstrap,
                seed=config.seed,
            )
            rows.append(
                ControlScore(name, grouping, found.auroc, found.paired_accuracy, *found.bounds)
            )
            if name == "words":
                margins = found.margins
    return tuple(rows), margins


def _pair_cards(
    pairs: Sequence[Pair], words: list[list[str]], margins: np.ndarray
) -> Iterable[PairCard]:
    for i, pair in enumerate(pairs):
        own, other = words[i], words[i + len(pairs)]
        yield PairCard(
            id=pair.id,
            cluster=pair.cluster,
            jaccard=_jaccard(own, other),
            words_clinical=pair.clinical.word_count,
            words_neutral=pair.neutral.word_count,
            negations_clinical=sum(map(is_negator, own)),
            negations_neutral=sum(map(is_negator, other)),
            margin=float(margins[i]),
        )


def _keywords(battery: Battery) -> Iterable[KeywordHit]:
    lexicon = own_lexicon()
    for item in plain_items(battery):
        hits = lexicon.hits(tokens(item.text))
        if hits:
            yield KeywordHit(item.id, hits)


def _discordant(pairs: Sequence[Pair], words: list[list[str]]) -> list[DiscordantWord]:
    from scipy.stats import binomtest

    from affectlens.features.stats import holm

    clinical: Counter[str] = Counter()
    neutral: Counter[str] = Counter()
    for i in range(len(pairs)):
        own, other = set(words[i]), set(words[i + len(pairs)])
        clinical.update(own - other)
        neutral.update(other - own)
    names = sorted(set(clinical) | set(neutral))
    # Counts repeat far more often than words, and the test depends on counts alone.
    memo: dict[tuple[int, int], float] = {}
    p = np.empty(len(names))
    for i, name in enumerate(names):
        key = (clinical[name], neutral[name])
        if key not in memo:
            memo[key] = float(binomtest(key[0], sum(key), 0.5).pvalue)
        p[i] = memo[key]
    # Ties in p are broken by the balance, then by the word, so that the list is stable.
    order = sorted(
        range(len(names)),
        key=lambda i: (p[i], -abs(clinical[names[i]] - neutral[names[i]]), names[i]),
    )
    adjusted = holm(p) if names else p
    return [
        DiscordantWord(
            names[i], clinical[names[i]], neutral[names[i]], float(p[i]), float(adjusted[i])
        )
        for i in order
    ]


def _jaccard(a: Iterable[str], b: Iterable[str]) -> float:
    left, right = set(a), set(b)
    return len(left & right) / max(len(left | right), 1)


def _random_jaccard(words: list[list[str]], n_pairs: int, seed: int) -> float:
    """Mean overlap of clinical items with neutrals of other pairs: all, or a large sample."""
    n_all = n_pairs * (n_pairs - 1)
    drawn: Iterable[int] = range(n_all)
    if n_all > _N_RANDOM:
        drawn = np.random.default_rng([seed, 2**31 + 1]).integers(0, n_all, _N_RANDOM).tolist()
    values = []
    for index in drawn:
        i, j = divmod(index, n_pairs - 1)
        values.append(_jaccard(words[i], words[n_pairs + j + (j >= i)]))
    return float(np.mean(values))


def _same_multiset(words: list[list[str]], n_pairs: int) -> float:
    same = [sorted(words[i]) == sorted(words[i + n_pairs]) for i in range(n_pairs)]
    return float(np.mean(same))


def _d_z(differences: np.ndarray) -> float | None:
    deviation = differences.std(ddof=1)
    return float(differences.mean() / deviation) if deviation > 0 else None


def _emotion_auroc(pairs: Sequence[Pair], words: list[list[str]]) -> float | None:
    from affectlens.features import _lexical_models as models

    places: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.cluster not in places[pair.emotion]:
            places[pair.emotion].append(pair.cluster)
    if len(places) < 2 or min(map(len, places.values())) < 2:
        return None
    # The n-th domain of every emotion is left out at once: no class is ever absent from training.
    turn = np.array([places[p.emotion].index(p.cluster) for p in pairs])
    return models.emotion_auroc(words[: len(pairs)], [p.emotion for p in pairs], turn)
