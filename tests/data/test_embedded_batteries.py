"""The batteries that ship: counts, pairing, rules of writing, same words, second readings."""

from collections import Counter

import pytest

from affectlens.data.ratings import read_ratings, second_reading
from affectlens.data.stimuli import Battery, list_batteries, load_battery
from affectlens.data.taxonomy import EMOTIONS
from affectlens.features._words import tokens
from affectlens.features.findings import validate

NAMES = ("affectlens-vignettes", "affectlens-balanced", "affectlens-isolexical")
SHAPES = {NAMES[0]: (6, 4), NAMES[1]: (3, 4), NAMES[2]: (4, 2)}


@pytest.fixture(scope="module", params=NAMES)
def battery(request: pytest.FixtureRequest) -> Battery:
    return load_battery(request.param)


def test_every_embedded_battery_is_listed() -> None:
    assert [b.name for b in list_batteries() if b.offline] == list(NAMES)


def test_emotions_domains_and_pairs(battery: Battery) -> None:
    domains, pairs = SHAPES[battery.name]
    sizes = Counter(p.cluster for p in battery.pairs)
    assert sizes == {f"{e}/{d}": pairs for e in EMOTIONS for d in map(str, range(1, domains + 1))}
    assert battery.licence == "CC-BY-4.0"
    assert battery.warnings == ()
    first = sum(p.clinical.person == "first" for p in battery.pairs)
    assert 0.4 <= first / len(battery.pairs) <= 0.6


def test_no_rule_of_writing_is_broken(battery: Battery) -> None:
    assert validate(battery) == []


def test_ascii_quotes_and_no_text_twice(battery: Battery) -> None:
    assert all(i.text.isascii() for i in battery.items)
    assert len({i.text for i in battery.items}) == len(battery.items)


def test_vignettes_have_their_other_sets() -> None:
    battery = load_battery(NAMES[0])
    sizes = Counter(i.split for i in battery.unpaired)
    assert sizes == {"moderate": 48, "complex_neutral": 48, "keyword_rich": 80, "paraphrase": 96}
    by_id = {i.id: i for i in battery.items}
    moderate = [i for i in battery.items if i.split == "moderate"]
    assert {by_id[i.variant_of or ""].cluster for i in moderate} == set(battery.clusters)
    told = Counter(i.variant_of for i in battery.items if i.split == "paraphrase")
    assert len(told) == 48
    assert set(told.values()) == {2}
    assert Counter(by_id[i or ""].emotion for i in told) == dict.fromkeys(EMOTIONS, 6)


def test_isolexical_members_hold_exactly_the_same_words() -> None:
    for pair in load_battery(NAMES[2]).pairs:
        assert Counter(tokens(pair.clinical.text)) == Counter(tokens(pair.neutral.text)), pair.id
        assert tokens(pair.clinical.text) != tokens(pair.neutral.text), pair.id


def test_balanced_words_stand_as_often_on_either_side() -> None:
    battery = load_battery(NAMES[1])
    surplus: Counter[str] = Counter()
    for pair in battery.pairs:
        surplus.update(Counter(tokens(pair.clinical.text)))
        surplus.subtract(Counter(tokens(pair.neutral.text)))
    assert {w: n for w, n in surplus.items() if n} == {}


def test_the_second_reading_is_of_these_texts(battery: Battery) -> None:
    path = second_reading(battery.name)
    assert path is not None
    ratings = read_ratings(path)
    ratings.check(battery)
    read = {r.item for r in ratings.rows}
    assert {i.id for p in battery.pairs for i in (p.clinical, p.neutral)} <= read
    assert ratings.raters == ("second reading (language model)",)
