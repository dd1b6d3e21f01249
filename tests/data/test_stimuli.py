"""Batteries: pairing, selection, hashes, and the embedded one."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.artifacts import sha256_json
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Stimulus, list_batteries, load_battery, make_battery
from affectlens.data.taxonomy import EMOTIONS


def pair(emotion="grief", domain="1", number=1, text="She closed the empty room."):
    name = f"{emotion}-d{domain}-v{number}"
    clinical = Stimulus(
        f"V-{name}", emotion, "peak", domain, "a label", f"N-{name}", len(text.split()),
        f"{text} {name}", "clinical",
    )  # fmt: skip
    neutral = replace(
        clinical, id=f"N-{name}", emotion="neutral", intensity="none", matched_control_id=None,
        text=f"She closed the sunny room. {name}", split="neutral",
    )  # fmt: skip
    return [clinical, neutral]


def grid(emotions=("rage", "grief"), domains=("1", "2"), numbers=(1, 2)):
    return [i for e in emotions for d in domains for n in numbers for i in pair(e, d, n)]


def test_embedded_battery_is_complete_and_balanced():
    battery = load_battery()
    assert battery.name == "affectlens-vignettes"
    per_cluster = {c: sum(p.cluster == c for p in battery.pairs) for c in battery.clusters}
    assert len(set(per_cluster.values())) == 1
    assert battery.emotions == EMOTIONS
    assert len(battery.items) == 2 * len(battery.pairs) + len(battery.unpaired)
    assert battery.licence == "CC-BY-4.0"
    assert battery.warnings == ()
    assert battery.source == "package:affectlens-vignettes"
    assert all(p.clinical.matched_control_id == p.neutral.id for p in battery.pairs)
    assert battery.texts[0] == battery.pairs[0].clinical.text
    assert load_battery().sha256 == battery.sha256


def test_known_names():
    assert [b.name for b in list_batteries() if b.offline] == [
        "affectlens-vignettes", "affectlens-balanced", "affectlens-isolexical",
    ]  # fmt: skip
    assert {b.licence for b in list_batteries() if b.offline} == {"CC-BY-4.0"}


def test_known_names_take_no_layout():
    for options in ({"layout": "items"}, {"scheme": "ekman"}):
        with pytest.raises(StimulusError, match="has a fixed layout"):
            load_battery("affectlens-balanced", **options)


def test_neutral_takes_the_emotion_of_its_partner():
    battery = make_battery("b", pair("terror", "2"), "test")
    assert battery.items[1].emotion == "terror"
    assert battery.pairs[0].cluster == battery.pairs[0].neutral.cluster == "terror/2"
    assert battery.pairs[0].id == "V-terror-d2-v1"


def test_items_without_pairs_are_kept():
    alone = replace(pair()[0], id="m", split="moderate", matched_control_id=None)
    plain = replace(alone, id="c", split="complex_neutral", emotion="neutral", domain="")
    battery = make_battery("b", [*pair(), alone, plain], "test")
    assert [i.id for i in battery.unpaired] == ["m", "c"]
    assert len(battery.pairs) == 1
    assert [i.id for i in make_battery("u", [plain], "t").items] == ["c"]


def retold(item, **changes):
    changes = {"id": f"p-{item.id}", "split": "paraphrase", "variant_of": item.id, **changes}
    return replace(item, matched_control_id=None, **changes)


def test_variants_are_found_and_kept_with_their_scene():
    grief, other = pair(), pair("rage", "2")
    items = [
        *grief, *other, retold(grief[0]), retold(grief[1]),
        retold(grief[0], id="m", split="moderate"), retold(other[0], id="r"),
        retold(grief[0], id="p-m", variant_of="m"),
    ]  # fmt: skip
    battery = make_battery("b", items, "test")
    assert [i.id for i in battery.variants(grief[0].id)] == ["p-V-grief-d1-v1", "m"]
    assert [i.id for i in battery.variants(grief[1].id)] == ["p-N-grief-d1-v1"]
    assert battery.variants("p-m") == ()
    kept = battery.select(emotions=["grief"])
    assert [i.id for i in kept.unpaired] == ["p-V-grief-d1-v1", "p-N-grief-d1-v1", "m", "p-m"]
    assert battery.select().sha256 == battery.sha256
    assert battery.select(limit=2).unpaired == ()
    with pytest.raises(StimulusError, match="has no item 'V-grief'; did you mean 'V-grief-d1-v1'"):
        battery.variants("V-grief")


def test_hash_of_items_without_variants_is_what_it_was():
    battery = make_battery("b", pair(), "test")
    values = [{k: v for k, v in asdict(i).items() if k != "variant_of"} for i in battery.items]
    assert battery.sha256 == sha256_json(values)
    first = make_battery("b", [*pair(), retold(pair()[0])], "test")
    second = make_battery("b", [*pair(), retold(pair()[0], variant_of="N-grief-d1-v1")], "test")
    assert first.sha256 != second.sha256


def test_labelled_items_alone_and_valences():
    item = Stimulus("a", "negative", "unrated", "", "", None, 2, "Rain again.", "labelled")
    plain = replace(item, id="b", emotion="neutral", intensity="none")
    calm = replace(item, id="c", emotion="rage")
    battery = make_battery("b", [item, plain, calm], "test")
    assert (battery.pairs, battery.clusters) == ((), ())
    assert battery.emotions == ("rage", "negative")
    assert len(battery.unpaired) == 3
    assert battery.select(emotions=["rage"]).texts == ("Rain again.",)
    assert item.person == "third"
    assert replace(item, text="I like rain.").person == "first"


BROKEN = {
    "paraphrase of nothing": (
        [*pair(), replace(retold(pair()[0]), variant_of=None)],
        "a paraphrase without variant_of",
    ),
    "variant of itself": (
        [*pair(), retold(pair()[0], variant_of="p-V-grief-d1-v1")],
        "variant_of names the item itself",
    ),
    "variant of nobody": (
        [*pair(), retold(pair()[0], variant_of="V-grief-d1")],
        "variant_of 'V-grief-d1' is not in the battery; did you mean 'V-grief-d1-v1'",
    ),
    "variants in a circle": (
        [
            *pair(),
            retold(pair()[0], id="a", variant_of="b"),
            retold(pair()[0], id="b", variant_of="a"),
        ],
        "2 problems.*\n.*variant_of leads back to the item",
    ),
    "no control": ([replace(pair()[0], matched_control_id=None)], "without matched_control_id"),
    "absent control": ([pair()[0]], "'N-grief-d1-v1' is not in the battery"),
    "lone neutral": ([pair()[1]], "no clinical item names this neutral"),
    "control is clinical": (
        [*pair(), replace(pair(number=2)[0], matched_control_id="V-grief-d1-v1")],
        "is a clinical item, not a neutral one",
    ),
    "shared control": (
        [*pair(), replace(pair(number=2)[0], matched_control_id="N-grief-d1-v1")],
        "already belongs to 'V-grief-d1-v1'",
    ),
    "other emotion": (
        [pair()[0], replace(pair()[1], emotion="rage")],
        "a control carries the same emotion or 'neutral'",
    ),
    "wrong way back": (
        [pair()[0], replace(pair()[1], matched_control_id="V-x")],
        "it names 'V-x' as its partner",
    ),
    "duplicate": ([*pair(), pair()[0]], "this id was used before \\(item 1\\)"),
    "empty text": ([replace(pair()[0], text=" \n"), pair()[1]], "the text is empty"),
    "empty id": ([replace(pair()[0], id=" "), pair()[1]], "the id is empty"),
    "unknown emotion": ([replace(pair()[0], emotion="greif"), pair()[1]], "nearest: 'grief'"),
    "clinical without emotion": (
        [replace(pair()[0], emotion="neutral"), pair()[1]],
        "must carry an emotion",
    ),
    "no domain": ([replace(pair()[0], domain=" "), pair()[1]], "needs a domain"),
    "surrogate": ([replace(pair()[0], text="a\ud800"), pair()[1]], "lone surrogate U\\+D800"),
    "surrogate elsewhere": ([replace(pair()[0], domain="\udfff"), pair()[1]], "domain: lone"),
    "nul": ([replace(pair()[0], text="a\x00b"), pair()[1]], "NUL at character 1"),
    "split": ([replace(pair()[0], split="train")], "split is 'train'; allowed: clinical"),
    "nothing": ([], "has no items"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_battery_is_refused_by_name(case):
    items, message = BROKEN[case]
    with pytest.raises(StimulusError, match=message):
        make_battery("b", items, "test")


def test_many_problems_are_counted_and_the_first_listed():
    items = [replace(pair(number=n)[0], matched_control_id=None) for n in range(12)]
    with pytest.raises(StimulusError, match="12 problems:") as caught:
        make_battery("b", items, "test")
    assert str(caught.value).endswith("... and 4 more")


def test_select_by_emotion_and_cluster():
    battery = make_battery("b", grid(), "test")
    assert battery.select(emotions=["grief"]).emotions == ("grief",)
    assert battery.select(emotions="grief").sha256 == battery.select(["grief"]).sha256
    chosen = battery.select(clusters=["rage/2", "grief/1"])
    assert chosen.clusters == ("rage/2", "grief/1")
    assert battery.select().sha256 == battery.sha256 != chosen.sha256


def test_limit_spreads_over_emotions_then_clusters():
    battery = make_battery("b", grid(), "test")
    assert battery.select(limit=2).clusters == ("rage/1", "grief/1")
    assert len(battery.select(limit=4).clusters) == 4
    assert len(battery.select(limit=99).pairs) == 8


def test_limit_leaves_unpaired_items_out():
    alone = replace(pair()[0], id="m", split="moderate", matched_control_id=None)
    battery = make_battery("b", [*grid(), alone], "test")
    assert battery.select(limit=8).unpaired == ()
    assert battery.select(emotions=["grief"]).unpaired == (alone,)
    assert battery.select(emotions=["rage"]).unpaired == ()


def test_select_refuses_what_is_not_there():
    battery = make_battery("b", grid(), "test")
    with pytest.raises(StimulusError, match="no emotion 'greif'; did you mean 'grief'"):
        battery.select(emotions=["greif"])
    with pytest.raises(StimulusError, match="no cluster 'grief/9'"):
        battery.select(clusters=["grief/9"])
    with pytest.raises(StimulusError, match="at least 1"):
        battery.select(limit=0)
    with pytest.raises(StimulusError, match="nothing of battery"):
        battery.select(emotions=["rage"], clusters=["grief/1"])


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(StimulusError, match="did you mean 'affectlens-vignettes'"):
        load_battery("affectlens-vignette")


@settings(deadline=None, max_examples=50)
@given(st.permutations(grid()), st.integers(1, 10))
def test_pairs_hold_in_any_order(items, limit):
    battery = make_battery("b", items, "test").select(limit=limit)
    assert len(battery.pairs) == min(limit, 8)
    assert len(battery.items) == 2 * len(battery.pairs)
    assert all(p.neutral.id[1:] == p.clinical.id[1:] for p in battery.pairs)


def test_import_stays_light():
    code = (
        "import sys; from affectlens.data.stimuli import load_battery; load_battery();"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
