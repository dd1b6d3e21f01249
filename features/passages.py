"""Passages of a corpus as long as the texts of a battery: unlabelled text to learn words from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.corpus import Corpus
from affectlens.data.errors import StimulusError
from affectlens.data.scramble import sentences
from affectlens.features._words import tokens

RUN = 8
"""A passage that shares a run of this many words with a battery is left out."""


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages of whole sentences.

    Attributes:
        ids: distinct ids.
        texts: the passages.
        documents: int64 [n] the document that each comes from.
        n_shared: passages left out because they share a run of `RUN` words with the battery.
        n_repeated: passages left out because an earlier one has the same text.
        n_asked: how many were asked for; more than there are if the corpus is too small.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    documents: npt.NDArray[np.int64]
    n_shared: int
    n_repeated: int
    n_asked: int


def passages(corpus: Corpus, texts: Sequence[str], n: int, seed: int) -> Passages:
    """Draw `n` passages from a corpus, as long as `texts` and sharing nothing with them.

    Documents are cut into runs of whole sentences, each as near as possible to the number of words
    of a text drawn at random; what is left at the end of a document, below half of that, is not
    used. One passage is taken from each document, in random order, before a second from any, since
    passages of one document are alike. The draw is blind to the emotion of the texts.

    Raises:
        StimulusError: no texts, or no passage is left.
    """
    lengths = np.array([len(text.split()) for text in texts], dtype=np.int64)
    if not len(lengths) or n < 1:
        raise StimulusError(f"got {len(lengths)} texts and n={n}; need one or more of both")
    avoid = set(_runs(texts))
    rng = np.random.default_rng([seed, 1])
    waiting: list[list[str]] = []
    owners: list[int] = []
    found: list[tuple[int, str]] = []
    seen: set[str] = set()
    n_shared = n_repeated = 0

    def take(owner: int, text: str) -> None:
        nonlocal n_shared, n_repeated
        if text in seen:
            n_repeated += 1
        elif avoid.intersection(_runs([text])):
            n_shared += 1
        else:
            seen.add(text)
            found.append((owner, text))

    for owner in rng.permutation(len(corpus.documents)).tolist():
        pieces = _cut(sentences(corpus.documents[owner].text), lengths, rng)
        pieces = [pieces[i] for i in rng.permutation(len(pieces))]
        if pieces and len(found) < n:
            take(owner, pieces.pop())
        if len(found) >= n:
            break
        waiting.append(pieces)
        owners.append(owner)
    while len(found) < n and any(waiting):
        for owner, pieces in zip(owners, waiting, strict=True):
            if pieces and len(found) < n:
                take(owner, pieces.pop())
    if not found:
        raise StimulusError(
            f"corpus {corpus.name!r} gives no passage as long as the battery's texts (about "
            f"{int(np.median(lengths))} words); give a corpus of longer documents"
        )
    return Passages(
        tuple(f"passage-{i}" for i in range(len(found))),
        tuple(text for _, text in found),
        np.array([owner for owner, _ in found], dtype=np.int64),
        n_shared,
        n_repeated,
        n,
    )


def _cut(
    lines: Sequence[str], lengths: npt.NDArray[np.int64], rng: np.random.Generator
) -> list[str]:
    """Runs of sentences, each about as long as a length drawn for it."""
    found: list[str] = []
    held: list[str] = []
    size = 0
    target = int(rng.choice(lengths))
    for line in lines:
        n = len(line.split())
        # Close before the sentence that would lead further away from the target than it is now.
        if held and abs(size - target) <= abs(size + n - target):
            found.append(" ".join(held))
            held, size, target = [], 0, int(rng.choice(lengths))
        held.append(line)
        size += n
    if held and 2 * size >= target:
        found.append(" ".join(held))
    return [text for text in found if tokens(text)]


def _runs(texts: Iterable[str]) -> Iterable[tuple[str, ...]]:
    for text in texts:
        words = tokens(text)
        yield from (tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
