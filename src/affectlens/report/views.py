"""What the template shows: feature tables, shaded contexts, verdicts, texts side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from affectlens.features.results import Context, Generation

from .figures_effects import TITLES, at_reported_strength
from .findings import doubtful_readouts
from .loading import RunData
from .text import contrast_label, listing, number, plural, probability, share, shorten

ROWS_SHOWN = 4
SNIPPETS_SHOWN = 3
TOKENS_EACH_SIDE = 14
GROUPS_SHOWN = 16
TEXT_LIMIT = 900
WORDS_LIMIT = 160
SHADES = 9
"""Steps of token shading: classes s0 (silent) to s9, as the policy allows no inline style."""


@dataclass(frozen=True)
class Token:
    """A token with its shade (0 to `SHADES`) and activation; its leading space is not shaded."""

    space: str
    text: str
    shade: int
    activation: str


@dataclass(frozen=True)
class Snippet:
    """A place in the corpus where a feature fires."""

    where: str
    tokens: tuple[Token, ...]
    cut_left: bool
    cut_right: bool


@dataclass(frozen=True)
class FeatureRow:
    """One feature of one contrast, formatted; `keys` are the raw values to sort by."""

    feature: int
    confirmed: bool
    d_z: str
    confirm_d_z: str
    confirm_auroc: str
    confirm_p: str
    firing: str
    snippets: tuple[Snippet, ...]
    keys: tuple[float, ...]


@dataclass(frozen=True)
class ContrastBlock:
    """The retained features of one contrast."""

    name: str
    title: str
    summary: str
    n_confirmed: int
    rows: tuple[FeatureRow, ...]
    note: str


@dataclass(frozen=True)
class VerdictRow:
    """One emotion under one intervention."""

    emotion: str
    effect: str
    random: str
    advantage: str
    p: str
    rank_p: str
    passes: bool
    simpler: str
    doubtful: bool


@dataclass(frozen=True)
class VerdictBlock:
    """Every emotion under one intervention."""

    title: str
    predicted: str
    n_passed: int
    rows: tuple[VerdictRow, ...]


@dataclass(frozen=True)
class ReadoutRow:
    """One emotion's readout check."""

    emotion: str
    n_pairs: int
    difference: str
    d_z: str
    auroc: str
    p: str
    works: bool
    words: str


@dataclass(frozen=True)
class TextColumn:
    """One written text with what was done to the model."""

    label: str
    note: str
    kind: str
    text: str


@dataclass(frozen=True)
class TextGroup:
    """Texts from one prompt, side by side."""

    emotion: str
    prompt: str
    columns: tuple[TextColumn, ...]


def contrast_blocks(data: RunData) -> list[ContrastBlock]:
    """One block for 'all' and one for each emotion, in the order of the search."""
    if data.features is None or data.summary is None:
        return []
    snippets: dict[int, list[Snippet]] = {}
    for context in data.contexts:
        snippets.setdefault(context.feature, []).append(snippet(context))
    firing = {} if data.stats is None else dict(zip(data.stats.feature, data.stats.firing_rate))
    return [_block(data, name, snippets, firing) for name in ["all", *data.summary.emotions]]


def _block(
    data: RunData, name: str, snippets: dict[int, list[Snippet]], firing: dict[int, float]
) -> ContrastBlock:
    assert data.features is not None and data.summary is not None  # contrast_blocks checked
    table = data.features[(data.features.contrast == name) & data.features.retained]
    table = table.sort_values(["confirmed", "rank"], ascending=[False, True])
    n_confirmed = int(table.confirmed.sum())
    rows = tuple(
        _feature_row(row, snippets.get(int(row.feature), []), firing.get(row.feature))
        for row in table.head(max(ROWS_SHOWN, n_confirmed)).itertuples()
    )
    hidden = len(table) - len(rows)
    note = (
        f"{plural(hidden, 'more candidate')}, none confirmed, in search/features.csv."
        if hidden
        else ""
    )
    status = f"{n_confirmed} confirmed" if n_confirmed else "none confirmed"
    title = (
        "Any emotion: emotional against neutral"
        if name == "all"
        else f"{name[:1].upper()}{name[1:]}"
    )
    return ContrastBlock(
        name, title, f"{status} of {plural(len(table), 'candidate')}", n_confirmed, rows, note
    )


