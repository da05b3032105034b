"""What Numba does not offer: prefetch, bit scan, float16, dot products of bytes, sorted insertion, atomics.

Each is a module-level intrinsic, because a jitted closure over an intrinsic never hits the cache, and has a plain
Python twin for NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, I32, I64, KEYS, LINE, SUMS
from vecdb.kernels.level_sums import dot_step
from vecdb.types import AnyArray


def _nothing(*_: Any) -> None:
    """A prefetch is a hint: without the compiler there is nothing to do."""


@emit.with_twin(_nothing)
def prefetch_row(typing_context: Any, array: Any, row: Any, lines: Any) -> Any:
    """Ask for the first `lines` cache lines of array[row] of a 2-D array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit.prefetch_lines(builder, emit.row_address(context, builder, signature.args[0], args[0], args[1]), args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


@emit.with_twin(_nothing)
def prefetch_at(typing_context: Any, array: Any, byte_offset: Any, lines: Any) -> Any:
    """Ask for `lines` cache lines from a byte offset of an array; an address past its end is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit.prefetch_lines(builder, emit.address(context, builder, signature.args[0], args[0], args[1]), args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


def _copy_bytes_twin(source: AnyArray, first: int, target: AnyArray, place: int, count: int) -> None:
    target[int(place) : int(place) + int(count)] = source[int(first) : int(first) + int(count)]


@emit.with_twin(_copy_bytes_twin)
def copy_bytes(typing_context: Any, source: Any, first: Any, target: Any, place: Any, count: Any) -> Any:
    """target[place : place + count] = source[first : first + count], of 1-D arrays of bytes; as a loop of Numba's it
    takes eight times as long."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, first, target, place, count = args
        left = emit.element(context, builder, signature.args[2], target, place)
        right = emit.element(context, builder, signature.args[0], source, first)
        cgutils.raw_memcpy(builder, left, right, count, 1)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), codegen


def _lowest_bit_twin(word: int) -> int:
    value = int(word)
    return (value & -value).bit_length() - 1


@emit.with_twin(_lowest_bit_twin)
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Index of the lowest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.uint64), codegen


def _count_bits_twin(word: int) -> int:
    return int(word).bit_count()


@emit.with_twin(_count_bits_twin)
def count_bits(typing_context: Any, word: Any) -> Any:
    """The number of set bits of a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


def _widen_twin(value: Any) -> np.float32:
    return np.float32(value.view(np.float16) if isinstance(value, np.uint16) else value)


@emit.with_twin(_widen_twin)
def widen(typing_context: Any, value: Any) -> Any:
    """The float32 of a stored vector value: a float32 as it is, or the bits of a float16 as a uint16.

    Numba has no float16 on processors, so kernels see float16 vectors as uint16. What reads values through this is
    compiled once for each of the two.
    """
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, args: args[0]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit.widen_half(builder, args[0])

    return types.float32(types.uint16), codegen


def _row_dot_twin(codes: AnyArray, row: int, query: AnyArray, lines: int) -> np.int32:
    size = int(lines) * LINE
    return np.int32(codes[row, :size].astype(np.int32) @ query[:size].astype(np.int32))


@emit.with_twin(_row_dot_twin)
def row_dot(typing_context: Any, codes: Any, row: Any, query: Any, lines: Any) -> Any:
    """int32 sum of codes[row] * query over `lines` * 64 bytes; codes uint8 (n, stride), query int8 (stride,)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left = emit.row_address(context, builder, signature.args[0], args[0], args[1])
        right = emit.address(context, builder, signature.args[2], args[2])
        total = cgutils.alloca_once_value(builder, emit.constant(SUMS, 0))

        def add_line(offset: Any) -> None:
            pair = (emit.load(builder, emit.forward(builder, pointer, offset), BYTES) for pointer in (left, right))
            builder.store(dot_step(builder, builder.load(total), *pair), total)

        emit.each_line(builder, args[3], add_line, longer=True)
        return emit.call(builder, "llvm.vector.reduce.add.v16i32", I32, [builder.load(total)])

    return types.int32(codes, types.intp, query, types.intp), codegen


def _insert_sorted_twin(pool: AnyArray, blocks: int, key: int) -> None:
    at = int(np.searchsorted(pool[: 8 * int(blocks)], key))
    pool[at + 1 : 8 * int(blocks)] = pool[at : 8 * int(blocks) - 1].copy()
    pool[at] = key


@emit.with_twin(_insert_sorted_twin)
def insert_sorted(typing_context: Any, pool: Any, blocks: Any, key: Any) -> Any:
    """Insert `key`, below the last, into the ascending int64 pool[: 8 * blocks], whose last key falls out.

    new[j] = min(old[j], max(old[j - 1], key)), eight at a time from the back: no branch depends on the place.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start, blocks, key = emit.address(context, builder, signature.args[0], args[0]), args[1], args[2]
        keys, lowest = emit.splat(builder, key, KEYS), emit.constant(KEYS, -(1 << 63))
        before = builder.block
        head, middle, front, done = (
            builder.append_basic_block(f"insert.{n}") for n in ("head", "mid", "front", "done")
        )
        last = builder.sub(blocks, I64(1))
        held = emit.load(builder, emit.forward(builder, start, builder.mul(last, I64(LINE))), KEYS)
        builder.branch(head)
        builder.position_at_end(head)
        block, current = builder.phi(I64), builder.phi(KEYS)
        builder.cbranch(builder.icmp_signed("==", block, I64(0)), front, middle)
        builder.position_at_end(middle)
        previous = builder.sub(block, I64(1))
        lower = emit.load(builder, emit.forward(builder, start, builder.mul(previous, I64(LINE))), KEYS)
        emit.merge_block(builder, start, block, lower, current, keys)
        highest = builder.extract_element(lower, I32(7))
        builder.cbranch(builder.icmp_signed(">", highest, key), head, done)
        builder.position_at_end(front)
        emit.merge_block(builder, start, block, lowest, current, keys)
        builder.branch(done)
        builder.position_at_end(done)
        for phi, first, after in ((block, last, previous), (current, held, lower)):
            phi.add_incoming(first, before)
            phi.add_incoming(after, middle)
        return context.get_dummy_value()

    return types.void(pool, types.intp, types.int64), codegen


def _atomic_add_twin(array: AnyArray, index: int, value: Any) -> Any:
    old = array[index]
    array[index] += value
    return old


@emit.with_twin(_atomic_add_twin)
def atomic_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] += value in one step; returns what it held before. 1-D integer arrays."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return array.dtype(array, types.intp, array.dtype), codegen


def _compare_and_swap_twin(array: AnyArray, index: int, expected: Any, new: Any) -> bool:
    held = bool(array[index] == expected)
    if held:
        array[index] = new
    return held


@emit.with_twin(_compare_and_swap_twin)
def compare_and_swap(typing_context: Any, array: Any, index: Any, expected: Any, new: Any) -> Any:
    """Set array[index] = new only if it holds `expected`; True when it did."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        return builder.extract_value(builder.cmpxchg(pointer, args[2], args[3], "acq_rel", "acquire"), 1)

    return types.boolean(array, types.intp, array.dtype, array.dtype), codegen


def _store_release_twin(array: AnyArray, index: int, value: Any) -> None:
    array[index] = value


@emit.with_twin(_store_release_twin)
def store_release(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, visible only after every earlier write; 1-D int32 arrays."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], pointer, "release", 4)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen
