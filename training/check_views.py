"""What a check of an SAE shows of itself: a card and its lines as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import number, plural

if TYPE_CHECKING:
    import pandas as pd

    from affectlens.training.check import SAECheck

_ORDER = ("fail", "warn", "unknown", "ok")


class CheckViews(Shown):
    """Card and table of a check."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a line: name, value, expected, verdict and why; values as text."""
        import pandas as pd

        lines = cast("SAECheck", self).lines
        rows = [(n.name, _said(n.value), n.expected, n.verdict, n.why) for n in lines]
        return pd.DataFrame(rows, columns=["name", "value", "expected", "verdict", "why"])

    def _card(self) -> Card:
        check = cast("SAECheck", self)
        table = self.table
        rank = {verdict: i for i, verdict in enumerate(_ORDER)}
        table = table.sort_values("verdict", key=lambda v: v.map(rank), kind="stable")
        bad = table[table["verdict"].isin(("fail", "warn"))]
        facts = {
            "verdict": check.verdict,
            "lines": ", ".join(f"{v} {n}" for v, n in table["verdict"].value_counts().items()),
            "measured on": f"{check.measured_on or 'nothing'} ({plural(check.n_tokens, 'token')})",
        }
        return Card(
            "SAECheck",
            check.summary,
            facts,
            "; ".join(f"{n}: {why}" for n, why in zip(bad["name"], bad["why"], strict=True)),
            first_rows(table, "check.table", ["name", "value", "expected", "verdict", "why"]),
            {"check.table": "every line", 'check.line("FVU")': "one line"},
        )


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    return number(value, 3) if isinstance(value, float) else str(value)
