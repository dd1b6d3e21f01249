"""Every rule of writing is found when broken, with the items concerned, and quiet when kept."""

from dataclasses import replace

import pytest

from affectlens.data.errors import ConfigError
from affectlens.data.stimuli import Stimulus, load_battery, make_battery
from affectlens.features._words import names
from affectlens.features.findings import guess_profile, validate

CALM = "I took the kettle off the stove and read the paper until the rain had gone over the hill."
SHORT = {"V": "clinical", "N": "neutral", "K": "keyword_rich", "P": "paraphrase"}


def item(key, text, emotion="grief", domain="1", twin=None, **more):
    split = SHORT[key[0]]
    return Stimulus(key, emotion, "peak", domain, "", twin, len(text.split()), text, split, **more)


def pairs(*texts, emotion="grief"):
    """A battery of pairs (emotional text, calm text), in turn in domains 1 and 2."""
    items = []
    for n, (clinical, neutral) in enumerate(texts):
        domain = str(n % 2 + 1)
        items.append(item(f"V{n}", clinical, emotion, domain, f"N{n}"))
        items.append(item(f"N{n}", neutral, emotion, domain))
    return make_battery("mine", items, "test")


def kinds(battery, profile="vignettes"):
    return {f.kind: f for f in validate(battery, profile)}


def third(text):
    return text.replace("I ", "She ")


CLEAN = [(CALM, CALM.replace("rain", "fog")), (third(CALM), third(CALM).replace("off", "from"))]


def test_a_clean_battery_has_no_findings():
    assert validate(pairs(*CLEAN)) == []


@pytest.mark.parametrize(
    ("kind", "text", "ids"),
    [
        ("emotion_word", CALM + " It was grievous.", ("N0",)),
        ("bodily_sign", CALM + " My stomach turned.", ("N0",)),
        ("procedural", CALM.replace("read", "reviewed"), ("N0",)),
        ("length", CALM + " Two more words stood here.", ("V0", "N0")),
        ("negators", CALM.replace("the rain", "no rain"), ("V0", "N0")),
        ("person", third(CALM), ("V0", "N0")),
        ("repeated", CALM, ("V0", "N0")),
        ("stray_marks", CALM + "\n\n---", ("N0",)),
    ],
)
def test_a_broken_rule_names_its_items(kind, text, ids):
    made = pairs((CALM, text), CLEAN[1])
    assert kinds(made)[kind].ids == ids


def test_the_clinical_member_is_held_to_the_same_words():
    made = pairs((CALM + " She wept.", CLEAN[0][1] + " She slept."), CLEAN[1])
    found = kinds(made)
    assert found["emotion_word"].ids == ("V0",)
    assert "'wept' (grief)" in found["emotion_word"].message


def test_procedural_words_on_both_sides_are_no_register():
    both = CALM.replace("read", "reviewed")
    assert "procedural" not in kinds(pairs((both, both.replace("rain", "fog")), CLEAN[1]))


def test_balance_of_clusters_persons_and_names():
    many = pairs(*CLEAN, (CALM + " So Ana said.", CALM + " So Ana went."))
    assert kinds(many)["balance"].message.endswith("1 to 2 pairs")
    one = make_battery("mine", [replace(i, domain="1") for i in pairs(*CLEAN).items], "test")
    assert "grief has one domain only" in kinds(one)["clusters"].message
    text = "The bus was late, so {} walked along the river and {} bought bread."
    same = pairs(*[(text.format("Ana", w), text.format("Ana", w + "s")) for w in "abcd"])
    found = kinds(same)
    assert found["name"].ids == ("V0", "V1", "V2", "V3")
    assert "0 of 4 pairs are told in the first person" in found["person"].message


def test_keyword_rich_items_must_name_an_emotion_and_paraphrases_must_differ():
    base = pairs(*CLEAN)
    made = make_battery(
        "mine",
        [
            *base.items,
            item("K1", CALM + " Well."),
            item("K2", CALM + " I was sad, so sad."),
            item("P1", CALM + " Again.", variant_of="V0"),
            item("P2", "Steam rose; outside, drizzle crossed a ridge, newsprint lay open.",
                 variant_of="V0"),
        ],
        "test",
    )  # fmt: skip
    found = kinds(made)
    assert found["keyword_rich"].ids == ("K1",)
    assert found["paraphrase"].ids == ("P1",)


def test_balanced_wants_one_clause_and_counterbalanced_words():
    a, b = "The left gate was shut", "The right gate was shut"
    assert validate(pairs((a, b), (f"I saw: {b}", f"I saw: {a}")), "balanced") == []
    found = kinds(pairs((a, b), (f"I saw: {a}", f"I saw: {b}")), "balanced")
    assert found["one_sided_word"].ids == ("V0", "V1")
    long = " ".join(f"w{'abcdefghijklmnopqrstuvwxyz'[i]}" for i in range(22))
    assert "clause" in kinds(pairs((long, long.replace("w", "v")), CLEAN[1]), "balanced")


def test_isolexical_wants_the_same_words():
    a, b = "The dog in the house bit a man.", "The man in the house bit a dog."
    assert guess_profile(pairs((a, b), (b, a))) == "isolexical"
    made = pairs((a, b), (f"I say: {a}", f"I say: {b} Too."))
    found = kinds(made, "isolexical")
    assert found["same_words"].ids == ("V1", "N1")
    assert "only the calm one {'too': 1}" in found["same_words"].message


def test_profiles():
    assert guess_profile(load_battery()) == "vignettes"
    with pytest.raises(ConfigError, match="unknown profile 'lists'; allowed: vignettes"):
        validate(load_battery(), "lists")


def test_names_are_capitalised_words_inside_sentences():
    assert names('On Monday, "Ana saw Mr Bell, and Ana went to Oslo.') == ("Ana", "Bell", "Oslo")
