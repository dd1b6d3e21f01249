"""Lexical audit of a battery: how far do words alone separate emotional from neutral members?

A difference between a clinical item and its neutral is not yet emotion. On the published pairs a
bag of words separates the members without error, so a latent that follows negation, or
administrative prose, passes every paired test. The audit measures this before any model is loaded:

1. Classifiers on words, function words, content words, character n-grams, surface statistics, the
   count of negations and the length are fitted to all pairs but some and scored on those left
   out. Whole pairs are left out together, or whole emotion x domain clusters.
2. For each word, pairs with it on one side only are counted and put to an exact sign test.
3. Word overlap within pairs is set beside that of items put together at random.
4. On emotional items alone, with domains left out in turn: can words name the emotion?

The result goes into every later report. scikit-learn is imported when an audit starts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from affectlens.data.artifacts import read_json, write_json
from affectlens.data.config import StageConfig
from affectlens.data.errors import ArtifactError, StimulusError
from affectlens.data.stimuli import Battery, Pair
from affectlens.features._words import tokens
from affectlens.features.findings import Finding, validate

__all__ = [
    "CONTROLS",
    "AuditConfig",
    "ControlScore",
    "DiscordantWord",
    "Finding",
    "LexicalCard",
    "audit",
    "validate",
]

FORMAT_VERSION = 1
CONTROLS: Mapping[str, str] = {
    "words": "TF-IDF of all words",
    "words_paired": "TF-IDF of all words, fitted to the differences within pairs",
    "function_words": "TF-IDF of function words only",
    "content_words": "TF-IDF of all other words",
    "characters": "TF-IDF of character 2- to 4-grams within words",
    "surface": "nine surface statistics",
    "negations": "number of negations",
    "length": "number of words",
}
"""Every control with its meaning."""


class AuditConfig(StageConfig):
    """Settings of the lexical audit."""

    n_folds: int = Field(
        default=5, ge=2, description="parts into which pairs or clusters are divided"
    )
    n_repeats: int = Field(
        default=5, ge=1, description="random divisions over which scores are averaged"
    )
    threshold: float = Field(
        default=0.6,
        ge=0.5,
        le=1,
        description="a control above this AUROC or paired accuracy is named",
    )
    n_words: int = Field(default=20, ge=0, description="most one-sided words to list")
    seed: int = Field(default=0, ge=0, description="seed of the divisions")


@dataclass(frozen=True)
class ControlScore:
    """What one control reaches on items it was not fitted to; chance is 0.5 for both numbers.

    `grouping` is 'pair' or 'cluster' (what was left out as a whole). `paired_accuracy` is the
    share of pairs in which the clinical member scores higher, ties counting one half.
    """

    control: str
    grouping: str
    auroc: float
    paired_accuracy: float


@dataclass(frozen=True)
class DiscordantWord:
    """A word that some pairs have on one side only.

    `p` is the exact two-sided sign test over those pairs, `p_holm` the same adjusted over all
    words of the battery that are one-sided in any pair.
    """

    word: str
    clinical_only: int
    neutral_only: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class LexicalCard:
    """The audit of one battery.

    `chance_95` is the paired accuracy that independent guesses stay below in 95 of 100 batteries
    of this size (a fitted control spreads a little wider). `jaccard_*` compare word sets within
    pairs and between items of different pairs. `length_d_z` is None where all pairs differ by the
    same number of words. `emotion_auroc` (macro one against the rest, chance 0.5) is None unless
    there are two emotions or more, each with two domains or more.
    """

    battery: str
    battery_sha256: str
    n_pairs: int
    n_clusters: int
    n_folds: int
    n_repeats: int
    seed: int
    threshold: float
    chance_95: float
    controls: tuple[ControlScore, ...]
    n_words_one_sided: int
    words: tuple[DiscordantWord, ...]
    jaccard_mean: float
    jaccard_min: float
    jaccard_random: float
    length_mean_diff: float
    length_d_z: float | None
    length_longer_share: float
    emotion_auroc: float | None

    @property
    def warning(self) -> str:
        """One paragraph that names each control above the threshold; '' if there is none."""
        worst: dict[str, tuple[float, str]] = {}
        for score in self.controls:
            best = max(
                (score.auroc, f"AUROC, {score.grouping}s left out"),
                (score.paired_accuracy, f"paired accuracy, {score.grouping}s left out"),
            )
            worst[score.control] = max(worst.get(score.control, (0.0, "")), best)
        named = sorted(
            ((v, n, how) for n, (v, how) in worst.items() if v > self.threshold), reverse=True
        )
        if not named:
            return ""
        listed = "; ".join(f"{CONTROLS.get(n, n)} {v:.2f} ({how})" for v, n, how in named)
        return (
            f"Words alone tell emotional from neutral members of {self.battery!r} above "
            f"{self.threshold:.2f}: {listed}. Chance is 0.50; guessing on {self.n_pairs} pairs "
            f"stays below a paired accuracy of {self.chance_95:.2f} in 95 of 100 cases. A feature "
            "that follows such words passes the paired test too."
        )

    def to_frame(self) -> pd.DataFrame:
        """The controls as a table: control, meaning, grouping, auroc, paired_accuracy, above."""
        rows = [
            {
                "control": s.control,
                "meaning": CONTROLS.get(s.control, ""),
                "grouping": s.grouping,
                "auroc": s.auroc,
                "paired_accuracy": s.paired_accuracy,
                "above": max(s.auroc, s.paired_accuracy) > self.threshold,
            }
            for s in self.controls
        ]
        columns = ["control", "meaning", "grouping", "auroc", "paired_accuracy", "above"]
        return pd.DataFrame(rows, columns=columns)

    def words_frame(self) -> pd.DataFrame:
        """The most one-sided words as a table, strongest first."""
        columns = ["word", "clinical_only", "neutral_only", "p", "p_holm"]
        return pd.DataFrame([asdict(w) for w in self.words], columns=columns)

    def write(self, path: Path) -> Path:
        """Write the card, with its warning spelled out, as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path, {"format_version": FORMAT_VERSION, "warning": self.warning, **asdict(self)}
        )
        return path

    @classmethod
    def read(cls, path: Path) -> LexicalCard:
        """Read a card written by `write`.

        Raises:
            ArtifactError: absent, not JSON, another format version, or other fields.
        """
        payload: dict[str, Any] = read_json(path)
        version = payload.pop("format_version", None) if isinstance(payload, dict) else None
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} has format version {version!r}; this release reads {FORMAT_VERSION}"
            )
        payload.pop("warning", None)
        try:
            controls = tuple(ControlScore(**s) for s in payload.pop("controls"))
            words = tuple(DiscordantWord(**w) for w in payload.pop("words"))
            return cls(controls=controls, words=words, **payload)
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a lexical card of this release ({error}); run the audit again"
            ) from error


