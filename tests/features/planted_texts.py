"""A stand-in model, planted latents and texts for the tests of the lexical controls.

Texts are read by a stand-in that gives every word a token and three kinds of latents: 'word' fires
on the word "storm"; 'order' fires on every token from "red gate" to the end of the text, but not
after "gate red"; the rest fire at random. Both members of a pair hold "red" and "gate".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from affectlens.data.corpus import Corpus, build_corpus
from affectlens.data.stimuli import Battery, Stimulus, make_battery
from affectlens.features import lexical_controls as module
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.pooling import pool
from affectlens.features.search import SearchResult, search_activations

WORD, ORDER, N_LATENTS = 0, 1, 8
EMOTIONS = ("rage", "grief", "terror")
FILLER = [f"w{chr(97 + i // 5)}{chr(97 + i % 5)}" for i in range(50)]
SUFFIX = " Then night came."


def battery_of(texts: Sequence[tuple[str, str]], n_per: int = 2, name: str = "made") -> Battery:
    """Pairs (clinical, neutral), `n_per` a cluster, three emotions in turn."""
    items = []
    for i, pair in enumerate(texts):
        cluster = i // n_per
        emotion, domain = EMOTIONS[cluster % 3], str(cluster // 3 + 1)
        for kind, text in zip(("clinical", "neutral"), pair, strict=True):
            control = f"N{i}" if kind == "clinical" else None
            where = (emotion, "peak", domain, "place", control, len(text.split()), text, kind)
            items.append(Stimulus(f"{kind[0].upper()}{i}", *where))  # type: ignore[arg-type]
    return make_battery(name, items, "test")


def text_of(rng: np.random.Generator, *, ordered: bool, storms: int, n: int = 4) -> str:
    lines = [list(rng.choice(FILLER, size=7)) for _ in range(n)]
    lines[0][1:3] = ["red", "gate"] if ordered else ["gate", "red"]
    for place in range(storms):
        lines[1 + place][3] = "storm"
    return " ".join(" ".join(line).capitalize() + "." for line in lines)


def planted_battery(seed: int, *, storms: bool = True, n: int = 72, name: str = "made") -> Battery:
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        clinical = text_of(rng, ordered=True, storms=2 if storms else 0)
        texts.append((clinical, text_of(rng, ordered=False, storms=0)))
    return battery_of(texts, name=name)


def planted_corpus(n: int = 150) -> Corpus:
    rng = np.random.default_rng(9)
    texts = [
        text_of(rng, ordered=bool(rng.random() < 0.5), storms=int(rng.integers(0, 3)))
        for _ in range(n)
    ]
    return build_corpus("planted", [(f"d{i}", text) for i, text in enumerate(texts)])


class Tokenizer:
    """Words as tokens, numbered by a checksum."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def ids(self, text: str) -> list[int]:
        found = []
        for i, word in enumerate(text.replace(".", " .").split()):
            token = zlib.crc32(word.encode()) % 2**30
            self.names[token] = word if word == "." or not i else " " + word
            found.append(token)
        return found

    def decode(self, ids: list[int]) -> str:
        return self.names[ids[0]]

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.names[token]


class Model:
    def __init__(self) -> None:
        self.tokenizer = Tokenizer()


class Info:
    sha256 = "ab" * 32


class Sae:
    info = Info()


def activations(names: list[str], n_tail: int, rng: np.random.Generator) -> np.ndarray:
    """[n_tokens, N_LATENTS]; tokens of the suffix read what the text held."""
    words = [name.strip().lower() for name in names]
    out = np.where(
        rng.random((len(words), N_LATENTS)) < 0.3, rng.random((len(words), N_LATENTS)), 0
    )
    body = words[: len(words) - n_tail]
    out[:, WORD] = [w == "storm" for w in words]
    out[:, ORDER] = 0
    for i in range(1, len(body)):
        if body[i - 1 : i + 1] == ["red", "gate"]:
            out[i:, ORDER] = 1
    if n_tail:
        out[len(body) :, WORD] = body.count("storm")
    strength = rng.uniform(0.8, 1.2, size=len(words))
    out[:, :2] *= strength[:, None]
    return out


def read(
    lm: Model,
    saes: Sequence[Sae],
    items: Sequence[tuple[str, str]],
    reading: Reading,
    **more: object,
) -> tuple[TokenActivations]:
    rows = [lm.tokenizer.ids(reading.around(text)) for _, text in items]
    n_tail = len(lm.tokenizer.ids(reading.suffix))
    blocks = []
    for (_, text), row in zip(items, rows, strict=True):
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        blocks.append(activations([lm.tokenizer.names[t] for t in row], n_tail, rng))
    dense = np.concatenate(blocks).astype(np.float32)
    first = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    keep = np.ones(len(dense), dtype=bool)
    keep[first[:-1]] = False
    dense[~keep] = 0
    encoded = TokenActivations(
        hook_name="blocks.1.hook_resid_post",
        sae_sha256=saes[0].info.sha256,
        d_sae=N_LATENTS,
        reading=reading,
        item_ids=tuple(name for name, _ in items),
        first=first,
        tokens=np.array([t for row in rows for t in row], dtype=np.int32),
        keep=keep,
        n_tail=n_tail,
        indptr=np.cumsum([0, *(dense != 0).sum(axis=1)]).astype(np.int64),
        latents=np.nonzero(dense)[1].astype(np.int32),
        values=dense[dense != 0],
    )
    return (encoded,)


def config(pooling: str) -> SearchConfig:
    return SearchConfig(
        pooling=pooling,  # type: ignore[arg-type]
        suffix=SUFFIX,
        n_permutations=2000,
        n_retained=4,
        confirmation_share=0.5,
    )


def encoded_battery(lm: Model, battery: Battery, pooling: str) -> TokenActivations:
    reading = module.reading_for(pooling, config(pooling))  # type: ignore[arg-type]
    (encoded,) = read(lm, [Sae()], [(i.id, i.text) for i in battery.items], reading)
    return encoded


def searched(lm: Model, battery: Battery, pooling: str) -> SearchResult:
    encoded = encoded_battery(lm, battery, pooling)
    design = PairDesign.from_battery(battery, encoded.item_ids)
    values = pool(encoded, pooling).values.toarray()  # type: ignore[arg-type]
    return search_activations(
        values, design, config(pooling), battery="made", battery_sha256=battery.sha256
    )
