"""The measurements behind docs/calibration.md: its tables and its picture.

    python benchmarks/calibration.py suffix=SUFFIX.h5 mean=MEAN.h5 --out FOLDER [--docs docs]

Each file holds a battery encoded with one pooling (`search/encoded.h5` of a run). Every one is
calibrated with the default settings, and with pairs as the unit of an emotion's test, of which only
the error rates are shown. Finished calibrations are kept. About ten minutes on two cores.

    python benchmarks/calibration.py suffix=SUFFIX.h5 mean=MEAN.h5 --equal-spread 100 --welch 20

prints instead what lies behind the errors of 'spread_cluster': the rates after every emotion's
differences were scaled to one spread, and what a t by Welch would do.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import calibration_spread
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.data.stimuli import Battery, load_battery
from affectlens.features.calibration import calibrate
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encoding import TokenActivations
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.pooling import Pooled, pool
from affectlens.features.validation_config import CalibrationConfig
from affectlens.report.theme import FigureSpec, Theme, canvas, dress, legend, render

UNITS = ("cluster", "pair")
RATES_ONLY = CalibrationConfig(
    n_repeats=200, n_planted=10, effects=(0.5,), cluster_shares=(), pairs_per_cluster=()
)
ROWS = (
    ("flip_cluster", "all", "swapped by cluster"),
    ("flip_pair", "all", "swapped by pair"),
    ("neutral_cluster", "all", "neutral pairs"),
    ("spread_cluster", "all", "spreads kept"),
    ("labels_cluster", "emotions", "labels by cluster"),
    ("neutral_cluster", "emotions", "neutral pairs"),
    ("spread_cluster", "emotions", "spreads kept"),
)
Found = Mapping[tuple[str, str], Mapping[str, pd.DataFrame]]


def read(battery: Battery, file: Path, pooling: str) -> tuple[Pooled, PairDesign]:
    """The pooled activations of an encoded battery, and its pairs."""
    pooled = pool(TokenActivations.read(file), pooling)  # type: ignore[arg-type]
    return pooled, PairDesign.from_battery(battery, pooled.item_ids)


def spread(battery: Battery, file: Path, pooling: str, n_equal: int, n_welch: int) -> str:
    """What lies behind the errors of 'spread_cluster', as Markdown."""
    pooled, design = read(battery, file, pooling)
    config = SearchConfig.parse({"pooling": pooling})
    data = PairData.of(as_sparse(pooled.values), design, config)
    return calibration_spread.report(pooling, data, n_equal, n_welch)


def measured(
    battery: Battery, file: Path, pooling: str, unit: str, out: Path
) -> dict[str, pd.DataFrame]:
    """The tables of one calibration, made unless they are there."""
    if not (out / "calibration/calibration.json").exists():
        pooled, design = read(battery, file, pooling)
        search = SearchConfig.parse({"pooling": pooling, "unit_emotion": unit})
        config = CalibrationConfig() if unit == "cluster" else RATES_ONLY
        calibrate(pooled.values, design, search, config).write(out)
    names = ("rates", "power", "detectable")
    return {n: pd.read_parquet(out / f"calibration/{n}.parquet") for n in names}


def rates_of(rates: pd.DataFrame, null: str, which: str, measure: str) -> pd.DataFrame:
    """Rates of one null: of contrast 'all', of the 'emotions' one by one, or of the 'family'."""
    own = rates[(rates["null"] == null) & (rates["measure"] == measure)]
    if which == "emotions":
        return own[~own["contrast"].isin(["all", "family"])]
    return own[own["contrast"] == which]


def rates_table(found: Found) -> str:
    """Error rates as Markdown: rate with limits, or mean and range over the emotions."""
    heads = [f"{pooling}, {unit}" for pooling, unit in found]
    lines = [
        "| data without effect | judged | measure | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for null, which, words in (*ROWS, ("labels_cluster", "family", "labels by cluster")):
        for measure in ("fwer", "confirmed", "per_test"):
            cells = []
            for (_, unit), tables in found.items():
                own = rates_of(tables["rates"], null, which, measure)
                if own.empty or (which == "all" and unit == "pair"):
                    cells.append("-")
                elif which == "emotions":
                    low, high = own["rate"].min(), own["rate"].max()
                    cells.append(f"{own['rate'].mean():.3f} ({low:.3f} to {high:.3f})")
                else:
                    (r,) = own.itertuples()
                    cells.append(f"{r.rate:.3f} [{r.low:.3f}, {r.high:.3f}]")
            if any(c != "-" for c in cells):
                lines.append(f"| {words} | {which} | {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def power_table(power: pd.DataFrame) -> str:
    """Recall by effect and size as Markdown, family-wise / BH / confirmed; then the largest FDR."""
    effects = sorted(power["d_z"].unique())
    lines = [
        "| effect on | pairs | clusters | " + " | ".join(f"d_z {e:g}" for e in effects) + " |",
        "|---|---|---|" + "---|" * len(effects),
    ]
    for (contrast, pairs, clusters), own in power.groupby(
        ["contrast", "n_pairs", "n_clusters"], sort=False
    ):
        cells = []
        for effect in effects:
            at = own[own["d_z"] == effect].groupby("measure")["value"].mean()
            cells.append(
                " / ".join(f"{at[f'recall_{c}']:.2f}" for c in ("fwer", "bh", "confirmed"))
            )
        name = "all pairs" if contrast == "all" else "one emotion"
        lines.append(f"| {name} | {pairs:.0f} | {clusters:.0f} | " + " | ".join(cells) + " |")
    worst = power[power["measure"].str.startswith("fdr")].groupby("measure")["value"].max()
    return (
        "\n".join(lines)
        + "\n\nLargest FDR: "
        + ", ".join(f"{name} {value:.3f}" for name, value in worst.items())
    )


def detectable_table(found: Found) -> str:
    """Smallest effects found with power .8, one row a size."""
    lines = [
        "| pooling | effect on | pairs, clusters in discovery | fwer | BH | confirmed | formula |",
        "|---|---|---|---|---|---|---|",
    ]
    for (pooling, unit), tables in found.items():
        if unit != "cluster":
            continue
        keys = ["contrast", "n_pairs_discovery", "n_clusters_discovery"]
        for (contrast, pairs, clusters), own in tables["detectable"].groupby(keys, sort=False):
            at = own.set_index("criterion")["detectable"]
            cells = " | ".join(f"{at[c]:.2f}" for c in ("fwer", "bh", "confirmed"))
            formula = own["formula"].dropna()
            last = f"{formula.iloc[0]:.2f}" if len(formula) else "-"
            name = "all pairs" if contrast == "all" else "one emotion"
            lines.append(f"| {pooling} | {name} | {pairs:.0f}, {clusters:.0f} | {cells} | {last} |")
    return "\n".join(lines)


def picture(found: Found) -> FigureSpec:
    """Family-wise error on the left, power on the right."""
    title = "What the search claims where nothing is, and what it finds where something is"

    def draw(theme: Theme, *, narrow: bool) -> Figure:
        figure = canvas(theme, title, narrow=narrow, height=8.2 if narrow else 4.9)
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        _errors(left, found, theme)
        _power(right, {p: t["power"] for (p, u), t in found.items() if u == "cluster"}, theme)
        legend(figure, right, theme, narrow=narrow)
        return figure

    return FigureSpec("calibration", title, "", "", draw)


def _errors(axes: Axes, found: Found, theme: Theme) -> None:
    dress(axes, theme, grid="x", subtitle="rate and 95% limits; emotions: mean and range")
    colours = {"cluster": theme.blue, "pair": theme.red}
    poolings = list(dict.fromkeys(p for p, _ in found))
    ticks = []
    for row, (null, which, words) in enumerate(ROWS):
        ticks.append(f"{words}\n({which})")
        for k, ((pooling, unit), tables) in enumerate(found.items()):
            own = rates_of(tables["rates"], null, which, "fwer")
            if own.empty or (which == "all" and unit == "pair"):
                continue
            at = row + 0.17 * (k - (len(found) - 1) / 2)
            single = which == "all"
            low, high = (
                (own["low"].min(), own["high"].max())
                if single
                else (own["rate"].min(), own["rate"].max())
            )
            marker = "os^D"[poolings.index(pooling)]
            axes.plot([low, high], [at, at], color=colours[unit], linewidth=1.2)
            axes.plot(
                own["rate"].mean(),
                at,
                marker,
                color=colours[unit],
                markersize=4.5,
                label=f"{pooling}, emotions over {unit}s" if row == 4 else None,
            )
    axes.axvline(0.05, color=theme.ink, linewidth=0.9)
    axes.set_yticks(range(len(ROWS)), ticks, fontsize=6.8)
    axes.set_ylim(len(ROWS) - 0.4, -0.6)
    axes.set_xlabel("family-wise error rate (allowed: .05)")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=7.5, labelcolor=theme.ink, loc="upper right")


def _power(axes: Axes, power: Mapping[str, pd.DataFrame], theme: Theme) -> None:
    dress(axes, theme, subtitle="planted latents found by max-T")
    colours = (theme.blue, theme.ink, theme.muted, theme.faint, theme.red)
    for (pooling, table), style in zip(power.items(), ("-", "--", ":"), strict=False):
        own = table[table["measure"] == "recall_fwer"]
        sizes = own.groupby(["contrast", "n_pairs", "n_clusters"], sort=False)
        order = sorted(sizes, key=lambda s: (s[0][0] == "emotion", -s[0][1], -s[0][2]))
        for ((contrast, pairs, clusters), curve), colour in zip(order, colours, strict=False):
            name = f"{pairs:.0f} pairs, {clusters:.0f} clusters"
            if contrast != "all":
                name = f"one emotion: {name}"
            axes.plot(
                curve["d_z"],
                curve["value"],
                style,
                color=colour,
                marker="o",
                markersize=3,
                label=name if style == "-" else None,
            )
        axes.plot([], [], style, color=theme.ink, label=f"pooling {pooling}")
    axes.axhline(0.8, color=theme.faint, linewidth=0.9)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlim(left=0)
    axes.set_xlabel("planted d_z")
    axes.set_ylabel("recall")


def main() -> None:
    """Calibrate, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoded", nargs="+", help="pooling=FILE")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--docs", type=Path, help="folder that gets calibration.png and .svg")
    parser.add_argument("--battery", default="affectlens-vignettes")
    parser.add_argument("--equal-spread", type=int, default=0, metavar="N", help="data sets")
    parser.add_argument("--welch", type=int, default=0, metavar="N", help="data sets")
    options = parser.parse_args()
    battery = load_battery(options.battery)
    files = [entry.split("=", 1) for entry in options.encoded]
    if options.equal_spread or options.welch:
        for pooling, file in files:
            print(spread(battery, Path(file), pooling, options.equal_spread, options.welch))
            print(flush=True)
        return
    found = {}
    for unit in UNITS:
        for pooling, file in files:
            folder = options.out / f"{pooling}-{unit}"
            found[pooling, unit] = measured(battery, Path(file), pooling, unit, folder)
    print(rates_table(found), end="\n\n")
    for (pooling, unit), tables in found.items():
        if unit == "cluster":
            print(f"{pooling}\n\n{power_table(tables['power'])}\n")
    print(detectable_table(found))
    render(picture(found), options.docs or options.out)


if __name__ == "__main__":
    main()
