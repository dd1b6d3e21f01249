"""The emotion readout: how much probability the model gives to an emotion's words after a fixed
suffix.

For an emotion e with words W_e, a text t and a suffix template s,

    logp(e | t, s)  = log sum_{w in W_e} P(w | t + s)                  (first and only token of "
    w") readout(e | t)  = mean_s [ logp(e | t, s) - mean_{e' != e} logp(e' | t, s) ]      (nats)

so a change that lifts all emotion words alike cancels. The pseudo-emotion "all" reads emotional
against calm words: log sum over every emotion's words minus log sum over the calm ones. Closed
form, no judge, no sampling. A word that the tokenizer splits is left out, counted and reported; an
emotion left with fewer than three words is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError
from affectlens.data.models import Batch, LanguageModel
from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS
from affectlens.features.contrasts import ALL

MIN_WORDS = 3
CALM = "calm"

READOUT_WORDS = {**EMOTION_WORDS, CALM: CALM_WORDS}
"""The word sets of the default readout."""


@dataclass(frozen=True)
class WordSets:
    """Token ids of each emotion's words for one tokenizer.

    `tokens[e]` are ids of single-token words, `words[e]` the words themselves, `dropped[e]` those
    that the tokenizer splits; the key "calm" holds the words that "all" is read against.
    """

    tokens: dict[str, tuple[int, ...]]
    words: dict[str, tuple[str, ...]]
    dropped: dict[str, tuple[str, ...]]

    @property
    def emotions(self) -> tuple[str, ...]:
        """Emotions in order, without "calm"."""
        return tuple(e for e in self.tokens if e != CALM)


def single_tokens(lm: LanguageModel, words: Iterable[str]) -> dict[str, int]:
    """Those words that are one token after a space, and its id."""
    encoded = {w: lm.tokenizer.encode(" " + w, add_special_tokens=False) for w in words}
    return {word: ids[0] for word, ids in encoded.items() if len(ids) == 1}


def word_sets(lm: LanguageModel, words: Mapping[str, Sequence[str]]) -> WordSets:
    """Look up each word, with a leading space, in the model's tokenizer.

    Raises:
        ConfigError: an emotion keeps fewer than three single-token words, or a word stands in two
            sets.
    """
    owner: dict[str, str] = {}
    tokens: dict[str, tuple[int, ...]] = {}
    kept: dict[str, tuple[str, ...]] = {}
    dropped: dict[str, tuple[str, ...]] = {}
    for emotion, candidates in words.items():
        for word in candidates:
            if word in owner:
                raise ConfigError(
                    f"readout word {word!r} stands in {owner[word]!r} and {emotion!r}"
                )
            owner[word] = emotion
        whole = single_tokens(lm, candidates)
        if len(whole) < MIN_WORDS:
            raise ConfigError(
                f"{emotion!r} keeps {len(whole)} of {len(candidates)} readout words as single "
                f"tokens of this tokenizer; at least {MIN_WORDS} are needed: give other words"
            )
        kept[emotion], tokens[emotion] = tuple(whole), tuple(whole.values())
        dropped[emotion] = tuple(word for word in candidates if word not in whole)
    return WordSets(tokens, kept, dropped)


def readout_names(sets: WordSets) -> tuple[str, ...]:
    """Column names of `readout_scores`: the emotions, then "all" if calm words are given."""
    return (*sets.emotions, ALL) if CALM in sets.tokens else sets.emotions


def readout_scores(logits: Tensor, sets: WordSets) -> npt.NDArray[np.float64]:
    """Readout of one suffix from next-token logits.

    Args:
        logits: [n_texts, d_vocab].
        sets: word sets of the same tokenizer.

    Returns:
        [n_texts, n_readouts] in nats, columns as `readout_names`.
    """
    logp = torch.log_softmax(logits.double(), dim=-1)
    by_emotion = torch.stack(
        [torch.logsumexp(logp[:, list(sets.tokens[e])], dim=-1) for e in sets.emotions], dim=-1
    )
    n = by_emotion.shape[-1]
    others = (by_emotion.sum(-1, keepdim=True) - by_emotion) / max(n - 1, 1)
    columns = [by_emotion - others]
    if CALM in sets.tokens:
        calm = torch.logsumexp(logp[:, list(sets.tokens[CALM])], dim=-1)
        columns.append((torch.logsumexp(by_emotion, dim=-1) - calm)[:, None])
    return torch.cat(columns, dim=-1).cpu().numpy()


@dataclass(frozen=True)
class ReadoutBatch:
    """One suffix appended to a run of texts: the tokens, and which texts they are."""

    template: int
    start: int
    stop: int
    batch: Batch


def readout_batches(
    lm: LanguageModel, texts: Sequence[str], templates: Sequence[str], batch_size: int
) -> list[ReadoutBatch]:
    """Encode every text with every suffix, right padded, in runs of `batch_size`."""
    return [
        ReadoutBatch(
            template,
            start,
            min(start + batch_size, len(texts)),
            lm.encode([t + suffix for t in texts[start : start + batch_size]]),
        )
        for template, suffix in enumerate(templates)
        for start in range(0, len(texts), batch_size)
    ]


@torch.inference_mode()
def unedited_readout(
    lm: LanguageModel,
    texts: Sequence[str],
    sets: WordSets,
    templates: Sequence[str],
    *,
    batch_size: int = 16,
) -> npt.NDArray[np.float64]:
    """Readout of the unedited model, averaged over templates: [n_texts, n_readouts]."""
    total = np.zeros((len(texts), len(readout_names(sets))))
    for part in readout_batches(lm, texts, templates, batch_size):
        logits = lm.forward_logits(part.batch, last_only=True)
        total[part.start : part.stop] += readout_scores(logits, sets)
    return total / len(templates)
