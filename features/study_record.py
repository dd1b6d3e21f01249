"""The record of the steering study: how it was made and scored; light, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from affectlens.features.results import Record


@dataclass(frozen=True)
class SteeringSummary(Record):
    """How the arms were steered, written and scored.

    Attributes:
        model, model_fingerprint, sae_sha256: what was steered.
        settings: `SteeringStudyConfig`.
        emotions: emotions steered to.
        left_out: emotions of the search that were not, with the reason.
        features: emotion -> arm -> latents, random sets as 'random 0' and so on.
        reference: arm whose written norm directions were given; '' where doses are shares.
        norms: emotion -> dose -> that norm, measured on the prompts.
        scenarios, scenarios_sha256, scenarios_licence: what was written about.
        n_select, n_report: scenarios of the halves.
        go_on, ask, ask_plain: the request of every prompt, the instruction of 'prompt', its
            neutral stand-in.
        chat: the model's chat template was used.
        scorer: card of the reader of emotions.
        method: how each factor of the overall score is made.
        unedited_perplexity: upper quartile of unedited texts, the yardstick of coherence.
        unedited_new: 1 - the upper quartile of their repetition, the second one.
        unedited_readable: median of 1 - P(incoherent) of unedited texts, the third.
        unedited_gain: what its own prompt adds to an unedited text, median, nats per token.
        on_topic_measured: False where unedited texts do not depend on their prompts.
        n_conditions: emotions, arms, sets and doses.
        n_texts: rows of the table of texts.
        n_written: different texts that were written for them.
        n_empty: rows with an empty text.
        n_resumed: texts taken over from a study that was stopped.
        n_dropped_lines: damaged lines of its file that were written again.
        margin: of equivalence of coherence.
        alpha: level of the comparisons.
        seconds: time by part, of the call that ended the study.
        misfits: what does not fit between SAE and model and was overridden by name.
    """

    file: ClassVar[str] = "steering/study.json"
    model: str
    model_fingerprint: str
    sae_sha256: str
    settings: dict[str, Any]
    emotions: list[str]
    left_out: dict[str, str]
    features: dict[str, dict[str, list[int]]]
    reference: str
    norms: dict[str, dict[str, float]]
    scenarios: str
    scenarios_sha256: str
    scenarios_licence: str
    n_select: int
    n_report: int
    go_on: str
    ask: str
    ask_plain: str
    chat: bool
    scorer: dict[str, Any]
    method: dict[str, str]
    unedited_perplexity: float
    unedited_new: float
    unedited_readable: float
    unedited_gain: float
    on_topic_measured: bool
    n_conditions: int
    n_texts: int
    n_written: int
    n_empty: int
    margin: float
    alpha: float
    n_resumed: int = field(default=0, compare=False)
    n_dropped_lines: int = field(default=0, compare=False)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    misfits: list[str] = field(default_factory=list)
