"""Dot products of a coded query with the levels of chosen records, all rows of a hop at once.

No row waits for the sum of the one before, and with VNNI the query stays in registers from one row to the next: 5 to 6
ns a row of 384 dimensions and 2 bits there, where one call a row takes 7 to 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, I32, I64, LINE, SUMS
from vecdb.kernels.jit import HAS_VNNI, Integer, inlined
from vecdb.kernels.level_sums import HALF, add_levels, sums_of, total_levels
from vecdb.types import AnyArray

HALF_LINE = 32
HELD_QUERIES = 16 if HAS_VNNI else 0  # vector registers for the query; half of what there are of 64 bytes
# Records of so many half lines of levels get code without a loop, where the query stays in registers: with 2 bits those
# of 256, 384, 512, 768, 1,024 and 1,536 dimensions.
STRAIGHT = (2, 3, 4, 6, 8, 12) if HAS_VNNI else ()


@inlined
def level_dots(
    bits: int,
    records: AnyArray,
    rows: AnyArray,
    first: Integer,
    count: Integer,
    query: AnyArray,
    halves: int,
    out: AnyArray,
) -> None:
    """out[j] = the sum of level * query over `halves` * 32 bytes of records[rows[first + j]], for all j < count.

    records uint8 (n, stride), with 8 / bits levels in each byte; rows int32, within the records; query int8: 64 bytes
    for each of the levels of the bytes of a line, line by line, 32 of the last if it is half a line; out int64
    """
    if bits == 2:
        level_dots_2(records, rows, np.intp(first), np.intp(count), query, np.intp(halves), out)
    elif bits == 4:
        level_dots_4(records, rows, np.intp(first), np.intp(count), query, np.intp(halves), out)
    else:
        level_dots_8(records, rows, np.intp(first), np.intp(count), query, np.intp(halves), out)


@inlined
def few_level_dots(
    bits: int, records: AnyArray, rows: AnyArray, count: Integer, query: AnyArray, halves: int, out: AnyArray
) -> None:
    """`level_dots` of rows[:count] in a fraction of the code, for what is not done in every hop."""
    if bits == 2:
        looped_dots_2(records, rows, np.intp(0), np.intp(count), query, np.intp(halves), out)
    elif bits == 4:
        looped_dots_4(records, rows, np.intp(0), np.intp(count), query, np.intp(halves), out)
    else:
        looped_dots_8(records, rows, np.intp(0), np.intp(count), query, np.intp(halves), out)


def _twin(bits: int) -> Any:
    shifts, mask = np.arange(0, 8, bits, dtype=np.uint8)[:, None], np.uint8((1 << bits) - 1)

    def twin(
        records: AnyArray, rows: AnyArray, first: int, count: int, query: AnyArray, halves: int, out: AnyArray
    ) -> None:
        size = int(halves) * HALF_LINE
        chosen = records[rows[int(first) : int(first) + int(count)], :size]
        out[: int(count)] = 0
        for start in range(0, size, LINE):
            part = chosen[:, None, start : start + LINE] >> shifts & mask
            asked = query[start * len(shifts) :][: part.shape[1] * part.shape[2]].reshape(part.shape[1:])
            out[: int(count)] += (part.astype(np.int64) * asked).sum((1, 2))

    return twin


def _make_level_dots(bits: int, straight: Sequence[int]) -> Any:
    """level_dots(records, rows, first, count, query, halves, out), with code of their own for sizes in `straight`."""

    @emit.with_twin(_twin(bits))
    def level_dots(
        typing_context: Any, records: Any, rows: Any, first: Any, count: Any, query: Any, halves: Any, out: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds, (table, chosen, first, count, asked, halves, sums) = signature.args, args
            records_from = emit.address(context, builder, kinds[0], table)
            stride = emit.row_stride(context, builder, kinds[0], table)
            right = emit.address(context, builder, kinds[4], asked)
            rows_from = emit.element(context, builder, kinds[1], chosen, first)
            sums_from = emit.element(context, builder, kinds[6], sums, I64(0))

            def each_row(total_of: Any) -> None:
                with cgutils.for_range(builder, count) as loop:
                    row = builder.zext(builder.load(builder.gep(rows_from, [loop.index])), I64)
                    total = total_of(emit.forward(builder, records_from, builder.mul(row, stride)))
                    dot = emit.call(builder, "llvm.vector.reduce.add.v16i32", I32, [total])
                    builder.store(builder.sext(dot, I64), builder.gep(sums_from, [loop.index]))

            _by_size(builder, bits, halves, right, straight, each_row)
            return context.get_dummy_value()

        return types.void(records, rows, types.intp, types.intp, query, types.intp, out), codegen

    return level_dots


def _by_size(builder: Any, bits: int, halves: Any, right: Any, straight: Sequence[int], each_row: Any) -> None:
    """One jump into a loop over rows that is made for records of so many half lines, or into one for any number."""
    done, general = (builder.append_basic_block(f"rows.{name}") for name in ("done", "general"))
    choice = builder.switch(halves, general)
    for count in straight:
        block = builder.append_basic_block(f"rows.{count}")
        choice.add_case(I64(count), block)
        builder.position_at_end(block)
        held = [part for line in range((count + 1) // 2) for part in _queries(builder, bits, right, line, count)]
        each_row(lambda left, count=count, held=held: _straight(builder, bits, left, right, count, held[:HELD_QUERIES]))
        builder.branch(done)
    builder.position_at_end(general)
    each_row(lambda left: _looped(builder, bits, left, right, halves))
    builder.branch(done)
    builder.position_at_end(done)


def _queries(builder: Any, bits: int, right: Any, line: int, halves: int) -> list[Any]:
    """The query of each slot of a line, of records with so many half lines."""
    slots, half = 8 // bits, halves == 2 * line + 1
    start, wide = line * slots * LINE, HALF_LINE if half else LINE
    return [_load(builder, emit.forward(builder, right, start + slot * wide), half) for slot in range(slots)]


def _load(builder: Any, pointer: Any, half: bool) -> Any:
    """64 bytes, of which the upper half is zero when it is not to be read."""
    if not half:
        return emit.load(builder, pointer, BYTES)
    lanes = ir.Constant(ir.VectorType(I32, LINE), list(range(LINE)))
    return builder.shuffle_vector(emit.load(builder, pointer, HALF), emit.constant(HALF, 0), lanes)


def _straight(builder: Any, bits: int, left: Any, right: Any, halves: int, held: list[Any]) -> Any:
    """16 partial sums over so many half lines; `held` are the first parts of the query."""
    slots = 8 // bits
    totals = [emit.constant(SUMS, 0)] * sums_of(bits)
    for line in range((halves + 1) // 2):
        codes = _load(builder, emit.forward(builder, left, line * LINE), halves == 2 * line + 1)
        queries = held[line * slots : (line + 1) * slots]
        if len(queries) < slots:
            queries = _queries(builder, bits, right, line, halves)
        totals = add_levels(builder, bits, totals, codes, queries)
    return total_levels(builder, bits, totals)


def _looped(builder: Any, bits: int, left: Any, right: Any, halves: Any) -> Any:
    """The same over any number of half lines."""
    slots = 8 // bits
    cells = [cgutils.alloca_once(builder, SUMS) for _ in range(sums_of(bits))]
    for cell in cells:
        builder.store(emit.constant(SUMS, 0), cell)

    def add(line: Any, half: bool) -> None:
        codes = _load(builder, emit.forward(builder, left, builder.mul(line, I64(LINE))), half)
        start = emit.forward(builder, right, builder.mul(line, I64(LINE * slots)))
        queries = _queries(builder, bits, start, 0, 1 if half else 2)
        after = add_levels(builder, bits, [builder.load(cell) for cell in cells], codes, queries)
        for cell, value in zip(cells, after, strict=True):
            builder.store(value, cell)

    lines = builder.lshr(halves, I64(1))
    with cgutils.for_range(builder, lines) as loop:
        add(loop.index, half=False)
    with builder.if_then(builder.trunc(halves, ir.IntType(1))):
        add(lines, half=True)
    return total_levels(builder, bits, [builder.load(cell) for cell in cells])


level_dots_2, level_dots_4, level_dots_8 = (_make_level_dots(bits, STRAIGHT) for bits in (2, 4, 8))
looped_dots_2, looped_dots_4, looped_dots_8 = (_make_level_dots(bits, ()) for bits in (2, 4, 8))
