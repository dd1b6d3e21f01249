"""One feature under 64 permutations at once, as one compiled instruction sequence; private.

The inner loop of the permutation tests adds a value to those of 64 running sums whose bit is set,
then holds the sums against the limit. Written in Numba the sums go through memory for every value
and the masks must be widened to whole integers; stated as vectors of LLVM they stay in registers,
the masks stay bits, and counting is a population count: two to three times as fast with AVX-512.
LLVM splits the vectors to whatever the processor has, so this runs everywhere that Numba does.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LANES = 64
"""Permutations in a word of masks."""

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_INT, _LONG = ir.IntType(32), ir.IntType(64)
_SUMS, _BITS = ir.VectorType(_INT, LANES), ir.VectorType(ir.IntType(1), LANES)
_ZERO = ir.Constant(_SUMS, [0] * LANES)


def _masked_sums(  # type: ignore[no-untyped-def]
    _context, out, words, units, values, start, stop, initial, word
):
    """out[64 word + b] = initial + sum over i in start:stop of values[i] if bit b is set.

    The bit is that of words[units[i], word], lowest first, for b = 0..63. No bounds are checked.

    Args (as Numba types):
        out: int32 [64 n_words].
        words: uint64 [n_units, n_words].
        units, values: int32 [nnz].
        start, stop: int64 range of entries.
        initial: int32.
        word: int64 column of `words`.
    """
    del start, stop, initial, word  # cast to these, whatever comes
    numbers = (types.int64, types.int64, types.int32, types.int64)
    return types.void(out, words, units, values, *numbers), _generate_sums


def _tally(  # type: ignore[no-untyped-def]
    _context, top, row, limit, two_sided, counted, word
):
    """Raise 64 running maxima; count the values, and the new maxima, that reach the limit.

    top[64 word + b] = max(top[64 word + b], v_b) with v_b = row[64 word + b], absolute if
    two_sided, for b = 0..63. No bounds are checked.

    Args (as Numba types):
        top, row: int32 [64 n_words].
        limit: int32.
        two_sided: bool.
        counted: uint64, set bits count.
        word: int64 place among the words.

    Returns:
        int64 numbers of counted b with v_b >= limit, and with the new top >= limit.
    """
    del limit, two_sided, counted, word
    numbers = (types.int32, types.boolean, types.uint64, types.int64)
    return types.UniTuple(types.int64, 2)(top, row, *numbers), _generate_tally


masked_sums: Any = intrinsic(_masked_sums)
tally: Any = intrinsic(_tally)


# Beside the intrinsics: Numba's cache notices a change of this file, not of one that it imports.
@numba.njit(nogil=True, cache=True)
def fill_sums(
    indptr: Longs, units: Ints, values: Ints, offsets: Ints, words: Words, out: Ints
) -> None:  # pragma: no cover - compiled
    """Sums of each feature less its offset: out [n_features, 64 n_words]."""
    for j in range(len(out)):
        for w in range(words.shape[1]):
            masked_sums(out[j], words, units, values, indptr[j], indptr[j + 1], -offsets[j], w)


@numba.njit(nogil=True, cache=True)
def sweep_sums(
    sums: Ints,
    counted: Words,
    order: Longs,
    two_sided: bool,  # noqa: FBT001 - numba takes positional arguments
    limits: Ints,
    alone: Ints,
    successive: Ints,
    top: Ints,
) -> None:  # pragma: no cover - compiled
    """Features in `order`: add the permutations that reach their limit to both counts.

    `sums` is that of `fill_sums`, `top` holds the running maxima [64 n_words], `counted` the bits
    [n_words] that count.
    """
    for j in order:
        one, two = 0, 0
        for w in range(len(counted)):
            a, b = tally(top, sums[j], limits[j], two_sided, counted[w], w)
            one += a
            two += b
        alone[j] += one
        successive[j] += two


@numba.njit(nogil=True, cache=True)
def sweep_features(
    indptr: Longs,
    units: Ints,
    values: Ints,
    offsets: Ints,
    words: Words,
    counted: Words,
    order: Longs,
    two_sided: bool,  # noqa: FBT001
    limits: Ints,
    alone: Ints,
    successive: Ints,
    top: Ints,
) -> None:  # pragma: no cover - compiled
    """`fill_sums` and `sweep_sums` at once, keeping no sums."""
    row = np.empty(len(top), dtype=np.int32)
    for j in order:
        one, two = 0, 0
        for w in range(len(counted)):
            masked_sums(row, words, units, values, indptr[j], indptr[j + 1], -offsets[j], w)
            a, b = tally(top, row, limits[j], two_sided, counted[w], w)
            one += a
            two += b
        alone[j] += one
        successive[j] += two


def _generate_sums(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    out, *arrays = _arrays(context, builder, signature, arguments, 4)
    start, stop, initial, word = arguments[4:]
    sums = _sums(builder, arrays, (start, stop), initial, word)
    builder.store(sums, _place(builder, out, word), align=4)
    return context.get_dummy_value()


def _generate_tally(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    top, row = _arrays(context, builder, signature, arguments, 2)
    limit, two_sided, counted, word = arguments[2:]
    sums = builder.load(_place(builder, row, word), align=4)
    negative = builder.icmp_signed("<", sums, _ZERO)
    size = builder.select(negative, builder.neg(sums), sums)
    reached = builder.select(two_sided, size, sums)
    place = _place(builder, top, word)
    old = builder.load(place, align=4)
    new = builder.select(builder.icmp_signed(">", reached, old), reached, old)
    builder.store(new, place, align=4)
    bound = _spread(builder, limit)
    found = [_count(builder, x, bound, counted) for x in (reached, new)]
    return context.make_tuple(builder, signature.return_type, found)


def _arrays(context: Any, builder: Any, signature: Any, arguments: Any, n: int) -> list[Any]:
    return [
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args[:n], arguments[:n], strict=True)
    ]


def _place(builder: Any, array: Any, word: Any) -> Any:
    """The 64 items of this word, as a vector; aligned to the items, not to the vector."""
    place = builder.gep(array.data, [builder.mul(word, ir.Constant(_LONG, LANES))])
    return builder.bitcast(place, _SUMS.as_pointer())


def _sums(builder: Any, arrays: Any, entries: Any, initial: Any, word: Any) -> Any:
    """The loop over entries: a vector of 64 sums."""
    words, units, values = arrays
    start, stop = entries
    n_words = builder.extract_value(words.shape, 1)
    first = _spread(builder, initial)
    before = builder.block
    test, body, done = (builder.append_basic_block(f"sums.{name}") for name in ("if", "do", "end"))
    builder.branch(test)

    builder.position_at_end(test)
    i, sums = builder.phi(_LONG), builder.phi(_SUMS)
    builder.cbranch(builder.icmp_signed("<", i, stop), body, done)

    builder.position_at_end(body)
    unit = builder.sext(builder.load(builder.gep(units.data, [i])), _LONG)
    place = builder.add(builder.mul(unit, n_words), word)
    bits = builder.bitcast(builder.load(builder.gep(words.data, [place])), _BITS)
    value = _spread(builder, builder.load(builder.gep(values.data, [i])))
    more = builder.add(sums, builder.select(bits, value, _ZERO))
    following = builder.add(i, ir.Constant(_LONG, 1))
    builder.branch(test)
    for phi, at_first, later in ((i, start, following), (sums, first, more)):
        phi.add_incoming(at_first, before)
        phi.add_incoming(later, body)

    builder.position_at_end(done)
    return sums


def _count(builder: Any, numbers: Any, bound: Any, counted: Any) -> Any:
    reached = builder.bitcast(builder.icmp_signed(">=", numbers, bound), _LONG)
    return builder.ctpop(builder.and_(reached, counted))


def _spread(builder: Any, value: Any) -> Any:
    """`value` in all lanes."""
    empty = ir.Constant(_SUMS, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_INT, 0))
    everywhere = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
    return builder.shuffle_vector(one, empty, everywhere)
