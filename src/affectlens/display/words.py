"""Numbers and foreign text as people may read them, on a page, in a figure or at a prompt.

Model text, corpora and batteries are hostile input. `visible` makes characters that would act on
the reader (terminal codes, bidirectional overrides) show by name; escaping for HTML comes after it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

ALL = "all"
"""The contrast of all emotional texts against their neutral twins."""

_JOINERS = "\u200c\u200d"
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_DRAWN = str.maketrans({" ": "␣", "\n": "↵", "\r": "\\r", "\t": "⇥", "\u00a0": "⟨U+00A0⟩"})
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def visible(text: str) -> str:
    """Replace control, format, surrogate and unassigned characters by a name; keep newline, tab."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    if char in "\n\t" or char in _JOINERS:
        return char
    return f"⟨U+{ord(char):04X}⟩" if unicodedata.category(char) in _HIDDEN else char


def on_one_line(text: str) -> str:
    """`visible`, with blanks for line breaks and tabs."""
    return visible(text.replace("\n", " ").replace("\t", " "))


def drawn(token: str) -> str:
    """A token with its blanks and line breaks drawn; '(empty)' for none."""
    return token.translate(_DRAWN) or "(empty)"


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Fixed digits with a real minus; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if not any(char in "123456789" for char in shown):
        shown = shown.lstrip("+-")
    return shown.replace("-", "−")


def probability(value: float | None) -> str:
    """A p-value or q-value: two significant digits, powers of ten below 0.001."""
    if value is None or not math.isfinite(value):
        return "–"
    if value >= 0.1 or value == 0:
        return f"{value:.2f}"
    if value >= 0.001:
        return f"{value:.3f}" if value >= 0.01 else f"{value:.4f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def share(value: float | None) -> str:
    """A share as percent; one decimal below 10%."""
    if value is None or not math.isfinite(value):
        return "–"
    percent = 100 * value
    digits = 0 if abs(percent) >= 10 or percent == 0 else 1 if abs(percent) >= 1 else 2
    return f"{percent:.{digits}f}%".replace("-", "−")


def bounds(low: float, high: float) -> str:
    """' (0.10 to 0.30)' after a number; '' where a bound is missing or infinite."""
    ends = [number(low), number(high)]
    # A line may break before the interval, not within it.
    return "" if "–" in ends else f" ({ends[0]}\xa0to\xa0{ends[1]})"


def spread(value: float, low: float, high: float) -> str:
    """A number with its interval; the number alone where there is no interval."""
    shown = number(value)
    return shown if shown == "–" else shown + bounds(low, high)


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return "–" if value is None or not math.isfinite(value) else f"{round(value):,}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """'1 feature', '3 features', '0 features'."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def listing(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(text: str) -> str:
    """`text` with a full stop and a capital."""
    text = text.strip()
    if not text:
        return ""
    return capital(text) + ("" if text[-1] in ".!?" else ".")


def capital(text: str) -> str:
    """`text` with a capital."""
    return text[:1].upper() + text[1:]


def contrast_label(name: str) -> str:
    """The contrast or readout 'all' in words; an emotion's name as it is."""
    return "any emotion" if name == ALL else name


def shorten(text: str, limit: int) -> str:
    """Cut to `limit` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def span(low: float, high: float) -> str:
    """'8', or '8 to 12'."""
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def counts(numbers: Mapping[str, int]) -> str:
    """'all 7, grief 1, others 0', the largest first."""
    some = sorted(((n, k) for k, n in numbers.items() if n), key=lambda pair: -pair[0])
    named = [f"{contrast_label(k)} {n:,}" for n, k in some]
    return ", ".join(named + (["others 0"] if some and len(some) < len(numbers) else [])) or "none"


def listed(names: Sequence[str], most: int = 8) -> str:
    """'a, b, c and 4 more'."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
