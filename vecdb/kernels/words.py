"""What is done with all words of a sub-quantiser at once: the nearest one, products with a query, table entries.

Words are the columns of books float32 (dim, entries), 16 or 256 of them, so that 16 words fill a register.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import FLOATS, I32, I64, SUMS
from vecdb.kernels.jit import Integer
from vecdb.types import AnyArray

NO_WORD = 1 << 20  # beyond all words


def _nearest_word_twin(rest: AnyArray, first: Integer, last: Integer, books: AnyArray, distance: AnyArray) -> int:
    part = slice(int(first), int(last))
    scores = ((rest[part, None] - books[part]) ** 2).sum(0)
    distance[0] = scores.min()
    return int(scores.argmin())


@emit.with_twin(_nearest_word_twin)
def nearest_word(typing_context: Any, rest: Any, first: Any, last: Any, books: Any, distance: Any) -> Any:
    """The word nearest to rest[first:last], the first of equally near ones; distance[0] = its squared distance.

    rest float32 (dim,);  books float32 (dim, entries), entries a multiple of 16
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = emit.address(context, builder, signature.args[0], args[0])
        shape = context.make_array(signature.args[3])(context, builder, args[3]).shape
        _, entries = cgutils.unpack_tuple(builder, shape, 2)
        begin = emit.row_address(context, builder, signature.args[3], args[3], args[1])
        best = cgutils.alloca_once_value(builder, emit.constant(FLOATS, float("inf")))
        which = cgutils.alloca_once_value(builder, emit.constant(SUMS, 0))
        with cgutils.for_range(builder, builder.sdiv(entries, I64(16))) as words:
            score = cgutils.alloca_once(builder, FLOATS)
            builder.store(emit.constant(FLOATS, 0.0), score)
            block = emit.forward(builder, begin, builder.mul(words.index, I64(64)))
            with cgutils.for_range(builder, builder.sub(args[2], args[1])) as loop:
                at = builder.mul(builder.add(loop.index, args[1]), I64(4))
                value = emit.splat(builder, emit.load(builder, emit.forward(builder, values, at), emit.F32), FLOATS)
                down = builder.mul(loop.index, builder.mul(entries, I64(4)))
                step = builder.fsub(value, emit.load(builder, emit.forward(builder, block, down), FLOATS))
                square = builder.fmul(step, step, flags=("contract",))
                builder.store(builder.fadd(builder.load(score), square, flags=("contract",)), score)
            found, held = builder.load(score), builder.load(best)
            nearer = builder.fcmp_ordered("<", found, held)
            builder.store(builder.select(nearer, found, held), best)
            number = emit.splat(builder, builder.trunc(words.index, I32), SUMS)
            builder.store(builder.select(nearer, number, builder.load(which)), which)
        least = emit.call(builder, "llvm.vector.reduce.fmin.v16f32", emit.F32, [builder.load(best)])
        emit.store(builder, least, emit.address(context, builder, signature.args[4], args[4]))
        lanes = ir.Constant(SUMS, list(range(16)))
        number = builder.add(builder.mul(builder.load(which), emit.constant(SUMS, 16)), lanes)
        equal = builder.fcmp_ordered("==", builder.load(best), emit.splat(builder, least, FLOATS))
        number = builder.select(equal, number, emit.constant(SUMS, NO_WORD))
        first_of = emit.call(builder, "llvm.vector.reduce.smin.v16i32", I32, [number])
        none = builder.icmp_signed("==", first_of, I32(NO_WORD))  # every distance overflowed
        return builder.sext(builder.select(none, I32(0), first_of), I64)

    return types.int64(rest, types.intp, types.intp, books, distance), codegen


def _word_products_twin(
    query: AnyArray, first: Integer, last: Integer, books: AnyArray, out: AnyArray, range_of: AnyArray
) -> None:
    part = slice(int(first), int(last))
    out[:] = query[part] @ books[part]
    range_of[0], range_of[1] = out.min(), out.max()


