"""The lexical bounds that the embedded batteries were written to, clusters left out."""

import pytest

from affectlens.data.stimuli import load_battery
from affectlens.features.config import AuditConfig
from affectlens.features.lexical import audit
from affectlens.features.lexical_card import ORDER_AWARE, LexicalCard

CONFIG = AuditConfig(n_repeats=2, n_bootstrap=0)


@pytest.fixture(scope="module")
def cards() -> dict[str, LexicalCard]:
    names = ("vignettes", "balanced", "isolexical")
    return {n: audit(load_battery(f"affectlens-{n}"), CONFIG) for n in names}


@pytest.mark.parametrize(
    ("battery", "control", "low", "high"),
    [
        ("vignettes", "words", 0, 0.80),
        ("vignettes", "function_words", 0, 0.65),
        ("vignettes", "negations", 0.45, 0.55),
        ("vignettes", "length", 0.45, 0.55),
        ("balanced", "words", 0, 0.60),
        ("balanced", "function_words", 0, 0.60),
        ("balanced", "negations", 0.45, 0.55),
        ("balanced", "length", 0.45, 0.55),
    ],
)
def test_paired_accuracy_is_within_bounds(
    cards: dict[str, LexicalCard], battery: str, control: str, low: float, high: float
) -> None:
    assert low <= cards[battery].score(control).paired_accuracy <= high


def test_isolexical_is_at_chance_for_every_bag(cards: dict[str, LexicalCard]) -> None:
    card = cards["isolexical"]
    assert card.same_multiset == 1
    for score in card.controls:
        # Order, and marks and valence rules that follow order, may differ; words may not.
        if score.control not in ORDER_AWARE | {"surface", "valence"}:
            assert (score.auroc, score.paired_accuracy) == (0.5, 0.5), score.control


def test_no_emotion_words_and_no_near_duplicates_across_clusters(
    cards: dict[str, LexicalCard],
) -> None:
    for card in cards.values():
        assert card.n_keyword_items == 0
        assert all(d.same_cluster for d in card.near_duplicates)
