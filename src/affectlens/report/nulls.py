"""The section on SAEs that learned nothing from the trained model, beside this one."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from affectlens.display.words import count, listing, number, plural, share

from .loading import RunData
from .other_saes import searches
from .passport import SAME_BUDGET
from .tables import Cell, Head, Row, Table, words

OWN = ("this SAE", SAME_BUDGET)
"""Names of the rows that are no null; the second is trained as long as the nulls."""

NAMES = {
    SAME_BUDGET: "this place, trained as long as the nulls",
    "random-model": "a model with random weights",
    "embedding": "the token embeddings alone",
}
"""Each SAE in words."""

SEARCHED = "searched"


@dataclass(frozen=True)
class NullsSection:
    """What the section shows.

    Attributes:
        lead: counts side by side and what follows from them; '' if nothing could be compared.
        table: one row an SAE, way of reading and kind of search.
        reached: how many found features the nulls reach.
        remarks: what has to be known to read a row, an (SAE, remark) each.
    """

    lead: str
    table: Table
    reached: Table | None
    remarks: tuple[tuple[str, str], ...]


def nulls_section(data: RunData) -> NullsSection | None:
    """The section; None if no such SAE was searched."""
    table = data.rows("search/nulls")
    if table is None:
        return None
    remarks = table[["sae", "remark"]].dropna().astype(str).drop_duplicates()
    return NullsSection(
        _lead(table),
        _counts(table),
        _reached(data),
        tuple((name(r.sae), r.remark) for r in remarks.itertuples() if r.remark),
    )


def name(sae: str) -> str:
    """An SAE in words; its own name if it is not known."""
    return NAMES.get(sae, sae)


def _lead(table: pd.DataFrame) -> str:
    said = []
    for pooling in dict.fromkeys(str(p) for p in table.pooling):
        own = table[(table.pooling == pooling) & (table.status == SEARCHED)]
        found = {str(s): int(p.n_confirmed.sum()) for s, p in own.groupby("sae", sort=False)}
        base = next((s for s in reversed(OWN) if s in found), None)
        nulls = {s: n for s, n in found.items() if s not in OWN}
        if base is None or not nulls:
            continue
        listed = listing([f"{n:,} in {name(s)}" for s, n in nulls.items()])
        ours = "this SAE" if base == OWN[0] else "an SAE of this place trained as long"
        said.append(
            f"Texts read by “{pooling}”: {plural(found[base], 'finding')} confirmed in {ours}, "
            f"{listed}. {_follows(found[base], max(nulls.values()))}"
        )
    return " ".join(said)


def _follows(own: int, most: int) -> str:
    if most == 0 and own:
        return "Where there is nothing learned, nothing was confirmed."
    if most >= own:
        return "So confirmation alone is no sign of anything that the model has learned."
    return "So a part of such findings is there without anything learned."


def _counts(table: pd.DataFrame) -> Table:
    rows = []
    for (sae, pooling), label, part in searches(table, ["sae", "pooling"]):
        done = part[part.status == SEARCHED]
        if done.empty:
            cells = [Cell("–", str(part.status.iloc[0])) for _ in range(5)]
        else:
            cells = [
                Cell(count(done.n_tested.max())),
                Cell(count(done.n_significant_fwer.sum())),
                Cell(count(done.n_retained.sum())),
                Cell(count(done.n_confirmed.sum())),
                Cell(number(done.max_confirm_d_z.max(), sign=True)),
            ]
        note = "" if len(done) else str(part.status.iloc[0])
        rows.append(
            Row(name(sae), (words(label), words(pooling), *cells), below=note or _trained(part))
        )
    heads = (
        Head("SAE trained on", num=False),
        Head("Search", num=False),
        Head("Read by", num=False),
        Head("Tested"),
        Head("Pass max-T"),
        Head("Candidates"),
        Head("Confirmed"),
        Head("Largest d_z", "kept aside"),
    )
    return Table("The same search in SAEs that have learned nothing", heads, tuple(rows))


def _trained(part: pd.DataFrame) -> str:
    fvu = part.fvu.iloc[0]
    lost = "" if pd.isna(fvu) else f", loses {share(float(fvu))}"
    return f"{part.hook.iloc[0]}{lost}"


def _reached(data: RunData) -> Table | None:
    table = data.table("search/null_latents")
    own = None if table is None else table[table.confirmed & table.share_reaching.notna()]
    if own is None or own.empty:
        return None
    rows = []
    for (sae, pooling), label, part in searches(own, ["sae", "pooling"]):
        beyond = int((part.n_reaching == 0).sum())
        rows.append(
            Row(
                name(sae),
                (
                    words(label),
                    words(pooling),
                    Cell(f"{beyond} of {len(part)}"),
                    Cell(share(part.share_reaching.median())),
                    Cell(count(part.n_others.max())),
                ),
            )
        )
    heads = (
        Head("SAE trained on", num=False),
        Head("Search", num=False),
        Head("Read by", num=False),
        Head("Beyond all of its candidates"),
        Head("Share that reaches one", "median"),
        Head("Its candidates"),
    )
    caption = "Confirmed features of this SAE whose effect no candidate of the other one reaches"
    return Table(caption, heads, tuple(rows))