@emit.with_twin(_word_products_twin)
def word_products(typing_context: Any, query: Any, first: Any, last: Any, books: Any, out: Any, range_of: Any) -> Any:
    """out float32 (entries,) = products of query[first:last] with its words; range_of[:2] = the least and largest.

    books float32 (dim, entries), entries a multiple of 16
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, result, ends = (emit.address(context, builder, signature.args[i], args[i]) for i in (0, 4, 5))
        shape = context.make_array(signature.args[3])(context, builder, args[3]).shape
        _, entries = cgutils.unpack_tuple(builder, shape, 2)
        begin = emit.row_address(context, builder, signature.args[3], args[3], args[1])
        least, most = (cgutils.alloca_once_value(builder, emit.constant(FLOATS, float(end))) for end in ("inf", "-inf"))
        with cgutils.for_range(builder, builder.sdiv(entries, I64(16))) as words:
            total = cgutils.alloca_once(builder, FLOATS)
            builder.store(emit.constant(FLOATS, 0.0), total)
            block = builder.mul(words.index, I64(64))
            with cgutils.for_range(builder, builder.sub(args[2], args[1])) as loop:
                at = builder.mul(builder.add(loop.index, args[1]), I64(4))
                value = emit.splat(builder, emit.load(builder, emit.forward(builder, values, at), emit.F32), FLOATS)
                down = builder.add(block, builder.mul(loop.index, builder.mul(entries, I64(4))))
                word = emit.load(builder, emit.forward(builder, begin, down), FLOATS)
                product = builder.fmul(value, word, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            found = builder.load(total)
            emit.store(builder, found, emit.forward(builder, result, block))
            for cell, order in ((least, "<"), (most, ">")):
                held = builder.load(cell)
                builder.store(builder.select(builder.fcmp_ordered(order, found, held), found, held), cell)
        for number, (cell, name) in enumerate(((least, "fmin"), (most, "fmax"))):
            end = emit.call(builder, f"llvm.vector.reduce.{name}.v16f32", emit.F32, [builder.load(cell)])
            emit.store(builder, end, emit.forward(builder, ends, 4 * number))
        return context.get_dummy_value()

    return types.void(query, types.intp, types.intp, books, out, range_of), codegen


def _write_levels_twin(values: AnyArray, low: np.float32, inverse: np.float32, tables: AnyArray, start: int) -> None:
    levels = ((values - low) * inverse + np.float32(0.49)).astype(np.int32).astype(np.uint8).view(np.int8)
    tables[int(start) : int(start) + len(levels)] = levels
    if len(levels) == 16:
        tables[int(start) + 16 : int(start) + 32] = levels


@emit.with_twin(_write_levels_twin)
def write_levels(typing_context: Any, values: Any, low: Any, inverse: Any, tables: Any, start: Any) -> Any:
    """tables int8 from `start` on = (values - low) * inverse, rounded; 16 values are written twice.

    A little less than a half is added, so that the rounding of `inverse` brings no value above the top.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entry = emit.address(context, builder, signature.args[0], args[0])
        table = emit.address(context, builder, signature.args[3], args[3], args[4])
        shape = context.make_array(signature.args[0])(context, builder, args[0]).shape
        entries = cgutils.unpack_tuple(builder, shape, 1)[0]
        least, scale = emit.splat(builder, args[1], FLOATS), emit.splat(builder, args[2], FLOATS)
        bytes16 = ir.VectorType(emit.I8, 16)
        with cgutils.for_range(builder, builder.sdiv(entries, I64(16))) as loop:
            value = emit.load(builder, emit.forward(builder, entry, builder.mul(loop.index, I64(64))), FLOATS)
            value = builder.fmul(builder.fsub(value, least), scale)
            level = builder.fptosi(builder.fadd(value, emit.constant(FLOATS, 0.49)), SUMS)
            level = builder.trunc(level, bytes16)
            emit.store(builder, level, emit.forward(builder, table, builder.mul(loop.index, I64(16))))
            with builder.if_then(builder.icmp_signed("==", entries, I64(16))):
                emit.store(builder, level, emit.forward(builder, table, 16))
        return context.get_dummy_value()

    one = types.float32
    return types.void(values, one, one, tables, types.intp), codegen
