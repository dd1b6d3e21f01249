"""What an edit costs on neutral text: a test of equivalence, never 'no difference was found'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.arms import TITLES, effect_arm
from affectlens.display.words import capital, contrast_label, number, plural, probability

from .loading import RunData
from .tables import Cell, Head, Row, Table

DAMAGE = "effects/damage"


@dataclass(frozen=True)
class DamageView:
    """The sentence that comes first, and every test."""

    line: str
    table: Table


def damage_view(data: RunData) -> DamageView | None:
    """The view; None where damage was not tested."""
    table = data.rows(DAMAGE)
    if table is None:
        return None
    rows = tuple(_row(r) for r in table.itertuples())
    heads = (
        Head("Edit", "emotion", num=False),
        Head("Arm", num=False),
        Head("KL", "nats a token; 95% bound"),
        Head("Loss change", "nats a token; 90% interval"),
        Head("p, KL"),
        Head("p, loss"),
        Head("Stays within both margins", num=False),
    )
    margins = f"KL {table.margin_kl.max():g}, loss ±{table.margin_ce.max():g}"
    n = plural(int(table.n_documents.max()), "document")
    return DamageView(_line(table), Table(f"Damage on {n} (margins: {margins})", heads, rows))


def _line(table: pd.DataFrame) -> str:
    chosen = table[table.arm == "chosen"]
    n, shown = len(chosen), int(chosen.no_damage.sum())
    margin = (
        f"KL below {table.margin_kl.max():g} and a change of the next-token loss within "
        f"±{table.margin_ce.max():g} nats a token, margins set beforehand"
    )
    said = (
        f"On neutral text {shown or 'none'} of {plural(n, 'edit')} "
        f"{'is' if shown < 2 else 'are'} shown to do no more damage than the margins allow "
        f"({margin})."
    )
    if n - shown:
        off = (chosen.ce_low > chosen.margin_ce) | (chosen.ce_high < -chosen.margin_ce)
        beyond = int(off.sum())
        said += (
            f" For the other {n - shown} it is not shown, which by itself is no proof of harm"
            + (
                f"; for {beyond} the loss is shown to change by more than its margin."
                * bool(beyond)
            )
            + "." * (not beyond)
        )
    splice = table[table.arm == "splice"]
    if len(splice):
        r = next(splice.itertuples())
        said += (
            f" For scale: the SAE’s reconstruction alone costs {number(r.ce_change, 3, sign=True)} "
            f"nats a token (KL {number(r.kl, 3)})."
        )
    return said


def _row(r: Any) -> Row:
    what = TITLES.get(str(r.intervention), str(r.intervention)) or "reconstruction, no edit"
    name = capital(what) + (f" at {r.strength:g}×" if r.strength else "")
    note = f"{int(r.n_documents)} documents, {int(r.n_tokens):,} tokens"
    verdict = Cell("shown", note, "holds") if r.no_damage else Cell("not shown", note, "open")
    cells = (
        Cell(effect_arm(str(r.arm)).label, num=False),
        Cell(number(r.kl, 3), below=f"at most {number(r.kl_high, 3)}"),
        Cell(number(r.ce_change, 3, sign=True), below=_ends(r.ce_low, r.ce_high)),
        Cell(probability(r.p_kl)),
        Cell(probability(r.p_ce)),
        verdict,
    )
    return Row(name, cells, below=contrast_label(str(r.emotion)))


def _ends(low: float, high: float) -> str:
    ends = [number(v, 3, sign=True) for v in (low, high)]
    return "–" if "–" in ends else " to ".join(ends)
