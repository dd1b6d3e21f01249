"""The picture of a battery: what words alone reach, and what a model reaches, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.look import THEME
from affectlens.display.words import plural
from affectlens.features.lexical_card import CONTROLS, LexicalCard

from .theme import FigureSpec, canvas, dress, legend, render

NAMES = {
    "words": "words (TF-IDF)",
    "words_paired": "words, fitted to differences",
    "bigrams": "words and word pairs",
    "function_words": "function words",
    "content_words": "content words",
    "ending": "last 20 words",
    "characters": "characters",
    "surface": "surface statistics",
    "negations": "negations",
    "length": "length",
    "valence": "valence (VADER)",
    "emotion_words": "emotion lexicon",
    "static_embedding": "static embedding",
}


@dataclass(frozen=True)
class Bar:
    """One row of the picture: a control or a probe, with its two scores and their intervals."""

    label: str
    auroc: float
    auroc_low: float | None
    auroc_high: float | None
    paired: float
    paired_low: float | None
    paired_high: float | None


def battery_figure(card: LexicalCard, probes: Sequence[Bar] = ()) -> FigureSpec:
    """Scores of every control with clusters left out (pairs, if there is one cluster only).

    `probes` are drawn below the controls, in the same scale.
    """
    grouping = "cluster" if any(s.grouping == "cluster" for s in card.controls) else "pair"
    bars = [
        Bar(
            NAMES[s.control],
            s.auroc,
            s.auroc_low,
            s.auroc_high,
            s.paired_accuracy,
            s.paired_low,
            s.paired_high,
        )
        for name in CONTROLS
        for s in card.controls
        if (s.control, s.grouping) == (name, grouping)
    ]
    title = f"{card.battery}: what tells emotional from neutral texts"
    caption = (
        f"{plural(card.n_pairs, 'pair')} in {plural(card.n_clusters, 'scene group')}. Each "
        f"classifier was fitted to part of them and scored on {grouping}s it had not seen; bars "
        "are 95 % intervals over scene groups. 0.5 is chance. Words right of the dashed line can "
        "stand in for emotion in any paired test."
    )
    above = [b.label for b in bars if max(b.auroc, b.paired) > card.threshold]
    alt = (
        f"Lexical controls of {card.battery}; above {card.threshold}: {', '.join(above) or 'none'}."
    )

    def draw(*, narrow: bool) -> Figure:
        rows = [*bars, *probes]
        figure = canvas(title, narrow=narrow, height=1.5 + 0.3 * len(rows))
        axes = figure.add_subplot()
        dress(axes, subtitle=f"{grouping}s left out; chance is 0.5", grid="x")
        _rows(axes, rows)
        axes.axvline(0.5, color=THEME.muted, linewidth=1)
        axes.axvline(card.threshold, color=THEME.muted, linewidth=1, linestyle="--")
        if probes:
            axes.axhline(len(probes) - 0.5, color=THEME.faint, linewidth=0.8)
        axes.set_xlim(min(0.35, *(min(b.auroc, b.paired) - 0.05 for b in rows)), 1.02)
        axes.set_xlabel("score on texts not seen in fitting")
        legend(figure, axes, narrow=narrow)
        return figure

    return FigureSpec("battery", title, caption, alt, draw)


class Probed(Protocol):
    """A contextual card as far as the picture needs it (its module needs torch)."""

    @property
    def probes(self) -> Sequence[Any]:
        """Rows with `layer`, `place`, the two scores and their intervals."""


def probe_bars(card: Probed, place: str = "suffix_last") -> tuple[Bar, ...]:
    """The probes of one place as rows of the picture, first layer first."""
    return tuple(
        Bar(
            f"probe, layer {p.layer}",
            p.auroc,
            p.auroc_low,
            p.auroc_high,
            p.paired_accuracy,
            p.paired_low,
            p.paired_high,
        )
        for p in card.probes
        if p.place == place
    )


def write_battery_figure(spec: FigureSpec, folder: Path) -> tuple[Path, Path]:
    """Write the picture as PNG and SVG into a folder; returns both paths.

    Raises:
        MachineError: the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    render(spec, folder)
    return folder / f"{spec.name}.png", folder / f"{spec.name}.svg"


def _rows(axes: Axes, rows: Sequence[Bar]) -> None:
    places = range(len(rows) - 1, -1, -1)
    series = (
        ("AUROC", THEME.blue, "o", 0.13, [(b.auroc, b.auroc_low, b.auroc_high) for b in rows]),
        (
            "paired accuracy",
            THEME.red,
            "D",
            -0.13,
            [(b.paired, b.paired_low, b.paired_high) for b in rows],
        ),
    )
    for label, colour, marker, shift, values in series:
        for place, (_, low, high) in zip(places, values, strict=True):
            if low is not None and high is not None:
                axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.6, alpha=0.55)
        axes.scatter(
            [v for v, _, _ in values],
            [p + shift for p in places],
            s=26,
            c=colour,
            marker=marker,
            label=label,
            zorder=3,
            linewidths=0,
        )
    axes.set_yticks(list(places), [b.label for b in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
