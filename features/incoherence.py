"""Text that has stopped being language: measures of it, rules to tell it, and how it is made.

Interventions that are too strong break a text long before they fill it with emotion, and broken
text keeps the words of its topic. So incoherence is judged by form alone (repetition, order of
function words, letters, marks), never by which words stand there, and the made examples come from
neutral and emotional texts alike.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from affectlens.features._words import FUNCTION_WORDS

Array = npt.NDArray[np.float64]

INCOHERENT = "incoherent"
"""The label of text that is no language any more."""

KINDS = ("soup", "loop", "shuffled", "truncated", "mixed")
"""Ways in which `make_incoherent` breaks a text."""

FORM_COLUMNS = (
    "repetition", "repetition_2", "distinct", "order", "letters", "unknown", "marks", "function",
    "long", "short",
)  # fmt: skip
"""What `FormModel.features` measures, in order."""

_PIECE = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+|[^\w\s]|_")
_USUAL_MARKS = frozenset(".,;:!?'\"()-\u2013\u2014\u2018\u2019\u201c\u201d\u2026$%&/")
_SUFFIXES = ("ing", "ed", "ly", "tion", "ness", "ment", "er", "est", "ful", "ous", "al", "s")
_FOREIGN = (
    "был это который после она",
    "的 了 在 是 我们 时间",
    "και το της είναι",
    "este wurde nicht über",
    "कि है में",
    "これ です した",
)
_CODE = (
    "{};", "</div>", "0x3f", "[[", "::", "##", "\\n", "==>", "|||", "\ufffd", "~~", "@@", "%%",
)  # fmt: skip
_ODD_WINDOW = (15, 60)
_PRIOR = 8
"""Words that count as usual before any is seen."""


def pieces(text: str) -> list[str]:
    """Lower-cased words, numbers and single marks of a text, in order.

    Marks count, since a model that breaks down may write nothing else.
    """
    return _PIECE.findall(text.lower())


def distinct(items: Sequence[Hashable], n: int) -> float:
    """Distinct-n (Li et al. 2016): distinct n-grams over all n-grams, in (0, 1]; NaN without any.

    Args:
        items: words or token ids, in order.
        n: length of the n-grams, at least 1.
    """
    grams = _grams(items, n)
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition(items: Sequence[Hashable], n: int = 4) -> float:
    """Share of n-grams that occurred before, 1 - distinct-n, in [0, 1); 0 without any n-gram."""
    grams = _grams(items, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise ValueError(f"n-grams need n >= 1, got {n}")
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def _shape(piece: str) -> str:
    """A function word or mark as it is; any other word by its ending, a number as a number."""
    if piece in FUNCTION_WORDS or not piece[0].isalnum():
        return piece
    if piece[0].isdigit():
        return "#"
    return next((f"-{s}" for s in _SUFFIXES if len(piece) > len(s) + 2 and piece.endswith(s)), "-")


class FormModel:
    """Counts of form over plain texts, and measures of other texts against them.

    Holds which shapes (function words, endings, marks) follow each other, which letters follow
    each other, and which words there are; nothing about what words mean.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        rows = [pieces(t) for t in texts]
        self._words = frozenset(w for row in rows for w in row)
        shapes = [["^", *map(_shape, row)] for row in rows]
        self._single = Counter(s for row in shapes for s in row)
        self._pairs = Counter(p for row in shapes for p in pairwise(row))
        self._total = max(sum(self._single.values()), 1)
        words = Counter(w for row in rows for w in row)
        self._after: Counter[str] = Counter()
        self._letters: Counter[str] = Counter()
        for word, count in words.items():
            for gram in _trigrams(word):
                self._letters[gram] += count
                self._after[gram[:2]] += count
        # Means of a few words scatter widely; drawn towards the usual, they do not look broken.
        self._usual_order = sum(n * self._pmi(a, b) for (a, b), n in self._pairs.items())
        self._usual_order /= max(sum(self._pairs.values()), 1)
        self._usual_letters = sum(n * self._logp(g) for g, n in self._letters.items())
        self._usual_letters /= max(sum(self._letters.values()), 1)

    def features(self, texts: Sequence[str]) -> Array:
        """[n_texts, n_columns] of `FORM_COLUMNS`, all finite."""
        out = np.zeros((len(texts), len(FORM_COLUMNS)))
        for row, text in zip(out, texts, strict=True):
            row[:] = self._row(pieces(text))
        return out

    def _row(self, row: list[str]) -> list[float]:
        n = len(row)
        if not n:
            return [0.0] * len(FORM_COLUMNS)
        words = [p for p in row if p[0].isalpha()]
        marks = _odd_marks(row)
        n_words = max(len(words), 1)
        return [
            repetition(row),
            repetition(row, 2),
            math.log(len(set(row)) + 1) / math.log(n + 1),
            self._order(row),
            self._spelling(words),
            sum(w not in self._words for w in words) / n_words,
            marks / n + (1 - len(words) / n) ** 2,
            sum(w in FUNCTION_WORDS for w in words) / n_words,
            sum(len(w) > 14 for w in words) / n_words,
            sum(len(w) < 3 and w not in FUNCTION_WORDS for w in words) / n_words,
        ]

    def _order(self, row: list[str]) -> float:
        """Mean pointwise mutual information of neighbouring shapes (nats)."""
        found = [self._pmi(a, b) for a, b in pairwise(["^", *map(_shape, row)])]
        return (sum(found) + _PRIOR * self._usual_order) / (len(found) + _PRIOR)

    def _pmi(self, a: str, b: str) -> float:
        p_b = (self._single[b] + 1) / (self._total + 1)
        # Dirichlet prior of 5 draws from the single shapes.
        return math.log((self._pairs[a, b] + 5 * p_b) / (self._single[a] + 5) / p_b)

    def _spelling(self, words: list[str]) -> float:
        """Mean log-probability of a letter given the two before it (nats)."""
        found = [self._logp(gram) for word in words for gram in _trigrams(word)]
        prior = 5 * _PRIOR
        return (sum(found) + prior * self._usual_letters) / (len(found) + prior)

    def _logp(self, gram: str) -> float:
        return math.log((self._letters[gram] + 0.03) / (self._after[gram[:2]] + 1))