def _feature_row(row: Any, snippets: list[Snippet], firing: float | None) -> FeatureRow:
    keys = (
        row.feature,
        row.d_z,
        row.confirm_d_z,
        row.confirm_auroc_paired,
        row.confirm_p_holm,
        float("nan") if firing is None else firing,
    )
    return FeatureRow(
        feature=int(row.feature),
        confirmed=bool(row.confirmed),
        d_z=number(row.d_z, sign=True),
        confirm_d_z=number(row.confirm_d_z, sign=True),
        confirm_auroc=share(row.confirm_auroc_paired),
        confirm_p=probability(row.confirm_p_holm),
        firing=share(firing),
        snippets=tuple(snippets[:SNIPPETS_SHOWN]),
        keys=tuple(float(k) for k in keys),
    )


def snippet(context: Context) -> Snippet:
    """A context cut around its peak, tokens shaded by activation relative to the peak."""
    start = max(0, context.peak - TOKENS_EACH_SIDE)
    stop = min(len(context.tokens), context.peak + TOKENS_EACH_SIDE + 1)
    top = max([a for a in context.activations if a > 0], default=0.0)
    tokens = tuple(
        Token(
            " " if text.startswith(" ") else "",
            text.removeprefix(" ").replace("\n", "↵"),
            _shade(value, top),
            number(value),
        )
        for text, value in zip(context.tokens[start:stop], context.activations[start:stop])
    )
    where = f"{context.doc_id}, token {context.position}"
    return Snippet(where, tokens, start > 0, stop < len(context.tokens))


def _shade(value: float, top: float) -> int:
    return 0 if not value > 0 or top <= 0 else max(1, min(SHADES, round(SHADES * value / top)))


def verdict_blocks(data: RunData) -> list[VerdictBlock]:
    """The verdicts, one table for each intervention; every test is in it."""
    if data.verdicts is None:
        return []
    doubtful, simpler = set(doubtful_readouts(data)), _simpler(data)
    blocks = []
    for name, part in data.verdicts.groupby("intervention", sort=False):
        rows = tuple(
            _verdict_row(v, simpler.get((str(v.emotion), str(name))), v.emotion in doubtful)
            for v in part.itertuples()
        )
        predicted = "higher" if part.direction.iloc[0] == "raise" else "lower"
        title = TITLES.get(str(name), str(name))
        blocks.append(VerdictBlock(title, predicted, int(part.beats_random.sum()), rows))
    return blocks


def _verdict_row(verdict: Any, simpler: float | None, doubtful: bool) -> VerdictRow:  # noqa: FBT001
    low, high = (number(v, sign=True) for v in (verdict.random_low, verdict.random_high))
    ends = (number(v, sign=True) for v in (verdict.advantage_low, verdict.advantage_high))
    return VerdictRow(
        emotion=contrast_label(str(verdict.emotion)),
        effect=number(verdict.effect, sign=True),
        random=f"{low} to {high}",
        advantage=f"{number(verdict.advantage, sign=True)} ({' to '.join(ends)})",
        p=probability(verdict.p_holm),
        rank_p=probability(verdict.rank_p),
        passes=bool(verdict.beats_random),
        simpler=number(simpler, sign=True),
        doubtful=doubtful,
    )


def _simpler(data: RunData) -> dict[tuple[str, str], float]:
    if data.effects is None or data.effects.empty:
        return {}
    table = at_reported_strength(data)
    part = table[table.arm == "diff_of_means"]
    return {(str(r.emotion), str(r.intervention)): float(r.effect) for r in part.itertuples()}


