"""The words of a readout: where they come from, what is refused, which tokens they are.

A word is written after a template with one blank between. Its tokens are those by which the
tokenizer's encoding of "template word" goes on from its encoding of the template, so tokenizers
that put a mark before the first word, or none, are read alike. A sample sentence stands before the
template; what stands further left does not change the tokens of a word as long as the tokenizer
splits at the template's end, and where it joins the two the word is left out and counted.

The probability of a word is that of its tokens in turn, thus of every text that goes on with them:
"fear" holds "fearful" if the tokens of the one begin those of the other. Within an emotion the
longer word is then part of the shorter and absorbed by it; between emotions it is an error.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.taxonomy import CALM_WORDS, EKMAN, EMOTION_WORDS, TAXONOMY
from affectlens.features.contrasts import ALL
from affectlens.features.readout_scales import SCALE_NAMES

MIN_WORDS = 3
"""Fewest words that an emotion is read by."""

CALM = "calm"
"""The key of the words that "all" is read against."""

RESERVED = (ALL, *SCALE_NAMES)
"""Names of columns that no emotion may have."""

READOUT_WORDS: Mapping[str, tuple[str, ...]] = {**EMOTION_WORDS, CALM: CALM_WORDS}
"""The word sets of the default readout."""

Split = Literal["drop", "score"]

_SAMPLE = "It was late."
_LONGEST = 64
_LARGEST_FILE = 1_000_000
# Joiners inside words of several scripts; every other unseen character is refused.
_JOINERS = "\u200c\u200d"
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True)
class Label:
    """A word that is read.

    Attributes:
        group: its emotion, "calm", or its scale.
        word: the word without the blank before it.
        ids: its tokens after each template, [n_templates] tuples.
    """

    group: str
    word: str
    ids: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Labels:
    """The words of a readout in one tokenizer.

    Attributes:
        kept: words that are read, those of a group next to each other, groups in the given order.
        dropped: for each group the words left out, and why: "split" (several tokens), "joined"
            (not parted from the template), "unknown" (not in the vocabulary).
        absorbed: for each group the words whose probability is part of another's of the group.
    """

    kept: tuple[Label, ...]
    dropped: Mapping[str, Mapping[str, str]]
    absorbed: Mapping[str, tuple[str, ...]]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The words kept of each group."""
        found: dict[str, list[str]] = {}
        for label in self.kept:
            found.setdefault(label.group, []).append(label.word)
        return {group: tuple(words) for group, words in found.items()}