def _trigrams(word: str) -> list[str]:
    padded = f"^^{word}$"
    return [padded[i : i + 3] for i in range(len(padded) - 2)]


@dataclass(frozen=True)
class Broken:
    """A text broken on purpose: how (`KINDS`), and the index of the text it was made from."""

    text: str
    kind: str
    source: int


def make_incoherent(
    texts: Sequence[str], n: int, rng: np.random.Generator, kinds: Sequence[str] = KINDS
) -> list[Broken]:
    """Break texts: `n` of them, the kinds in turn, sources drawn with replacement.

    Windows of 15 to 60 words of a source are taken, so that length says nothing.

    Args:
        texts: sources with at least one word each, at least one.
        n: how many.
        rng: source of randomness.
        kinds: of `KINDS`: "soup" random words of all texts, "loop" one phrase again and again,
            mostly after a sound beginning, "shuffled" the window's words in random order,
            "truncated" words cut and glued, "mixed" marks, code and other languages between.
    """
    lists = [t.split() for t in texts]
    pool = sorted({w for words in lists for w in words})
    out = []
    for i in range(n):
        source = int(rng.integers(len(lists)))
        window = cut(lists[source], rng, *_ODD_WINDOW)
        kind = kinds[i % len(kinds)]
        words = _BREAK[kind](window, pool, rng)
        out.append(Broken(" ".join(words), kind, source))
    return out


def cut(words: Sequence[str], rng: np.random.Generator, low: int, high: int) -> list[str]:
    """A random run of `low` to `high` words, or all of a shorter text."""
    size = int(rng.integers(low, high + 1))
    start = int(rng.integers(max(len(words) - size, 0) + 1))
    return list(words[start : start + size])


def _soup(window: list[str], pool: list[str], rng: np.random.Generator) -> list[str]:
    return [pool[int(i)] for i in rng.integers(len(pool), size=max(len(window), 15))]


