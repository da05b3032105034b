"""Pieces of LLVM code that the intrinsics are put together from.

Vector values cannot live in a Numba variable, so an intrinsic emits its whole loop. Loads and stores carry align=1:
LLVM would assume the natural alignment of the vector, and fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.jit import CONVERTS_HALF, JIT_ON

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
BYTES, WORDS, SUMS = ir.VectorType(I8, 64), ir.VectorType(I16, 32), ir.VectorType(I32, 16)
FLOATS, KEYS, HALVES = ir.VectorType(F32, 16), ir.VectorType(I64, 8), ir.VectorType(I16, 16)
EIGHT_HALVES, EIGHT_FLOATS, DOUBLES = (ir.VectorType(kind, 8) for kind in (I16, F32, F64))
LINE = 64  # bytes of a cache line, and of a vector register
STRAIGHT_LINES = 24  # 1,536 code dimensions

# vpdpbusd takes vectors of bytes since LLVM 22, and took vectors of int32 before.
VNNI_OPERAND = BYTES if llvm.llvm_version_info[0] >= 22 else SUMS


def with_twin(twin: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """The intrinsic that a code generator defines, or its plain Python `twin` when the JIT is off."""

    def choose(generator: Callable[..., Any]) -> Any:
        return intrinsic(generator) if JIT_ON else twin

    return choose


def address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any = None, item_bytes: int = 1) -> Any:
    """Byte pointer to the data of an array, `offset` items further."""
    data = builder.bitcast(context.make_array(array_type)(context, builder, array).data, I8.as_pointer())
    return data if offset is None else builder.gep(data, [builder.mul(offset, I64(item_bytes))])


def row_stride(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Bytes from one row of a 2-D array to the next."""
    strides = context.make_array(array_type)(context, builder, array).strides
    return cgutils.unpack_tuple(builder, strides, array_type.ndim)[0]


def row_address(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Byte pointer to array[row] of a 2-D array."""
    start = address(context, builder, array_type, array)
    return forward(builder, start, builder.mul(row, row_stride(context, builder, array_type, array)))


def element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to array[index] of a 1-D array, in the array's own type."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def forward(builder: Any, pointer: Any, count: Any) -> Any:
    return builder.gep(pointer, [count if isinstance(count, ir.Value) else I64(count)])


def load(builder: Any, pointer: Any, kind: Any) -> Any:
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 1
    return value


def store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 1


def constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def splat(builder: Any, value: Any, kind: Any) -> Any:
    blank = ir.Constant(kind, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(builder.insert_element(blank, value, I32(0)), blank, lanes)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def each_line(builder: Any, lines: Any, body: Callable[[Any], None], longer: bool) -> None:
    """body(byte offset) for each of `lines` cache lines, by one jump into straight code for up to STRAIGHT_LINES.

    Of the lines beyond these a loop takes care, if `longer`; otherwise they are left out.
    """
    done = builder.append_basic_block("lines.done")
    steps = [done, *(builder.append_basic_block(f"lines.{count}") for count in range(1, STRAIGHT_LINES + 1))]
    beyond = builder.append_basic_block("lines.beyond")
    choice = builder.switch(lines, beyond)
    for count, step in enumerate(steps):
        choice.add_case(I64(count), step)
    for count in range(1, STRAIGHT_LINES + 1):
        builder.position_at_end(steps[count])
        body(I64((count - 1) * LINE))
        builder.branch(steps[count - 1])
    builder.position_at_end(beyond)
    if longer:
        with cgutils.for_range(builder, builder.sub(lines, I64(STRAIGHT_LINES))) as loop:
            body(builder.mul(builder.add(loop.index, I64(STRAIGHT_LINES)), I64(LINE)))
    builder.branch(steps[STRAIGHT_LINES])
    builder.position_at_end(done)


def widen_half(builder: Any, bits: Any) -> Any:
    """float32 of the bits of finite float16, of one or of a vector of 16: one instruction where the processor has it,
    else by parts."""
    lanes = bits.type.count if isinstance(bits.type, ir.VectorType) else 0
    half, word, single = (ir.VectorType(kind, lanes) if lanes else kind for kind in (ir.HalfType(), I32, F32))
    if CONVERTS_HALF:
        return builder.fpext(builder.bitcast(bits, half), single)

    def same(kind: Any, value: float) -> Any:
        return constant(kind, value) if lanes else kind(value)

    wide = builder.zext(bits, word)
    sign = builder.shl(builder.and_(wide, same(word, 0x8000)), same(word, 16))
    rest = builder.and_(wide, same(word, 0x7FFF))
    normal = builder.add(builder.shl(rest, same(word, 13)), same(word, 112 << 23))
    small = builder.bitcast(builder.fmul(builder.uitofp(rest, single), same(single, 2.0**-24)), word)
    chosen = builder.select(builder.icmp_unsigned("<", rest, same(word, 0x400)), small, normal)
    return builder.bitcast(builder.or_(chosen, sign), single)


def prefetch_line(builder: Any, place: Any) -> None:
    """Ask for the line at an address, which may be any."""
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, I32(0), I32(3), I32(1)])


def prefetch_lines(builder: Any, start: Any, lines: Any) -> None:
    """Ask for the first lines from `start`; what follows the first STRAIGHT_LINES the hardware fetches by itself."""
    each_line(builder, lines, lambda offset: prefetch_line(builder, forward(builder, start, offset)), longer=False)


def dot_step_vnni(builder: Any, total: Any, codes: Any, query: Any) -> Any:
    """total + the products of 64 unsigned codes and signed query bytes, summed by fours."""
    operands = [total, builder.bitcast(codes, VNNI_OPERAND), builder.bitcast(query, VNNI_OPERAND)]
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", SUMS, operands)


def dot_step_generic(builder: Any, total: Any, codes: Any, query: Any) -> Any:
    """The same in plain LLVM; what is written here is recognised as vpmaddwd where the processor has it."""
    codes, query, eight = builder.bitcast(codes, WORDS), builder.bitcast(query, WORDS), constant(WORDS, 8)
    pairs = [
        (builder.and_(codes, constant(WORDS, 255)), builder.ashr(builder.shl(query, eight), eight)),
        (builder.lshr(codes, eight), builder.ashr(query, eight)),
    ]
    wide = ir.VectorType(I32, 32)
    blank = ir.Constant(wide, ir.Undefined)
    for left, right in pairs:
        product = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
        for first in (0, 1):
            lanes = ir.Constant(SUMS, list(range(first, 32, 2)))
            total = builder.add(total, builder.shuffle_vector(product, blank, lanes))
    return total


def merge_block(builder: Any, start: Any, block: Any, lower: Any, current: Any, keys: Any) -> None:
    """Store min(current, max(current moved up by one place, keys)) to a block of 8 keys; `lower` is the block below."""
    lanes = ir.Constant(ir.VectorType(I32, 8), list(range(7, 15)))
    moved = builder.shuffle_vector(lower, current, lanes)
    moved = builder.select(builder.icmp_signed(">", moved, keys), moved, keys)
    merged = builder.select(builder.icmp_signed("<", current, moved), current, moved)
    store(builder, merged, forward(builder, start, builder.mul(block, I64(LINE))))
