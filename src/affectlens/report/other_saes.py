"""Tables that set the found features beside other SAEs: seeds, widths, designs, layers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from affectlens.display.words import ALL, contrast_label, count, number, share

from .loading import RunData
from .tables import Cell, Head, Row, Table, words

KINDS = {
    "own": "this run",
    "seed": "another seed",
    "training": "trained otherwise",
    "width": "another width",
    "design": "another architecture or k",
    "layer": "another layer",
}
"""How an SAE differs, in words."""


def stability_table(data: RunData) -> Table | None:
    """How many of the found features come again in each other SAE."""
    table = data.rows("validity/stability")
    if table is None:
        return None
    rows = []
    for (other, kind), part in table.groupby(["other", "kind"], sort=False):
        same_place = kind != "layer"
        again, sure = int(part.recurs.sum()), int(part.match_confirmed.sum())
        cells = (
            Cell(f"{again} of {len(part)}" if same_place else "–"),
            Cell(number(part.cosine.median())),
            Cell(number(part.chance_cosine.median())),
            Cell(number(part.correlation.median())),
            Cell(number(part.best_correlation.median())),
            Cell(f"{sure} of {len(part)}"),
        )
        rows.append(Row(str(other), cells, below=KINDS.get(str(kind), str(kind))))
    heads = (
        Head("SAE", num=False),
        Head("Found again"),
        Head("Cosine", "median of the best"),
        Head("By chance", "best of random ones"),
        Head("Correlation", "of the match"),
        Head("Correlation", "of the best"),
        Head("Confirmed there"),
    )
    return Table("The found features looked for in other SAEs", heads, tuple(rows))


def comparison_table(data: RunData) -> Table | None:
    """What the same search finds in other SAEs."""
    table = data.rows("validity/comparison")
    if table is None:
        return None
    rows = []
    for (sae,), label, part in searches(table, ["sae"]):
        sought = part.n_sought.sum()
        again = part.n_recur.dropna()
        cells = (
            words(label),
            Cell(count(part.n_tested.max())),
            Cell(count(part.n_fwer.sum())),
            Cell(f"{count(part.n_confirmed.sum())} of {count(part.n_retained.sum())}"),
            Cell(number(part.first_auroc.median())),
            Cell(f"{count(again.sum())} of {count(sought)}" if len(again) else "–"),
            Cell(share(part.base_recur.median()) if len(again) else "–"),
        )
        first = part.iloc[0]
        kind = KINDS.get(str(first["kind"]), str(first["kind"]))
        rows.append(Row(sae, cells, below=f"{kind}, layer {count(first['layer'])}"))
    heads = (
        Head("SAE", num=False),
        Head("Search", num=False),
        Head("Tested"),
        Head("Pass max-T"),
        Head("Confirmed"),
        Head("AUROC", "first, kept aside"),
        Head("Found again"),
        Head("Of any tested"),
    )
    return Table("The same search in other SAEs", heads, tuple(rows))


def searches(
    table: pd.DataFrame, keys: list[str]
) -> Iterator[tuple[tuple[str, ...], str, pd.DataFrame]]:
    """(values of `keys`, kind of search, rows), for any emotion and for the others together."""
    for values, part in table.groupby(keys, sort=False):
        for label, rows in (
            (contrast_label(ALL), part[part.contrast == ALL]),
            ("single emotions", part[part.contrast != ALL]),
        ):
            if len(rows):
                yield tuple(str(v) for v in values), label, rows
