"""Reading and editing the residual stream. These are the only places that touch hooks.

`capture` reads, `edit` changes, `resume_from` goes on from a stored residual. All three work on the
Hugging Face module itself, whatever its family, and take their hooks away again whatever happens.
A hook that was asked for and did not run is an error, never an unchanged result.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from affectlens.data.addresses import Address
from affectlens.data.errors import HookError
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch, real_positions


@dataclass(frozen=True)
class EditContext:
    """What an edit knows about the tokens it is given.

    Attributes:
        positions: long [batch, seq]; the real positions of these tokens in their texts, also while
            decoding with a KV cache and under left padding.
        attention: bool [batch, seq]; False on padding.
        phase: "prompt" while a text is read, "generated" while a KV cache is continued.
    """

    positions: Tensor
    attention: Tensor
    phase: Literal["prompt", "generated"]


EditFn = Callable[[Tensor, EditContext], Tensor | None]
"""Takes the residual [batch, seq, d_model]; returns the new one, or None to leave it as it is."""


@dataclass
class EditLog:
    """How often each edit ran, by hook name."""

    calls: dict[str, int] = field(default_factory=dict)


class _StopForwardError(Exception):
    """Ends a forward pass once everything asked for has been seen."""


def capture(lm: LanguageModel, names: Sequence[str | int], batch: Batch) -> dict[str, Tensor]:
    """Read the residual stream at several places in one forward pass.

    The pass stops after the deepest block that is needed. Edits that are open are seen.

    Args:
        lm: the model.
        names: addresses; integers mean the output of that block.
        batch: tokens.

    Returns:
        hook name -> [batch, seq, d_model] in the model's number format, on its device, a copy,
        without gradients. Padding rows hold values too: mask them by `batch.attention_mask`.

    Raises:
        HookError: no or unknown address, a layer outside the model, or a hook that did not run.
    """
    addresses = [Address.parse(name).check(lm.n_layers) for name in names]
    if not addresses:
        raise HookError(
            "capture needs at least one address, such as 15 or 'blocks.15.hook_resid_post'"
        )
    wanted = dict.fromkeys(addresses)
    deepest = max(wanted, key=_depth)
    taken: dict[str, Tensor] = {}

    def reader(address: Address) -> EditFn:
        def read(resid: Tensor, _: EditContext) -> None:
            taken[address.name] = resid.detach().clone()
            if address == deepest:
                raise _StopForwardError

        return read

    with contextlib.ExitStack() as stack, torch.no_grad():
        context = _watch_inputs(lm, stack)
        for address in wanted:
            _attach(lm, address, reader(address), context, stack)
        with contextlib.suppress(_StopForwardError):
            lm.model(**lm.model_inputs(batch.to(lm.device)), use_cache=False)
    missing = [address.name for address in wanted if address.name not in taken]
    if missing:
        raise HookError(
            f"the forward pass of {lm.name} never reached {', '.join(missing)}; its blocks are not "
            "run in order by its forward method"
        )
    return {address.name: taken[address.name] for address in addresses}


@contextlib.contextmanager
def edit(lm: LanguageModel, edits: Mapping[str, EditFn]) -> Iterator[EditLog]:
    """Change the residual stream in every forward pass inside the block, generation included.

    Edits may be nested; the inner ones see the result of the outer ones at the same place.
    An edit that returns None leaves the logits bit-equal.

    Args:
        lm: the model.
        edits: address -> function; see `EditFn`. The returned residual must have the shape of the
            given one; it is cast to the model's number format.

    Yields:
        the log, which counts the calls of each edit by hook name.

    Raises:
        HookError: unknown address, a layer outside the model, a result of another shape, an edit
            below a layer that `resume_from` skips, or (on a clean exit) an edit that never ran.
    """
    functions: dict[Address, EditFn] = {}
    for name, function in edits.items():
        address = Address.parse(name).check(lm.n_layers)
        if address in functions:
            raise HookError(f"{address.name} is edited twice; combine the two functions into one")
        functions[address] = function
    if not functions:
        raise HookError("edit needs at least one address and function")
    _block_arity(lm)
    log = EditLog(calls={address.name: 0 for address in functions})
    with contextlib.ExitStack() as stack:
        context = _watch_inputs(lm, stack)
        for address, function in functions.items():
            _attach(lm, address, _counted(function, address, log), context, stack)
        yield log
    silent = [name for name, count in log.calls.items() if count == 0]
    if silent:
        raise HookError(
            f"the edit of {', '.join(silent)} never ran: no forward pass reached it inside the "
            "block, so results computed there are unedited"
        )


@contextlib.contextmanager
def resume_from(lm: LanguageModel, layer: int, resid: Tensor) -> Iterator[None]:
    """Run only the blocks above `layer`, going on from its stored output.

    Inside, forward passes over the same batch skip blocks 0 to `layer`; the output of block `layer`
    is `resid`, and everything above is computed as usual, with the same result as a full run.
    Hooks on the output of block `layer` still run, so many edits of one layer share one prefix.

    Args:
        lm: the model.
        layer: the block whose output is given.
        resid: output of that block for the batch that will be run, [batch, seq, d_model], as
            `capture` returned it.

    Raises:
        HookError: a layer outside the model, a batch of another shape, a continued KV cache, or a
            second `resume_from` inside the first.
    """
    Address(layer).check(lm.n_layers)
    if lm.resumed_layer is not None:
        raise HookError(f"resume_from is already open at layer {lm.resumed_layer}; close it first")
    arity = _block_arity(lm)
    replaced = list(lm.blocks[: layer + 1])
    # `forward` is shadowed on the instance, so hooks of the module run as they always do.
    before = [block.__dict__.get("forward") for block in replaced]

    def skip(*args: Any, **kwargs: Any) -> Any:
        _refuse_cache(kwargs)
        return _shape_output(_hidden(args, kwargs), arity)

    def give(*args: Any, **kwargs: Any) -> Any:
        hidden = _hidden(args, kwargs)
        if hidden.shape != resid.shape:
            raise HookError(
                f"resume_from holds a residual of shape {tuple(resid.shape)}, but the batch that "
                f"is run gives {tuple(hidden.shape)}; run the batch it was captured from"
            )
        _refuse_cache(kwargs)
        return _shape_output(resid.to(hidden.device, hidden.dtype), arity)

    try:
        lm.resumed_layer = layer
        for block in replaced:
            block.__dict__["forward"] = give if block is replaced[-1] else skip
        yield
    finally:
        lm.resumed_layer = None
        for block, old in zip(replaced, before, strict=True):
            block.__dict__.pop("forward", None)
            if old is not None:
                block.__dict__["forward"] = old


def _depth(address: Address) -> tuple[int, bool]:
    return address.layer, address.site == "resid_post"


def _counted(function: EditFn, address: Address, log: EditLog) -> EditFn:
    def run(resid: Tensor, context: EditContext) -> Tensor | None:
        log.calls[address.name] += 1
        changed = function(resid, context)
        if changed is None:
            return None
        if changed.shape != resid.shape:
            raise HookError(
                f"the edit of {address.name} returned shape {tuple(changed.shape)}, expected "
                f"{tuple(resid.shape)}"
            )
        return changed.to(resid.device, resid.dtype)

    return run


def _attach(
    lm: LanguageModel,
    address: Address,
    function: EditFn,
    context: _InputWatch,
    stack: contextlib.ExitStack,
) -> None:
    """Register one hook that gives `function` the residual and puts back what it returns."""

    def check() -> None:
        resumed = lm.resumed_layer
        if resumed is not None and _depth(address) < (resumed, True):
            raise HookError(
                f"{address.name} lies below layer {resumed}, from which resume_from goes on: it "
                "would be read or edited without effect"
            )

    def post(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        check()
        resid = output[0] if isinstance(output, tuple) else output
        changed = function(resid, context.current())
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def pre(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        check()
        changed = function(_hidden(args, kwargs), context.current())
        if changed is None:
            return None
        if args:
            return (changed, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": changed}

    block = lm.blocks[address.layer]
    if address.site == "resid_post":
        handle = block.register_forward_hook(post)
    else:
        handle = block.register_forward_pre_hook(pre, with_kwargs=True)
    stack.callback(handle.remove)


class _InputWatch:
    """Sees the inputs of each forward pass and works out the real positions."""

    def __init__(self) -> None:
        self._context: EditContext | None = None

    def attach(self, module: nn.Module, stack: contextlib.ExitStack) -> None:
        """Watch one module that is given tokens, mask and cache."""
        signature = inspect.signature(module.forward)

        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = dict(signature.bind_partial(*args, **kwargs).arguments)
            inputs.update(inputs.pop("kwargs", {}))
            # Worked out before the first block runs, because that one already grows the cache.
            self._context = _context_of(inputs)

        stack.callback(module.register_forward_pre_hook(see, with_kwargs=True).remove)

    def current(self) -> EditContext:
        """The context of the pass that is running."""
        if self._context is None:
            raise HookError(
                "a block was called outside the model's forward method, so the positions of its "
                "tokens are unknown; call the model itself"
            )
        return self._context


def _watch_inputs(lm: LanguageModel, stack: contextlib.ExitStack) -> _InputWatch:
    watch = _InputWatch()
    # The trunk is watched, not the model with its head, so that calls of either are understood.
    # Where an inner decoder holds the blocks (OPT), the model may call it past the trunk.
    watch.attach(lm.model.base_model, stack)
    inner = getattr(lm.model.base_model, "decoder", None)
    if isinstance(inner, nn.Module) and any(child is lm.blocks for child in inner.children()):
        watch.attach(inner, stack)
    return watch


def _context_of(inputs: Mapping[str, Any]) -> EditContext:
    tokens = inputs.get("input_ids")
    if tokens is None:
        tokens = inputs["inputs_embeds"]
    n_batch, n_seq = tokens.shape[:2]
    cache = inputs.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    phase: Literal["prompt", "generated"] = "generated" if past else "prompt"
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        attention = mask.to(torch.bool)
        here = slice(past, past + n_seq)
        return EditContext(real_positions(attention)[:, here], attention[:, here], phase)
    if mask is not None:
        raise HookError(
            "hooks need a two-dimensional attention_mask [batch, seq] (or none) to know which "
            f"tokens are padding, got {type(mask).__name__}"
        )
    positions = torch.arange(past, past + n_seq, device=tokens.device).expand(n_batch, n_seq)
    attention = torch.ones((n_batch, n_seq), dtype=torch.bool, device=tokens.device)
    return EditContext(positions, attention, phase)


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _refuse_cache(kwargs: Mapping[str, Any]) -> None:
    cache = kwargs.get("past_key_values", kwargs.get("layer_past"))
    if cache is not None and cache.get_seq_length():
        raise HookError("resume_from cannot continue a KV cache; run one pass over the whole batch")


def _block_arity(lm: LanguageModel) -> int:
    """How a block returns the residual: 0 as a tensor, n as the first of an n-tuple.

    It differs between families and library versions, and a wrong guess would slice the batch
    silently, so it is seen once, in a pass over one token.
    """
    known: int | None = lm.__dict__.get("_block_arity")
    if known is not None:
        return known
    seen: list[int] = []

    def look(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen.append(len(output) if isinstance(output, tuple) else 0)
        raise _StopForwardError

    handle = lm.blocks[0].register_forward_hook(look)
    try:
        with torch.no_grad(), contextlib.suppress(_StopForwardError):
            lm.model(**lm.model_inputs(lm.pad([[lm.pad_id]])), use_cache=False)
    finally:
        handle.remove()
    if not seen:
        raise HookError(f"the forward pass of {lm.name} does not run its first block")
    lm.__dict__["_block_arity"] = seen[0]
    return seen[0]


def _shape_output(hidden: Tensor, arity: int) -> Tensor | tuple[Tensor | None, ...]:
    return (hidden, *([None] * (arity - 1))) if arity else hidden
