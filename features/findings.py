"""Plain weaknesses of a battery that its owner should know before using it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from affectlens.data.stimuli import Battery
from affectlens.data.taxonomy import EMOTION_WORDS
from affectlens.features._words import tokens


@dataclass(frozen=True)
class Finding:
    """Something about a battery that its owner should know; `ids` are the items concerned."""

    kind: str
    message: str
    ids: tuple[str, ...]


def validate(battery: Battery) -> list[Finding]:
    """List weaknesses that do not forbid the use of a battery; an empty list is a clean one.

    Loading has already refused what breaks schema or pairing.
    """
    findings = [Finding("reading", note, ()) for note in battery.warnings]
    checks: tuple[Callable[[Battery], Iterable[Finding]], ...] = (
        _emotion_words,
        _lengths,
        _repeats,
        _stray_marks,
        _domains,
        _clusters,
    )
    for check in checks:
        findings += check(battery)
    return findings


def _emotion_words(battery: Battery) -> Iterable[Finding]:
    named = {word: emotion for emotion, ws in EMOTION_WORDS.items() for word in ws}
    for item in battery.items:
        hits = sorted(set(tokens(item.text)) & set(named))
        if hits and item.split != "keyword_rich":
            listed = ", ".join(f"{w!r} ({named[w]})" for w in hits)
            yield Finding("emotion_word", f"{item.id} holds readout words: {listed}", (item.id,))


def _lengths(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        a, b = pair.clinical.word_count, pair.neutral.word_count
        if abs(a - b) > 0.1 * max(a, b):
            yield Finding(
                "length",
                f"{pair.id} has {a} words, its neutral {pair.neutral.id} has {b}: more than 10% "
                "apart",
                (pair.clinical.id, pair.neutral.id),
            )


def _repeats(battery: Battery) -> Iterable[Finding]:
    seen: dict[str, str] = {}
    for item in battery.items:
        key = " ".join(tokens(item.text)) or item.text
        if key in seen:
            yield Finding(
                "repeated", f"{item.id} has the same text as {seen[key]}", (seen[key], item.id)
            )
        seen.setdefault(key, item.id)


def _stray_marks(battery: Battery) -> Iterable[Finding]:
    for item in battery.items:
        if item.text != item.text.strip() or re.search(
            r"(^|\n)\s*(---|\*\*|#)|[\x00-\x08]", item.text
        ):
            yield Finding(
                "stray_marks",
                f"{item.id} has blanks around its text or left-over markup; a model reads them",
                (item.id,),
            )


def _domains(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        if pair.clinical.domain != pair.neutral.domain:
            yield Finding(
                "domain",
                f"{pair.id} is of domain {pair.clinical.domain!r}, its neutral of "
                f"{pair.neutral.domain!r}; the pair counts to the former",
                (pair.clinical.id, pair.neutral.id),
            )


def _clusters(battery: Battery) -> Iterable[Finding]:
    sizes = Counter(p.cluster for p in battery.pairs)
    if len(set(sizes.values())) > 1:
        small, large = min(sizes.values()), max(sizes.values())
        yield Finding(
            "balance", f"clusters are of unequal size: {small} to {large} pairs", tuple(sizes)
        )
    for emotion in battery.emotions:
        count = len({p.cluster for p in battery.pairs if p.emotion == emotion})
        if count == 1:
            yield Finding(
                "clusters",
                f"{emotion} has one domain only: it cannot be both discovered and confirmed on "
                "separate domains",
                (),
            )
