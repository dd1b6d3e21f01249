"""The lexical card: what the audit of a battery found, as named rows, tables and one JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from affectlens.data.artifacts import read_versioned, write_versioned
from affectlens.data.errors import ArtifactError
from affectlens.features.lexical_views import LexicalViews

FORMAT_VERSION = 2

CONTROLS: Mapping[str, str] = {
    "words": "TF-IDF of all words",
    "words_paired": "TF-IDF of all words, fitted to the differences within pairs",
    "bigrams": "TF-IDF of words and pairs of neighbouring words",
    "function_words": "TF-IDF of function words only",
    "content_words": "TF-IDF of all other words",
    "ending": "TF-IDF of the last 20 words",
    "characters": "TF-IDF of character 2- to 4-grams within words",
    "surface": "nine surface statistics",
    "negations": "number of negations",
    "length": "number of words",
    "valence": "VADER compound score",
    "emotion_words": "words of the emotion lexicon, one count for each emotion",
    "static_embedding": "mean of the model's static token embeddings",
}
"""Every control with its meaning; the last one needs a model."""

ORDER_AWARE = frozenset({"bigrams", "ending"})
"""Controls that see word order; all others are bags, blind to it by construction."""


@dataclass(frozen=True)
class ControlScore:
    """What one control reaches on items it was not fitted to; chance is 0.5 for both numbers.

    `grouping` is 'pair' or 'cluster' (what was left out as a whole). `paired_accuracy` is the
    share of pairs in which the clinical member scores higher, ties counting one half. `*_low` and
    `*_high` bound the 95 % interval of a bootstrap over emotion x domain clusters (None with fewer
    than two clusters).
    """

    control: str
    grouping: str
    auroc: float
    paired_accuracy: float
    auroc_low: float | None = None
    auroc_high: float | None = None
    paired_low: float | None = None
    paired_high: float | None = None


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
class PairCard:
    """One pair: shared words, lengths, negators, and how words alone place it.

    `jaccard` is the overlap of the two word sets. `margin` is the decision score of the TF-IDF
    words control, clinical minus neutral, with the pair's cluster left out (mean over repeats;
    with a single cluster the pair is left out): a large positive margin means that words give the
    pair away.
    """

    id: str
    cluster: str
    jaccard: float
    words_clinical: int
    words_neutral: int
    negations_clinical: int
    negations_neutral: int
    margin: float


@dataclass(frozen=True)
class KeywordHit:
    """Words of the emotion lexicon in an item that ought to be free of them."""

    id: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class NearDuplicate:
    """Two items of different pairs that share many runs of three words.

    `overlap` is the Jaccard overlap of their sets of word 3-grams; 1.0 is the same text.
    """

    a: str
    b: str
    overlap: float
    same_cluster: bool


@dataclass(frozen=True, repr=False)
class LexicalCard(LexicalViews):
    """The audit of one battery.

    `chance_95` is the paired accuracy that independent guesses stay below in 95 of 100 batteries
    of this size (a fitted control spreads a little wider). `jaccard_*` compare word sets within
    pairs and between items of different pairs. `length_d_z` is None where all pairs differ by the
    same number of words. `emotion_auroc` (macro one against the rest, chance 0.5) is None unless
    there are two emotions or more, each with two domains or more. `n_near_duplicates` counts all,
    `near_duplicates` holds those with the largest overlap. `same_multiset` is the share of pairs
    whose members hold exactly the same words. `model` names the model of the static-embedding
    control, '' without one.
    """

    battery: str
    battery_sha256: str
    model: str
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
    same_multiset: float
    emotion_auroc: float | None
    n_keyword_items: int
    keywords: tuple[KeywordHit, ...]
    n_near_duplicates: int
    near_duplicates: tuple[NearDuplicate, ...]
    pairs: tuple[PairCard, ...]

    @property
    def warning(self) -> str:
        """One paragraph that names each control above the threshold; '' if there is none.

        Controls that guessing on so few pairs reaches too (`chance_95`) are named as such.
        """
        named = self._above
        if not named:
            return ""
        said = [
            (f"{CONTROLS.get(n, n)} {v:.2f} ({how})", v > self.chance_95) for v, n, how in named
        ]
        surely, unsure = ("; ".join(t for t, sure in said if sure is s) for s in (True, False))
        chance = (
            f"Chance is 0.50; guessing on {self.n_pairs} pairs stays below a paired accuracy of "
            f"{self.chance_95:.2f} in 95 of 100 cases"
        )
        follows = "A feature that follows such words passes the paired test too."
        if not surely:
            return (
                f"Whether words alone tell emotional from neutral members of {self.battery!r} "
                f"cannot be said with so few pairs. {chance}, and these lie above "
                f"{self.threshold:.2f}, not above that: {unsure}. {follows}"
            )
        more = f", as these do too: {unsure}" if unsure else ""
        return (
            f"Words alone tell emotional from neutral members of {self.battery!r} above "
            f"{self.threshold:.2f}: {surely}. {chance}{more}. {follows}"
        )

    @property
    def words_suffice(self) -> bool:
        """Whether a control lies above the threshold and above what guessing reaches."""
        return any(value > self.chance_95 for value, _, _ in self._above)

    @property
    def _above(self) -> list[tuple[float, str, str]]:
        """Each control above the threshold, strongest first: value, name, how it was measured."""
        worst: dict[str, tuple[float, str]] = {}
        for score in self.controls:
            best = max(
                (score.auroc, f"AUROC, {score.grouping}s left out"),
                (score.paired_accuracy, f"paired accuracy, {score.grouping}s left out"),
            )
            worst[score.control] = max(worst.get(score.control, (0.0, "")), best)
        above = ((v, n, how) for n, (v, how) in worst.items() if v > self.threshold)
        return sorted(above, reverse=True)

    def score(self, control: str, grouping: str = "cluster") -> ControlScore:
        """One row of the card.

        Raises:
            KeyError: the card has no such row (the message lists those it has).
        """
        for row in self.controls:
            if (row.control, row.grouping) == (control, grouping):
                return row
        have = ", ".join(f"{r.control}/{r.grouping}" for r in self.controls)
        raise KeyError(f"no row {control}/{grouping} on the lexical card; it has {have}")

    @property
    def table(self) -> pd.DataFrame:
        """The controls as a table: control, meaning, grouping, scores with intervals, above."""
        rows = [
            {
                "control": s.control,
                "meaning": CONTROLS.get(s.control, ""),
                **{k: v for k, v in asdict(s).items() if k != "control"},
                "above": max(s.auroc, s.paired_accuracy) > self.threshold,
            }
            for s in self.controls
        ]
        columns = [
            *("control", "meaning", "grouping", "auroc", "paired_accuracy"),
            *("auroc_low", "auroc_high", "paired_low", "paired_high", "above"),
        ]
        return pd.DataFrame(rows, columns=columns)

    @property
    def words_table(self) -> pd.DataFrame:
        """The most one-sided words as a table, strongest first."""
        columns = ["word", "clinical_only", "neutral_only", "p", "p_holm"]
        return pd.DataFrame([asdict(w) for w in self.words], columns=columns)

    @property
    def pairs_table(self) -> pd.DataFrame:
        """One row a pair, in the battery's order."""
        return pd.DataFrame([asdict(p) for p in self.pairs])

    def write(self, path: Path) -> Path:
        """Write the card, with its warning spelled out, as JSON."""
        return write_versioned(path, FORMAT_VERSION, {"warning": self.warning, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> LexicalCard:
        """Read a card written by `write`.

        Raises:
            ArtifactError: absent, not JSON, another format version, or other fields.
        """
        payload = read_versioned(path, FORMAT_VERSION, cure="run the audit again")
        payload.pop("warning", None)
        try:
            keywords = [{**k, "words": tuple(k["words"])} for k in payload.pop("keywords")]
            return cls(
                controls=tuple(ControlScore(**s) for s in payload.pop("controls")),
                words=tuple(DiscordantWord(**w) for w in payload.pop("words")),
                keywords=tuple(KeywordHit(**k) for k in keywords),
                near_duplicates=tuple(NearDuplicate(**d) for d in payload.pop("near_duplicates")),
                pairs=tuple(PairCard(**p) for p in payload.pop("pairs")),
                **payload,
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a lexical card of this release ({error}); run the audit again"
            ) from error
