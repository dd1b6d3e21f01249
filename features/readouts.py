"""Readouts: how much probability the model gives to an emotion's words after fixed suffixes.

For an emotion e with words W_e, a text t and a template s, with the words' likelihoods calibrated,

    r(w | t, s)    = P(w | t + s) / mean_c P(w | c + s)        c: content-free texts
    score(e | t, s) = log mean_{w in W_e} r(w | t, s)
    readout(e | t)  = mean_s [ score(e | t, s) - mean_{e' != e} score(e' | t, s) ]        (nats)

and without calibration score(e | t, s) = log sum_{w in W_e} P(w | t + s). A change that lifts all
emotion words alike cancels. The column "all" reads every emotion's words against calm words: the
log of the mean of exp(score) over emotions, or of its sum without calibration, minus the score of
"calm". "valence" and "arousal" are expected values over answers (see `readout_scales`). Closed
form, differentiable, no judge, no sampling.

The division by the likelihood after content-free texts is contextual calibration (T. Zhao et al.
2021, arXiv:2102.09690) word by word, that is the domain-conditional PMI of A. Holtzman et al. 2021
(arXiv:2104.08315) with content-free texts as the domain: it takes away the model's liking for
words that it says after anything, so that a few frequent words do not decide for an emotion.

P(w | t + s) is the product over the word's tokens. The tokens after the first are read on rows of
their own, which end with the tokens before them: a suffix is a template and such a prefix, and
words share those of their suffixes that are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.taxonomy import TAXONOMY
from affectlens.features.config import CONTENT_FREE, DEFAULT_TEMPLATES
from affectlens.features.contrasts import ALL
from affectlens.features.readout_plan import (
    Question,
    Suffix,
    flatten,
    plan_questions,
    plan_suffixes,
)
from affectlens.features.readout_scales import SCALES, Scale, expected_value
from affectlens.features.readout_words import (
    CALM,
    READOUT_WORDS,
    Labels,
    Split,
    check_templates,
    check_words,
    find_labels,
)


@dataclass(frozen=True)
class ReadoutRows:
    """Token rows to run for some texts.

    Attributes:
        rows: token ids, text by text, `n_suffixes` rows each.
        n_suffixes: rows of a text.
    """

    rows: tuple[tuple[int, ...], ...]
    n_suffixes: int

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of the longest row of each text, [n_texts]."""
        own = np.array([len(row) for row in self.rows], dtype=np.int64)
        longest: npt.NDArray[np.int64] = own.reshape(-1, self.n_suffixes).max(axis=1)
        return longest