def emotion_words(
    source: str | Path | Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """The word sets of a readout by name, from a file, or as given, checked.

    Args:
        source: "plutchik" (the eight peak emotions), "ekman" (his six, each with the words of
            every peak that the taxonomy maps to it), a mapping {emotion: words}, or the path of a
            YAML or JSON file that holds one. The key "calm" is optional in a mapping and in a
            file: without it the column "all" is absent.

    Raises:
        ConfigError: an unknown name, an unreadable file, or words that cannot be used; see
            `check_words`.
    """
    if isinstance(source, Mapping):
        return check_words(source)
    if source == "plutchik":
        return check_words(READOUT_WORDS)
    if source == "ekman":
        return check_words(_ekman_words())
    path = Path(source)
    if not _is_file(path):
        raise ConfigError(
            f"no readout words {str(source)[:200]!r}: allowed are 'plutchik', 'ekman', or the path "
            "of a YAML or JSON file {emotion: [words]}; correct the name or the path"
        )
    return check_words(_read_words(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for one, a name longer than the file system allows
        return False


def _ekman_words() -> dict[str, tuple[str, ...]]:
    words: dict[str, tuple[str, ...]] = {
        name: tuple(w for e in TAXONOMY.values() if e.ekman == name for w in e.words)
        for name in EKMAN
    }
    return {**words, CALM: CALM_WORDS}


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice instead of keeping the last."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    _refuse_repeats(key for key in keys if isinstance(key, str))
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeats(key for key, _ in pairs)
    return dict(pairs)


def _refuse_repeats(keys: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ConfigError(f"{key[:_LONGEST]!r} stands twice; give each emotion once")
        seen.add(key)


def _read_words(path: Path) -> Mapping[str, Sequence[str]]:
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ConfigError(
                f"{path} has {size:,} bytes; a file of readout words has at most {_LARGEST_FILE:,}"
            )
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            loaded = json.loads(text, object_pairs_hook=_unique_pairs)
        else:
            loaded = yaml.load(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as YAML or JSON {{emotion: [words]}}: {str(error)[:200]}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(
            f"{path} holds a {type(loaded).__name__}; needed is a mapping {{emotion: [words]}}"
        )
    return loaded


def check_words(words: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Word sets as tuples, "calm" last.

    Raises:
        ConfigError: fewer than two emotions; an emotion with a reserved name or too few words; a
            word that is no text, empty, longer than 64 characters, has unseen characters or blanks
            at its ends or in a row, or stands twice (whatever its case).
    """
    owner: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for name, candidates in words.items():
        _check_text(name, "the name of an emotion")
        if name in RESERVED:
            raise ConfigError(
                f"{name!r} cannot be an emotion of a readout: it is the name of another column; "
                "give it another name"
            )
        if isinstance(candidates, str) or not isinstance(candidates, Sequence):
            raise ConfigError(
                f"the words of {name!r} are a {type(candidates).__name__}; needed is a list of "
                "words"
            )
        for word in candidates:
            _check_text(word, f"a word of {name!r}")
            _claim(word, name, owner)
        if len(candidates) < MIN_WORDS:
            raise ConfigError(
                f"{name!r} has {len(candidates)} readout words; at least {MIN_WORDS} are needed: "
                "give more words"
            )
        found[name] = tuple(candidates)
    emotions = [name for name in found if name != CALM]
    if len(emotions) < 2:
        raise ConfigError(
            f"a readout needs at least two emotions, since each is read against the others; got "
            f"{', '.join(emotions) or 'none'}: give words for others, too"
        )
    return {name: found[name] for name in (*emotions, *([CALM] if CALM in found else []))}


def _claim(word: str, name: str, owner: dict[str, str]) -> None:
    """Note whose word this is, and refuse it if it has been seen."""
    key = unicodedata.normalize("NFC", word).casefold()
    if key in owner:
        where = f"in {owner[key]!r} and {name!r}" if owner[key] != name else f"twice in {name!r}"
        raise ConfigError(f"readout word {word!r} stands {where}; keep it in one place")
    owner[key] = name


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise ConfigError(
            f"{what} is a {type(text).__name__}, not text; in YAML put words such as no, yes, on, "
            "null and numbers in quotes"
        )
    shown = repr(text[:_LONGEST])
    if not text.strip():
        raise ConfigError(f"{what} is empty ({shown}); leave it out")
    if len(text) > _LONGEST:
        raise ConfigError(
            f"{what} has {len(text):,} characters ({shown}...); at most {_LONGEST} are allowed"
        )
    if any(unicodedata.category(c) in _UNSEEN and c not in _JOINERS for c in text):
        raise ConfigError(f"{what} has a control or unseen character: {text!a}; remove it")
    if text != " ".join(text.split()):
        raise ConfigError(
            f"{what} has blanks at its ends or several in a row: {shown}; remove them"
        )


def check_templates(templates: Sequence[str], what: str = "readout template") -> tuple[str, ...]:
    """Templates as a tuple.

    Raises:
        ConfigError: none, a single string, one that is no text or empty, ends in a blank (the
            blank belongs to the word), or stands twice.
    """
    if isinstance(templates, str) or not templates:
        raise ConfigError(f"at least one {what} is needed, as a list; got {templates!r}")
    for k, template in enumerate(templates):
        if not isinstance(template, str) or not template.strip():
            raise ConfigError(f"{what} {k} is empty or not text: {template!r}; give a sentence")
        if template != template.rstrip():
            raise ConfigError(
                f"{what} {k} ends in a blank: {template[-_LONGEST:]!r}; remove it, since the word "
                "is written after it with its own"
            )
        if template in templates[:k]:
            raise ConfigError(f"{what} {template[:_LONGEST]!r} stands twice; give it once")
    return tuple(templates)


def find_labels(
    lm: LanguageModel,
    words: Mapping[str, Sequence[str]],
    templates: Sequence[str],
    split: Split = "drop",
) -> Labels:
    """Look up the tokens of every word after every template.

    Args:
        lm: whose tokenizer is used.
        words: word sets that `check_words` has passed.
        templates: templates that `check_templates` has passed.
        split: "drop" leaves out words of several tokens, "score" keeps them.

    Raises:
        ConfigError: a group keeps too few words, a word is a special token of the tokenizer, the
            tokens of a word begin or are those of one of another group, or an unknown `split`.
    """
    if split not in ("drop", "score"):
        raise ConfigError(f"split {split!r} is unknown; allowed: 'drop', 'score'")
    heads = [_encode(lm, _SAMPLE + template) for template in templates]
    candidates: list[Label] = []
    dropped: dict[str, dict[str, str]] = {group: {} for group in words}
    for group, listed in words.items():
        for word in listed:
            tails = [
                _tail(head, _encode(lm, f"{_SAMPLE}{template} {word}"))
                for template, head in zip(templates, heads, strict=True)
            ]
            reason = _unusable(lm, word, tails, split)
            if reason:
                dropped[group][word] = reason
            else:
                candidates.append(Label(group, word, tuple(tails)))
    kept, absorbed = _absorb(candidates, tuple(words))
    labels = Labels(kept, dropped, absorbed)
    for group, listed in words.items():
        _require_enough(group, listed, labels, split)
    return labels


def _encode(lm: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def _tail(head: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens after `head`; none if the whole does not begin with it."""
    return whole[len(head) :] if whole[: len(head)] == head else ()


def _unusable(
    lm: LanguageModel, word: str, tails: Sequence[tuple[int, ...]], split: Split
) -> str | None:
    ids = {token for tail in tails for token in tail}
    if lm.tokenizer.unk_token_id in ids:
        return "unknown"
    if ids & set(lm.tokenizer.all_special_ids):
        raise ConfigError(
            f"readout word {word!r} is, or holds, a special token of the tokenizer; leave it out"
        )
    if not all(tails):
        return "joined"
    if split == "drop" and any(len(tail) > 1 for tail in tails):
        return "split"
    return None


def _absorb(
    labels: Sequence[Label], groups: Sequence[str]
) -> tuple[tuple[Label, ...], dict[str, tuple[str, ...]]]:
    """Part words from those whose tokens begin with another word's."""
    owners = {(k, tail): label for label in labels for k, tail in enumerate(label.ids)}
    absorbed: dict[str, list[str]] = {group: [] for group in groups}
    kept = []
    for label in labels:
        within = {
            holder.word
            for k, tail in enumerate(label.ids)
            for n in range(1, len(tail) + 1)
            if (holder := owners.get((k, tail[:n]), label)) is not label
            and _same_group(label, holder)
        }
        if within:
            absorbed[label.group].append(label.word)
        else:
            kept.append(label)
    return tuple(kept), {group: tuple(words) for group, words in absorbed.items()}


def _same_group(label: Label, holder: Label) -> bool:
    if label.group == holder.group:
        return True
    raise ConfigError(
        f"this tokenizer writes {label.word!r} ({label.group!r}) as {holder.word!r} "
        f"({holder.group!r}) and what follows it, so the one cannot be read apart from the other; "
        "leave one out"
    )


def _require_enough(group: str, listed: Sequence[str], labels: Labels, split: Split) -> None:
    n = len(labels.groups.get(group, ()))
    if n >= MIN_WORDS:
        return
    advice = "use split='score' or give other words" if split == "drop" else "give other words"
    raise ConfigError(
        f"{group!r} keeps {n} of {len(listed)} readout words in this tokenizer "
        f"({len(labels.dropped[group])} left out, {len(labels.absorbed[group])} part of another); "
        f"at least {MIN_WORDS} are needed: {advice}"
    )
