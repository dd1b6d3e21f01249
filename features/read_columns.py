"""Columns of the table of read positions, with what they hold; light, no torch."""

from __future__ import annotations

TOKENS_BEFORE = 8
"""Tokens shown before the last token that is read."""

READS_COLUMNS: dict[str, str] = {
    "item_id": "item of the battery",
    "n_read": "tokens that enter the item's value; 1 or more",
    "position": "where the last of them stands, from 0, prefix included",
    "token": "that token, decoded",
    "before": f"up to {TOKENS_BEFORE} tokens before it, decoded and joined",
}