def audit(battery: Battery, config: AuditConfig | None = None) -> LexicalCard:
    """Measure how far words alone separate the members of a battery's pairs.

    Deterministic in `config.seed`; no language model is needed. Clusters can be left out only if
    there are two or more; otherwise the card has no rows with that grouping.

    Raises:
        StimulusError: the battery has fewer than two pairs.
    """
    from scipy.stats import binom

    config = config or AuditConfig()
    pairs = battery.pairs
    if len(pairs) < 2:
        raise StimulusError(
            f"battery {battery.name!r} has {len(pairs)} pairs; the lexical audit needs at least 2, "
            "one to fit on and one to test"
        )
    words = [tokens(p.clinical.text) for p in pairs] + [tokens(p.neutral.text) for p in pairs]
    texts = [p.clinical.text for p in pairs] + [p.neutral.text for p in pairs]
    lengths = np.array([p.clinical.word_count - p.neutral.word_count for p in pairs], float)
    discordant = _discordant(pairs, words)
    jaccard = [_jaccard(words[i], words[i + len(pairs)]) for i in range(len(pairs))]
    return LexicalCard(
        battery=battery.name,
        battery_sha256=battery.sha256,
        n_pairs=len(pairs),
        n_clusters=len(battery.clusters),
        n_folds=config.n_folds,
        n_repeats=config.n_repeats,
        seed=config.seed,
        threshold=config.threshold,
        chance_95=float(binom.ppf(0.95, len(pairs), 0.5) / len(pairs)),
        controls=tuple(_scores(pairs, words, texts, config)),
        n_words_one_sided=len(discordant),
        words=tuple(discordant[: config.n_words]),
        jaccard_mean=float(np.mean(jaccard)),
        jaccard_min=float(np.min(jaccard)),
        jaccard_random=_random_jaccard(words, len(pairs)),
        length_mean_diff=float(lengths.mean()),
        length_d_z=_d_z(lengths),
        length_longer_share=float(np.mean((lengths > 0) + 0.5 * (lengths == 0))),
        emotion_auroc=_emotion_auroc(pairs, words),
    )


def _scores(
    pairs: Sequence[Pair], words: list[list[str]], texts: list[str], config: AuditConfig
) -> Iterable[ControlScore]:
    from affectlens.features import _lexical_models as models

    groupings = {"pair": [p.id for p in pairs], "cluster": [p.cluster for p in pairs]}
    designs = models.designs(words, texts)
    for grouping, groups in groupings.items():
        if len(set(groups)) < 2:
            continue
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for repeat in range(config.n_repeats):
            generator = np.random.default_rng([config.seed, repeat])
            folds = models.grouped_folds(groups, config.n_folds, generator)
            for name, design in designs.items():
                scores = design.out_of_fold(folds)
                found[name].append(models.pair_scores(scores))
        for name in CONTROLS:
            auroc, accuracy = np.mean(found[name], axis=0)
            yield ControlScore(name, grouping, float(auroc), float(accuracy))


def _discordant(pairs: Sequence[Pair], words: list[list[str]]) -> list[DiscordantWord]:
    from scipy.stats import binomtest

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
    adjusted = 0.0
    rows = []
    for rank, i in enumerate(order):
        adjusted = min(1.0, max(adjusted, p[i] * (len(names) - rank)))
        name = names[i]
        rows.append(DiscordantWord(name, clinical[name], neutral[name], float(p[i]), adjusted))
    return rows


def _jaccard(a: Iterable[str], b: Iterable[str]) -> float:
    left, right = set(a), set(b)
    return len(left & right) / max(len(left | right), 1)


def _random_jaccard(words: list[list[str]], n_pairs: int) -> float:
    """Mean overlap of every clinical item with every neutral of another pair."""
    values = [
        _jaccard(words[i], words[n_pairs + j])
        for i in range(n_pairs)
        for j in range(n_pairs)
        if i != j
    ]
    return float(np.mean(values))


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
