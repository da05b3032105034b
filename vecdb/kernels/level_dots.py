"""Dot products of a coded query with the levels of chosen records, all rows of a hop at once.

The query stays in registers from one row to the next, and no row waits for the sum of the one before: 5 to 6 ns a row
of 384 dimensions and 2 bits, where one call a row takes 7 to 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, I8, I32, I64, LINE, SUMS
from vecdb.kernels.jit import HAS_VNNI, Integer, inlined
from vecdb.types import AnyArray

HELD_QUERIES = 16  # vector registers for the query; half of what there are
STRAIGHT = 6 if HAS_VNNI else 0  # records of so many lines of levels get code without a loop


@inlined
def level_dots(
    bits: int,
    records: AnyArray,
    rows: AnyArray,
    first: Integer,
    count: Integer,
    query: AnyArray,
    lines: int,
    out: AnyArray,
) -> None:
    """out[j] = the sum of level * query over `lines` * 64 bytes of records[rows[first + j]], for all j < count.

    records uint8 (n, stride), with 8 / bits levels in each byte; rows int32, within the records; query int8: 64 bytes
    for each of the levels of the bytes of a line, line by line; out int64
    """
    if bits == 2:
        level_dots_2(records, rows, np.intp(first), np.intp(count), query, np.intp(lines), out)
    elif bits == 4:
        level_dots_4(records, rows, np.intp(first), np.intp(count), query, np.intp(lines), out)
    else:
        level_dots_8(records, rows, np.intp(first), np.intp(count), query, np.intp(lines), out)


def _twin(bits: int) -> Any:
    def twin(
        records: AnyArray, rows: AnyArray, first: int, count: int, query: AnyArray, lines: int, out: AnyArray
    ) -> None:
        bytes_of = records[rows[int(first) : int(first) + int(count)], : int(lines) * LINE]
        parts = bytes_of.reshape(int(count), int(lines), 1, LINE) >> np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        levels = (
            (parts & np.uint8((1 << bits) - 1)).reshape(int(count), int(lines) * LINE * (8 // bits)).astype(np.int64)
        )
        out[: int(count)] = levels @ query[: levels.shape[1]].astype(np.int64)

    return twin


@emit.with_twin(_twin(2))
def level_dots_2(
    typing_context: Any, records: Any, rows: Any, first: Any, count: Any, query: Any, lines: Any, out: Any
) -> Any:
    """`level_dots` of the 4 levels of 2 bits in each byte."""
    return _level_dots(2, records, rows, query, out)


@emit.with_twin(_twin(4))
def level_dots_4(
    typing_context: Any, records: Any, rows: Any, first: Any, count: Any, query: Any, lines: Any, out: Any
) -> Any:
    """`level_dots` of the 2 levels of 4 bits in each byte."""
    return _level_dots(4, records, rows, query, out)


@emit.with_twin(_twin(8))
def level_dots_8(
    typing_context: Any, records: Any, rows: Any, first: Any, count: Any, query: Any, lines: Any, out: Any
) -> Any:
    """`level_dots` of one level of 8 bits in each byte."""
    return _level_dots(8, records, rows, query, out)


def _level_dots(bits: int, records: Any, rows: Any, query: Any, out: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, (table, chosen, first, count, asked, lines, sums) = signature.args, args
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

        _by_lines(builder, bits, lines, right, each_row)
        return context.get_dummy_value()

    return types.void(records, rows, types.intp, types.intp, query, types.intp, out), codegen


def _by_lines(builder: Any, bits: int, lines: Any, right: Any, each_row: Any) -> None:
    """One jump into a loop over rows that is made for records of so many lines, or into one for any number."""
    done, general = (builder.append_basic_block(f"rows.{name}") for name in ("done", "general"))
    choice = builder.switch(lines, general)
    for count in range(1, STRAIGHT + 1):
        block = builder.append_basic_block(f"rows.{count}")
        choice.add_case(I64(count), block)
        builder.position_at_end(block)
        held = [_query(builder, right, n) for n in range(min(HELD_QUERIES, count * 8 // bits))]
        each_row(lambda left, count=count, held=held: _straight(builder, bits, left, right, count, held))
        builder.branch(done)
    builder.position_at_end(general)
    each_row(lambda left: _looped(builder, bits, left, right, lines))
    builder.branch(done)
    builder.position_at_end(done)


def _query(builder: Any, right: Any, number: int) -> Any:
    return emit.load(builder, emit.forward(builder, right, number * LINE), BYTES)


def _straight(builder: Any, bits: int, left: Any, right: Any, lines: int, held: list[Any]) -> Any:
    """16 partial sums over so many lines; `held` are the first lines of the query."""
    slots = 8 // bits
    totals = [emit.constant(SUMS, 0)] * slots
    for line in range(lines):
        codes = emit.load(builder, emit.forward(builder, left, line * LINE), BYTES)
        for slot in range(slots):
            number = line * slots + slot
            query = held[number] if number < len(held) else _query(builder, right, number)
            totals[slot] = _step(builder, totals[slot], _levels(builder, bits, slot, codes), query)
    return _total(builder, bits, totals)


def _looped(builder: Any, bits: int, left: Any, right: Any, lines: Any) -> Any:
    """The same over any number of lines, at least one."""
    slots = 8 // bits
    before, line, done = (
        builder.block,
        builder.append_basic_block("slots.line"),
        builder.append_basic_block("slots.done"),
    )
    builder.branch(line)
    builder.position_at_end(line)
    at, totals = builder.phi(I64), [builder.phi(SUMS) for _ in range(slots)]
    codes = emit.load(builder, emit.forward(builder, left, builder.mul(at, I64(LINE))), BYTES)
    queries = emit.forward(builder, right, builder.mul(at, I64(LINE * slots)))
    after = [
        _step(builder, total, _levels(builder, bits, slot, codes), _query(builder, queries, slot))
        for slot, total in enumerate(totals)
    ]
    following = builder.add(at, I64(1))
    builder.cbranch(builder.icmp_signed("<", following, lines), line, done)
    at.add_incoming(I64(0), before)
    at.add_incoming(following, line)
    for total, added in zip(totals, after, strict=True):
        total.add_incoming(emit.constant(SUMS, 0), before)
        total.add_incoming(added, line)
    builder.position_at_end(done)
    return _total(builder, bits, after)


def _step(builder: Any, total: Any, levels: Any, query: Any) -> Any:
    return (emit.dot_step_vnni if HAS_VNNI else emit.dot_step_generic)(builder, total, levels, query)


def _levels(builder: Any, bits: int, slot: int, codes: Any) -> Any:
    """Levels are masked where they stand in their byte, and so are 2^(bits * slot) times too large."""
    if bits == 8:
        return codes
    mask = ((1 << bits) - 1) << (bits * slot)
    return builder.and_(codes, ir.Constant(BYTES, [I8(mask - 256 if mask > 127 else mask)] * LINE))


def _total(builder: Any, bits: int, totals: list[Any]) -> Any:
    """The sum of all slots; each is a multiple of 2^(bits * slot), so the shift is exact."""
    total = totals[0]
    for slot in range(1, len(totals)):
        total = builder.add(total, builder.ashr(totals[slot], emit.constant(SUMS, bits * slot)))
    return total
