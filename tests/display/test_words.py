import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.display import words as text

ANY_TEXT = st.text(st.characters(), max_size=60)
ANY_FLOAT = st.one_of(st.none(), st.floats(-1e12, 1e12), st.just(math.nan), st.just(math.inf))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text", "plain text"),
        ("two\nlines\t", "two\nlines\t"),
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u200dה\u2028", "\u200dה⟨U+2028⟩"),
        ("naïve 悲しみ 😢", "naïve 悲しみ 😢"),
    ],
)
def test_visible_names_what_would_act_on_the_reader(raw: str, shown: str) -> None:
    assert text.visible(raw) == shown


@settings(deadline=None, max_examples=50)
@given(ANY_TEXT)
def test_visible_is_harmless_idempotent_and_encodable(raw: str) -> None:
    shown = text.visible(raw)
    assert text.visible(shown) == shown
    shown.encode("utf-8")
    hidden = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
    assert hidden <= set("\n\t\u200c\u200d")


@settings(deadline=None, max_examples=50)
@given(ANY_FLOAT, st.booleans())
def test_numbers_never_show_nan_or_negative_zero(value: float | None, sign: bool) -> None:
    shown = [text.number(value, sign=sign), text.share(value), text.count(value)]
    shown.append(text.probability(None if value is None else abs(value)))
    assert not any("nan" in s or "inf" in s or s in {"−0.00", "+0.00"} for s in shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "1.00"), (0.05, "0.050"), (0.0031, "0.0031"), (3.1e-5, "3.1×10⁻⁵"), (math.nan, "–")],
)
def test_probability(value: float, shown: str) -> None:
    assert text.probability(value) == shown


def test_number_uses_a_real_minus_and_sign() -> None:
    assert text.number(-0.567, sign=True) == "−0.57"
    assert text.number(0.5, sign=True) == "+0.50"
    assert text.number(-0.001, sign=True) == "0.00"


def test_share_count_plural_listing_sentence_shorten() -> None:
    assert [text.share(v) for v in (0, 0.0042, 0.063, 0.214)] == ["0%", "0.42%", "6.3%", "21%"]
    assert text.count(270_336) == "270,336"
    assert [text.plural(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert [text.listing(w) for w in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert [text.sentence(s) for s in ("", "words ", "Done!")] == ["", "Words.", "Done!"]
    assert text.shorten("abcdef", 4) == "abc…"
