"""Words of tokens, and shares of mass by hand."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.data.models import LanguageModel
from affectlens.features.word_mass import (
    TokenWords,
    mass_shares,
    piece_of,
    token_shares,
    token_words,
)

from .test_shared_tokens import made, two

PIECES = ["She", " was", " grief", "-", "stric", "ken", ".", " was", " 12", "n't", " do", " She"]
WORDS = ["she", "was", "grief", "", "stricken", "stricken", "", "was", ""]


def test_tokens_get_their_whole_word() -> None:
    tokens = [list(range(9)), [10, 9, 6]]
    encoded = made(tokens, np.ones((12, 1)))
    found = token_words(encoded, lambda t: PIECES[t])
    assert found.words == (*WORDS, "don't", "don't", "")
    assert np.flatnonzero(found.begins).tolist() == [0, 1, 2, 4, 7, 9]


def test_prefix_and_suffix_have_no_words() -> None:
    encoded = made([[0, 1, 2], [0, 4, 5]], np.ones((6, 1)), n_tail=1, n_head=1)
    assert token_words(encoded, lambda t: PIECES[t]).words == ("", "was", "", "", "stric", "")


def test_curly_apostrophes_and_capitals_are_folded() -> None:
    pieces = ["DON", "\u2019t", " Go"]
    encoded = made([[0, 1, 2], [2, 1, 0]], np.ones((6, 1)))
    assert token_words(encoded, lambda t: pieces[t]).words[:3] == ("don't", "don't", "go")


def test_masses_by_hand() -> None:
    # Clinical: storm sea sea the ; neutral: sea the the calm.
    words = ("storm", "sea", "sea", "the", "", "sea", "the", "the", "calm", "")
    begins = np.array([bool(w) for w in words])
    values = np.array(
        [[6, 1], [1, 1], [1, 1], [0, 1], [2, 0], [1, 1], [0, 1], [3, 1], [4, 1], [0, 0]]
    )
    encoded = made([[0, 1, 1, 2, 3], [1, 2, 2, 4, 3]], values.astype(float))
    found = mass_shares(encoded, TokenWords(words, begins), two(), [0, 1], {"storm", "joy"})
    np.testing.assert_allclose(found.only_clinical, [0.6, 1 / 4])
    np.testing.assert_allclose(found.more_clinical, [0.8, 3 / 4])
    np.testing.assert_allclose(found.only_neutral, [4 / 8, 1 / 4])
    np.testing.assert_allclose(found.more_neutral, [7 / 8, 3 / 4])
    np.testing.assert_allclose(found.emotion, [0.6, 1 / 4])
    even = token_shares(encoded, TokenWords(words, begins), two(), {"storm"})
    np.testing.assert_allclose(even.only_clinical, [1 / 5])
    np.testing.assert_allclose(even.more_neutral, [3 / 5])


def test_a_masked_first_word_is_still_held() -> None:
    words = TokenWords(("she", "ran", "she", "sat"), np.ones(4, dtype=bool))
    keep = np.array([False, True, True, True])
    encoded = made([[0, 1], [0, 2]], np.ones((4, 1)), keep=keep)
    found = mass_shares(encoded, words, two(), [0], ())
    np.testing.assert_allclose(found.only_neutral, [0.5])
    np.testing.assert_allclose(found.only_clinical, [1.0])


def test_no_mass_is_nan_and_negative_counts_by_size() -> None:
    words = TokenWords(("a", "b", "a", "c"), np.ones(4, dtype=bool))
    values = np.array([[0, -3], [0, 1], [0, 0], [0, 0]], dtype=float)
    found = mass_shares(made([[0, 1], [0, 2]], values), words, two(), [0, 1], ())
    assert np.isnan(found.only_clinical[0]) and np.isnan(found.only_neutral).all()
    np.testing.assert_allclose(found.only_clinical[1], 1 / 4)


@pytest.mark.parametrize("blank", [True, False])
def test_a_lost_leading_blank_is_put_back(blank: bool) -> None:
    class Pieces:
        def decode(self, ids: list[int]) -> str:
            return "dog"

        def convert_ids_to_tokens(self, token: int) -> str:
            return "\u2581dog" if blank else "dog"

    assert piece_of(Pieces())(3) == (" dog" if blank else "dog")


def test_pieces_of_a_real_tokenizer_join_to_the_text(lm: LanguageModel) -> None:
    text = "She didn't go. Never!"
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    piece = piece_of(lm.tokenizer)
    assert "".join(piece(i) for i in ids) == text
