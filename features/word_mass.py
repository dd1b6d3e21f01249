"""On which words a latent's activation falls: discordant words of the pairs, and emotion words.

The activation mass of a latent on some tokens is the sum of its absolute activations there. A word
is discordant in a pair if one member holds it more often than the other. For each member:

    share = mass on tokens of such words / mass on all content tokens,

sums over all pairs first, then the ratio, since in single texts the mass may be 0. The share of
*tokens* that lie on such words is given as well: a latent that fires evenly has that share of mass
by chance alone. A word is a run of letters, inner apostrophes included, in lower case; a token
belongs to the word it begins in. Marks and digits are content but no words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from affectlens.features._words import WORD
from affectlens.features.design import PairDesign
from affectlens.features.encoding import TokenActivations

Array = npt.NDArray[np.float64]
Piece = Callable[[int], str]

_BLANK = "\u2581"
"""What SentencePiece writes for a leading blank, which decoding one token drops."""


@dataclass(frozen=True, eq=False)
class TokenWords:
    """The word of each token.

    Attributes:
        words: [n_tokens] lower case; '' for marks, digits, prefix and suffix.
        begins: bool [n_tokens], the word's first token.
    """

    words: tuple[str, ...]
    begins: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MassShares:
    """Shares of activation mass, or of tokens; arrays are [n_columns], NaN without any mass.

    Attributes:
        only_clinical: of clinical texts, on words that the neutral does not hold.
        more_clinical: of clinical texts, on words that they hold more often (or alone).
        only_neutral: of neutral texts, on words that the clinical text does not hold.
        more_neutral: of neutral texts, on words that they hold more often (or alone).
        emotion: of clinical texts, on words of the emotion lexicon.
    """

    only_clinical: Array
    more_clinical: Array
    only_neutral: Array
    more_neutral: Array
    emotion: Array


def piece_of(tokenizer: Any) -> Piece:
    """Token id to its text, with the leading blank where it stands for one."""

    def piece(token: int) -> str:
        text = str(tokenizer.decode([token]))
        raw = tokenizer.convert_ids_to_tokens(token)
        blank = isinstance(raw, str) and raw.startswith(_BLANK) and not text.startswith(" ")
        return " " + text if blank else text

    return piece


def token_words(encoded: TokenActivations, piece: Piece) -> TokenWords:
    """The word that each token of the texts themselves belongs to (see `words_of_windows`)."""
    return words_of_windows(encoded.tokens, encoded.first, encoded.content(), piece)


def words_of_windows(
    tokens: npt.NDArray[np.int32],
    first: npt.NDArray[np.int64],
    content: npt.NDArray[np.bool_],
    piece: Piece,
) -> TokenWords:
    """The word that each token belongs to, found in the joined pieces of a window's tokens.

    A token that holds the end of one word and the start of another belongs to the first. A
    character that the tokenizer spreads over several tokens is not seen as a letter.

    Args:
        tokens: [n_tokens] token ids.
        first: [n_windows + 1], tokens of window i are `first[i]:first[i + 1]`.
        content: [n_tokens]; the others are passed over and have no word.
        piece: token id to text.
    """
    texts = {int(t): piece(int(t)).replace("\u2019", "'") for t in np.unique(tokens)}
    words = [""] * len(tokens)
    begins = np.zeros(len(tokens), dtype=bool)
    for start, stop in pairwise(first.tolist()):
        rows = start + np.flatnonzero(content[start:stop])
        pieces = [texts[int(t)] for t in tokens[rows]]
        starts = np.cumsum([0, *map(len, pieces)])[:-1].tolist()
        for match in WORD.finditer("".join(pieces)):
            # From the token that holds the first letter to the one that holds the last.
            begin = bisect_right(starts, match.start()) - 1
            end = bisect_right(starts, match.end() - 1)
            free = [t for t in rows[begin:end] if not words[t]]
            for token in free:
                words[token] = match.group().lower()
            begins[free[:1]] = True
    return TokenWords(tuple(words), begins)


def mass_shares(
    encoded: TokenActivations,
    words: TokenWords,
    design: PairDesign,
    latents: npt.ArrayLike,
    emotion_words: Collection[str],
) -> MassShares:
    """Shares of the activation mass of some latents [n_columns].

    Args:
        encoded: activations of all items; the design's rows index them.
        words: of `token_words`.
        design: the pairs.
        latents: which latents.
        emotion_words: lower-case words that name emotion.
    """
    columns = np.abs(encoded.matrix()[:, np.asarray(latents, dtype=np.int64)].astype(float))
    flags = _flags(encoded, words, design, emotion_words)
    return _shares(np.asarray(flags @ columns))


def token_shares(
    encoded: TokenActivations,
    words: TokenWords,
    design: PairDesign,
    emotion_words: Collection[str],
) -> MassShares:
    """The same shares of readable tokens, [1] each: those of a latent that fires evenly."""
    return _shares(_flags(encoded, words, design, emotion_words).sum(axis=1)[:, None])


def _flags(
    encoded: TokenActivations,
    words: TokenWords,
    design: PairDesign,
    emotion_words: Collection[str],
) -> Array:
    """Which tokens count: [7, n_tokens].

    All, only and more of clinical texts, the same three of neutral ones, emotion in clinical ones.
    """
    flags = np.zeros((7, encoded.n_tokens))
    names = np.array(words.words, dtype=object)
    content, readable = encoded.content(), encoded.content() & encoded.keep
    for pair in zip(design.clinical, design.neutral, strict=True):
        spans = [slice(encoded.first[item], encoded.first[item + 1]) for item in pair]
        # What a text holds is counted with its masked tokens: it does hold its first word.
        counts = [
            Counter(names[span][content[span] & words.begins[span]].tolist()) for span in spans
        ]
        for member, span in enumerate(spans):
            here, there = counts[member], counts[1 - member]
            own = names[span].tolist()
            line = 3 * member
            flags[line, span] = readable[span]
            flags[line + 1, span] = readable[span] & [bool(w) and not there[w] for w in own]
            flags[line + 2, span] = readable[span] & [here[w] > there[w] for w in own]
            if member == 0:
                flags[6, span] = readable[span] & [w in emotion_words for w in own]
    return flags


def _shares(sums: Array) -> MassShares:
    def share(line: int, whole: int) -> Array:
        total = sums[whole]
        return np.where(total > 0, sums[line] / np.where(total > 0, total, 1.0), np.nan)

    return MassShares(share(1, 0), share(2, 0), share(4, 3), share(5, 3), share(6, 0))
