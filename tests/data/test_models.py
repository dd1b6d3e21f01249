import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ModelError, StimulusError
from affectlens.data.generation import Sampling, generate_ids
from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule, norm_limit, token_norms
from affectlens.data.models import load_model
from affectlens.data.tiny import tiny_model

TEXTS = ["The rain fell.", "She kept the letter in the drawer.", "No"]


# facts and fingerprints


def test_facts(lm):
    assert (lm.n_layers, lm.d_model, lm.d_vocab, lm.context_length) == (4, 32, 258, 2048)
    assert lm.device == torch.device("cpu")
    assert lm.dtype == torch.float32
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())


def test_fingerprint_follows_the_weights(lm):
    family = lm.name.removeprefix("tiny:")
    assert tiny_model(family).fingerprint == lm.fingerprint
    assert tiny_model(family, seed=1).fingerprint != lm.fingerprint
    assert len(lm.fingerprint) == 64


def test_tokenizer_hash_ignores_padding_left_by_calls():
    used, fresh = tiny_model("llama"), tiny_model("llama")
    used.tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert used.tokenizer_sha256 == fresh.tokenizer_sha256


def test_tiny_models_leave_the_global_random_state_alone():
    state = torch.get_rng_state()
    tiny_model("gpt2")
    assert torch.equal(torch.get_rng_state(), state)


def test_tiny_arguments_are_checked():
    with pytest.raises(ModelError, match=r"unknown tiny family 'bert'; known: llama"):
        load_model("tiny:bert")
    with pytest.raises(ModelError, match="multiple of 8"):
        tiny_model("llama", d_model=20)


# encoding


def test_encode_round_trip(tiny_llama):
    texts = ["naïve café 🙂", "tab\tand\nnewline", "  two  spaces "]
    batch = tiny_llama.encode(texts)
    assert batch.lengths.tolist() == [len(text.encode()) for text in texts]
    for row, text in enumerate(texts):
        ids = batch.input_ids[row][batch.attention_mask[row]]
        assert tiny_llama.tokenizer.decode(ids) == text


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_text_is_encoded_whole_or_refused(text):
    lm = _shared()
    # A special token that is written out is one token, as in every tokenizer.
    assume(not any(token in text for token in lm.tokenizer.all_special_tokens))
    if not text.strip():
        with pytest.raises(StimulusError, match="empty"):
            lm.encode([text])
        return
    assert lm.encode([text]).lengths.tolist() == [len(text.encode())]


_MADE = []


def _shared():
    if not _MADE:
        _MADE.append(tiny_model("llama"))
    return _MADE[0]


def test_last_index_on_either_side(tiny_llama):
    assert tiny_llama.encode(TEXTS, side="right").last_index.tolist() == [13, 33, 1]
    assert tiny_llama.encode(TEXTS, side="left").last_index.tolist() == [33, 33, 33]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", ""], "text 1 is empty"),
        (["fine", " \n"], "text 1 is empty"),
        (["fine", None], "text 1 is empty or not a text"),
        (["bad \ud800"], "lone surrogate at character 4"),
        (["x" * 2049], "has 2049 tokens, but the context of tiny:llama is 2048"),
        ([], "no texts"),
        ("one text", "a list of texts is needed"),
    ],
)
def test_texts_that_cannot_be_encoded(tiny_llama, texts, message):
    with pytest.raises(StimulusError, match=message):
        tiny_llama.encode(texts)


def test_unknown_side(tiny_llama):
    with pytest.raises(StimulusError, match="'left' or 'right'"):
        tiny_llama.encode(TEXTS, side="middle")


# logits


