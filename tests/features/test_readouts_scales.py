"""Valence and arousal: expected values by hand, their range, and where they point."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.data.models import LanguageModel
from affectlens.data.taxonomy import AROUSAL_WORDS, VALENCE_WORDS
from affectlens.data.tiny import tiny_model
from affectlens.features.readout_scales import AROUSAL, SCALES, VALENCE, Scale, expected_value
from affectlens.features.readouts import Readout, build_readout, readout_of

WORDS = {"joy": ("gay", "merry", "xyz"), "fear": ("afraid", "dread", "panic")}
TEXTS = ("She read the letter twice.", "The boat left.")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_model("llama", words=[*WORDS["joy"], *WORDS["fear"], "terrible", "wonderful"])


def likelihood(lm: LanguageModel, head: list[int], tail: list[int]) -> float:
    logits = lm.forward_logits(lm.pad([[*head, *tail]]), last_only=False)[0].double()
    logp = torch.log_softmax(logits, dim=-1)
    return sum(float(logp[len(head) + k - 1, token]) for k, token in enumerate(tail))


def brute_force(lm: LanguageModel, text: str, scale: Scale, content_free: str | None) -> float:
    values = np.array(list(scale.values.values()))
    read = []
    for template in scale.templates:
        log_p = []
        for word in scale.values:
            tail = lm.tokenizer.encode(" " + word)
            after = likelihood(lm, lm.tokenizer.encode(text + template), tail)
            if content_free:
                after -= likelihood(lm, lm.tokenizer.encode(content_free + template), tail)
            log_p.append(after)
        p = np.exp(np.array(log_p) - max(log_p))
        read.append(float(p @ values / p.sum()))
    return float(np.mean(read))


@pytest.mark.parametrize("free", [None, "N/A"])
def test_scales_against_brute_force(lm: LanguageModel, free: str | None) -> None:
    readout = build_readout(
        lm, WORDS, (" So",), scales=True, calibrate=bool(free), content_free=(free or "N/A",)
    )
    assert readout.names == ("joy", "fear", "valence", "arousal")
    read = readout_of(lm, TEXTS[:1], readout, batch_size=64)
    for column, scale in zip((2, 3), SCALES, strict=True):
        want = brute_force(lm, TEXTS[0], scale, free)
        assert read[0, column] == pytest.approx(want, abs=1e-5)


def test_expected_value_by_hand() -> None:
    likelihoods = torch.tensor([[0.1, 0.3], [0.2, 0.2]], dtype=torch.float64).log()
    values = torch.tensor([-1.0, 1.0])
    assert expected_value(likelihoods, values).tolist() == pytest.approx([0.5, 0.0])
    # Only ratios count.
    assert expected_value(likelihoods - 40, values).tolist() == pytest.approx([0.5, 0.0])


def _raised(readout: Readout, lm: LanguageModel, word: str) -> torch.Tensor:
    """Scores where one whole word is likelier than before, by a lot."""
    logp = torch.full((2, readout.n_suffixes, len(readout.tokens)), -6.0, dtype=torch.float64)
    logp[1, :, readout.tokens.index(lm.tokenizer.encode(" " + word)[0])] = -1e-3
    return readout.scores(logp)


def test_a_likely_answer_draws_the_scale_to_its_value() -> None:
    lm = tiny_model("llama", words=[*WORDS["joy"], *WORDS["fear"], *VALENCE_WORDS, *AROUSAL_WORDS])
    readout = build_readout(lm, WORDS, (" So",), scales=True, calibrate=False)
    for word, value in {**VALENCE_WORDS, **AROUSAL_WORDS}.items():
        column = readout.names.index("valence" if word in VALENCE_WORDS else "arousal")
        read = _raised(readout, lm, word)
        middle = 0.0 if word in VALENCE_WORDS else 0.5
        assert read[0, column] == pytest.approx(middle, abs=1e-9)
        assert float(read[1, column]) == pytest.approx(value, abs=0.03)


def test_scales_stay_within_their_range(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, (" So",), scales=True)
    logp = 200 * torch.randn(
        (50, readout.n_suffixes, len(readout.tokens)),
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    read = readout.scores(logp)
    assert torch.isfinite(read).all()
    assert read[:, 2].abs().max() <= 1
    assert read[:, 3].min() >= 0
    assert read[:, 3].max() <= 1


def test_scales_leave_the_emotions_as_they_are(lm: LanguageModel) -> None:
    plain = readout_of(lm, TEXTS, build_readout(lm, WORDS, (" So",)))
    scaled = build_readout(lm, WORDS, (" So",), scales=True)
    np.testing.assert_allclose(readout_of(lm, TEXTS, scaled)[:, :2], plain, atol=1e-6)


def test_answers_are_balanced_and_none_holds_another() -> None:
    """Where every answer is as likely as after a content-free text, a scale reads its middle."""
    assert sum(VALENCE.values.values()) == pytest.approx(0)
    assert np.mean(list(AROUSAL.values.values())) == pytest.approx(0.5)
    assert {min(VALENCE.values.values()), max(VALENCE.values.values())} == {-1.0, 1.0}
    assert {min(AROUSAL.values.values()), max(AROUSAL.values.values())} == {0.0, 1.0}
    for scale in SCALES:
        words = list(scale.values)
        assert not [(a, b) for a in words for b in words if a != b and b.startswith(a)]
