"""Likelihood of texts after shared prompts: the same as reading every text whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.features.continuation_nll import continuation_nll

PROMPTS = ["The tray stood there.", "I went out, and it rained.", "The tray stood there.", "A"]
TEXTS = [" Then it fell.", " I was wet, and so was the dog.", " So", "b c"]


def whole(lm: LanguageModel, prompt: str, text: str) -> float:
    """By definition: one row, all tokens, no cache."""
    ids, start = lm.token_ids(prompt + text), len(lm.token_ids(prompt))
    logp = torch.log_softmax(lm.forward_logits(lm.pad([ids]), last_only=False)[0].double(), -1)
    return -float(np.mean([logp[i - 1, ids[i]] for i in range(start, len(ids))]))


def test_equals_the_definition_for_every_family(lm: LanguageModel) -> None:
    wanted = [whole(lm, p, t) for p, t in zip(PROMPTS, TEXTS, strict=True)]
    for batch_size in (1, 2, 16):
        got = continuation_nll(lm, PROMPTS, TEXTS, batch_size=batch_size)
        np.testing.assert_allclose(got.nll, wanted, atol=1e-4)


def test_an_empty_text_has_no_likelihood(tiny_llama: LanguageModel) -> None:
    got = continuation_nll(tiny_llama, ["A b", "A b"], ["", " c"])
    assert np.isnan(got.nll[0]) and got.n_tokens.tolist() == [0, 2]
    assert np.isfinite(got.nll[1])
    assert continuation_nll(tiny_llama, [], []).nll.shape == (0,)


def test_every_prompt_is_read_once_a_batch(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = tiny_llama.model.forward

    def counted(*args: object, **more: object):
        read.append(more["input_ids"].numel())
        return original(*args, **more)

    monkeypatch.setattr(tiny_llama.model, "forward", counted)
    monkeypatch.setattr(tiny_llama, "accepted_arguments", frozenset({"position_ids"}))
    prompt = "x" * 100
    continuation_nll(tiny_llama, [prompt] * 8, [" abcd"] * 8, batch_size=4)
    assert read == [99, 4 * 6, 99, 4 * 6]
    read.clear()
    # Prompts of few texts share batches, and what all of them begin with is read once.
    prompts = [f"The same beginning, then {c}." for c in "abcd"]
    continuation_nll(tiny_llama, prompts, [" So."] * 4, batch_size=4)
    assert len(read) == 2 and read[0] == len("The same beginning, then ")


def test_bad_calls_are_refused(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="2 prompts and 1 texts"):
        continuation_nll(tiny_llama, ["a", "b"], ["c"])
    with pytest.raises(ConfigError, match="batch size 0"):
        continuation_nll(tiny_llama, ["a"], ["c"], batch_size=0)
    with pytest.raises(StimulusError, match="prompt 0 is empty"):
        continuation_nll(tiny_llama, [""], ["c"])
    with pytest.raises(StimulusError, match="prompt and text 0 has"):
        continuation_nll(tiny_llama, ["a"], ["c" * 3000])
