"""The defence card: what three untrained methods see in a battery, beside published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from affectlens.data.artifacts import read_versioned, write_versioned
from affectlens.data.errors import ArtifactError

FORMAT_VERSION = 1

METHODS: Mapping[str, str] = {
    "valence": "VADER",
    "lexicon_own": "own emotion list",
    "lexicon_nrc": "NRC emotion lexicon",
    "classifier": "contextual classifier",
    "readout": "emotion-word readout",
}
"""The methods of a card, in order."""

MEASURES: Mapping[str, str] = {
    "compound": "compound valence score, -1 to 1",
    "strength": "absolute compound score",
    "hits": "words of an item that VADER's lexicon holds, with repeats",
    "emotion_rate": "share of words that stand in an emotion category",
    "negative_rate": "share of words in the category 'negative'",
    "p_emotional": "1 - P(neutral label)",
    "top1": "share of items whose most probable label is the emotion of their pair",
    "top1_covered": "the same, only items whose emotion the classifier has a label for",
    "own": "readout of the emotion of the pair (nats)",
    "all": "readout of emotion in general against calm words (nats)",
}
"""The measures, each a number for every item."""

PUBLISHED_SOURCE = (
    "dataset card and abstract of AIPsy-Affect (arXiv 2604.23719); 'keyword_rich' is Set A of "
    "arXiv 2603.22295; P(emotional) and top-1 are of a DistilRoBERTa emotion classifier"
)

OWN_LIST_NOTE = (
    "The method 'own emotion list' is a small screening list of this package. It is not the NRC "
    "Emotion Lexicon, and its rates are not comparable with NRC rates."
)

NOT_TRAINED = (
    "None of these methods is trained on the battery. That they do not tell the members of a pair "
    "apart does not show that words cannot: `affectlens battery audit` measures that."
)

READ_VALENCE = (
    "A valence lexicon that separates the pairs is a warning: charged words, not only the "
    "situation, differ between the members."
)

READ_CLASSIFIER = (
    "A contextual classifier or readout that separates the pairs is what one wants if the "
    "emotional members are emotional; one that does not leaves open whether they are."
)


@dataclass(frozen=True)
class Published:
    """One number of the published card: `statistic` is 'median', 'mean_abs', 'mean' or 'total'.

    The card does not say which average some numbers are; those are filed under 'mean'.
    """

    method: str
    measure: str
    split: str
    statistic: str
    value: float


def _row(method: str, measure: str, statistic: str, **values: float) -> tuple[Published, ...]:
    return tuple(Published(method, measure, s, statistic, v) for s, v in values.items())


PUBLISHED: tuple[Published, ...] = (
    *_row(
        "valence", "compound", "median",
        keyword_rich=-0.084, clinical=-0.072, moderate=0.147, neutral=0.202, complex_neutral=-0.039,
    ),
    *_row(
        "valence", "compound", "mean_abs",
        keyword_rich=0.637, clinical=0.410, moderate=0.339, neutral=0.340, complex_neutral=0.395,
    ),
    *_row("valence", "hits", "total", clinical=194, neutral=150),
    *_row("lexicon_nrc", "emotion_rate", "mean", clinical=0.060, neutral=0.071),
    *_row("lexicon_nrc", "negative_rate", "mean", clinical=0.013, neutral=0.009),
    *_row(
        "classifier", "p_emotional", "mean",
        keyword_rich=0.951, clinical=0.439, moderate=0.287, neutral=0.236, complex_neutral=0.344,
    ),
    *_row("classifier", "top1", "mean", keyword_rich=0.825, clinical=0.052),
)  # fmt: skip
"""The published numbers (`PUBLISHED_SOURCE`), clinical against neutral over 192 pairs."""

PUBLISHED_TESTS: Mapping[tuple[str, str], str] = {
    ("valence", "compound"): "Mann-Whitney U = 11,501, p = 1.76e-10 (members taken as unpaired)",
    ("lexicon_nrc", "emotion_rate"): "not significant",
    ("lexicon_nrc", "negative_rate"): "not significant",
    ("classifier", "p_emotional"): "Wilcoxon over 192 pairs p < 1e-14",
}
"""The published clinical-against-neutral tests by method and measure."""

_STATISTICS = ("median", "mean", "mean_abs", "total")


@dataclass(frozen=True)
class DefenceRow:
    """One measure on one split: `n` items, and median, mean, mean absolute value and sum."""

    method: str
    measure: str
    split: str
    n: int
    median: float
    mean: float
    mean_abs: float
    total: float


@dataclass(frozen=True)
class PairTest:
    """Clinical against neutral members on one measure.

    `group` is 'all' or an emotion (its own pairs). `clinical` and `neutral` are means, `d_z` is
    None where differences are all equal or fewer than three. `mwu_*` treats the members as
    unpaired, as the published card does; `p_wilcoxon` and `p_pairs` (sign flip of the pairs'
    differences) keep them together; `p_clusters` flips whole emotion x domain clusters, which is
    the safe one where pairs of a cluster are alike. `exact` says whether all sign patterns of the
    pairs were enumerated. `p_holm` adjusts `p_pairs` over the emotions of the same measure (None
    for 'all'). All tests are two-sided.
    """

    method: str
    measure: str
    group: str
    n_pairs: int
    n_clusters: int
    clinical: float
    neutral: float
    mean_diff: float
    d_z: float | None
    share_higher: float
    mwu_u: float
    mwu_p: float
    p_wilcoxon: float
    p_pairs: float
    p_clusters: float
    exact: bool
    p_holm: float | None = None


@dataclass(frozen=True)
class DefenceCard:
    """The three methods on one battery.

    `classifier` and `model` say what was used, '' where none. `notes` are remarks that belong
    beside the numbers (labels without an emotion, word lists, few clusters).
    """

    battery: str
    battery_sha256: str
    classifier: str
    model: str
    n_pairs: int
    n_clusters: int
    n_permutations: int
    seed: int
    rows: tuple[DefenceRow, ...]
    tests: tuple[PairTest, ...]
    notes: tuple[str, ...]

    @property
    def reading(self) -> tuple[str, ...]:
        """What the numbers mean, one sentence or two an entry; to be printed with them."""
        found = [_sentence(t) for t in self.tests if t.group == "all" and _sentence(t)]
        return (NOT_TRAINED, READ_VALENCE, READ_CLASSIFIER, *found, *self.notes)

    def row(self, method: str, measure: str, split: str) -> DefenceRow:
        """One row.

        Raises:
            KeyError: the card has no such row (the message lists those it has).
        """
        for row in self.rows:
            if (row.method, row.measure, row.split) == (method, measure, split):
                return row
        have = ", ".join(f"{r.method}/{r.measure}/{r.split}" for r in self.rows)
        raise KeyError(f"no row {method}/{measure}/{split} on the defence card; it has {have}")

    def test(self, method: str, measure: str, group: str = "all") -> PairTest:
        """One clinical-against-neutral test.

        Raises:
            KeyError: the card has no such test (the message lists those it has).
        """
        for test in self.tests:
            if (test.method, test.measure, test.group) == (method, measure, group):
                return test
        have = ", ".join(f"{t.method}/{t.measure}/{t.group}" for t in self.tests)
        raise KeyError(f"no test {method}/{measure}/{group} on the defence card; it has {have}")

    @property
    def table(self) -> pd.DataFrame:
        """One row a method, measure and split, with `published_*` columns beside our own.

        Published numbers without a counterpart here follow as rows with n = 0 and no own numbers.
        """
        rows: dict[tuple[str, str, str], dict[str, Any]] = {
            (r.method, r.measure, r.split): asdict(r) for r in self.rows
        }
        for known in PUBLISHED:
            key = (known.method, known.measure, known.split)
            empty = {"method": key[0], "measure": key[1], "split": key[2], "n": 0}
            rows.setdefault(key, empty)[f"published_{known.statistic}"] = known.value
        columns = ["method", "measure", "split", "n", *_STATISTICS]
        columns += [f"published_{s}" for s in _STATISTICS]
        return pd.DataFrame(list(rows.values()), columns=columns)

    def tests_frame(self) -> pd.DataFrame:
        """One row a test, with the published test in words where there is one."""
        columns = [*PairTest.__dataclass_fields__, "published"]
        rows = [
            {
                **asdict(t),
                "published": PUBLISHED_TESTS.get((t.method, t.measure), "")
                if t.group == "all"
                else "",
            }
            for t in self.tests
        ]
        return pd.DataFrame(rows, columns=columns)

    def write(self, path: Path) -> Path:
        """Write the card, with its reading and the source of the published numbers, as JSON."""
        extra = {
            "reading": self.reading,
            "published": [asdict(p) for p in PUBLISHED],
            "published_source": PUBLISHED_SOURCE,
        }
        return write_versioned(path, FORMAT_VERSION, {**extra, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> DefenceCard:
        """Read a card written by `write`.

        Raises:
            ArtifactError: absent, not JSON, another format version, or other fields.
        """
        payload = read_versioned(path, FORMAT_VERSION, cure="run `affectlens battery defend` again")
        for derived in ("reading", "published", "published_source"):
            payload.pop(derived, None)
        try:
            return cls(
                rows=tuple(DefenceRow(**r) for r in payload.pop("rows")),
                tests=tuple(PairTest(**t) for t in payload.pop("tests")),
                notes=tuple(payload.pop("notes")),
                **payload,
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a defence card of this release ({error}); run `affectlens battery "
                "defend` again"
            ) from error


_SAID: Mapping[tuple[str, str], tuple[str, str]] = {
    ("valence", "compound"): (
        "the valence lexicon separates the members here: a warning",
        "the valence lexicon does not separate the members here; a small difference may be missed",
    ),
    ("valence", "strength"): (
        "the emotional members are more charged in valence, whichever way: a warning",
        "the emotional members are not more charged in valence; a small difference may be missed",
    ),
    ("classifier", "p_emotional"): (
        "the classifier finds the emotional members different in emotion, as one wants",
        "the classifier does not find the emotional members more emotional",
    ),
    ("readout", "own"): (
        "the model's own readout of the right emotion differs between the members, as one wants",
        "the model's own readout of the right emotion does not differ between the members",
    ),
}


def _sentence(test: PairTest) -> str:
    said = _SAID.get((test.method, test.measure))
    if said is None:
        return ""
    # All but the signed valence must be higher on the clinical side.
    signed = test.measure == "compound"
    separates = test.p_clusters < 0.05 and (test.mean_diff > 0 or signed)
    size = "" if test.d_z is None else f"d_z {test.d_z:+.2f}, "
    verdict = said[0] if separates else said[1]
    return (
        f"{METHODS[test.method]}: {verdict} ({size}p {test.p_clusters:.2g} "
        f"by {test.n_clusters} clusters, {test.p_pairs:.2g} by {test.n_pairs} pairs)."
    )