def _loop(window: list[str], _pool: list[str], rng: np.random.Generator) -> list[str]:
    size = max(len(window), 15)
    start = 0 if rng.random() < 0.3 else int(rng.integers(size // 2))
    length = int(rng.integers(1, 9))
    phrase = window[start : start + length] or window[:length]
    copies = -(-(size - start) // len(phrase))
    return [*window[:start], *(phrase * max(copies, 4))][: size + 4 * length]


def _shuffled(window: list[str], _pool: list[str], rng: np.random.Generator) -> list[str]:
    return [window[int(i)] for i in rng.permutation(len(window))]


def _truncated(window: list[str], _pool: list[str], rng: np.random.Generator) -> list[str]:
    out = []
    share = rng.uniform(0.4, 1.0)
    for word in window:
        if rng.random() > share or len(word) < 2:
            out.append(word)
            continue
        place = int(rng.integers(1, len(word)))
        piece = word[:place] if rng.random() < 0.5 else word[place:]
        if out and rng.random() < 0.3:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def _mixed(window: list[str], _pool: list[str], rng: np.random.Generator) -> list[str]:
    share = rng.uniform(0.3, 0.9)
    foreign = _FOREIGN[int(rng.integers(len(_FOREIGN)))].split()
    strange = (*_CODE, *foreign)
    return [strange[int(rng.integers(len(strange)))] if rng.random() < share else w for w in window]


_BREAK = {
    "soup": _soup, "loop": _loop, "shuffled": _shuffled, "truncated": _truncated, "mixed": _mixed,
}  # fmt: skip

RULES: Mapping[str, float] = MappingProxyType(
    {"repetition": 0.25, "marks": 0.08, "odd_words": 0.12, "letters": 0.15, "few_words": 0.50,
     "function_words": 0.20}
)  # fmt: skip
"""Bounds of `rule_breaks`; the last one is a lower bound."""

_FUNCTION_FROM = 15
_NO_VOWEL = re.compile(r"^[^aeiouy\W]{2,}$")
_STAMMER = re.compile(r"(.)\1\1\1|[^aeiouy\W]{6}")


def rule_breaks(text: str) -> tuple[str, ...]:
    """Names of the rules of fluency that a text breaks, () if none; English.

    A text breaks "repetition" if more than a quarter of its runs of four words and marks occurred
    before; "marks" if more than 8% of its words and marks are marks that prose does without;
    "odd_words" if more than 12% of its words have no vowel, six consonants or four equal letters in
    a row, or letters that are not Latin; "letters" if more than 15% of its words are single letters
    other than "I" and "a"; "few_words" if less than half of it is words; "function_words" if, in 15
    words or more, fewer than 20% are words such as "the" and "of"; "no_words" if it has none.

    The bounds were set on windows of 15 to 60 words of the default corpus. Of 1,436 windows of
    hand-written text (batteries and passages) 2 break a rule, of 1,491 of the corpus 9% (it holds
    code, lists and loops). Of text broken on purpose (`make_incoherent`, of hand-written text) 100%
    of loops and mixed text, 99% of soup, 71% of cut words and none of shuffled words do: no rule
    looks at order. `FormModel` and what is fitted to it do.
    """
    row = pieces(text)
    words = [p for p in row if p[0].isalpha()]
    if not words:
        return ("no_words",)
    n, n_words = len(row), len(words)
    shares = {
        "repetition": repetition(row),
        "marks": _odd_marks(row) / n,
        "odd_words": sum(map(_is_odd, words)) / n_words,
        "letters": sum(len(w) == 1 and w not in ("i", "a") for w in words) / n_words,
        "few_words": 1 - n_words / n,
    }
    found = [name for name, share in shares.items() if share > RULES[name]]
    common = sum(w in FUNCTION_WORDS for w in words) / n_words
    if n_words >= _FUNCTION_FROM and common < RULES["function_words"]:
        found.append("function_words")
    return tuple(found)


def _odd_marks(row: Sequence[str]) -> int:
    return sum(not p[0].isalnum() and p not in _USUAL_MARKS for p in row)


def _is_odd(word: str) -> bool:
    if not word.isascii():
        if not all("LATIN" in unicodedata.name(c, "") for c in word if c.isalpha()):
            return True
        # Accents are taken off, so that "\u00e9t\u00e9" has its vowels.
        word = "".join(c for c in unicodedata.normalize("NFD", word) if c.isascii())
    return bool(_NO_VOWEL.match(word)) or bool(_STAMMER.search(word))
