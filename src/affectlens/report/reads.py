"""Where texts are read: the rule in words, and the tokens that were read last."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from affectlens.display.words import drawn, number, plural, share
from affectlens.features.results import SearchSummary

from .loading import RunData

READS = "search/reads"
TOKENS_SHOWN = 6
_LIMIT = 70

RULES = {
    "mean": "the mean over the text’s own tokens",
    "max": "the largest value over the text’s own tokens",
    "last": "its value on the text’s last token",
    "firing": "the share of the text’s own tokens on which it is active",
    "suffix": "the mean over the tokens of a sentence that ends every text alike",
    "suffix_last": "its value on the last token of a sentence that ends every text alike",
    "readout": "its value on the last token of a question that ends every text alike",
}
"""What one value of a feature on a text is, by pooling."""


@dataclass(frozen=True)
class ReadRow:
    """One token at which texts end to be read; `before` and `token` are one example."""

    token: str
    n: str
    share: str
    before: str
    example: str
    item: str


@dataclass(frozen=True)
class ReadsView:
    """The rule, in words, and the tokens; no rows where the run does not hold them."""

    rule: str
    sentence: str
    rows: tuple[ReadRow, ...]
    note: str


def reads_view(data: RunData) -> ReadsView | None:
    """Where the search read the texts; None if it was not run."""
    if data.summary is None:
        return None
    table = data.table(READS)
    rule = _rule(data.summary)
    if table is None or table.empty:
        return ReadsView(rule, "The tokens read were not recorded in this run.", (), "")
    groups = table["token"].value_counts(sort=False)
    # Ties in number stand in the order of the alphabet, so that the page does not depend on pandas.
    ordered = sorted(groups.items(), key=lambda pair: (-int(pair[1]), str(pair[0])))
    rows = tuple(_row(table, str(token), int(n)) for token, n in ordered[:TOKENS_SHOWN])
    hidden = len(ordered) - len(rows)
    note = f"{plural(hidden, 'more token')} in search/reads.csv." if hidden else ""
    return ReadsView(rule, _sentence(table), rows, note)


def _rule(s: SearchSummary) -> str:
    said = f" (“{s.suffix.strip()}”)" if s.suffix.strip() else ""
    rule = RULES.get(s.pooling, f"its value under the rule “{s.pooling}”")
    same = ", so that the words read are the same in both twins" if said else ""
    return f"The value of a feature on a text is {rule}{said}{same}."


def _sentence(table: pd.DataFrame) -> str:
    n, low, high = table["n_read"].mean(), table["n_read"].min(), table["n_read"].max()
    per = (
        plural(int(low), "token")
        if low == high
        else f"{number(n, 0)} tokens on average ({int(low)} to {int(high)})"
    )
    tokens = int(table["token"].nunique())
    last = (
        "the last one is the same in every text"
        if tokens == 1
        else f"{tokens:,} different last ones"
    )
    return f"{plural(len(table), 'text')}, {per} read in each; {last}."


def _row(table: pd.DataFrame, token: str, n: int) -> ReadRow:
    first = table[table["token"] == token].iloc[0]
    return ReadRow(
        token=drawn(token),
        n=f"{n:,}",
        share=share(n / len(table)),
        before=_tail(str(first["before"])),
        example=token.replace("\n", "↵"),
        item=str(first["item_id"]),
    )


def _tail(text: str) -> str:
    text = text.replace("\n", "↵")
    return text if len(text) <= _LIMIT else f"…{text[-_LIMIT:]}"
