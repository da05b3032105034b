"""Products of levels of 1 to 8 bits, where they stand in their bytes, with an int8 query: 64 bytes of both at a time.

Three ways, by what the processor has. vpdpbusd sums fours of products of bytes as int32, so levels are masked in place
and each slot of a byte has a sum of its own, shifted at the end. vpmaddubsw sums pairs as int16, which are exact while
levels have few bits: all slots are one sum, made int32 once for every 64 bytes. Plain LLVM multiplies 16-bit words.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, I8, I32, SUMS, WORDS
from vecdb.kernels.jit import HAS_AVX2, HAS_VNNI

HALF, PAIRS, QUADS = ir.VectorType(I8, 32), ir.VectorType(emit.I16, 16), ir.VectorType(I32, 8)


def dot_step(builder: Any, total: Any, codes: Any, query: Any) -> Any:
    """total + the products of 64 unsigned bytes and signed query bytes, summed by fours."""
    if HAS_VNNI:
        return emit.dot_step_vnni(builder, total, codes, query)
    return emit.dot_step_generic(builder, total, codes, query)


def sums_of(bits: int) -> int:
    """How many sums `add_levels` keeps."""
    return 1 if _in_pairs(bits) else 8 // bits


def add_levels(builder: Any, bits: int, totals: list[Any], codes: Any, queries: list[Any]) -> list[Any]:
    """The sums with 64 bytes of levels more; `queries` are the 64 query bytes of each slot of the bytes."""
    if _in_pairs(bits):
        return [builder.add(totals[0], _pairs(builder, bits, codes, queries))]
    masks = [((1 << bits) - 1) << (bits * slot) for slot in range(8 // bits)]
    return [
        dot_step(builder, total, codes if bits == 8 else _masked(builder, codes, mask), query)
        for total, mask, query in zip(totals, masks, queries, strict=True)
    ]


def total_levels(builder: Any, bits: int, totals: list[Any]) -> Any:
    """The sum of all slots; each is a multiple of 2^(bits * slot), so the shift is exact."""
    total = totals[0]
    for slot in range(1, len(totals)):
        total = builder.add(total, builder.ashr(totals[slot], emit.constant(SUMS, bits * slot)))
    return total


def _in_pairs(bits: int) -> bool:
    return HAS_AVX2 and not HAS_VNNI and bits < 8


def _masked(builder: Any, codes: Any, mask: int) -> Any:
    return builder.and_(codes, emit.constant(BYTES, mask - 256 if mask > 127 else mask))


def _pairs(builder: Any, bits: int, codes: Any, queries: list[Any]) -> Any:
    """Levels of the two halves of a byte that stand alike are masked alike. At most 2 * 2 * 15 * 127 in an int16."""
    each = 4 // bits  # slots of half a byte
    high = builder.bitcast(builder.lshr(builder.bitcast(codes, WORDS), emit.constant(WORDS, 4)), BYTES)
    total = None
    for slot in reversed(range(each)):
        mask = ((1 << bits) - 1) << (bits * slot)
        low, upper = (
            _multiply_pairs(builder, _masked(builder, half, mask), query)
            for half, query in ((codes, queries[slot]), (high, queries[slot + each]))
        )
        found = builder.add(low, upper)
        if total is not None:  # a multiple of 2^bits times what the slot below is in units of
            found = builder.add(found, builder.ashr(total, emit.constant(WORDS, bits)))
        total = found
    return _widened(builder, total)


def _multiply_pairs(builder: Any, codes: Any, query: Any) -> Any:
    """int16: 32 sums of two products."""
    return _by_halves(builder, "llvm.x86.avx2.pmadd.ub.sw", BYTES, PAIRS, codes, query)


def _widened(builder: Any, pairs: Any) -> Any:
    """int32: 16 sums of two int16."""
    return _by_halves(builder, "llvm.x86.avx2.pmadd.wd", WORDS, QUADS, pairs, emit.constant(WORDS, 1))


def _by_halves(builder: Any, name: str, kind: Any, result: Any, left: Any, right: Any) -> Any:
    """An instruction for registers of 32 bytes, on both halves of 64 bytes."""
    half, blank, found = kind.count // 2, ir.Constant(kind, ir.Undefined), []
    for first in (0, half):
        lanes = ir.Constant(ir.VectorType(I32, half), list(range(first, first + half)))
        parts = [builder.shuffle_vector(value, blank, lanes) for value in (left, right)]
        found.append(emit.call(builder, name, result, parts))
    whole = ir.Constant(ir.VectorType(I32, 2 * result.count), list(range(2 * result.count)))
    return builder.shuffle_vector(*found, whole)
