"""Stimuli in matched pairs: the battery that every test and every effect is measured on.

The unit of the science is the pair (an emotional vignette and its neutral control), and pairs are
clustered by emotion x domain. A `Battery` exists only if its pairing holds: each clinical item has
exactly one neutral, each neutral exactly one clinical item, ids are unique, texts are not empty.
Items outside pairs may tell the scene of another item again (`variant_of`). A battery may have no
pairs at all, only labelled texts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from affectlens.data.artifacts import sha256_json
from affectlens.data.battery_views import BatteryViews
from affectlens.data.errors import StimulusError
from affectlens.data.pairing import (
    in_turn,
    pairing_problems,
    place_of,
    share_emotion,
    variant_problems,
    with_variants,
)
from affectlens.data.person import grammatical_person
from affectlens.data.taxonomy import LABELS, NEUTRAL, unknown_emotion

Split = Literal[
    "clinical", "neutral", "moderate", "complex_neutral", "keyword_rich", "paraphrase", "labelled"
]
SPLITS: tuple[str, ...] = get_args(Split)
"""`clinical` and `neutral` form the pairs; items of the other splits stand alone."""

_SHOWN = 8
_MOST_NAMES = 40


@dataclass(frozen=True)
class Stimulus:
    """One text of a battery.

    `emotion` is a name of the taxonomy or a valence; a neutral of a pair carries its partner's, an
    item without emotion outside pairs carries 'neutral'. `domain` numbers the situation within the
    emotion ('' where an unpaired item has none). `word_count` counts blank-separated words of
    `text`. `variant_of` is the id of the item whose scene this one tells again: a moderate telling
    of a clinical scene, a paraphrase of a clinical or neutral item.
    """

    id: str
    emotion: str
    intensity: str
    domain: str
    domain_label: str
    matched_control_id: str | None
    word_count: int
    text: str
    split: Split
    variant_of: str | None = None

    @property
    def person(self) -> Literal["first", "third"]:
        """'first' if the text is told in the first person (`person.grammatical_person`)."""
        return grammatical_person(self.text)

    @property
    def cluster(self) -> str:
        """Emotion x domain, for example 'grief/1'."""
        return f"{self.emotion}/{self.domain}"


@dataclass(frozen=True)
class Pair:
    """An emotional vignette and its matched neutral."""

    clinical: Stimulus
    neutral: Stimulus

    @property
    def id(self) -> str:
        """The id of the clinical member."""
        return self.clinical.id

    @property
    def emotion(self) -> str:
        """The emotion of the clinical member."""
        return self.clinical.emotion

    @property
    def cluster(self) -> str:
        """Emotion x domain of the clinical member, for example 'grief/1'."""
        return self.clinical.cluster


@dataclass(frozen=True, repr=False)
class Battery(BatteryViews):
    """Items in file order and the pairs among them, in the order of their clinical members.

    `sha256` is over the items (not over a file), so one battery has one hash in every file format.
    `warnings` counts what was corrected or not used while reading; nothing is dropped silently.
    Build it with `make_battery` or `load_battery`, which check the pairing.
    """

    name: str
    items: tuple[Stimulus, ...]
    pairs: tuple[Pair, ...]
    source: str
    sha256: str
    licence: str
    warnings: tuple[str, ...] = ()

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """Emotions that have pairs (or, without any pair, items), in the order of `LABELS`."""
        present = {p.emotion for p in self.pairs} or {i.emotion for i in self.items}
        return tuple(e for e in LABELS if e in present)

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """Emotion x domain clusters of the pairs, in order of first appearance."""
        return tuple(dict.fromkeys(p.cluster for p in self.pairs))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all items, in order."""
        return tuple(i.text for i in self.items)

    @property
    def pair_texts(self) -> tuple[str, ...]:
        """Texts of the clinical members of all pairs, then of their neutrals: [2 n_pairs]."""
        pairs = self.pairs
        return (*(p.clinical.text for p in pairs), *(p.neutral.text for p in pairs))

    @property
    def unpaired(self) -> tuple[Stimulus, ...]:
        """Items outside pairs: all but the clinical and neutral ones."""
        return tuple(i for i in self.items if i.split not in ("clinical", "neutral"))

    def variants(self, item_id: str) -> tuple[Stimulus, ...]:
        """Items that tell the scene of `item_id` again, in order; none if nothing does.

        Raises:
            StimulusError: the battery has no such item.
        """
        self._known([item_id], {i.id for i in self.items}, "item")
        return tuple(i for i in self.items if i.variant_of == item_id)

    def select(
        self,
        emotions: Iterable[str] | None = None,
        clusters: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Battery:
        """Keep the pairs of some emotions and clusters, at most `limit` of them.

        `limit` takes pairs in turn from each emotion and cluster, so that a short battery stays
        balanced.
        Unpaired items are kept if their emotion and cluster are asked for, variants if the item
        they retell is kept; with `limit` all of them are left out, since it is meant for quick
        trials on pairs.

        Raises:
            StimulusError: an emotion or cluster that the battery lacks, `limit` below 1, or
                nothing left.
        """
        wanted = self._known(emotions, {i.emotion for i in self.items}, "emotion")
        places = self._known(clusters, {i.cluster for i in self.items}, "cluster")
        if limit is not None and limit < 1:
            raise StimulusError(f"limit is {limit}; it must be at least 1 pair")

        def asked(item: Stimulus) -> bool:
            return (wanted is None or item.emotion in wanted) and (
                places is None or item.cluster in places
            )

        pairs = [p for p in self.pairs if asked(p.clinical)]
        if limit is not None:
            pairs = in_turn(pairs)[:limit]
        ids = {i.id for p in pairs for i in (p.clinical, p.neutral)}
        if limit is None:
            ids |= {i.id for i in self.unpaired if i.variant_of is None and asked(i)}
            ids = with_variants(ids, self.unpaired)
        items = [i for i in self.items if i.id in ids]
        if not items:
            raise StimulusError(f"nothing of battery {self.name!r} is left by this selection")
        return make_battery(self.name, items, self.source, self.licence, self.warnings)

    def _known(self, asked: Iterable[str] | None, have: set[str], kind: str) -> set[str] | None:
        if asked is None:
            return None
        wanted = {asked} if isinstance(asked, str) else set(asked)
        for name in sorted(wanted - have):
            near = difflib.get_close_matches(name, sorted(have), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            shown = sorted(have)[:_MOST_NAMES]
            more = f" and {len(have) - len(shown)} more" if len(have) > len(shown) else ""
            raise StimulusError(
                f"battery {self.name!r} has no {kind} {name!r}{hint}; it has: "
                + ", ".join(shown)
                + more
            )
        return wanted


@dataclass(frozen=True)
class BatteryInfo:
    """A battery known by name; `offline` is True if it ships with the package."""

    name: str
    description: str
    licence: str
    offline: bool


_KNOWN = (
    BatteryInfo(
        "affectlens-vignettes",
        "192 close-matched pairs, 8 emotions x 6 domains, with moderate, complex neutral, "
        "keyword-rich and paraphrased items",
        "CC-BY-4.0",
        offline=True,
    ),
    BatteryInfo(
        "affectlens-balanced",
        "96 minimal pairs whose differing words stand as often on either side",
        "CC-BY-4.0",
        offline=True,
    ),
    BatteryInfo(
        "affectlens-isolexical",
        "64 pairs of the same words in another order",
        "CC-BY-4.0",
        offline=True,
    ),
    BatteryInfo(
        "aipsy-affect",
        "192 pairs, 48 moderate and 48 complex neutral items (keidolabs/aipsy-affect on the "
        "Hugging Face hub, arXiv 2604.23719)",
        "MIT",
        offline=False,
    ),
)


def list_batteries() -> tuple[BatteryInfo, ...]:
    """Batteries that `load_battery` knows by name."""
    return _KNOWN


def load_battery(
    name: str | Path = "affectlens-vignettes",
    *,
    layout: str = "auto",
    scheme: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Battery:
    """Load a battery by name, or from a folder or a .jsonl, .csv, .tsv or .parquet file.

    'aipsy-affect' is fetched from the Hugging Face hub at a pinned commit
    ('aipsy-affect@<revision>' for another).

    Args:
        name: a name that `list_batteries` lists, or a path.
        layout: how the file is laid out, one of `battery_layouts.LAYOUTS` ('items', 'sev', 'pairs',
            'labels', 'goemotions', 'appraisals'); 'auto' recognises it by its columns.
        scheme: the scheme whose names the labels of a file are ('goemotions', 'ekman', ...; see
            `taxonomy.map_label`); None where they are names of our own taxonomy.
        aliases: labels of the file that mean another label of the scheme or taxonomy.

    Raises:
        StimulusError: unknown name, unreadable file, a file that fits no layout or several, or
            items that break the schema or the pairing; the message names file, line and id.
    """
    # The readers build Stimulus objects from this module, hence the late import.
    from affectlens.data import battery_files

    text = str(name)
    hub, _, revision = text.partition("@")
    embedded = any(info.offline and info.name == text for info in _KNOWN)
    if (embedded or hub == "aipsy-affect") and (layout != "auto" or scheme is not None):
        raise StimulusError(
            f"battery {text!r} has a fixed layout; layout and scheme are for files of your own"
        )
    if embedded:
        return battery_files.read_embedded(text)
    if hub == "aipsy-affect":
        return battery_files.read_hub(hub, revision or None, aliases=aliases)
    path = Path(name)
    if path.exists():
        return battery_files.read_path(path, layout=layout, scheme=scheme, aliases=aliases)
    known = [info.name for info in _KNOWN]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise StimulusError(
        f"no battery {text!r}: it is neither a known name ({', '.join(known)}) nor an existing "
        f"folder or .jsonl, .csv, .tsv or .parquet file{hint}"
    )


def make_battery(
    name: str,
    items: Sequence[Stimulus],
    source: str,
    licence: str = "not stated",
    warnings: Sequence[str] = (),
    where: Mapping[int, str] | None = None,
) -> Battery:
    """Check items, pair them and build a battery.

    `where` gives the place (file and line) of the item at an index, for messages.

    Raises:
        StimulusError: no items, or any breach of the rules of the module docstring; all breaches
            are counted and the first ones listed.
    """
    places = where or {}
    if not items:
        raise StimulusError(
            f"battery {name!r} ({source}) has no items; a battery needs at least one"
        )
    problems: list[str] = []
    by_id: dict[str, int] = {}
    for index, item in enumerate(items):
        at = place_of(index, item, places)
        problems += [at + p for p in _item_problems(item)]
        if item.id in by_id:
            first = by_id[item.id]
            problems.append(
                f"{at}this id was used before ({places.get(first, f'item {first + 1}')})"
            )
        else:
            by_id[item.id] = index
    problems += pairing_problems(items, by_id, places)
    problems += variant_problems(items, by_id, places)
    if problems:
        raise StimulusError(summarise(f"battery {name!r}", problems))
    items = share_emotion(items, by_id)
    pairs = tuple(
        Pair(item, items[by_id[item.matched_control_id]])
        for item in items
        if item.split == "clinical" and item.matched_control_id is not None
    )
    digest = sha256_json([_hashed(i) for i in items])
    return Battery(name, tuple(items), pairs, source, digest, licence, tuple(warnings))


def _hashed(item: Stimulus) -> dict[str, object]:
    """The fields that make the hash; without `variant_of` where unset, as hashes were before it."""
    values = asdict(item)
    if item.variant_of is None:
        del values["variant_of"]
    return values


def summarise(what: str, problems: Sequence[str]) -> str:
    """One message from many problems: how many, and the first ones in full."""
    if len(problems) == 1:
        return f"{what}: {problems[0]}"
    rest = len(problems) - _SHOWN
    more = f"\n  ... and {rest} more" if rest > 0 else ""
    return f"{what}: {len(problems)} problems:\n  " + "\n  ".join(problems[:_SHOWN]) + more


def _item_problems(item: Stimulus) -> list[str]:
    problems = []
    if not item.id.strip():
        problems.append("the id is empty")
    if not item.text.strip():
        problems.append("the text is empty; write the vignette or remove the item")
    if item.split not in SPLITS:
        problems.append(f"split is {item.split!r}; allowed: {', '.join(SPLITS)}")
    if item.emotion not in LABELS and item.emotion != NEUTRAL:
        problems.append(unknown_emotion(item.emotion))
    if item.split in ("clinical", "moderate") and item.emotion == NEUTRAL:
        problems.append(f"a {item.split} item must carry an emotion, not 'neutral'")
    if item.split == "clinical" and not item.domain.strip():
        problems.append("a clinical item needs a domain: folds are made by emotion x domain")
    for field, value in asdict(item).items():
        if isinstance(value, str):
            problems += [f"{field}: {p}" for p in character_problems(value)]
    return problems


def character_problems(value: str) -> list[str]:
    """The first NUL or lone surrogate of a string; such a string is no text."""
    for position, char in enumerate(value):
        if "\ud800" <= char <= "\udfff":
            return [f"lone surrogate U+{ord(char):04X} at character {position}; it is not text"]
        if char == "\x00":
            return [f"NUL at character {position}; it is not text"]
    return []
