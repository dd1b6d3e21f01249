"""From the lexical controls of a latent to its class: contextual, lexical, mixed or unsupported.

A test *supports context* if it is significant (Holm over the contrast's latents) on the side of the
finding. Word-free tests are: the difference in differences against shuffled words, the difference
left by a regression on words, and the difference on shared tokens, where it applies.

unsupported   not confirmed on the confirmation part. Nothing is left to explain.
contextual    confirmed, every word-free test that applies supports context, and words predict at
              most `max_r2` of the latent on unlabelled text. All tests have to pass, so that each
              at level alpha holds alpha for the class (intersection-union test; Berger 1982).
              One of them must be of fluent text. A word detector that works only in fluent text
              falls silent on shuffled text as well; where the firing rate changes by more than a
              factor of two, the shuffles cannot tell it from a latent that needs meaning. Then
              shared tokens, or the effect on a strict battery, must support context.
lexical       confirmed, neither shuffled words nor shared tokens support context, the effect does
              not hold on a strict battery, whose members hold the same words, and words are
              shown to carry most of the effect: the share kept under shuffling of words, or the
              share predicted from words, has the lower end of its 95% interval at `MOSTLY` or
              above. Tests that find nothing are not enough: this class is a finding of its own.
              The residual cannot speak against it, since a regression that shrinks, or has the
              wrong form, leaves part of a purely lexical effect.
mixed         the rest: part of the tests support context, or the data tell neither.

Monotone: a smaller p on the finding's side, a smaller R2 or a smaller share of words never moves a
confirmed latent away from contextual. An effect that does not show on the strict batteries counts
for nothing, since those pairs are few and their differences small; it is reported beside the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

FeatureClass = Literal["contextual", "lexical", "mixed", "unsupported"]
CLASSES: tuple[FeatureClass, ...] = get_args(FeatureClass)

SHUFFLE, RESIDUAL = "shuffled words", "residual after words"

MOSTLY = 0.5
"""Words carry most of an effect if they carry at least this share: more than all else together."""


@dataclass(frozen=True)
class WordFree:
    """One word-free test of one latent: its effect and Holm p, NaN where it could not be made."""

    effect: float
    p_holm: float


@dataclass(frozen=True)
class Evidence:
    """What the class of one latent in one contrast rests on.

    Attributes:
        confirmed: as the search says.
        effect: effect of the contrast on the pairs that controls were tested on.
        shuffle: difference in differences against shuffled words.
        residual: difference left by the regression on words.
        shared: difference on shared tokens; None where it does not apply.
        r2: share of the latent that words predict on unlabelled text; NaN if it cannot be told.
        kept: share of the effect kept under shuffling of words; NaN if undefined.
        kept_low: lower end of its interval; NaN if there is none.
        predicted: share of the effect predicted from words; NaN if undefined.
        predicted_low: lower end of its interval; NaN if there is none.
        off_distribution: the latent fires on far more or fewer of the texts when shuffled.
        strict: the effect holds on a battery whose members hold the same words.
    """

    confirmed: bool
    effect: float
    shuffle: WordFree
    residual: WordFree
    shared: WordFree | None
    r2: float
    kept: float
    kept_low: float
    predicted: float
    predicted_low: float
    off_distribution: bool
    strict: bool


@dataclass(frozen=True)
class Verdict:
    """A class and one sentence that says why."""

    kind: FeatureClass
    why: str


def classify(evidence: Evidence, *, alpha: float, max_r2: float) -> Verdict:
    """The class of a latent by the rules of this module.

    Args:
        evidence: numbers of one latent in one contrast.
        alpha: level of the Holm-adjusted tests.
        max_r2: most that words may predict of a contextual latent.
    """
    if not evidence.confirmed:
        return Verdict(
            "unsupported",
            "Not confirmed on the held-out clusters, so there is no effect to explain.",
        )
    passed = {
        name: _supports(test, evidence.effect, alpha) for name, test in _tests(evidence).items()
    }
    few_words = evidence.r2 <= max_r2
    fluent = not evidence.off_distribution or evidence.shared is not None or evidence.strict
    if all(passed.values()) and few_words and fluent:
        return Verdict("contextual", _contextual(evidence))
    mostly = evidence.kept_low >= MOSTLY or evidence.predicted_low >= MOSTLY
    free = [passed[name] for name in passed if name != RESIDUAL]
    if mostly and not any(free) and not evidence.strict:
        return Verdict("lexical", _lexical(evidence))
    if not any(passed.values()) and not evidence.strict:
        return Verdict(
            "mixed",
            "Undecided: no word-free test is significant, and words are not shown to carry most "
            f"of the effect ({_shares(evidence)}).",
        )
    return Verdict("mixed", _mixed(evidence, passed, max_r2, fluent=fluent))


def _tests(e: Evidence) -> dict[str, WordFree]:
    tests = {SHUFFLE: e.shuffle, RESIDUAL: e.residual}
    return tests if e.shared is None else {**tests, "shared tokens": e.shared}


def _supports(test: WordFree, effect: float, alpha: float) -> bool:
    """NaN compares false: a test that was not made supports nothing."""
    return test.p_holm <= alpha and test.effect * effect > 0


def _shares(e: Evidence) -> str:
    return (
        f"share kept under shuffling {_share(e.kept, e.kept_low)}, "
        f"predicted from words {_share(e.predicted, e.predicted_low)}"
    )


def _share(value: float, low: float) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{value:.2f}" + ("" if math.isnan(low) else f", at least {low:.2f}")


def _contextual(e: Evidence) -> str:
    shared = "" if e.shared is None else f", shared tokens p={e.shared.p_holm:.3g}"
    return (
        f"The effect needs word order (p={e.shuffle.p_holm:.3g}) and stays without what words "
        f"predict (p={e.residual.p_holm:.3g}{shared}; R2 {e.r2:.2f})."
    )


def _lexical(e: Evidence) -> str:
    tests = "Shuffled words do not"
    if e.shared is not None:
        tests = "Neither shuffled words nor shared tokens"
    return f"{tests} support context, and words carry most of the effect: {_shares(e)}."


def _mixed(e: Evidence, passed: dict[str, bool], max_r2: float, *, fluent: bool) -> str:
    yes = [name for name, value in passed.items() if value]
    yes += ["a battery of equal words"] if e.strict else []
    no = [name for name, value in passed.items() if not value]
    parts = [f"context supported by: {', '.join(yes)}"]
    if no:
        parts.append(f"not by: {', '.join(no)}")
    if math.isnan(e.r2):
        parts.append("too rarely active in the passages to fit words")
    elif e.r2 > max_r2:
        parts.append(f"words predict R2 {e.r2:.2f}, above {max_r2:g}")
    if passed[SHUFFLE] and not fluent:
        parts.append(
            "its firing rate changes by more than a factor of two under shuffling, and no test of "
            "fluent text rules out that it needs fluency"
        )
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."
