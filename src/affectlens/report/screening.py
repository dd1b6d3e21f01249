"""Does what the search found move the output? Overlap of both rankings, agreement, leaders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import ALL, capital, contrast_label, listing, number, plural

from .loading import RunData
from .tables import Block, Cell, Head, Row, Table, estimate, words

SCREEN, AGREEMENT = "search/screen", "search/screen_agreement"

TOP = 10
"""Leading latents of either side that are compared."""
SHOWN = 5
"""Leading latents of either side in a table."""
KINDS = {"ablate": "switched off", "clamp": "turned up"}
"""What was done to the latents, in words."""
SAMPLES = {"top": "largest estimates", "random": "random sample"}


@dataclass(frozen=True)
class Overlap:
    """Leading latents of a contrast by input, by output, and by both."""

    contrast: str
    by_input: tuple[int, ...]
    by_output: tuple[int, ...]
    n_ranked: int

    @property
    def both(self) -> tuple[int, ...]:
        """Latents that lead on both sides, best input rank first."""
        return tuple(f for f in self.by_input if f in self.by_output)

    @property
    def expected(self) -> float:
        """How many would be in both if the two rankings had nothing to do with each other."""
        n = self.n_ranked
        return len(self.by_input) * len(self.by_output) / n if n else math.nan


@dataclass(frozen=True)
class ScreenView:
    """What the section shows: sentences, overlap and agreement, leading latents by contrast."""

    leads: tuple[tuple[str, str], ...]
    overlap: Table
    agreement: Table | None
    blocks: tuple[Block, ...]


def screen_view(data: RunData) -> ScreenView | None:
    """The section; None where no screen was made."""
    table = data.rows(SCREEN)
    if table is None:
        return None
    found = overlaps(table)
    leads = (_both(found), _agree(data), _made(data))
    return ScreenView(
        tuple(lead for lead in leads if lead is not None),
        _overlap_table(found),
        _agreement_table(data),
        tuple(_block(c, table[table.contrast == c.contrast]) for c in found),
    )


def overlaps(table: pd.DataFrame) -> list[Overlap]:
    """Leading latents on both sides of each contrast, 'all' first.

    By input: the first `TOP` ranks of the search among latents that were screened. By output: the
    `TOP` clamps that raise the readout most for each unit of norm written.
    """
    contrasts = sorted(dict.fromkeys(table.contrast.astype(str)), key=lambda c: c != ALL)
    out = []
    for contrast in contrasts:
        own = table[table.contrast == contrast]
        ranked = own[own.input_rank.notna() & own.clamp_per_norm.notna()]
        rising = ranked[ranked.clamp_per_norm > 0]
        out.append(
            Overlap(
                contrast,
                _features(ranked.nsmallest(TOP, "input_rank")),
                _features(rising.nlargest(TOP, "clamp_per_norm")),
                len(ranked),
            )
        )
    return out


def overlap_sentence(found: list[Overlap]) -> str:
    """How many of the leading latents by input also lead by output, over single emotions."""
    own = _single(found)
    n, k = sum(len(o.by_input) for o in own), sum(len(o.both) for o in own)
    expected = sum(o.expected for o in own)
    return (
        f"Of the {plural(n, 'leading latent')} by response ({TOP} an emotion, "
        f"{plural(len(own), 'emotion')}) {k or 'none'} {'is' if k < 2 else 'are'} also among the "
        f"{TOP} whose clamp raises that emotion’s readout most; unrelated rankings would share "
        f"{number(expected, 1)}."
    )


def _single(found: list[Overlap]) -> list[Overlap]:
    """Those of single emotions; all where there are none."""
    return [o for o in found if o.contrast != ALL] or found


def _both(found: list[Overlap]) -> tuple[str, str]:
    named = [f"{contrast_label(o.contrast)} ({len(o.both)})" for o in _single(found) if o.both]
    where = f" They are for {listing(named)}." if named else ""
    return (
        "Detectors or levers?",
        overlap_sentence(found)
        + where
        + " The screen ranks and tests nothing: whether an edit beats its controls is said under "
        "“What changing the features does”.",
    )


def _agree(data: RunData) -> tuple[str, str] | None:
    table = _gradient(data)
    if table is None:
        return None
    parts = []
    for kind, did in KINDS.items():
        for sample, words_ in SAMPLES.items():
            own = table[(table.intervention == kind) & (table["sample"] == sample)]
            own = own[own.pearson.notna()]
            if own.empty:
                continue
            ends = f"{number(own.pearson.min())} to {number(own.pearson.max())}"
            parts.append(
                f"{did}, {words_}: median r {number(float(own.pearson.median()))} ({ends} over "
                f"{plural(len(own), 'contrast')}, {_n(own)} latents each)"
            )
    if not parts:
        return None
    return (
        "Can the estimates be trusted?",
        f"Estimated against measured effect: {'; '.join(parts)}. Estimates only rank; the effects "
        "that are quoted are measured where the table says so.",
    )


def _n(own: pd.DataFrame) -> str:
    ends = dict.fromkeys(str(int(n)) for n in (own.n.min(), own.n.max()))
    return f"n = {' to '.join(ends)}"


def _made(data: RunData) -> tuple[str, str] | None:
    s = data.screen_summary
    if s is None:
        return None
    measured = listing([f"{n:,} {KINDS.get(k, k)}" for k, n in s.n_measured.items()])
    text = (
        f"{plural(s.n_live, 'live latent')} estimated on {plural(s.n_pairs, 'discovery pair')}, "
        f"measured: {measured}. {plural(s.n_dead, 'latent')} that never fired left out."
    )
    if s.unread:
        named = "; ".join(f"{contrast_label(c)}: {why}" for c, why in s.unread.items())
        text += f" Not read: {named}."
    if s.unscored:
        text += f" No output scores: {s.unscored}."
    return "How it was made", text


def _gradient(data: RunData) -> pd.DataFrame | None:
    table = data.rows(AGREEMENT)
    return None if table is None else table[table.estimator == "gradient"]


def _overlap_table(found: list[Overlap]) -> Table:
    rows = tuple(
        Row(
            capital(contrast_label(o.contrast)),
            (
                Cell(f"{len(o.both)} of {len(o.by_input)}"),
                Cell(number(o.expected, 2)),
                words(", ".join(str(f) for f in o.both) or "none"),
                words(", ".join(str(f) for f in o.by_output[:SHOWN]) or "none"),
                Cell(f"{o.n_ranked:,}"),
            ),
        )
        for o in found
    )
    heads = (
        Head("Contrast", num=False),
        Head("In both"),
        Head("Expected", "by chance"),
        Head("Which", "latents", num=False),
        Head("Leading by output", "first five", num=False),
        Head("Latents", "ranked on both sides"),
    )
    return Table(f"The leading {TOP} by input against the leading {TOP} by output", heads, rows)


def _agreement_table(data: RunData) -> Table | None:
    table = _gradient(data)
    if table is None:
        return None
    contrasts = sorted(dict.fromkeys(table.contrast.astype(str)), key=lambda c: c != ALL)
    pairs = [(k, s) for k in KINDS for s in SAMPLES]
    rows = []
    for contrast in contrasts:
        own = table[table.contrast == contrast]
        cells = [
            _agreement_cell(own[(own.intervention == k) & (own["sample"] == s)]) for k, s in pairs
        ]
        rows.append(Row(capital(contrast_label(contrast)), tuple(cells)))
    heads = (
        Head("Contrast", num=False),
        *(Head(capital(KINDS[k]), SAMPLES[s]) for k, s in pairs),
    )
    caption = "Correlation of estimated and measured effect (Pearson r, 95% interval, n latents)"
    return Table(caption, heads, tuple(rows))


def _agreement_cell(own: pd.DataFrame) -> Cell:
    row: Any = next(own.itertuples(), None)
    if row is None:
        return Cell("–")
    rho = f"Spearman {number(row.spearman)} ({number(row.spearman_low)} to "
    rho += f"{number(row.spearman_high)}); slope {number(row.slope)}"
    n = f"n = {int(row.n)}"
    return estimate(number(row.pearson), row.pearson_low, row.pearson_high, note=n, title=rho)


def _block(found: Overlap, table: pd.DataFrame) -> Block:
    own = table.set_index("feature")
    wanted = list(dict.fromkeys([*found.by_input[:SHOWN], *found.by_output[:SHOWN]]))
    rows = tuple(_leader(f, own.loc[f], found) for f in wanted)
    heads = (
        Head("Latent", num=False),
        Head("Leads by", num=False),
        Head("d_z", "discovery; input rank"),
        Head("Estimate off", "nats"),
        Head("Measured off", "nats"),
        Head("Measured up", "nats"),
        Head("Up, per norm", "nats / 100"),
        Head("Output score", "0 to 1"),
        Head("Input score", "0 to 1"),
    )
    title = capital(contrast_label(found.contrast))
    summary = f"{len(found.both)} of {len(found.by_input)} leading by input also by output"
    return Block(title, summary, Table("", heads, rows))


def _leader(feature: int, row: Any, found: Overlap) -> Row:
    sides = (["input"] if feature in found.by_input else []) + (
        ["output"] if feature in found.by_output else []
    )
    rank = "" if pd.isna(row.input_rank) else f"rank {int(row.input_rank):,}"
    cells = (
        words(" and ".join(sides)),
        Cell(number(row.d_z, sign=True), below=rank),
        Cell(number(row.attribution_ablate, 3, sign=True)),
        Cell(
            number(row.exact_ablate, 3, sign=True), "measured" if _known(row.exact_ablate) else _NOT
        ),
        Cell(number(row.exact_clamp, sign=True), "measured" if _known(row.exact_clamp) else _NOT),
        Cell(number(100 * row.clamp_per_norm, sign=True)),
        Cell(number(row.output_score)),
        Cell(number(row.input_score)),
    )
    return Row(str(feature), cells)


_NOT = "not measured, only estimated"


def _known(value: float) -> bool:
    return not math.isnan(value)


def _features(table: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(f) for f in table.feature)