@dataclass(frozen=True, eq=False)
class ScaleQuestions:
    """The questions of a scale, and the value of each answer, float64 [n_answers]."""

    name: str
    questions: tuple[Question, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Readout:
    """Emotion words and scales, prepared for one tokenizer. Made by `build_readout`.

    Attributes:
        names: columns: the emotions, "all" if calm words are given, "valence" and "arousal" if
            scales are.
        templates: templates of the emotion words.
        tokens: token ids whose log-probabilities are needed.
        suffixes: template and prefix of each row of a text.
        questions: for each template the emotion words, then the calm ones.
        groups: number of words of each emotion, then of "calm" if given.
        scales: valence and arousal, or none.
        calibrated: whether likelihoods are divided by those after content-free texts.
        tokenizer_sha256: names the tokenizer whose ids these are.
        facts: what `describe` gives.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    tokens: tuple[int, ...]
    suffixes: tuple[Suffix, ...]
    questions: tuple[Question, ...]
    groups: tuple[int, ...]
    scales: tuple[ScaleQuestions, ...]
    calibrated: bool
    tokenizer_sha256: str
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def n_suffixes(self) -> int:
        """Token rows of each text."""
        return len(self.suffixes)

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions alone, in order."""
        return self.names[: len(self.groups) - (ALL in self.names)]

    def rows(self, lm: LanguageModel, texts: Sequence[str]) -> ReadoutRows:
        """Token rows of some texts, each with every suffix.

        Raises:
            StimulusError: no text, an empty text, or one too long for the context with a suffix.
            ConfigError: the model has another tokenizer than the readout was built for.
        """
        if lm.tokenizer_sha256 != self.tokenizer_sha256:
            raise ConfigError(
                f"the readout was built for another tokenizer than that of {lm.name}; build it for "
                "this model"
            )
        if isinstance(texts, str) or not len(texts):
            raise StimulusError(f"a list of at least one text is needed, got {texts!r}")
        rows: list[tuple[int, ...]] = []
        for k, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise StimulusError(f"text {k} is empty or not a text: {text!r}")
            heads = {
                template: lm.token_ids(text + template, label=f"text {k} with a readout template")
                for template in dict.fromkeys(template for template, _ in self.suffixes)
            }
            rows += [(*heads[template], *prefix) for template, prefix in self.suffixes]
            if max(map(len, rows[-self.n_suffixes :])) > lm.context_length:
                raise StimulusError(
                    f"text {k} with a readout suffix is longer than the context of {lm.name}, "
                    f"{lm.context_length} tokens; shorten or split it"
                )
        return ReadoutRows(tuple(rows), self.n_suffixes)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Float64 log-probabilities at `tokens`, [n_rows, n_tokens] from logits of last tokens.

        Args:
            logits: [n_rows, d_vocab].
        """
        wide = logits.double()
        columns = torch.tensor(self.tokens, device=logits.device)
        return wide[:, columns] - torch.logsumexp(wide, dim=-1, keepdim=True)

    def scores(self, logp: Tensor) -> Tensor:
        """The readout of texts; differentiable.

        Args:
            logp: [n_texts, n_suffixes, n_tokens], log-softmax of last tokens at `tokens`.

        Returns:
            [n_texts, n_names] in `logp`'s number format: nats, and for scales their own units.

        Raises:
            ConfigError: another shape.
        """
        if logp.ndim != 3 or logp.shape[1:] != (self.n_suffixes, len(self.tokens)):
            raise ConfigError(
                f"log-probabilities have shape {tuple(logp.shape)}; this readout needs "
                f"[n_texts, {self.n_suffixes}, {len(self.tokens)}]"
            )
        flat = flatten(logp)
        emotions = [self._emotion_scores(q.log_likelihoods(flat)) for q in self.questions]
        columns = [torch.stack(emotions).mean(0)]
        for scale in self.scales:
            read = [expected_value(q.log_likelihoods(flat), scale.values) for q in scale.questions]
            columns.append(torch.stack(read).mean(0)[:, None])
        return torch.cat(columns, dim=-1)

    def _emotion_scores(self, likelihoods: Tensor) -> Tensor:
        """Each emotion against the others, all against calm: [n_texts, n] of one template."""
        parts = likelihoods.split(list(self.groups), dim=-1)
        scores = torch.stack([torch.logsumexp(part, dim=-1) for part in parts], dim=-1)
        if self.calibrated:
            scores = scores - torch.tensor(self.groups, dtype=torch.float64).log().to(scores)
        n = len(self.emotions)
        own = scores[:, :n]
        columns = [own - (own.sum(-1, keepdim=True) - own) / (n - 1)]
        if ALL in self.names:
            together = torch.logsumexp(own, dim=-1)
            together = together - float(np.log(n)) if self.calibrated else together
            columns.append((together - scores[:, n])[:, None])
        return torch.cat(columns, dim=-1)

    def describe(self) -> dict[str, Any]:
        """Facts for summaries, ready for JSON: words, what was left out, templates, calibration."""
        return dict(self.facts)


def build_readout(
    lm: LanguageModel,
    words: Mapping[str, Sequence[str]] = READOUT_WORDS,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    *,
    calibrate: bool = True,
    split: Split = "drop",
    scales: bool = False,
    content_free: Sequence[str] = CONTENT_FREE,
) -> Readout:
    """Prepare a readout for a model.

    Args:
        lm: the model. Without `calibrate` only its tokenizer is used; edits that are open while a
            calibrated readout is built enter its calibration.
        words: word sets; see `emotion_words`.
        templates: suffixes whose next word is read.
        calibrate: divide each word's likelihood by its mean after `content_free`.
        split: what is done with words of several tokens: "drop" leaves them out, "score" reads the
            product over their tokens, with a row for every prefix.
        scales: read valence and arousal, too. Their answers are scored whatever their tokens.
        content_free: texts without content.

    Raises:
        ConfigError: words or templates that cannot be used; the message says what to do.
    """
    found = find_labels(lm, check_words(words), check_templates(templates), split)
    asked = [(found, tuple(templates))]
    chosen = SCALES if scales else ()
    for scale in chosen:
        labels = find_labels(lm, {scale.name: tuple(scale.values)}, scale.templates, "score")
        asked.append((labels, scale.templates))
    suffixes = plan_suffixes(asked)
    tokens = tuple(sorted({t for x, _ in asked for w in x.kept for ids in w.ids for t in ids}))
    questions = [plan_questions(x, ts, suffixes, tokens) for x, ts in asked]
    emotions = tuple(group for group in found.groups if group != CALM)
    readout = Readout(
        names=(*emotions, *([ALL] if CALM in found.groups else []), *(s.name for s in chosen)),
        templates=tuple(templates),
        tokens=tokens,
        suffixes=suffixes,
        questions=questions[0],
        groups=tuple(len(kept) for kept in found.groups.values()),
        scales=tuple(
            _scale_questions(scale, labels, asks)
            for scale, (labels, _), asks in zip(chosen, asked[1:], questions[1:], strict=True)
        ),
        calibrated=calibrate,
        tokenizer_sha256=lm.tokenizer_sha256,
        facts={
            **_facts(found, tuple(templates), split),
            "content_free": list(content_free) if calibrate else [],
            "n_suffixes": len(suffixes),
            "scales": {s.name: _facts(x, ts, "score") for s, (x, ts) in zip(chosen, asked[1:])},
        },
    )
    return _calibrated(lm, readout, content_free) if calibrate else readout


def _scale_questions(scale: Scale, labels: Labels, asks: tuple[Question, ...]) -> ScaleQuestions:
    values = torch.tensor([scale.values[w.word] for w in labels.kept], dtype=torch.float64)
    return ScaleQuestions(scale.name, asks, values)


def _facts(labels: Labels, templates: tuple[str, ...], split: str) -> dict[str, Any]:
    return {
        "words": {group: list(words) for group, words in labels.groups.items()},
        "dropped": {group: dict(words) for group, words in labels.dropped.items()},
        "absorbed": {group: list(words) for group, words in labels.absorbed.items()},
        "split": split,
        "templates": list(templates),
    }


def _calibrated(lm: LanguageModel, readout: Readout, content_free: Sequence[str]) -> Readout:
    """The readout with the log of each word's mean likelihood after content-free texts as base."""
    if isinstance(content_free, str) or not content_free:
        raise ConfigError(
            f"at least one content-free text is needed, as a list; got {content_free!r}: give "
            "some, or calibrate=False"
        )
    flat = flatten(log_probabilities_of(lm, content_free, readout))

    def based(question: Question) -> Question:
        likelihoods = question.log_likelihoods(flat)
        base = torch.logsumexp(likelihoods, dim=0) - float(np.log(len(content_free)))
        return replace(question, base=base.cpu())

    return replace(
        readout,
        questions=tuple(map(based, readout.questions)),
        scales=tuple(replace(s, questions=tuple(map(based, s.questions))) for s in readout.scales),
    )


@torch.inference_mode()
def log_probabilities_of(
    lm: LanguageModel, texts: Sequence[str], readout: Readout, *, batch_size: int = 16
) -> Tensor:
    """Log-probabilities that `Readout.scores` takes, float64 [n_texts, n_suffixes, n_tokens].

    Rows are run in order of their length. Edits that are open are seen.

    Raises:
        StimulusError: see `Readout.rows`.
    """
    rows = readout.rows(lm, texts).rows
    order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
    found = torch.empty(len(rows), len(readout.tokens), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        logits = lm.forward_logits(lm.pad([rows[k] for k in part]), last_only=True)
        found[part] = readout.log_probabilities(logits).cpu()
    return found.reshape(len(texts), readout.n_suffixes, len(readout.tokens))


def readout_of(
    lm: LanguageModel, texts: Sequence[str], readout: Readout, *, batch_size: int = 16
) -> npt.NDArray[np.float64]:
    """The readout of some texts, float64 [n_texts, n_names]; edits that are open are seen.

    Raises:
        StimulusError: no text, an empty text, or one too long for the context with a suffix.
    """
    logp = log_probabilities_of(lm, texts, readout, batch_size=batch_size)
    read: npt.NDArray[np.float64] = readout.scores(logp).numpy()
    return read


def readout_name_of(contrast: str, readout: Readout) -> str:
    """The column that reads a contrast of a battery.

    A column of the same name, else that of Plutchik's family or of Ekman's counterpart of the
    emotion, else that of the one peak emotion whose family or counterpart the contrast is.

    Raises:
        ConfigError: there is none.
    """
    if contrast in readout.names:
        return contrast
    entry = TAXONOMY.get(contrast)
    kin = (
        [entry.ekman, entry.family]
        if entry
        else [e.name for e in TAXONOMY.values() if contrast in (e.ekman, e.family)]
    )
    for name in kin:
        if name in readout.emotions:
            return name
    raise ConfigError(
        f"the readout has no column for {contrast!r}; there are {', '.join(readout.names)}: give "
        "words for it, or leave the contrast out"
    )
