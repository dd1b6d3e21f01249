"""Which tokens a scope means, under padding on either side and while a KV cache is continued."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affectlens.data.errors import ConfigError, HookError
from affectlens.data.hooks import EditContext, edit
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Side, real_positions
from affectlens.features.interventions import residual_edit
from affectlens.features.scopes import FromPosition, Positions, Scope, check_scope, in_scope
from affectlens.features.specs import AddDirection
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"


def prompt_mask(lengths: list[int], side: str, extra: int) -> Tensor:
    """Bool [batch, width] of prompts padded on one side, with `extra` columns of padding."""
    width = max(lengths) + extra
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, n in zip(mask, lengths, strict=True):
        row[width - n if side == "left" else 0 :][:n] = True
    return mask


def context_at(mask: Tensor, step: int, n_prompt: int) -> EditContext:
    """The context of the prompt (step 0) or of the newest token, as a cached model gives it."""
    here = slice(0, n_prompt) if step == 0 else slice(n_prompt + step - 1, n_prompt + step)
    full = mask[:, : n_prompt + step]
    # What stands on padding means nothing.
    positions = torch.where(full, real_positions(full), 99)
    return EditContext(positions[:, here], full[:, here], "generated" if step else "prompt")


def meant(scope: Scope, position: int, length: int, step: int) -> bool:
    """The definition, for one real token at `position` of a text whose prompt has `length`."""
    if isinstance(scope, Positions):
        return position in [p if p >= 0 else length + p for p in scope.positions]
    if isinstance(scope, FromPosition):
        return position >= (scope.start if scope.start >= 0 else length + scope.start)
    if scope == "last":
        return position == length - 1 if step == 0 else True
    return {"all": True, "content": True, "prompt": step == 0, "generated": step > 0}[scope]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], str, int, list[list[bool]], Scope]:
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    side = draw(st.sampled_from(["left", "right"]))
    extra = draw(st.integers(0, 2))
    n_steps = draw(st.integers(0, 3))
    # A text that has ended goes on as padding.
    stops = [draw(st.integers(0, n_steps)) for _ in lengths]
    running = [[step < stop for stop in stops] for step in range(n_steps)]
    inside = st.integers(-min(lengths), min(lengths) - 1)
    scope = draw(
        st.one_of(
            st.sampled_from(["all", "content", "prompt", "generated", "last"]),
            st.builds(Positions, st.lists(inside, min_size=1, max_size=4).map(tuple)),
            st.builds(FromPosition, st.one_of(inside, st.integers(0, 12))),
        )
    )
    return lengths, side, extra, running, scope


@settings(max_examples=150, deadline=None)
@given(cases())
def test_masks_equal_the_definition(
    case: tuple[list[int], str, int, list[list[bool]], Scope],
) -> None:
    lengths, side, extra, running, scope = case
    mask = prompt_mask(lengths, side, extra)
    n_prompt = mask.shape[1]
    for alive in running:
        mask = torch.cat([mask, torch.tensor(alive)[:, None]], 1)
    seen = torch.tensor(lengths)
    for step in range(len(running) + 1):
        context = context_at(mask, step, n_prompt)
        found = in_scope(scope, context, seen)
        assert found.shape == context.attention.shape
        for row, length in enumerate(lengths):
            for column in range(found.shape[1]):
                wanted = bool(context.attention[row, column]) and meant(
                    scope, int(context.positions[row, column]), length, step
                )
                assert bool(found[row, column]) == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(-9, 9),
    st.sampled_from(["left", "right"]),
)
def test_a_position_outside_any_text_is_refused(lengths: list[int], p: int, side: str) -> None:
    context = context_at(prompt_mask(lengths, side, 0), 0, max(lengths))
    seen = torch.tensor(lengths)
    if -min(lengths) <= p < min(lengths):
        assert int(in_scope(Positions((p,)), context, seen).sum()) == len(lengths)
        return
    with pytest.raises(ConfigError, match=f"position {p} lies outside text"):
        in_scope(Positions((p,)), context, seen)
    if p < 0:
        with pytest.raises(ConfigError, match=f"position {p} lies outside text"):
            in_scope(FromPosition(p), context, seen)
    else:
        wanted = sum(max(0, n - p) for n in lengths)
        assert int(in_scope(FromPosition(p), context, seen).sum()) == wanted


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("first", "unknown scope 'first'; allowed are all, content, prompt, generated, last"),
        (Positions(()), "names no position"),
        (Positions((1.5,)), "must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (FromPosition("2"), "must be a whole number, got '2'"),  # type: ignore[arg-type]
        (3, "unknown scope 3"),
        ([1], "unknown scope"),
    ],
)
def test_bad_scopes_are_refused(scope: Scope, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_scope(scope)


def test_positions_from_the_end_need_the_prompt() -> None:
    context = context_at(torch.ones(2, 5, dtype=torch.bool), 1, 4)
    assert in_scope(FromPosition(3), context, None).tolist() == [[True], [True]]
    for lengths in (None, torch.tensor([4])):
        with pytest.raises(HookError, match="a prompt that this edit has not seen"):
            in_scope(FromPosition(-1), context, lengths)


def make_sae(lm: LanguageModel, norm_limit: float | None = None) -> SparseAutoencoder:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK, skip_first=True, norm_limit=norm_limit)
    config = sae_lens.TopKSAEConfig(d_in=lm.d_model, d_sae=16, k=4, metadata=metadata)
    return SparseAutoencoder(sae_lens.TopKSAE(config))


PROMPTS = ["The day began", "Rain fell over the town.", "He"]


def edited(lm: LanguageModel, scope: Scope, run: Callable[[], object]) -> list[list[int]]:
    """Positions that were changed in each text, over all passes of `run`."""
    function, _ = residual_edit(make_sae(lm), [AddDirection((0.1,) * lm.d_model)], scope)
    found: list[list[int]] = [[] for _ in PROMPTS]

    def watch(resid: Tensor, context: EditContext) -> Tensor | None:
        new = function(resid, context)
        if new is not None:
            changed = (new != resid).any(-1)
            for row, column in changed.nonzero().tolist():
                assert context.attention[row, column]
                found[row].append(int(context.positions[row, column]))
        return new

    with edit(lm, {HOOK: watch}):
        run()
    return found


SCOPES: list[tuple[Scope, Callable[[int, int], list[int]]]] = [
    ("all", lambda n, end: list(range(end))),
    ("content", lambda n, end: list(range(1, end))),
    ("prompt", lambda n, end: list(range(1, n))),
    ("generated", lambda n, end: list(range(n, end))),
    ("last", lambda n, end: list(range(max(1, n - 1), end))),
    (Positions((1, -1)), lambda n, end: sorted({1, n - 1})),
    (Positions((0,)), lambda n, end: []),  # the mask rule leaves the first token out
    (FromPosition(-1), lambda n, end: list(range(n - 1, end))),
    (FromPosition(4), lambda n, end: list(range(4, end))),
]


@pytest.mark.parametrize(("scope", "wanted"), SCOPES, ids=[str(s) for s, _ in SCOPES])
def test_generation_edits_just_the_scope(
    lm: LanguageModel, scope: Scope, wanted: Callable[[int, int], list[int]]
) -> None:
    steps = 4
    found = edited(lm, scope, lambda: lm.generate(PROMPTS, max_new_tokens=steps))
    for prompt, positions in zip(PROMPTS, found, strict=True):
        n = len(lm.token_ids(prompt))
        assert positions == wanted(n, n + steps - 1)  # the last token is never read


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("scope", "wanted"), SCOPES, ids=[str(s) for s, _ in SCOPES])
def test_padding_does_not_move_the_scope(
    tiny_llama: LanguageModel,
    scope: Scope,
    wanted: Callable[[int, int], list[int]],
    side: Side,
) -> None:
    lm = tiny_llama
    batch = lm.encode(PROMPTS, side=side)
    found = edited(lm, scope, lambda: lm.forward_logits(batch))
    for prompt, positions in zip(PROMPTS, found, strict=True):
        n = len(lm.token_ids(prompt))
        assert positions == wanted(n, n)


def test_what_the_mask_rule_leaves_out_is_counted(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    batch = lm.encode(PROMPTS)
    n = [len(lm.token_ids(p)) for p in PROMPTS]
    for scope, masked, tokens in (
        ("content", 3, sum(n) - 3),
        ("all", 0, sum(n)),
        (Positions((0, 1)), 3, 3),
        ("generated", 0, 0),
    ):
        spec = AddDirection((0.1,) * lm.d_model)
        function, tally = residual_edit(make_sae(lm), [spec], scope)  # type: ignore[arg-type]
        with edit(lm, {HOOK: function}):
            lm.forward_logits(batch)
        assert (tally.masked, tally.tokens) == (masked, tokens)
    function, tally = residual_edit(make_sae(lm, norm_limit=1e-6), [spec], "content")
    with edit(lm, {HOOK: function}):
        lm.forward_logits(batch)
    assert (tally.masked, tally.tokens) == (sum(n), 0)


def test_a_position_outside_a_text_stops_the_pass(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="position 2 lies outside text 2, which has 2 tokens"):
        edited(tiny_llama, Positions((2,)), lambda: tiny_llama.generate(PROMPTS, max_new_tokens=5))
