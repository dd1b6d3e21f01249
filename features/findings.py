"""What an author should know of a battery before using it: rules of writing, each with its items.

Loading has already refused what breaks schema or pairing; what is found here does not forbid the
use of a battery. The rules are those of `docs/writing-a-battery.md`. Word lists are English.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ConfigError
from affectlens.data.stimuli import Battery, Pair, Stimulus
from affectlens.features._words import (
    BODILY_SIGNS,
    PROCEDURAL,
    is_function_word,
    is_negator,
    names,
    tokens,
)

Profile = Literal["vignettes", "balanced", "isolexical"]
PROFILES: tuple[str, ...] = get_args(Profile)

LENGTH_SHARE = 0.05
"""Largest difference in words within a pair, as a share of the longer member (one word is free)."""
PARAPHRASE_OVERLAP = 0.5
"""Largest overlap of content words between a paraphrase and what it tells again."""
CLAUSE_WORDS = 20
"""Longest stretch in which the members of a balanced pair may differ."""


@dataclass(frozen=True)
class Finding:
    """Something about a battery that its owner should know; `ids` are the items concerned."""

    kind: str
    message: str
    ids: tuple[str, ...]


def validate(battery: Battery, profile: Profile | None = None) -> list[Finding]:
    """List breaches of the rules of writing; an empty list is a clean battery.

    Args:
        battery: any battery.
        profile: what the pairs are meant to be; None takes 'isolexical' if the members of every
            pair hold the same words, 'balanced' for the battery of that name, else 'vignettes'.

    Raises:
        ConfigError: unknown profile.
    """
    chosen = profile or guess_profile(battery)
    if chosen not in PROFILES:
        raise ConfigError(f"unknown profile {chosen!r}; allowed: {', '.join(PROFILES)}")
    checks: list[Callable[[Battery], Iterable[Finding]]] = [
        _emotion_words, _bodily_signs, _procedural, _keyword_rich, _lengths, _negators, _persons,
        _repeats, _stray_marks, _domains, _clusters, _variants, _names,
    ]  # fmt: skip
    if chosen == "balanced":
        checks += [_clauses, _one_sided_words]
    if chosen == "isolexical":
        checks += [_same_words]
    findings = [Finding("reading", note, ()) for note in battery.warnings]
    for check in checks:
        findings += check(battery)
    return findings


def guess_profile(battery: Battery) -> Profile:
    """The profile that `validate` takes when none is named."""
    if battery.pairs and all(_bag(p.clinical) == _bag(p.neutral) for p in battery.pairs):
        return "isolexical"
    return "balanced" if "balanced" in battery.name else "vignettes"


def _bag(item: Stimulus) -> Counter[str]:
    return Counter(tokens(item.text))


def plain_items(battery: Battery) -> Iterable[Stimulus]:
    """Items that must do without emotion words."""
    return (i for i in battery.items if i.split not in ("keyword_rich", "labelled"))


def _emotion_words(battery: Battery) -> Iterable[Finding]:
    lexicon = own_lexicon()
    for item in plain_items(battery):
        hits = lexicon.hits(tokens(item.text))
        if hits:
            listed = ", ".join(f"{w!r} ({lexicon.index[w][0]})" for w in hits)
            yield Finding("emotion_word", f"{item.id} holds emotion words: {listed}", (item.id,))


def _bodily_signs(battery: Battery) -> Iterable[Finding]:
    for item in plain_items(battery):
        found = BODILY_SIGNS.findall(item.text)
        if found:
            yield Finding(
                "bodily_sign",
                f"{item.id} names a stock sign of emotion: {', '.join(map(repr, found))}; let the "
                "situation and the act carry it",
                (item.id,),
            )


def _procedural(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        found = sorted(set(tokens(pair.neutral.text)) & PROCEDURAL)
        own = set(tokens(pair.clinical.text))
        found = [w for w in found if w not in own]
        if found:
            yield Finding(
                "procedural",
                f"{pair.neutral.id} has words of procedures that its partner lacks: "
                f"{', '.join(found)}; write an everyday scene",
                (pair.neutral.id,),
            )


def _keyword_rich(battery: Battery) -> Iterable[Finding]:
    lexicon = own_lexicon()
    for item in battery.items:
        if item.split == "keyword_rich" and not lexicon.hits(tokens(item.text)):
            yield Finding(
                "keyword_rich", f"{item.id} is keyword-rich but names no emotion", (item.id,)
            )


def _lengths(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        a, b = pair.clinical.word_count, pair.neutral.word_count
        if abs(a - b) > max(1, LENGTH_SHARE * max(a, b)):
            yield Finding(
                "length",
                f"{pair.id} has {a} words, its neutral {pair.neutral.id} has {b}: more than "
                f"{LENGTH_SHARE:.0%} apart",
                _ids(pair),
            )


def _negators(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        a, b = (sum(map(is_negator, tokens(i.text))) for i in (pair.clinical, pair.neutral))
        if a != b:
            yield Finding(
                "negators",
                f"{pair.id} has {a} negators, its neutral {pair.neutral.id} has {b}",
                _ids(pair),
            )


def _persons(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        if pair.clinical.person != pair.neutral.person:
            yield Finding(
                "person",
                f"{pair.id} is told in the {pair.clinical.person} person, its neutral in the "
                f"{pair.neutral.person}",
                _ids(pair),
            )
    n_first = sum(p.clinical.person == "first" for p in battery.pairs)
    if battery.pairs and not 0.4 <= n_first / len(battery.pairs) <= 0.6:
        yield Finding(
            "person",
            f"{n_first} of {len(battery.pairs)} pairs are told in the first person; 40 to 60 % "
            "keeps both persons testable",
            (),
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
                _ids(pair),
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


def _variants(battery: Battery) -> Iterable[Finding]:
    by_id = {i.id: i for i in battery.items}
    for item in battery.items:
        if item.split != "paraphrase" or item.variant_of is None:
            continue
        a, b = _content(item), _content(by_id[item.variant_of])
        overlap = len(a & b) / max(len(a | b), 1)
        if overlap > PARAPHRASE_OVERLAP:
            yield Finding(
                "paraphrase",
                f"{item.id} shares {overlap:.0%} of its content words with {item.variant_of}: it "
                "is no retelling in other words",
                (item.id,),
            )


def _content(item: Stimulus) -> set[str]:
    return {w for w in tokens(item.text) if not is_function_word(w)}


def _names(battery: Battery) -> Iterable[Finding]:
    where: dict[str, list[str]] = defaultdict(list)
    for pair in battery.pairs:
        for name in names(pair.clinical.text):
            where[name].append(pair.id)
    for name, ids in where.items():
        if len(ids) > 2:
            yield Finding(
                "name", f"the name {name!r} occurs in {len(ids)} pairs; vary it", tuple(ids)
            )


def _clauses(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        a, b = tokens(pair.clinical.text), tokens(pair.neutral.text)
        start = _common(a, b)
        end = _common(a[start:][::-1], b[start:][::-1])
        longest = max(len(a), len(b)) - start - end
        if longest > CLAUSE_WORDS:
            yield Finding(
                "clause",
                f"{pair.id} differs from its neutral over {longest} words; one clause "
                f"({CLAUSE_WORDS} words at most) is allowed",
                _ids(pair),
            )


def _common(a: list[str], b: list[str]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def _one_sided_words(battery: Battery) -> Iterable[Finding]:
    surplus: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in battery.pairs:
        a, b = _bag(pair.clinical), _bag(pair.neutral)
        for word in set(a) | set(b):
            if a[word] != b[word]:
                surplus[word][pair.id] = a[word] - b[word]
    for word, counts in sorted(surplus.items()):
        total = sum(counts.values())
        if total:
            side = "emotional" if total > 0 else "calm"
            yield Finding(
                "one_sided_word",
                f"{word!r} stands {abs(total)} times more on the {side} side over the battery; "
                "use it as often on the other",
                tuple(counts),
            )


def _same_words(battery: Battery) -> Iterable[Finding]:
    for pair in battery.pairs:
        a, b = _bag(pair.clinical), _bag(pair.neutral)
        if a != b:
            yield Finding(
                "same_words",
                f"{pair.id} and its neutral do not hold the same words: only the emotional one "
                f"has {dict(a - b)}, only the calm one {dict(b - a)}",
                _ids(pair),
            )


def _ids(pair: Pair) -> tuple[str, str]:
    return pair.clinical.id, pair.neutral.id
