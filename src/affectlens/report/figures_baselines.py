"""AUROC by method and layer: where the SAE stands among methods that need none."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.look import THEME
from affectlens.display.words import ALL, plural
from affectlens.features.baseline_columns import EMBEDDING_LAYER, LAYERED_METHODS

from .baselines import BASELINES, NAMES, main_evaluation, sae_layer
from .loading import RunData
from .theme import FigureSpec, canvas, dress, legend

_POINTS = ("sae_latent", "sae_probe")
_LINE_MARKERS = {
    "dense_probe": "o",
    "difference_of_means": "s",
    "single_neuron": "^",
    "random_direction": "x",
}


def baselines_figure(data: RunData) -> FigureSpec | None:
    """AUROC over layers for emotional against neutral, and on average over the emotions."""
    table = data.rows(BASELINES)
    if table is None:
        return None
    on = main_evaluation(table)
    rows = table[table["evaluated_on"] == on]
    panels = [(name, part) for name, part in _panels(rows) if not part.empty]
    if not panels:
        return None
    layer = sae_layer(table)
    title = "How well does each method tell the texts apart, layer by layer?"
    caption = (
        "AUROC on texts that were not used for fitting: 1 is perfect, 0.5 is chance. Lines: "
        "methods that read the model’s activations at each layer (“emb” is the token embedding), "
        "without any SAE. Dashed: words alone, without the model. Stars: the SAE’s features, at "
        "its layer. "
        + (
            "Bands and bars are 95% intervals from resampling scene groups. "
            if _intervals(panels)
            else ""
        )
        + "A line above the star of the best single feature means that the SAE is not needed to "
        "tell these texts apart."
    )

    def draw(*, narrow: bool) -> Figure:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        figure = canvas(title, narrow=narrow, height=2 + 2.6 * shape[0] if narrow else 4.2)
        grid = figure.subplots(*shape, squeeze=False, sharey=True)
        for axes, (name, part) in zip(grid.flat, panels):
            _panel(axes, part, layer, name.replace(" (", "\n(") if narrow else name)
        grid.flat[0].set_ylabel("AUROC")
        if narrow:
            for axes in grid.flat:
                axes.set_ylabel("AUROC")
        legend(figure, grid.flat[0], narrow=narrow)
        return figure

    alt = f"AUROC of {rows['method'].nunique()} methods over {rows['layer'].nunique()} layers."
    return FigureSpec("baselines", title, caption, alt, draw)


def _panels(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of 'all', and the means over the emotions, which have no interval."""
    everything = rows[rows["target"] == ALL]
    emotions = rows[rows["target"] != ALL]
    n_pairs = int(everything["n_pairs"].max()) if len(everything) else 0
    mean = emotions.groupby(["method", "layer"], dropna=False, as_index=False)["auroc"].mean()
    mean = mean.assign(low=np.nan, high=np.nan)
    n = int(emotions["target"].nunique())
    return [
        (f"emotional against neutral (n = {n_pairs} pairs)", everything),
        (f"one emotion against the others (mean, n = {plural(n, 'emotion')})", mean),
    ]


def _intervals(panels: list[tuple[str, pd.DataFrame]]) -> bool:
    return any(bool(part["low"].notna().any()) for _, part in panels)


def _panel(axes: Axes, part: pd.DataFrame, layer: int, subtitle: str) -> None:
    dress(axes, subtitle=subtitle, grid="y")
    layers = sorted({int(v) for v in part["layer"].dropna()})
    place = {value: i for i, value in enumerate(layers)}
    colours = {"dense_probe": THEME.blue, "difference_of_means": THEME.ink}
    for method in LAYERED_METHODS:
        rows = part[part["method"] == method].sort_values("layer")
        if rows.empty:
            continue
        x = [place[int(v)] for v in rows["layer"]]
        colour = colours.get(method, THEME.muted if method == "single_neuron" else THEME.faint)
        marker = _LINE_MARKERS[method]
        axes.plot(
            x,
            rows["auroc"],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.5,
            label=NAMES[method],
        )
        if method == "dense_probe" and rows["low"].notna().all():
            axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.14, linewidth=0)
    _words(axes, part)
    _features(axes, part, place[layer])
    axes.axhline(0.5, color=THEME.faint, linewidth=0.9, linestyle=":")
    axes.set_xticks(range(len(layers)), ["emb" if v == EMBEDDING_LAYER else str(v) for v in layers])
    axes.set_xlabel("layer")
    axes.set_ylim(min(0.45, float(part["auroc"].min()) - 0.03), 1.02)


def _words(axes: Axes, part: pd.DataFrame) -> None:
    rows = part[part["method"] == "tfidf_words"]
    if len(rows):
        axes.axhline(
            float(rows["auroc"].iloc[0]),
            color=THEME.ink,
            linestyle="--",
            linewidth=1.1,
            label=NAMES["tfidf_words"],
        )


def _features(axes: Axes, part: pd.DataFrame, x: int) -> None:
    for method, marker, size in zip(_POINTS, ("*", "P"), (150, 60)):
        rows = part[part["method"] == method]
        if rows.empty:
            continue
        value = float(rows["auroc"].iloc[0])
        low, high = float(rows["low"].iloc[0]), float(rows["high"].iloc[0])
        if np.isfinite(low):
            axes.vlines(x, low, high, color=THEME.red, linewidth=1.4, zorder=4)
        axes.scatter(
            [x],
            [value],
            s=size,
            marker=marker,
            color=THEME.red,
            edgecolors=THEME.paper,
            linewidths=0.8,
            zorder=5,
            label=NAMES[method],
        )
