"""Sums over one stored vector and a query in float64, sixteen dimensions at a time, while another row is asked for.

A row of float32 is many cache lines. Asked for at once they fill the buffers of the processor, and the sums wait until
there is room again; asked for one by one, between the sums of the row before, they come for nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import DOUBLES, EIGHT_FLOATS, EIGHT_HALVES, I64
from vecdb.types import AnyArray

PARTS = 2  # sums side by side, so that one need not wait for the other
LANES = PARTS * DOUBLES.count  # dimensions that are summed at once; what is left over the caller adds
FUSED = ("contract",)  # a product and a sum may be one instruction, as everywhere in the kernels


def _products_twin(vectors: AnyArray, row: int, queries: AnyArray, i: int, soon: int) -> tuple[float, float]:
    total, norm = 0.0, 0.0
    for j in range(vectors.shape[1] // LANES * LANES):
        value = _value(vectors, row, j)
        total += float(queries[i, j]) * value
        norm += value * value
    return total, norm


def _squares_twin(vectors: AnyArray, row: int, queries: AnyArray, i: int, soon: int) -> tuple[float, float]:
    total = 0.0
    for j in range(vectors.shape[1] // LANES * LANES):
        total += (float(queries[i, j]) - _value(vectors, row, j)) ** 2
    return total, 0.0


def _value(vectors: AnyArray, row: int, j: int) -> float:
    element = vectors[row, j]
    return float(element.view("float16") if element.dtype == "uint16" else element)


@emit.with_twin(_products_twin)
def products(typing_context: Any, vectors: Any, row: Any, queries: Any, i: Any, soon: Any) -> Any:
    """(query . vector, vector . vector) of queries[i] and vectors[row], but for the last dim % LANES dimensions.

    vectors  float32, or float16 as uint16;  soon: the row that is asked for meanwhile
    """
    return _sums(vectors, queries, lambda builder, asked, value: (asked, value, value, value))


@emit.with_twin(_squares_twin)
def squares(typing_context: Any, vectors: Any, row: Any, queries: Any, i: Any, soon: Any) -> Any:
    """(|query - vector|^2, 0) in the same way."""

    def factors(builder: Any, asked: Any, value: Any) -> tuple[Any, Any, None, None]:
        step = builder.fsub(asked, value)
        return step, step, None, None

    return _sums(vectors, queries, factors)


def _sums(vectors: Any, queries: Any, factors: Any) -> Any:
    """Typing and code of two sums of products; factors: (builder, query, vector) -> all four, or None."""
    half = vectors.dtype == types.uint16
    stored, item_bytes = (EIGHT_HALVES, 2) if half else (EIGHT_FLOATS, 4)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        asked = emit.row_address(context, builder, kinds[2], args[2], args[3])
        start, after = (emit.row_address(context, builder, kinds[0], args[0], args[at]) for at in (1, 4))
        width = cgutils.unpack_tuple(builder, context.make_array(kinds[0])(context, builder, args[0]).shape, 2)[1]
        nothing = emit.constant(DOUBLES, 0.0)
        sums = [[cgutils.alloca_once_value(builder, nothing) for _ in range(2)] for _ in range(PARTS)]
        with cgutils.for_range(builder, builder.sdiv(width, I64(LANES))) as loop:
            line, there = (builder.mul(loop.index, I64(LANES * size)) for size in (item_bytes, 4))
            emit.prefetch_line(builder, emit.forward(builder, after, line))
            for part in range(PARTS):
                first = part * DOUBLES.count
                place = emit.forward(builder, asked, builder.add(there, I64(4 * first)))
                query = emit.load(builder, place, EIGHT_FLOATS)
                place = emit.forward(builder, start, builder.add(line, I64(item_bytes * first)))
                value = emit.load(builder, place, stored)
                value = emit.widen_half(builder, value) if half else value
                left = factors(builder, builder.fpext(query, DOUBLES), builder.fpext(value, DOUBLES))
                for total, one, other in zip(sums[part], left[::2], left[1::2], strict=True):
                    if one is not None:
                        added = builder.fadd(builder.load(total), builder.fmul(one, other, FUSED), FUSED)
                        builder.store(added, total)
        totals = [_across(builder, [each[at] for each in sums]) for at in range(2)]
        return context.make_tuple(builder, signature.return_type, totals)

    pair = types.Tuple((types.float64, types.float64))
    return pair(vectors, types.intp, queries, types.intp, types.intp), codegen


def _across(builder: Any, places: list[Any]) -> Any:
    """The sum of all lanes of all sums."""
    value = builder.load(places[0])
    for place in places[1:]:
        value = builder.fadd(value, builder.load(place))
    while value.type.count > 1:
        count = value.type.count // 2
        blank = ir.Constant(value.type, ir.Undefined)
        lanes = [ir.Constant(ir.VectorType(emit.I32, count), list(range(at, at + count))) for at in (0, count)]
        value = builder.fadd(*(builder.shuffle_vector(value, blank, chosen) for chosen in lanes))
    return builder.extract_element(value, I64(0))
