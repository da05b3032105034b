"""RaBitQ codes of single rows, for walks that jump from row to row: each row is a record of whole cache lines.

The estimate is that of `vecdb.kernels.quantize`. A record holds the levels, `8 / bits` in each byte, and in its last
8 bytes the row's two float32 factors, so that a distance costs the lines of one record and nothing else. Byte b of a
line holds, from its low bits up, dimensions b, 64 + b, ... of that line; the last line is as wide as it needs to be:
b, width + b, ... A query has 64 bytes for each slot of a line, 32 where the last line is no wider than that; those
that stand for no dimension are 0, so what a record holds there does not count.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import L2
from vecdb.kernels.intrinsics import copy_bytes, prefetch_row
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.kernels.level_dots import HALF_LINE, few_level_dots
from vecdb.kernels.quantize import quantise, residual, take_levels
from vecdb.kernels.topk import keep_smallest, key_row, pack_key
from vecdb.types import AnyArray

LINE = 64
FACTOR_BYTES = 8


@inlined
def code_lines(bits: int, dim: int) -> int:
    """Cache lines with levels in them, the part of a record that a dot product reads."""
    per_line = LINE * (8 // bits)
    return (dim + per_line - 1) // per_line


def record_bytes(bits: int, dim: int) -> int:
    """Bytes of one record: levels and factors, padded to whole cache lines."""
    return -(-(-(-dim * bits // 8) + FACTOR_BYTES) // LINE) * LINE


@inlined
def query_bytes(bits: int, dim: int) -> int:
    return ((code_lines(bits, dim) - 1) * LINE + _tail_place(bits, dim)) * (8 // bits)


@inlined
def query_halves(bits: int, query: AnyArray) -> int:
    """Half lines of a record that this coded query meets."""
    return int(query.shape[0] // (HALF_LINE * (8 // bits)))


@inlined
def tail_width(bits: int, dim: int) -> int:
    """Bytes of the last line that hold levels."""
    slots = 8 // bits
    rest = dim - (code_lines(bits, dim) - 1) * LINE * slots
    return (rest + slots - 1) // slots


@inlined
def _tail_place(bits: int, dim: int) -> int:
    """Query bytes of a slot of the last line."""
    return HALF_LINE if tail_width(bits, dim) <= HALF_LINE else LINE


@inlined
def row_estimate(factors: AnyArray, row: Integer, dot: Integer, unit: np.float32, shift: np.float32) -> np.float32:
    """The estimated distance of a row without what is the same for all rows.

    factors  the records as float32;  dot: of the row's levels and the coded query, see level_dots
    """
    last = np.uintp(factors.shape[1] - 1)
    along = unit * np.float32(np.int32(dot)) + shift
    return np.float32(factors[row, last - np.uintp(1)] + factors[row, last] * along)


@kernel
def encode_query(bits: int, moved: AnyArray, levels: AnyArray, out: AnyArray) -> tuple[np.float32, np.float32]:
    """out int8 (query_bytes,) = the centred query `moved`; returns (unit, shift) of row_estimate.

    levels  int8 (dim,), scratch; out is zero wherever no dimension stands
    """
    unit, total = quantise(moved, moved.shape[0], levels)
    place_levels(bits, levels, out)
    return unit, -unit * _middle(bits) * np.float32(total)


@inlined
def place_levels(bits: int, levels: AnyArray, out: AnyArray) -> None:
    """Puts the levels of a query where records of so many bits have their dimensions."""
    dim, slots = levels.shape[0], 8 // bits
    width, apart = tail_width(bits, dim), _tail_place(bits, dim)
    first = (code_lines(bits, dim) - 1) * LINE * slots
    copy_bytes(levels, np.intp(0), out, np.intp(0), np.intp(first))
    for slot in range(slots):
        start = first + slot * width
        copy_bytes(levels, np.intp(start), out, np.intp(first + slot * apart), np.intp(max(0, min(width, dim - start))))


@inlined
def _middle(bits: int) -> np.float32:
    """The middle of the levels."""
    return np.float32(np.float32((1 << bits) - 1) * np.float32(0.5))


@allocating
def encode_records(
    bits: int,
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centre: AnyArray,
    first: int,
    last: int,
    records: AnyArray,
    factors: AnyArray,
) -> None:
    """Write the records of rows first..last-1; factors is `records` seen as float32 (n, stride / 4)."""
    dim, slots = vectors.shape[1], 8 // bits
    tail = (code_lines(bits, dim) - 1) * LINE * slots
    width, end = tail_width(bits, dim), factors.shape[1]
    rest, levels = np.empty(dim, np.float32), np.empty(dim, np.uint8)
    for row in range(first, last):
        norm = residual(metric, vectors, inverse_norms, row, centre, rest)
        along, _, cross = take_levels(bits, rest, norm, centre, levels)
        records[row, :] = np.uint8(0)
        for start in range(0, dim, LINE * slots):
            wide = LINE if start < tail else width
            for slot in range(slots):
                for byte in range(min(wide, dim - start - slot * wide)):
                    level = levels[start + slot * wide + byte]
                    records[row, start // slots + byte] |= np.uint8(level << np.uint8(bits * slot))
        factor = norm / along if along > np.float32(0.0) else np.float32(0.0)
        factors[row, end - 2] = norm if metric == L2 else -cross
        factors[row, end - 1] = np.float32(-2.0) * factor if metric == L2 else -factor


@allocating
def estimate_records(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    query: AnyArray,
    unit: np.float32,
    shift: np.float32,
    out: AnyArray,
) -> None:
    """out float32 (n,) = row_estimate of every row."""
    halves, count = query_halves(bits, query), records.shape[0]
    dots = np.empty(count, np.int64)
    few_level_dots(bits, records, np.arange(count, dtype=np.int32), count, query, halves, dots)
    for row in range(count):
        out[row] = row_estimate(factors, row, dots[row], unit, shift)


@allocating
def refine_keys(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    coarse_bits: int,
    levels: AnyArray,
    unit: np.float32,
    shift: np.float32,
    query: AnyArray,
    keys: AnyArray,
    count: int,
    kept: int,
) -> None:
    """keys[:kept] = the best of the rows in keys[:count] by codes of `bits`, in no order.

    levels, unit, shift   of the query, as encode_query left them for coarse_bits;  query  is written for these bits
    """
    place_levels(bits, levels, query)
    shift *= _middle(bits) / _middle(coarse_bits)
    halves, asked = query_halves(bits, query), np.intp(records.shape[1] // LINE)
    rows = np.empty(count, np.int32)
    for j in range(count):
        rows[j] = key_row(keys[j])
        prefetch_row(records, np.intp(rows[j]), asked)
    few_level_dots(bits, records, rows, count, query, halves, keys)
    for j in range(count):
        keys[j] = pack_key(row_estimate(factors, rows[j], keys[j], unit, shift), rows[j])
    keep_smallest(keys, count, kept)
