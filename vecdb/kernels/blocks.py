"""Scores of 32 code rows at a time, from the interleaved block layout.

A block holds 32 rows: groups x [32 rows][4 bytes], where a group is 32 / bits dimensions and slot s of byte j of a
row is dimension 4 * s + j of the group. So a 4-byte piece of the int8 query is broadcast against 16 rows, and no sum
across a register is needed. One layout and one estimator (RaBitQ; Gao and Long, 2024 and 2025) for all precisions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, FLOATS, HALVES, I16, I32, I64, SUMS
from vecdb.kernels.jit import inlined
from vecdb.kernels.level_sums import add_levels, sums_of, total_levels
from vecdb.types import AnyArray

BLOCK = 32  # rows of a block
WHOLE_BLOCK = np.uint64(0xFFFFFFFF)  # a bit for each


def _make_dot_block(bits: int) -> Any:
    """dot_block(codes, byte_offset, query, groups, out, soon): see `dot_block`."""
    slots, sums = 8 // bits, sums_of(bits)

    def twin(codes: AnyArray, byte_offset: int, query: AnyArray, groups: int, out: AnyArray, soon: int) -> None:
        block = codes.reshape(-1)[byte_offset : byte_offset + groups * 128].reshape(groups, BLOCK, 4)
        pieces = query[: groups * 4 * slots].reshape(groups, slots, 1, 4).astype(np.int32)
        levels = np.stack([(block >> np.uint8(s * bits)) & np.uint8((1 << bits) - 1) for s in range(slots)], 1)
        out[:BLOCK] = (levels.astype(np.int32) * pieces).sum((0, 1, 3))

    def add_group(builder: Any, totals: list[Any], group: Any, piece: Any) -> None:
        halves = [emit.load(builder, emit.forward(builder, group, 64 * h), BYTES) for h in range(2)]
        fours = [emit.load(builder, emit.forward(builder, piece, 4 * slot), I32) for slot in range(slots)]
        spread = [builder.bitcast(emit.splat(builder, four, SUMS), BYTES) for four in fours]
        for h in range(2):
            cells = totals[h * sums : (h + 1) * sums]
            after = add_levels(builder, bits, [builder.load(cell) for cell in cells], halves[h], spread)
            for cell, value in zip(cells, after, strict=True):
                builder.store(value, cell)

    @emit.with_twin(twin)
    def dot_block(
        typing_context: Any, codes: Any, byte_offset: Any, query: Any, groups: Any, out: Any, soon: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = emit.address(context, builder, signature.args[0], args[0], args[1])
            question = emit.address(context, builder, signature.args[2], args[2])
            result = emit.address(context, builder, signature.args[4], args[4])
            next_code = emit.address(context, builder, signature.args[0], args[0], args[5])
            # Independent sums hide the latency of the multiply; the allocas become registers.
            totals = [cgutils.alloca_once_value(builder, emit.constant(SUMS, 0)) for _ in range(2 * sums)]
            with cgutils.for_range(builder, args[3]) as loop:
                group = emit.forward(builder, code, builder.mul(loop.index, I64(128)))
                piece = emit.forward(builder, question, builder.mul(loop.index, I64(4 * slots)))
                for h in range(2):
                    place = builder.add(builder.mul(loop.index, I64(128)), I64(64 * h))
                    emit.prefetch_line(builder, emit.forward(builder, next_code, place))
                add_group(builder, totals, group, piece)
            for h in range(2):
                found = [builder.load(cell) for cell in totals[h * sums : (h + 1) * sums]]
                value = total_levels(builder, bits, found)
                emit.store(builder, value, emit.forward(builder, result, 64 * h))
            return context.get_dummy_value()

        return types.void(codes, types.intp, query, types.intp, out, types.intp), codegen

    return dot_block


dot_block_1, dot_block_2, dot_block_4, dot_block_8 = (_make_dot_block(bits) for bits in (1, 2, 4, 8))


@inlined
def dot_block(
    bits: int, codes: AnyArray, byte_offset: int, query: AnyArray, groups: int, out: AnyArray, soon: int
) -> None:
    """out[:32] int32 = code . query for the 32 rows of the block at `byte_offset`; query int8, zero where padded.

    soon   byte offset of the block that is needed next: its lines are asked for one by one between the products. Asked
           for all at once they kept the products waiting (62k rows of 384 dimensions, 2 bits: 380 us, now 316)
    """
    # One predictable branch per block: a factory with one kernel per width could not be cached.
    if bits == 2:
        dot_block_2(codes, np.intp(byte_offset), query, np.intp(groups), out, np.intp(soon))
    elif bits == 4:
        dot_block_4(codes, np.intp(byte_offset), query, np.intp(groups), out, np.intp(soon))
    elif bits == 1:
        dot_block_1(codes, np.intp(byte_offset), query, np.intp(groups), out, np.intp(soon))
    else:
        dot_block_8(codes, np.intp(byte_offset), query, np.intp(groups), out, np.intp(soon))


def _score_block_twin(
    dots: AnyArray,
    at: int,
    add: AnyArray,
    scale: AnyArray,
    first: int,
    offset: np.float32,
    query_scale: np.float32,
    base: np.float32,
    add_unit: np.float32,
    threshold: np.float32,
    estimates: AnyArray,
) -> np.uint64:
    part = slice(int(first), int(first) + BLOCK)
    plus, times = (
        (a.view(np.float16).astype(np.float32) if a.dtype == np.uint16 else a) for a in (add[part], scale[part])
    )
    values = np.float32(query_scale) * (dots[int(at) : int(at) + BLOCK].astype(np.float32) + np.float32(offset)) * times
    estimates[:BLOCK] = np.float32(base) + np.float32(add_unit) * plus + values
    below = np.flatnonzero(estimates[:BLOCK] < threshold)
    return np.uint64(sum(1 << int(lane) for lane in below))


@emit.with_twin(_score_block_twin)
def score_block(
    typing_context: Any,
    dots: Any,
    at: Any,
    add: Any,
    scale: Any,
    first: Any,
    offset: Any,
    query_scale: Any,
    base: Any,
    add_unit: Any,
    threshold: Any,
    estimates: Any,
) -> Any:
    """estimates[:32] = base + add_unit * add + query_scale * scale * (dots[at:] + offset), rows `first` on; bits of
    those below `threshold`. add, scale: float32, or the bits of float16 as uint16."""
    halved = add.dtype == types.uint16
    size = 2 if halved else 4

    def factors(builder: Any, pointer: Any) -> Any:
        found = emit.load(builder, pointer, HALVES if halved else FLOATS)
        return emit.widen_half(builder, found) if halved else found

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dot = emit.address(context, builder, signature.args[0], args[0], args[1], 4)
        plus, times = (emit.address(context, builder, signature.args[i], args[i], args[4], size) for i in (2, 3))
        result = emit.address(context, builder, signature.args[10], args[10])
        shift, unit, start, step, limit = (emit.splat(builder, args[i], FLOATS) for i in (5, 6, 7, 8, 9))
        masks = []
        for h in range(2):
            plus_h, times_h = (factors(builder, emit.forward(builder, p, 16 * size * h)) for p in (plus, times))
            sums = builder.sitofp(emit.load(builder, emit.forward(builder, dot, 64 * h), SUMS), FLOATS)
            value = builder.fmul(builder.fmul(unit, builder.fadd(sums, shift)), times_h)
            value = builder.fadd(builder.fadd(start, builder.fmul(step, plus_h)), value)
            emit.store(builder, value, emit.forward(builder, result, 64 * h))
            masks.append(builder.zext(builder.bitcast(builder.fcmp_ordered("<", value, limit), I16), I64))
        return builder.or_(masks[0], builder.shl(masks[1], I64(16)))

    one = types.float32
    return types.uint64(dots, types.intp, add, scale, types.intp, one, one, one, one, one, estimates), codegen