def simpler_method(data: RunData) -> str:
    """How the chosen features compare with the difference of means, which needs no SAE."""
    found = _simpler(data)
    if data.verdicts is None or not found:
        return ""
    sign = {"lower": -1.0, "raise": 1.0}
    cases = [
        (
            sign.get(str(v.direction), 1.0),
            float(v.effect),
            found[(str(v.emotion), str(v.intervention))],
        )
        for v in data.verdicts.itertuples()
        if (str(v.emotion), str(v.intervention)) in found
    ]
    wins = sum(s * chosen > s * other for s, chosen, other in cases)
    return (
        f"The plain difference of means, which needs no SAE, moved the readout further than the "
        f"chosen features in "
        f"{len(cases) - wins} of {plural(len(cases), 'test')}."
    )


def readout_rows(data: RunData) -> list[ReadoutRow]:
    """Does the measure rise on the emotion's own texts?"""
    if data.readout is None:
        return []
    doubtful = set(doubtful_readouts(data))
    return [
        ReadoutRow(
            contrast_label(str(r.emotion)),
            int(r.n_pairs),
            number(r.mean_diff, sign=True),
            number(r.d_z, sign=True),
            share(r.auroc_paired),
            probability(r.p),
            r.emotion not in doubtful,
            shorten(", ".join(w.strip() for w in str(r.words).split(",")), WORDS_LIMIT),
        )
        for r in data.readout.itertuples()
    ]


def readout_sentence(data: RunData) -> str:
    """Which emotions' readouts can be read."""
    if data.readout is None or data.readout.empty:
        return "The readout was not checked."
    doubtful = doubtful_readouts(data)
    n = len(data.readout)
    if not doubtful:
        return f"The measure rises on the emotion’s own texts for all {n} readouts."
    return (
        f"The measure works for {n - len(doubtful)} of {n} readouts. It does not reliably rise "
        f"on its own texts for "
        f"{listing([contrast_label(e) for e in doubtful])}: effects on those say little."
    )


def dropped_words(data: RunData) -> str:
    """Words that could not be read because the tokenizer splits them."""
    if data.effects_summary is None:
        return ""
    lost = {e: w for e, w in data.effects_summary.dropped_words.items() if w}
    if not lost:
        return ""
    named = "; ".join(f"{e}: {', '.join(words)}" for e, words in lost.items())
    return f"Left out because the tokenizer splits them: {named}."


def text_groups(data: RunData) -> tuple[list[TextGroup], int]:
    """Written texts by emotion and prompt, unedited first, and how many groups are not shown."""
    ordered = sorted(data.generations, key=_group_key)
    groups = [_group(list(rows)) for _, rows in groupby(ordered, key=_group_key)]
    return groups[:GROUPS_SHOWN], max(0, len(groups) - GROUPS_SHOWN)


def _group_key(row: Generation) -> tuple[str, str, int]:
    return row.emotion, row.prompt, row.seed


def _group(rows: list[Generation]) -> TextGroup:
    arms = {"chosen": 0, "random": 1}
    ordered = sorted(rows, key=lambda r: (r.strength != 0, arms.get(r.arm, 2), r.strength))
    return TextGroup(
        contrast_label(rows[0].emotion), rows[0].prompt, tuple(_without_repeats(ordered))
    )


def _without_repeats(rows: Iterable[Generation]) -> Iterable[TextColumn]:
    unedited: set[str] = set()
    for row in rows:
        text = shorten(row.text, TEXT_LIMIT)
        if row.strength == 0:
            # Every arm at strength 0 is the same unedited model: one column is enough.
            if row.text not in unedited:
                yield TextColumn("Unedited", f"seed {row.seed}", "plain", text)
            unedited.add(row.text)
            continue
        named = ", ".join(str(f) for f in row.features[:6]) + (
            " …" if len(row.features) > 6 else ""
        )
        kind = row.arm if row.arm in ("chosen", "random") else "other"
        label = {"chosen": "Chosen features", "random": "Random features"}.get(row.arm, row.arm)
        yield TextColumn(
            f"{label} at {row.strength:g}×",
            f"features {named}" if named else "direction",
            kind,
            text,
        )
