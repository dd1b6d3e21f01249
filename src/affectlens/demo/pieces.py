"""Token ids as pieces of text, one a token, although a character may need several tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CONTEXT = 8
_LONGEST = 4
"""Tokens that a character of UTF-8 may need; more are broken text, which is shown as such."""
_BROKEN = "\ufffd"


class Pieces:
    """Cuts a growing text into pieces whose sequence is the text.

    A token that ends within a character gives '', and the one that completes it all of it.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        # Decoded with what stands before, since some tokenizers drop the leading blank otherwise.
        self._before = list(before[-_CONTEXT:])
        self._held: list[int] = []
        self._said = self._decode(self._before)

    def add(self, token: int) -> str:
        """The text that this token adds."""
        self._held.append(token)
        whole = self._decode(self._before + self._held)
        if whole.endswith(_BROKEN) and len(self._held) < _LONGEST:
            return ""
        return self._take(whole)

    def rest(self) -> str:
        """What is held back at the end."""
        return self._take(self._decode(self._before + self._held)) if self._held else ""

    def _take(self, whole: str) -> str:
        piece = whole[len(self._said) :]
        self._before = (self._before + self._held)[-_CONTEXT:]
        self._held = []
        self._said = self._decode(self._before)
        return piece

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The pieces of a whole text, one a token."""
    cut = Pieces(tokenizer)
    found = [cut.add(token) for token in ids]
    if found:
        found[-1] += cut.rest()
    return found
