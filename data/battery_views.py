"""What a battery shows of itself: a card, its items and pairs as tables, lengths within pairs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import listed, plural

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from affectlens.data.stimuli import Battery

ITEM_COLUMNS = (
    *("id", "emotion", "domain", "domain_label", "split", "intensity", "matched_control_id"),
    *("variant_of", "word_count", "text"),
)
PAIR_COLUMNS = (
    *("id", "neutral_id", "emotion", "cluster", "domain_label", "words_clinical"),
    *("words_neutral", "clinical", "neutral"),
)


class BatteryViews(Shown):
    """Card, tables and figures of a battery."""

    @property
    def table(self) -> pd.DataFrame:
        """One row an item, in file order."""
        import pandas as pd

        battery = cast("Battery", self)
        rows = [[getattr(item, c) for c in ITEM_COLUMNS] for item in battery.items]
        return pd.DataFrame(rows, columns=list(ITEM_COLUMNS))

    @property
    def pairs_table(self) -> pd.DataFrame:
        """One row a pair: ids, cluster, words of both members and their texts."""
        import pandas as pd

        rows = [
            (
                *(p.id, p.neutral.id, p.emotion, p.cluster, p.clinical.domain_label),
                *(p.clinical.word_count, p.neutral.word_count, p.clinical.text, p.neutral.text),
            )
            for p in cast("Battery", self).pairs
        ]
        return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))

    @property
    def plot(self) -> BatteryPlots:
        """Figures on matplotlib axes: `lengths`."""
        return BatteryPlots(cast("Battery", self))

    def _card(self) -> Card:
        return battery_card(cast("Battery", self))


class BatteryPlots:
    """Figures of a battery; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, battery: Battery) -> None:
        self._battery = battery

    def lengths(self, *, ax: Axes | None = None) -> Axes:
        """Words of each emotional text against its neutral twin."""
        from affectlens.display.battery_figures import lengths

        return lengths(self._battery.pairs_table, battery=self._battery.name, ax=ax)


def battery_card(battery: Battery) -> Card:
    """What a battery holds, and what to ask before it is used."""
    n = len(battery.pairs)
    splits = Counter(item.split for item in battery.unpaired)
    facts = {
        "emotions": listed(battery.emotions, 10),
        "pairs": f"{n:,} in {plural(len(battery.clusters), 'cluster')} (emotion × domain)",
        "items outside pairs": ", ".join(f"{k} {c:,}" for k, c in splits.items()) or "none",
        "licence": battery.licence,
        "read from": battery.source,
    }
    columns = {"id": "id", "cluster": "cluster", "clinical": "emotional text", "neutral": "twin"}
    calls = {
        "al.audit(battery)": "how far words alone tell the members of pairs apart",
        "battery.table": "one row an item",
        "battery.plot.lengths()": "words within pairs",
        "al.search(lm, sae, battery, store=store)": "features that respond to its emotions",
    }
    if not n:
        calls = {"battery.table": "one row an item"}
    return Card(
        "Battery",
        f"{battery.name}, {plural(len(battery.items), 'text')}"
        + (f" with {plural(n, 'matched pair')}" if n else " without pairs"),
        facts,
        f"While reading: {'; '.join(battery.warnings[:3])}." if battery.warnings else "",
        first_rows(battery.pairs_table, "battery.pairs_table", columns, 3),
        calls,
    )
