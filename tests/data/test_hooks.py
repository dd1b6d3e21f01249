import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import HookError
from affectlens.data.hooks import EditContext, capture, edit, resume_from
from affectlens.data.models import LanguageModel, ModelSource
from affectlens.data.tiny import byte_tokenizer, tiny_model

TEXTS = ["The rain fell.", "She kept the letter in the drawer.", "No"]


def hook_count(lm: LanguageModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules()
    )


def shadowed(lm: LanguageModel) -> int:
    return sum("forward" in block.__dict__ for block in lm.blocks)


SIZES = {"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
IDS = {"pad_token_id": 256, "eos_token_id": 257, "bos_token_id": None}
OTHERS = {
    # Bloom, Falcon and GPT-J blocks return tuples; Bloom takes no positions; OPT has an inner
    # decoder that its head calls directly; Gemma 3 mixes two kinds of attention.
    "BloomConfig": {**SIZES, "n_layer": 3, "n_head": 4},
    "FalconConfig": SIZES,
    "GPTJConfig": {"vocab_size": 258, "n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4},
    "OPTConfig": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "Gemma3TextConfig": {**SIZES, "intermediate_size": 64, "head_dim": 8, "sliding_window": 8},
    "MixtralConfig": {
        **SIZES,
        "intermediate_size": 64,
        "num_local_experts": 2,
        "num_key_value_heads": 2,
    },
}


@pytest.fixture(params=OTHERS)
def other_lm(request):
    """A tiny model of a family beyond the four that the package names."""
    config = getattr(transformers, request.param)(**OTHERS[request.param], **IDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return LanguageModel(
        request.param, model, byte_tokenizer(), ModelSource("tiny", None, None, None)
    )


# other families


def test_other_families_are_read_edited_and_resumed(other_lm):
    batch = other_lm.encode(TEXTS, side="left")
    hidden = other_lm.model(**other_lm.model_inputs(batch), output_hidden_states=True).hidden_states
    name = "blocks.1.hook_resid_post"
    resid = capture(other_lm, [1], batch)[name]
    assert torch.equal(resid, hidden[2])
    full = other_lm.forward_logits(batch)
    with resume_from(other_lm, 1, resid), edit(other_lm, {name: lambda h, c: None}) as log:
        assert torch.equal(other_lm.forward_logits(batch), full)
    assert log.calls == {name: 1}
    with edit(other_lm, {name: lambda h, c: h * 2}):
        edited = other_lm.forward_logits(batch)
    with edit(other_lm, {"blocks.2.hook_resid_pre": lambda h, c: h * 2}):
        assert torch.equal(other_lm.forward_logits(batch), edited)
    assert not torch.allclose(edited, full)


def test_other_families_generate_alike_with_padding(other_lm):
    together = other_lm.generate(TEXTS, max_new_tokens=6)
    assert together == [other_lm.generate(text, max_new_tokens=6) for text in TEXTS]


# capture


@pytest.mark.parametrize("side", ["left", "right"])
def test_capture_equals_hidden_states(lm, side):
    batch = lm.encode(TEXTS, side=side)
    hidden = lm.model(**lm.model_inputs(batch), output_hidden_states=True).hidden_states
    names = [0, 1, 2, "blocks.0.hook_resid_pre", "blocks.3.hook_resid_pre"]
    found = capture(lm, names, batch)
    for layer in range(3):
        assert torch.equal(found[f"blocks.{layer}.hook_resid_post"], hidden[layer + 1])
    assert torch.equal(found["blocks.0.hook_resid_pre"], hidden[0])
    assert torch.equal(found["blocks.3.hook_resid_pre"], hidden[3])


def test_last_layer_is_taken_before_the_final_norm(lm):
    batch = lm.encode(TEXTS)
    resid = capture(lm, [3], batch)["blocks.3.hook_resid_post"]
    trunk = lm.model.base_model
    norm = next(
        getattr(trunk, n) for n in ("norm", "ln_f", "final_layer_norm") if hasattr(trunk, n)
    )
    hidden = lm.model(**lm.model_inputs(batch), output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(norm(resid), hidden, atol=1e-6)


def test_capture_stops_after_the_deepest_block(tiny_llama):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(tiny_llama.blocks)
    ]
    try:
        capture(tiny_llama, ["blocks.2.hook_resid_pre", 0], tiny_llama.encode(TEXTS))
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1]


def test_capture_leaves_no_hooks_and_no_gradients(lm):
    before = hook_count(lm)
    found = capture(lm, [1, 1, "layers.1"], lm.encode(TEXTS))
    assert list(found) == ["blocks.1.hook_resid_post"]
    assert not found["blocks.1.hook_resid_post"].requires_grad
    assert hook_count(lm) == before


def test_captured_tensors_can_be_trained_on(tiny_llama):
    resid = capture(tiny_llama, [1], tiny_llama.encode(TEXTS))["blocks.1.hook_resid_post"]
    weight = torch.zeros(resid.shape[-1], requires_grad=True)
    (resid @ weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("name", [4, "blocks.99.hook_resid_post"])
def test_capture_outside_the_model(tiny_llama, name):
    with pytest.raises(HookError, match="does not exist: the model has 4 blocks"):
        capture(tiny_llama, [name], tiny_llama.encode(TEXTS))


def test_capture_needs_an_address(tiny_llama):
    with pytest.raises(HookError, match="at least one address"):
        capture(tiny_llama, [], tiny_llama.encode(TEXTS))


def test_a_block_that_never_runs_is_an_error():
    lm = tiny_model("llama")
    batch = lm.encode(TEXTS)
    lm.model.config.num_hidden_layers = 2  # the trunk runs the first two blocks only
    with pytest.raises(HookError, match=r"never reached blocks\.3\.hook_resid_post"):
        capture(lm, [0, 3], batch)


# edit


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"])
def test_untouched_and_zero_edits_are_bit_equal(lm, name):
    batch = lm.encode(TEXTS)
    clean = lm.forward_logits(batch, last_only=False)
    for function in (lambda h, c: None, lambda h, c: h, lambda h, c: h + 0.0):
        with edit(lm, {name: function}) as log:
            assert torch.equal(lm.forward_logits(batch, last_only=False), clean)
        assert log.calls == {name: 1}
    assert torch.equal(lm.forward_logits(batch, last_only=False), clean)


def test_editing_an_output_equals_editing_the_next_input(lm):
    batch = lm.encode(TEXTS)
    delta = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    with edit(lm, {"blocks.1.hook_resid_post": lambda h, c: h + delta}):
        post = lm.forward_logits(batch)
    with edit(lm, {"blocks.2.hook_resid_pre": lambda h, c: h + delta}):
        pre = lm.forward_logits(batch)
    assert torch.equal(post, pre)
    assert not torch.allclose(post, lm.forward_logits(batch))


def test_capture_sees_open_edits_and_nested_edits_add_up(lm):
    batch = lm.encode(TEXTS)
    name = "blocks.1.hook_resid_post"
    clean = capture(lm, [1], batch)[name]
    with (
        edit(lm, {name: lambda h, c: h + 1}) as outer,
        edit(lm, {name: lambda h, c: h * 2}) as inner,
    ):
        found = capture(lm, [1], batch)[name]
    assert torch.equal(found, (clean + 1) * 2)
    assert outer.calls == inner.calls == {name: 1}


def test_an_edit_that_never_ran_is_an_error(tiny_llama):
    with (
        pytest.raises(HookError, match=r"blocks\.1\.hook_resid_post never ran"),
        edit(tiny_llama, {"1": lambda h, c: None}),
    ):
        pass
    with (
        pytest.raises(HookError, match=r"blocks\.3\.hook_resid_post never ran"),
        edit(tiny_llama, {"3": lambda h, c: None}),
    ):
        capture(tiny_llama, [0], tiny_llama.encode(TEXTS))


def test_hooks_go_away_after_an_exception(lm):
    before = hook_count(lm)
    clean = lm.forward_logits(lm.encode(TEXTS))
    with pytest.raises(ZeroDivisionError), edit(lm, {"1": lambda h, c: h * (1 / 0)}):
        lm.forward_logits(lm.encode(TEXTS))
    assert hook_count(lm) == before
    assert torch.equal(lm.forward_logits(lm.encode(TEXTS)), clean)


def test_an_exception_is_not_hidden_by_the_call_count(tiny_llama):
    with pytest.raises(KeyError, match="mine"), edit(tiny_llama, {"1": lambda h, c: None}):
        raise KeyError("mine")


def test_wrong_shape_and_double_address(tiny_llama):
    with (
        pytest.raises(HookError, match="returned shape"),
        edit(tiny_llama, {"1": lambda h, c: h[:, :1]}),
    ):
        tiny_llama.forward_logits(tiny_llama.encode(TEXTS))
    with (
        pytest.raises(HookError, match="edited twice"),
        edit(tiny_llama, {"1": lambda h, c: h, "layers.1": lambda h, c: h}),
    ):
        pass
    with pytest.raises(HookError, match="at least one address"), edit(tiny_llama, {}):
        pass


def test_the_result_is_cast_to_the_models_format(tiny_llama):
    batch = tiny_llama.encode(TEXTS)
    with edit(tiny_llama, {"1": lambda h, c: h.double()}):
        found = tiny_llama.forward_logits(batch)
    assert torch.equal(found, tiny_llama.forward_logits(batch))


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    side=st.sampled_from(["left", "right"]),
)
def test_context_knows_positions_and_padding(lengths, side):
    lm = _shared()
    batch = lm.pad([[65] * n for n in lengths], side=side)
    seen: list[EditContext] = []
    with edit(lm, {"0": lambda h, c: seen.append(c)}):
        lm.forward_logits(batch)
    assert torch.equal(seen[0].positions, batch.positions)
    assert torch.equal(seen[0].attention, batch.attention_mask)
    assert seen[0].phase == "prompt"


_MADE: list[LanguageModel] = []


def _shared() -> LanguageModel:
    if not _MADE:
        _MADE.append(tiny_model("llama"))
    return _MADE[0]


def test_context_while_decoding_under_left_padding(lm):
    seen: list[EditContext] = []
    with edit(lm, {"2": lambda h, c: seen.append(c)}) as log:
        lm.generate(["ab", "abcd"], max_new_tokens=3)
    assert [c.phase for c in seen] == ["prompt", "generated", "generated"]
    assert seen[0].positions.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert seen[0].attention.tolist() == [[False, False, True, True], [True] * 4]
    assert [c.positions.tolist() for c in seen[1:]] == [[[2], [4]], [[3], [5]]]
    assert log.calls["blocks.2.hook_resid_post"] == 3


def test_context_without_a_mask_and_in_the_librarys_own_generation(lm):
    ids = lm.encode(["abcd"]).input_ids
    seen: list[EditContext] = []
    with edit(lm, {"1": lambda h, c: seen.append(c)}):
        lm.model(ids)
        lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False
        )
    assert seen[0].positions.tolist() == [[0, 1, 2, 3]]
    assert [c.phase for c in seen] == ["prompt", "prompt", "generated"]
    assert seen[2].positions.tolist() == [[4]]


def test_a_block_called_alone_has_no_context(tiny_llama):
    with (
        pytest.raises(HookError, match="outside the model's forward"),
        edit(tiny_llama, {"blocks.1.hook_resid_pre": lambda h, c: None}),
    ):
        tiny_llama.blocks[1](torch.zeros(1, 2, tiny_llama.d_model))


# resume_from


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_resumed_run_equals_the_full_run(lm, layer, side):
    batch = lm.encode(TEXTS, side=side)
    full = lm.forward_logits(batch, last_only=False)
    resid = capture(lm, [layer], batch)[f"blocks.{layer}.hook_resid_post"]
    with resume_from(lm, layer, resid):
        assert torch.equal(lm.forward_logits(batch, last_only=False), full)
    assert shadowed(lm) == 0
    assert torch.equal(lm.forward_logits(batch, last_only=False), full)


def test_capture_above_the_resumed_layer(lm):
    batch = lm.encode(TEXTS)
    names = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"]
    full = capture(lm, names, batch)
    with resume_from(lm, 1, full[names[0]]):
        found = capture(lm, names, batch)
    assert all(torch.equal(found[name], full[name]) for name in names)


def test_resumed_run_does_not_run_the_skipped_blocks(tiny_llama):
    batch = tiny_llama.encode(TEXTS)
    resid = capture(tiny_llama, [2], batch)["blocks.2.hook_resid_post"]
    ran = []
    handles = [
        block.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(tiny_llama.blocks)
    ]
    try:
        with resume_from(tiny_llama, 2, resid):
            tiny_llama.forward_logits(batch)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [3]


@pytest.mark.parametrize("order", ["edit outside", "edit inside"])
def test_edits_of_the_resumed_layer_and_above_still_act(order):
    lm = tiny_model("gpt2")
    batch = lm.encode(TEXTS)
    edits = {"1": lambda h, c: h + 1, "blocks.3.hook_resid_pre": lambda h, c: h * 0.5}
    with edit(lm, edits):
        full = lm.forward_logits(batch)
    resid = capture(lm, [1], batch)["blocks.1.hook_resid_post"]
    if order == "edit inside":
        with resume_from(lm, 1, resid), edit(lm, edits) as log:
            found = lm.forward_logits(batch)
    else:
        with edit(lm, edits) as log, resume_from(lm, 1, resid):
            found = lm.forward_logits(batch)
    assert torch.equal(found, full)
    assert set(log.calls.values()) == {1}


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"])
def test_an_edit_that_would_be_lost_is_an_error(tiny_llama, name):
    batch = tiny_llama.encode(TEXTS)
    resid = capture(tiny_llama, [2], batch)["blocks.2.hook_resid_post"]
    with resume_from(tiny_llama, 2, resid):
        with (
            pytest.raises(HookError, match="lies below layer 2"),
            edit(tiny_llama, {name: lambda h, c: h + 1}),
        ):
            tiny_llama.forward_logits(batch)
        with pytest.raises(HookError, match="lies below layer 2"):
            capture(tiny_llama, [name], batch)
    assert shadowed(tiny_llama) == 0


def test_resume_refuses_another_batch_nesting_and_layers_outside(tiny_llama):
    batch = tiny_llama.encode(TEXTS)
    resid = capture(tiny_llama, [2], batch)["blocks.2.hook_resid_post"]
    with resume_from(tiny_llama, 2, resid):
        with pytest.raises(HookError, match="run the batch it was captured from"):
            tiny_llama.forward_logits(tiny_llama.encode(["another"]))
        with (
            pytest.raises(HookError, match="already open at layer 2"),
            resume_from(tiny_llama, 1, resid),
        ):
            pass
    with pytest.raises(HookError, match="does not exist"), resume_from(tiny_llama, 9, resid):
        pass
    assert tiny_llama.resumed_layer is None


def test_generation_cannot_be_resumed(tiny_llama):
    ids = tiny_llama.token_ids("abc")
    resid = capture(tiny_llama, [2], tiny_llama.pad([ids]))["blocks.2.hook_resid_post"]
    with (
        pytest.raises(HookError, match=r"run the batch|KV cache"),
        resume_from(tiny_llama, 2, resid),
    ):
        tiny_llama.generate("abc", max_new_tokens=4)
    assert shadowed(tiny_llama) == 0
