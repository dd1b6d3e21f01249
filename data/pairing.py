"""Rules that hold between the items of a battery: who is whose control, who retells whom."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.data.taxonomy import NEUTRAL

if TYPE_CHECKING:
    from affectlens.data.stimuli import Pair, Stimulus


def place_of(index: int, item: Stimulus, places: Mapping[int, str]) -> str:
    """Where an item stands, to begin a message with."""
    return f"{places.get(index, f'item {index + 1}')}, id {item.id!r}: "


def pairing_problems(
    items: Sequence[Stimulus], by_id: Mapping[str, int], places: Mapping[int, str]
) -> list[str]:
    """Breaches of the pairing, each with the place and the id of the item."""
    problems: list[str] = []
    owner: dict[str, str] = {}
    for index, item in enumerate(items):
        at = place_of(index, item, places)
        if item.split != "clinical":
            continue
        control = item.matched_control_id
        if not control:
            problems.append(f"{at}a clinical item without matched_control_id; name its neutral")
        elif control not in by_id:
            near = difflib.get_close_matches(control, list(by_id), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"{at}matched_control_id {control!r} is not in the battery{hint}")
        elif items[by_id[control]].split != "neutral":
            split = items[by_id[control]].split
            problems.append(f"{at}its control {control!r} is a {split} item, not a neutral one")
        elif control in owner:
            problems.append(f"{at}its control {control!r} already belongs to {owner[control]!r}")
        else:
            owner[control] = item.id
            partner = items[by_id[control]]
            if partner.emotion not in (NEUTRAL, item.emotion):
                problems.append(
                    f"{at}its emotion is {item.emotion!r}, its control {control!r} says "
                    f"{partner.emotion!r}; a control carries the same emotion or 'neutral'"
                )
    for index, item in enumerate(items):
        at = place_of(index, item, places)
        if item.split == "neutral" and by_id.get(item.id) == index:
            if item.id not in owner:
                problems.append(
                    f"{at}no clinical item names this neutral as its control; pair it, or give it "
                    "the split 'complex_neutral'"
                )
            elif item.matched_control_id not in (None, owner[item.id]):
                problems.append(
                    f"{at}it names {item.matched_control_id!r} as its partner, but it is the "
                    f"control of {owner[item.id]!r}"
                )
    return problems


def variant_problems(
    items: Sequence[Stimulus], by_id: Mapping[str, int], places: Mapping[int, str]
) -> list[str]:
    """Breaches of the rules of `variant_of`, each with the place and the id of the item."""
    problems: list[str] = []
    for index, item in enumerate(items):
        at = place_of(index, item, places)
        origin = item.variant_of
        if origin is None:
            if item.split == "paraphrase":
                problems.append(f"{at}a paraphrase without variant_of; name the item it retells")
        elif origin == item.id:
            problems.append(f"{at}variant_of names the item itself; name the item it retells")
        elif origin not in by_id:
            near = difflib.get_close_matches(origin, list(by_id), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"{at}variant_of {origin!r} is not in the battery{hint}")
        elif _circular(item, items, by_id):
            problems.append(f"{at}variant_of leads back to the item; name the original of all")
    return problems


def _circular(item: Stimulus, items: Sequence[Stimulus], by_id: Mapping[str, int]) -> bool:
    seen = {item.id}
    origin = item.variant_of
    while origin is not None and origin in by_id:
        if origin in seen:
            return origin == item.id
        seen.add(origin)
        origin = items[by_id[origin]].variant_of
    return False


def retold(item: Stimulus, known: Mapping[str, Stimulus]) -> Stimulus:
    """The item that a paraphrase retells, at the end of the chain; any other item is itself."""
    while item.split == "paraphrase" and (origin := known.get(item.variant_of or "")) is not None:
        item = origin
    return item


def with_variants(kept: set[str], unpaired: Sequence[Stimulus]) -> set[str]:
    """Ids of `kept` and of the unpaired items that retell one of them, directly or not."""
    found = set(kept)
    size = -1
    while size != len(found):
        size = len(found)
        found |= {i.id for i in unpaired if i.variant_of in found}
    return found


def share_emotion(items: Sequence[Stimulus], by_id: Mapping[str, int]) -> list[Stimulus]:
    """Give each paired neutral the emotion (and, where it has none, the domain) of its partner."""
    shared = list(items)
    for item in items:
        if item.split == "clinical" and item.matched_control_id is not None:
            index = by_id[item.matched_control_id]
            neutral = shared[index]
            shared[index] = replace(
                neutral, emotion=item.emotion, domain=neutral.domain or item.domain
            )
    return shared


def in_turn(pairs: Sequence[Pair]) -> list[Pair]:
    """Order pairs so that any first n are spread over emotions, then over their clusters."""
    in_cluster: Counter[str] = Counter()
    clusters: dict[str, dict[str, int]] = {}
    ranked = []
    for index, pair in enumerate(pairs):
        places = clusters.setdefault(pair.emotion, {})
        place = places.setdefault(pair.cluster, len(places))
        ranked.append(((in_cluster[pair.cluster], place, index), pair))
        in_cluster[pair.cluster] += 1
    return [pair for _, pair in sorted(ranked, key=lambda entry: entry[0])]
