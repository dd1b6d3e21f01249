"""What a lexical card shows of itself at a prompt and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.data.errors import ConfigError
from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import number, plural, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from affectlens.features.lexical_card import LexicalCard


class LexicalViews(Shown):
    """Card and figures of an audit."""

    @property
    def plot(self) -> LexicalPlots:
        """Figures on matplotlib axes: `controls`, `words`."""
        return LexicalPlots(cast("LexicalCard", self))

    def _card(self) -> Card:
        return lexical_view(cast("LexicalCard", self))


class LexicalPlots:
    """Figures of an audit; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, card: LexicalCard) -> None:
        self._card = card

    def controls(self, grouping: str = "cluster", *, ax: Axes | None = None) -> Axes:
        """What each control reaches on items it was not fitted to.

        Raises:
            ConfigError: no control was scored with that grouping.
        """
        from affectlens.display.battery_figures import controls

        card, scores = self._card, self._card.table
        own = scores[scores["grouping"] == grouping]
        if own.empty:
            known = ", ".join(dict.fromkeys(scores["grouping"])) or "none"
            raise ConfigError(f"got grouping {grouping!r}; the card has: {known}")
        threshold, n = card.threshold, card.n_pairs
        return controls(own, battery=card.battery, threshold=threshold, n_pairs=n, ax=ax)

    def words(self, n: int = 20, *, ax: Axes | None = None) -> Axes:
        """The words that most often stand on one side of a pair only.

        Raises:
            ConfigError: n below 1.
        """
        from affectlens.display.battery_figures import words

        if n < 1:
            raise ConfigError(f"got n={n}; need at least 1 word")
        card = self._card
        return words(card.words_table, battery=card.battery, n=n, n_pairs=card.n_pairs, ax=ax)


def lexical_view(card: LexicalCard) -> Card:
    """What words alone tell of a battery, as a card."""
    scores = card.table
    strongest = scores.sort_values("auroc", ascending=False) if len(scores) else scores
    facts = {
        "pairs": f"{card.n_pairs:,} in {plural(card.n_clusters, 'cluster')}",
        "chance": f"0.50; guessing stays below a paired accuracy of {number(card.chance_95)} in "
        "95 of 100 cases",
        "pairs of exactly the same words": share(card.same_multiset),
        "items with emotion words": f"{card.n_keyword_items:,}",
        "near duplicates": f"{card.n_near_duplicates:,}",
    }
    columns = {
        "meaning": "control",
        "grouping": "left out",
        "auroc": "AUROC",
        "paired_accuracy": "paired accuracy",
        "above": "above the threshold",
    }
    calls = {
        "card.table": "every control with intervals",
        "card.plot.controls()": "the same as a figure; or .words",
        "card.words_table": "the most one-sided words",
    }
    if card.warning:
        calls['al.load_battery("affectlens-isolexical")'] = "pairs of the same words"
    return Card(
        "LexicalCard",
        f"what words alone tell of {card.battery}, before any model",
        facts,
        card.warning,
        first_rows(strongest, "card.table", columns),
        calls,
    )
