"""Sums of table entries for 32 codes of product quantisation at a time, with the tables in registers.

A block holds 32 rows. Codes of 4 bits: pairs x [32 rows], the low half of a byte is the code of the first sub-quantiser
of the pair, the high half that of the second. Codes of 8 bits: sub-quantisers x [32 rows]. Blocks are whole groups of
128 bytes: 8 sub-quantisers of 4 bits, or 4 of 8 bits.

16 entries of a byte fit one register, and one instruction looks up all rows in it (André et al., "Cache locality is not
enough: high-performance nearest neighbor search with product quantization fast scan", 2015). 256 entries fit four
registers of 512 bits, which two permutations and a choice look up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.emit import BYTES, I8, I16, I32, I64, WORDS
from vecdb.kernels.jit import HAS_AVX2, HAS_VBMI, HAS_VNNI, inlined
from vecdb.types import AnyArray

ROWS = 32  # of a block
GROUP = 128  # bytes that blocks are a multiple of
TOP_4, TOP_8 = 127, 255  # the largest entry: of 4 bits two entries are added as bytes
SUM_MAX = 65_535  # of all entries of a row: sums are 16 bits
REGISTER = 64 if HAS_VNNI else 32  # bytes of the register that holds tables of 16 entries, repeated in it


@inlined
def place_4(at: int) -> int:
    """Where the table of a sub-quantiser of 4 bits begins, in bytes; it stands there twice, 16 bytes apart.

    A step loads the tables of the first of each pair into one register, and those of the second into the next.
    """
    pair = at // 2
    each = REGISTER // 32
    return (pair // each) * 2 * REGISTER + (at % 2) * REGISTER + (pair % each) * 32


@inlined
def plain_look_4(codes: AnyArray, byte_offset: int, tables: AnyArray, groups: int, out: AnyArray) -> None:
    """out[:32] int32 = the sum of tables[place_4(s) + code] over the sub-quantisers; codes uint8 (blocks, bytes)."""
    stride = codes.shape[1]
    block, start = byte_offset // stride, byte_offset % stride
    for lane in range(ROWS):
        out[lane] = 0
    for pair in range(groups * GROUP // ROWS):
        first, second = place_4(2 * pair), place_4(2 * pair + 1)
        for lane in range(ROWS):
            byte = int(codes[block, start + pair * ROWS + lane])
            out[lane] += np.int32(tables[first + (byte & 15)]) + np.int32(tables[second + (byte >> 4)])


@inlined
def plain_look_8(codes: AnyArray, byte_offset: int, tables: AnyArray, groups: int, out: AnyArray) -> None:
    """out[:32] int32 = the sum of tables[256 * s + code], as unsigned bytes, over the sub-quantisers."""
    stride = codes.shape[1]
    block, start = byte_offset // stride, byte_offset % stride
    for lane in range(0, ROWS, 4):
        sums = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for at in range(groups * GROUP // ROWS):
            here, table = start + at * ROWS + lane, 256 * at
            sums = (
                sums[0] + (np.int32(tables[table + int(codes[block, here])]) & np.int32(255)),
                sums[1] + (np.int32(tables[table + int(codes[block, here + 1])]) & np.int32(255)),
                sums[2] + (np.int32(tables[table + int(codes[block, here + 2])]) & np.int32(255)),
                sums[3] + (np.int32(tables[table + int(codes[block, here + 3])]) & np.int32(255)),
            )
        out[lane], out[lane + 1], out[lane + 2], out[lane + 3] = sums


def _choose(builder: Any, entries: list[Any], bits: list[Any]) -> Any:
    """entries[index] of each lane, by the bits of the index, the lowest first: half of the choices at every bit."""
    for bit in bits:
        pairs = zip(entries[::2], entries[1::2], strict=True)
        entries = [builder.select(bit, second, first) for first, second in pairs]
    return entries[0]


@emit.with_twin(plain_look_4)
def generic_look_4(typing_context: Any, codes: Any, byte_offset: Any, tables: Any, groups: Any, out: Any) -> Any:
    """The same as plain_look_4 for any processor with vector registers: 15 choices for each table of a pair."""
    rows, words = ir.VectorType(I8, ROWS), ir.VectorType(I16, ROWS)

    def look(builder: Any, table: Any, index: Any) -> Any:
        entries = [
            emit.splat(builder, emit.load(builder, emit.forward(builder, table, at), I8), rows) for at in range(16)
        ]
        tests = (builder.and_(index, emit.constant(rows, 1 << bit)) for bit in range(4))
        bits = [builder.icmp_unsigned("!=", test, emit.constant(rows, 0)) for test in tests]
        return _choose(builder, entries, bits)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = emit.address(context, builder, signature.args[0], args[0], args[1])
        table = emit.address(context, builder, signature.args[2], args[2])
        result = emit.address(context, builder, signature.args[4], args[4])
        total = cgutils.alloca_once_value(builder, emit.constant(words, 0))
        each = REGISTER // 32  # pairs whose tables stand together
        with cgutils.for_range(builder, builder.mul(args[3], I64(GROUP // ROWS // each))) as loop:
            for pair in range(each):
                at = builder.add(builder.mul(loop.index, I64(each)), I64(pair))
                value = emit.load(builder, emit.forward(builder, code, builder.mul(at, I64(ROWS))), rows)
                entry = emit.forward(builder, table, builder.mul(loop.index, I64(2 * REGISTER)))
                first = look(builder, emit.forward(builder, entry, 32 * pair), value)
                high = builder.lshr(value, emit.constant(rows, 4))
                second = look(builder, emit.forward(builder, entry, REGISTER + 32 * pair), high)
                found = builder.zext(builder.add(first, second), words)
                builder.store(builder.add(builder.load(total), found), total)
        emit.store(builder, builder.zext(builder.load(total), ir.VectorType(I32, ROWS)), result)
        return context.get_dummy_value()

    return types.void(codes, types.intp, tables, types.intp, out), codegen


def _make_look_4(width: int) -> Any:
    """The same as plain_look_4, with registers of `width` bytes: one step is a pair per 32 bytes."""
    name = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}[width]
    kind, words = ir.VectorType(I8, width), ir.VectorType(I16, width // 2)

    def look(builder: Any, table: Any, index: Any) -> Any:
        return emit.call(builder, name, kind, [emit.load(builder, table, kind), index])

    def folded(builder: Any, value: Any) -> Any:
        """The sums of both halves of a register: each holds all rows, of other pairs."""
        if width == 32:
            return value
        blank, half = ir.Constant(words, ir.Undefined), ir.VectorType(I32, 16)
        lanes = (ir.Constant(half, list(range(first, first + 16))) for first in (0, 16))
        return builder.add(*(builder.shuffle_vector(value, blank, part) for part in lanes))

    def generate(typing_context: Any, codes: Any, byte_offset: Any, tables: Any, groups: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = emit.address(context, builder, signature.args[0], args[0], args[1])
            table = emit.address(context, builder, signature.args[2], args[2])
            result = emit.address(context, builder, signature.args[4], args[4])
            both, odd = (cgutils.alloca_once_value(builder, emit.constant(words, 0)) for _ in range(2))
            low, eight = emit.constant(kind, 15), emit.constant(words, 8)
            with cgutils.for_range(builder, builder.mul(args[3], I64(GROUP // width))) as loop:
                value = emit.load(builder, emit.forward(builder, code, builder.mul(loop.index, I64(width))), kind)
                entry = emit.forward(builder, table, builder.mul(loop.index, I64(2 * width)))
                high = builder.lshr(builder.bitcast(value, words), emit.constant(words, 4))
                first = look(builder, entry, builder.and_(value, low))
                second = look(
                    builder, emit.forward(builder, entry, width), builder.and_(builder.bitcast(high, kind), low)
                )
                found = builder.bitcast(builder.add(first, second), words)
                # Even bytes are summed together with 256 times the odd ones, which are taken away at the end.
                builder.store(builder.add(builder.load(both), found), both)
                builder.store(builder.add(builder.load(odd), builder.lshr(found, eight)), odd)
            odd_sum = builder.load(odd)
            even_sum = builder.sub(builder.load(both), builder.shl(odd_sum, eight))
            even_sum, odd_sum = folded(builder, even_sum), folded(builder, odd_sum)
            order = ir.Constant(ir.VectorType(I32, 32), [at for j in range(16) for at in (j, 16 + j)])
            sums = builder.shuffle_vector(even_sum, odd_sum, order)
            emit.store(builder, builder.zext(sums, ir.VectorType(I32, 32)), result)
            return context.get_dummy_value()

        return types.void(codes, types.intp, tables, types.intp, out), codegen

    return emit.with_twin(plain_look_4)(generate)


def _make_look_8() -> Any:
    """The same as plain_look_8, by permutations of 128 bytes."""
    rows = ir.VectorType(I8, ROWS)

    def permute(builder: Any, table: Any, index: Any) -> Any:
        first, second = (emit.load(builder, emit.forward(builder, table, 64 * h), BYTES) for h in range(2))
        return emit.call(builder, "llvm.x86.avx512.vpermi2var.qi.512", BYTES, [first, index, second])

    def generate(typing_context: Any, codes: Any, byte_offset: Any, tables: Any, groups: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = emit.address(context, builder, signature.args[0], args[0], args[1])
            table = emit.address(context, builder, signature.args[2], args[2])
            result = emit.address(context, builder, signature.args[4], args[4])
            total = cgutils.alloca_once_value(builder, emit.constant(WORDS, 0))
            wide = ir.Constant(ir.VectorType(I32, 64), [lane % ROWS for lane in range(64)])
            narrow = ir.Constant(ir.VectorType(I32, ROWS), list(range(ROWS)))
            with cgutils.for_range(builder, builder.mul(args[3], I64(GROUP // ROWS))) as loop:
                value = emit.load(builder, emit.forward(builder, code, builder.mul(loop.index, I64(ROWS))), rows)
                index = builder.shuffle_vector(value, value, wide)
                entry = emit.forward(builder, table, builder.mul(loop.index, I64(256)))
                lower = permute(builder, entry, index)  # which reads the low 7 bits of an index
                upper = permute(builder, emit.forward(builder, entry, 128), index)
                high = builder.icmp_signed("<", index, emit.constant(BYTES, 0))
                found = builder.select(high, upper, lower)
                found = builder.zext(builder.shuffle_vector(found, found, narrow), WORDS)
                builder.store(builder.add(builder.load(total), found), total)
            emit.store(builder, builder.zext(builder.load(total), ir.VectorType(I32, 32)), result)
            return context.get_dummy_value()

        return types.void(codes, types.intp, tables, types.intp, out), codegen

    return emit.with_twin(plain_look_8)(generate)


look_4: Any = _make_look_4(REGISTER) if HAS_AVX2 else generic_look_4
look_8: Any = _make_look_8() if HAS_VBMI else plain_look_8


@inlined
def look_block(bits: int, codes: AnyArray, byte_offset: int, tables: AnyArray, groups: int, out: AnyArray) -> None:
    """out[:32] int32 = the sums of table entries of the 32 rows of the block at `byte_offset`.

    tables  int8, as `fill_tables` lays them out
    """
    if bits == 4:
        look_4(codes, np.intp(byte_offset), tables, np.intp(groups), out)
    else:
        look_8(codes, np.intp(byte_offset), tables, np.intp(groups), out)
