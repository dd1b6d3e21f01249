"""Scores of the texts of the steering study: AxBench's three factors without a language model as
judge.

AxBench (Wu et al. 2025, arXiv:2501.17148) has a judge grade concept, fluency and instruction 0, 1
or 2 and takes the harmonic mean, which is 0 if one of them is. Here each factor lies in [0, 1]:

    concept    the scorer's probability of the emotion steered to. The scorer sees the text alone,
               never the prompt, the arm or the emotion aimed at.
    coherence  min(1, r / r0) x `fluency.coherence`, r = 1 - P(incoherent): as readable to the
               scorer as unedited texts, r0 being their median, and neither more surprising to the
               unedited model nor more repetitive than what it writes itself.
    on_topic   g / g0 within [0, 1], g being what the text's own prompt adds to its likelihood over
               the prompt of a scenario of another theme, in nats per token, and g0 the median of g
               over the unedited texts. A text that could stand under any scenario has 0.

The yardsticks are unedited texts of the half that chooses doses. Prompts are those without
instruction, for every arm. Where unedited texts do not depend on their prompts (g0 <= 0, a model
that does not follow them), on_topic is 1 for every text with a perplexity and the record says so.
An empty text has coherence and on_topic 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.features import fluency
from affectlens.features.continuation_nll import continuation_nll
from affectlens.features.fluency import Reference
from affectlens.features.incoherence import INCOHERENT
from affectlens.features.naming_rate import names_emotion
from affectlens.features.study_columns import TEXTS_COLUMNS
from affectlens.features.text_scoring import MaskedScorer, TextScorer

Array = npt.NDArray[np.float64]

METHOD: dict[str, str] = {
    "concept": "probability of the emotion by a scorer that sees the text alone; stands for "
    "AxBench's concept score",
    "coherence": "1 - P(incoherent), perplexity and repetition, each against unedited texts; "
    "stands for its fluency score",
    "on_topic": "what the text's own prompt adds to its likelihood over another scenario's, as a "
    "share of the unedited texts' median; stands for its instruction score",
    "overall": "harmonic mean of the three, 0 if one is 0",
}
"""What replaces the judge, for the record."""

_OWN = ["scenario", "text"]
_FLUENCY = ["empty", "perplexity", "n_tokens", "distinct_1", "distinct_2", "repetition", "drift"]
_CHUNK = 256


@dataclass(frozen=True)
class Yardstick:
    """What unedited texts of the select half are like.

    Attributes:
        fluency: their perplexity and repetition.
        readable: median of 1 - P(incoherent). A scorer that finds fault with the model's own
            texts must not decide what steering costs, so this is the most that is asked for.
        gain: median of what their own prompt adds over another's (nats per token).
    """

    fluency: Reference
    readable: float
    gain: float


@dataclass(frozen=True)
class Scene:
    """The prompt of a scenario without instruction, and that of another scenario."""

    prompt: str
    other: str


def score_texts(
    lm: LanguageModel,
    scorer: TextScorer,
    texts: pd.DataFrame,
    scenes: Mapping[str, Scene],
    *,
    masked: frozenset[str] | None = None,
    quiet: bool | None = False,
) -> tuple[pd.DataFrame, Yardstick]:
    """Add every score to the rows of the study.

    Args:
        lm: the model; reads the texts without an edit.
        scorer: reader of emotions.
        texts: one row a text with emotion, arm, scenario, half and text; unedited texts of the
            half 'select' are among them.
        scenes: scenario -> its prompts.
        masked: lower-case words that the masked score takes out; by default all that name an
            emotion.
        quiet: no progress.

    Returns:
        The rows with the columns `TEXTS_COLUMNS`, and what unedited texts are like.

    Raises:
        ConfigError: no unedited text has a perplexity.
    """
    # By scenario, because texts after one prompt are read together.
    own = texts[_OWN].drop_duplicates().sort_values("scenario", kind="stable")
    masking = MaskedScorer(scorer) if masked is None else MaskedScorer(scorer, masked)
    read = _read(lm, scorer, masking, own, scenes, quiet=quiet)
    joined = texts.merge(read, on=_OWN, how="left", validate="many_to_one")
    labels = list(scorer.labels)
    for name, prefix in (("concept", "p_"), ("concept_masked", "masked_")):
        columns = joined[[f"{prefix}{label}" for label in labels]].to_numpy(dtype=float)
        place = [labels.index(emotion) for emotion in joined["emotion"]]
        joined[name] = columns[np.arange(len(joined)), place]
    best = joined[[f"p_{label}" for label in labels]].to_numpy(dtype=float).argmax(axis=1)
    joined["hit"] = np.array(labels, dtype=object)[best] == joined["emotion"].to_numpy(dtype=object)
    joined["incoherent"] = joined[f"p_{INCOHERENT}"] if INCOHERENT in labels else 0.0
    joined["naming"] = _naming(joined, scenes)
    yardstick = _yardstick(joined)
    joined["coherence"] = coherence(joined, yardstick)
    joined["on_topic"] = on_topic(joined["gain"].to_numpy(dtype=float), yardstick.gain)
    joined["overall"] = overall(joined)
    joined["overall_masked"] = overall(joined, "concept_masked")
    return joined[list(TEXTS_COLUMNS)], yardstick


def coherence(scored: pd.DataFrame, yardstick: Yardstick) -> Array:
    """Coherence [n] from incoherent, empty, repetition and perplexity; see the module."""
    readable = 1.0 - scored["incoherent"].to_numpy(dtype=float)
    if yardstick.readable > 0:
        readable = np.minimum(1.0, readable / yardstick.readable)
    return readable * fluency.coherence(scored, yardstick.fluency)


def on_topic(gain: Array, usual: float) -> Array:
    """Share [n] of the usual gain that a text has from its own prompt; see the module."""
    if not usual > 0:
        return np.where(np.isnan(gain), 0.0, 1.0)
    return np.asarray(np.clip(np.nan_to_num(gain / usual, nan=0.0), 0.0, 1.0))


def overall(scored: pd.DataFrame, concept: str = "concept") -> Array:
    """Harmonic mean [n] of concept, coherence and on_topic; 0 where one is 0."""
    factors = scored[[concept, "coherence", "on_topic"]].to_numpy(dtype=float)
    positive = (factors > 0).all(axis=1)
    inverse = (1.0 / np.where(positive[:, None], factors, 1.0)).sum(axis=1)
    return np.where(positive, factors.shape[1] / inverse, 0.0)


def _read(
    lm: LanguageModel,
    scorer: TextScorer,
    masking: MaskedScorer,
    own: pd.DataFrame,
    scenes: Mapping[str, Scene],
    *,
    quiet: bool | None,
) -> pd.DataFrame:
    """Every different text once: emotions as they are and masked, fluency, gain from its prompt."""
    texts = own["text"].tolist()
    found = {name: own[name].to_numpy() for name in _OWN}
    for prefix, reader in (("p_", scorer), ("masked_", masking)):
        values = reader.probabilities(texts)
        found |= {f"{prefix}{label}": values[:, i] for i, label in enumerate(scorer.labels)}
    prompts = [scenes[s].prompt for s in own["scenario"]]
    others = [scenes[s].other for s in own["scenario"]]
    # The chat template holds the special tokens already.
    special = not lm.tokenizer.chat_template
    parts = []
    with track(len(texts), "texts", "steering study: score", quiet=quiet) as bar:
        for start in range(0, len(texts), _CHUNK):
            rows = slice(start, start + _CHUNK)
            part = fluency.fluency(lm, prompts[rows], texts[rows], add_special_tokens=special)
            elsewhere = continuation_nll(lm, others[rows], texts[rows], add_special_tokens=special)
            parts.append(part[_FLUENCY].assign(gain=elsewhere.nll - part["nll"]))
            bar.update(len(part))
    return pd.concat([pd.DataFrame(found), pd.concat(parts, ignore_index=True)], axis=1)


def _naming(joined: pd.DataFrame, scenes: Mapping[str, Scene]) -> npt.NDArray[np.bool_]:
    out = np.zeros(len(joined), dtype=bool)
    emotions = joined["emotion"].to_numpy(dtype=object)
    for emotion in dict.fromkeys(emotions):
        rows = np.flatnonzero(emotions == emotion)
        texts = joined["text"].iloc[rows].tolist()
        prompts = [scenes[s].prompt for s in joined["scenario"].iloc[rows]]
        out[rows] = names_emotion(texts, str(emotion), prompts)
    return out


def _yardstick(joined: pd.DataFrame) -> Yardstick:
    plain = joined[(joined["arm"] == "unedited") & (joined["half"] == "select")]
    # Each emotion's rows hold the same unedited texts.
    plain = plain.drop_duplicates("scenario")
    readable = float((1.0 - plain["incoherent"]).median())
    return Yardstick(fluency.reference_of(plain), readable, float(plain["gain"].median()))