@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_logits_equal_single_ones(lm, side):
    batched = lm.forward_logits(lm.encode(TEXTS, side=side))
    for row, text in enumerate(TEXTS):
        single = lm.forward_logits(lm.encode([text]))[0]
        assert torch.allclose(batched[row], single, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_last_logits_are_those_of_the_last_real_token(lm, side):
    batch = lm.encode(TEXTS, side=side)
    everywhere = lm.forward_logits(batch, last_only=False)
    expected = everywhere[torch.arange(3), batch.last_index]
    assert torch.allclose(lm.forward_logits(batch), expected, atol=1e-5)
    assert everywhere.shape == (3, 34, 258)


# generation


def test_greedy_generation_equals_the_librarys(lm):
    batch = lm.encode([TEXTS[1]])
    theirs = lm.model.generate(
        batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        max_new_tokens=12,
        do_sample=False,
    )[0, batch.input_ids.shape[1] :].tolist()
    ours = generate_ids(lm, [lm.token_ids(TEXTS[1])], Sampling(max_new_tokens=12))[0]
    assert ours == [token for token in theirs if token not in lm.stop_ids]


@pytest.mark.parametrize("settings", [Sampling(12), Sampling(12, temperature=0.8, top_p=0.9)])
def test_generation_with_a_cache_equals_generation_without(lm, settings):
    rows = [lm.token_ids(text) for text in TEXTS]
    assert generate_ids(lm, rows, settings) == generate_ids(lm, rows, settings, use_cache=False)


def test_left_padded_generation_equals_single_generation(lm):
    together = lm.generate(TEXTS, max_new_tokens=12)
    assert together == [lm.generate(text, max_new_tokens=12) for text in TEXTS]


def test_a_sampled_row_does_not_depend_on_the_others(lm):
    options = {"max_new_tokens": 10, "temperature": 1.0, "seed": 4}
    assert lm.generate(TEXTS, **options)[0] == lm.generate(TEXTS[0], **options)
    twice = lm.generate([TEXTS[0]] * 2, **options)
    assert twice[0] != twice[1]


def test_sampling_repeats_and_touches_no_global_state(tiny_llama):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = tiny_llama.generate("abc", temperature=1.0, seed=1)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert tiny_llama.generate("abc", temperature=1.0, seed=1) == first
    assert tiny_llama.generate("abc", temperature=1.0, seed=2) != first


def test_samples_follow_the_softmax_inside_top_p():
    from affectlens.data.generation import _Chooser

    logits = torch.log(torch.tensor([[0.5, 0.1, 0.3, 0.1]])).repeat(4000, 1)
    drawn = (
        np.bincount(_Chooser(Sampling(temperature=1.0), range(4000))(logits), minlength=4) / 4000
    )
    assert np.abs(drawn - [0.5, 0.1, 0.3, 0.1]).max() < 0.03
    cut = _Chooser(Sampling(temperature=1.0, top_p=0.8), range(4000))(logits)
    assert set(cut) == {0, 2}
    assert np.bincount(cut)[0] / 4000 == pytest.approx(0.625, abs=0.03)
    assert set(_Chooser(Sampling(temperature=1.0, top_p=1e-9), range(4000))(logits)) == {0}


def test_generation_ends_at_the_stop_token():
    lm = tiny_model("gpt2")
    first = generate_ids(lm, [lm.token_ids("abc"), lm.token_ids("xy")], Sampling(8))
    lm.model.generation_config.eos_token_id = [first[0][2]]
    stopped = generate_ids(lm, [lm.token_ids("abc"), lm.token_ids("xy")], Sampling(8))
    assert stopped[0] == first[0][: first[0].index(first[0][2])]
    cut = first[1].index(first[0][2]) if first[0][2] in first[1] else None
    assert stopped[1] == first[1][:cut]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_p": 0.0}, "top_p must lie"),
        ({"seed": -1}, "seed must be"),
        ({"chat": True}, "no chat template"),
    ],
)
def test_bad_generation_settings(tiny_llama, options, message):
    with pytest.raises(ModelError, match=message):
        tiny_llama.generate("abc", **options)


def test_generation_must_fit_the_context(tiny_llama):
    with pytest.raises(StimulusError, match=r"a prompt of 2000 tokens and 60 new ones exceed"):
        tiny_llama.generate("x" * 2000)


# the default model


@pytest.mark.network
def test_the_default_model_is_fetched_and_answers():
    lm = load_model()
    assert (lm.n_layers, lm.d_model) == (30, 576)
    assert lm.source.kind == "default"
    answer = lm.generate("The capital of France is", max_new_tokens=6)
    assert "Paris" in answer


@pytest.mark.default_model
def test_default_model_chat_and_generation_equal_the_librarys(default_lm):
    prompts = ["Say hello.", "Name one colour of the sky."]
    assert all(default_lm.generate(prompts, chat=True, max_new_tokens=8))
    rows = [default_lm.token_ids("The day began like any other.")]
    ours = generate_ids(default_lm, rows, Sampling(12))[0]
    theirs = default_lm.model.generate(
        torch.tensor(rows),
        attention_mask=torch.ones(1, len(rows[0]), dtype=torch.long),
        max_new_tokens=12,
        do_sample=False,
    )
    assert ours == theirs[0, len(rows[0]) :].tolist()[: len(ours)]


@pytest.mark.default_model
def test_default_model_batched_equals_single_and_its_first_token_is_masked(default_lm):
    texts = ["He read the letter twice.", "The garden was quiet that evening, and so was she."]
    name = "blocks.15.hook_resid_post"
    batch = default_lm.encode(texts)
    resid = capture(default_lm, [15], batch)[name]
    for row, text in enumerate(texts):
        single = capture(default_lm, [15], default_lm.encode([text]))[name][0]
        assert torch.allclose(resid[row, : len(single)], single, rtol=1e-4, atol=1e-2)
    norms = token_norms(resid)
    assert (norms[:, 0] > 50 * norms[:, 1]).all()
    rule = MaskRule(norm_limit=norm_limit(norms[:, 1:][batch.attention_mask[:, 1:]], 10.0))
    keep = rule.keep(resid, batch.positions, batch.attention_mask)
    assert torch.equal(keep, batch.attention_mask & (batch.positions > 0))
