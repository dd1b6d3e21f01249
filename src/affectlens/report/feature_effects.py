"""What editing one feature does to the output, beside its controls.

Alone, as the screen measured it, beside the features that the screen drew at random; and together
with the other chosen features, as the interventions tested it, beside their random sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.arms import TITLES, effect_arm
from affectlens.display.words import capital, contrast_label, number, plural, probability

from .feature_drawings import Strip, strip
from .figures_effects import at_reported_strength
from .loading import RunData
from .readout_check import doubtful_readouts
from .screening import KINDS, SCREEN

_RANDOM = ("random", "both")
"""Why the screen measured a feature: it was drawn at random."""


@dataclass(frozen=True)
class EffectLine:
    """One effect: what was done, its value in nats, what its controls did, and both drawn."""

    title: str
    value: str
    controls: str
    strip: Strip | None
    note: str = ""


@dataclass(frozen=True)
class FeatureEffects:
    """Effects of the feature alone and in the sets it was part of, and its output score."""

    alone: tuple[EffectLine, ...]
    together: tuple[EffectLine, ...]
    writes: str

    def __bool__(self) -> bool:
        return bool(self.alone or self.together or self.writes)


@dataclass(frozen=True, eq=False)
class EffectSources:
    """What the effects of all features are made from, read once.

    Attributes:
        screen: rows of `search/screen` by (contrast, feature).
        drawn: measured effects of features drawn at random, by (contrast, kind), with the feature.
        verdicts: rows of `effects/verdicts` with the set's features and interval, by feature.
        random: effects of the random sets by (emotion, intervention).
        doubtful: readouts whose check failed.
    """

    screen: Mapping[tuple[str, int], Any]
    drawn: Mapping[tuple[str, str], tuple[tuple[int, float], ...]]
    verdicts: Mapping[int, tuple[tuple[Any, Any], ...]]
    random: Mapping[tuple[str, str], tuple[float, ...]]
    doubtful: frozenset[str]


def effect_sources(data: RunData, features: Sequence[int]) -> EffectSources:
    """Read what there is of the screen and the interventions."""
    screen = data.rows(SCREEN)
    own = {} if screen is None else _by_key(screen[screen.feature.isin(list(features))])
    verdicts, random = _sets(data)
    return EffectSources(
        own, _drawn(screen), verdicts, random, frozenset(doubtful_readouts(data))
    )  # fmt: skip


def feature_effects(
    feature: int, contrasts: Sequence[str], sources: EffectSources
) -> FeatureEffects:
    """The effects of one feature, read for the contrasts that found it."""
    rows = [r for c in contrasts if (r := sources.screen.get((c, feature))) is not None]
    alone = [line for row in rows for kind in KINDS if (line := _alone(row, kind, sources))]
    together = tuple(
        _together(verdict, effect, sources) for verdict, effect in sources.verdicts.get(feature, ())
    )
    return FeatureEffects(tuple(alone), together, _writes(rows))


def _alone(row: Any, kind: str, sources: EffectSources) -> EffectLine | None:
    exact, guess = getattr(row, f"exact_{kind}"), getattr(row, f"attribution_{kind}")
    title = f"{capital(KINDS[kind])} alone, read for {contrast_label(str(row.contrast))}"
    if pd.isna(exact):
        if pd.isna(guess):
            return None
        note = "estimated by gradient, not measured"
        return EffectLine(title, _nats(guess), note, None)
    others = tuple(
        value
        for feature, value in sources.drawn.get((str(row.contrast), kind), ())
        if feature != row.feature
    )
    return EffectLine(
        title,
        _nats(exact),
        _range(others, "random feature"),
        strip(float(exact), others),
        _doubt(str(row.contrast), sources),
    )


def _together(verdict: Any, effect: Any, sources: EffectSources) -> EffectLine:
    emotion, kind = str(verdict.emotion), str(verdict.intervention)
    n = len(str(effect.features).split(","))
    random = sources.random.get((emotion, kind), ())
    doubt = _doubt(emotion, sources)
    passed = "beats every random set" if verdict.beats_random else "does not beat the random sets"
    strongest = effect_arm(str(verdict.strongest_control)).label
    note = (
        f"{capital(passed)}: p, adjusted, {probability(verdict.p_holm)} (smallest possible "
        f"{probability(verdict.min_p)}; {plural(int(verdict.n_items), 'text')}). Strongest "
        f"control: {strongest}, {number(verdict.strongest_effect, sign=True)}."
    )
    return EffectLine(
        f"Set of {n}: {TITLES.get(kind, kind)}, read for {contrast_label(emotion)}",
        _nats(verdict.effect) + _ends(effect.effect_low, effect.effect_high),
        _range(random, "random set"),
        strip(float(verdict.effect), random, (effect.effect_low, effect.effect_high)),
        " ".join(filter(None, (note, doubt))),
    )


def _writes(rows: Sequence[Any]) -> str:
    """How far the feature brings up the tokens it promotes; the same in every contrast."""
    scored = [r for r in rows if not pd.isna(r.output_score)]
    if not scored:
        return ""
    r = scored[0]
    return (
        f"Added to neutral openings it brings up the tokens it promotes by an output score of "
        f"{number(r.output_score, 3)} (0 not at all, 1 to certainty; mean best rank "
        f"{number(r.output_rank, 0)})."
    )


def _nats(value: float) -> str:
    """Two digits, three where two would hide a small effect."""
    return number(value, 2 if abs(value) >= 0.1 else 3, sign=True)


def _range(values: Sequence[float], noun: str) -> str:
    known = sorted(v for v in values if math.isfinite(v))
    if not known:
        return f"no {noun} measured beside it"
    ends = f"{_nats(known[0])} to {_nats(known[-1])}"
    return f"{plural(len(known), noun)}: {ends}"


def _ends(low: float, high: float) -> str:
    ends = [_nats(v) for v in (low, high)]
    return "" if "–" in ends else f" ({ends[0]}\xa0to\xa0{ends[1]})"


def _doubt(contrast: str, sources: EffectSources) -> str:
    return (
        "The readout check failed for it: read no effect." if contrast in sources.doubtful else ""
    )


def _by_key(table: pd.DataFrame) -> dict[tuple[str, int], Any]:
    return {(str(r.contrast), int(r.feature)): r for r in table.itertuples()}


def _drawn(
    screen: pd.DataFrame | None,
) -> dict[tuple[str, str], tuple[tuple[int, float], ...]]:
    found: dict[tuple[str, str], tuple[tuple[int, float], ...]] = {}
    for kind in KINDS if screen is not None else ():
        assert screen is not None
        rows = screen[screen[f"verified_{kind}"].isin(_RANDOM) & screen[f"exact_{kind}"].notna()]
        for contrast, own in rows.groupby("contrast", sort=False):
            pairs = zip(own.feature, own[f"exact_{kind}"], strict=True)
            found[(str(contrast), kind)] = tuple((int(f), float(v)) for f, v in pairs)
    return found


def _sets(
    data: RunData,
) -> tuple[dict[int, tuple[tuple[Any, Any], ...]], dict[tuple[str, str], tuple[float, ...]]]:
    """Verdicts with the chosen set they are about, by feature; and effects of random sets."""
    verdicts, effects = data.verdicts, data.effects
    if verdicts is None or effects is None or verdicts.empty or effects.empty:
        return {}, {}
    table = at_reported_strength(data)
    chosen = {
        (str(r.emotion), str(r.intervention)): r
        for r in table[table.arm == "chosen"].itertuples()
    }  # fmt: skip
    random: dict[tuple[str, str], tuple[float, ...]] = {}
    for (emotion, kind), own in table[table.arm == "random"].groupby(["emotion", "intervention"]):
        random[(str(emotion), str(kind))] = tuple(float(e) for e in own.effect)
    by_feature: dict[int, list[tuple[Any, Any]]] = {}
    for verdict in verdicts.itertuples():
        effect = chosen.get((str(verdict.emotion), str(verdict.intervention)))
        for feature in _members(effect):
            by_feature.setdefault(feature, []).append((verdict, effect))
    return {feature: tuple(rows) for feature, rows in by_feature.items()}, random


def _members(effect: Any) -> list[int]:
    listed = "" if effect is None else str(effect.features)
    return [int(f) for f in listed.split(",") if f.strip().isdecimal()]
