"""Codes of vectors: RaBitQ levels of 2 or 8 bits in blocks for scans, one-scale int8 rows for graphs.

RaBitQ (Gao and Long, SIGMOD 2024; extended, SIGMOD 2025): a residual r = x - centre becomes levels of a uniform grid,
and the inner product with a query q' is estimated as factor * <levels, q'>, factor = |r|^2 / <r, levels>, which makes
the estimate exact along r itself. Under cosine x is the vector times its inverse norm. With q' = q - centre:

    L2       |q - x|^2 = |q'|^2            + |r|^2         - 2 <q', r>
    COSINE   -cos      = -<q, centre>      - <centre, r>   -   <q', r>
    DOT      -dot      =                                   -   <q, r>          (the centre is 0)
             estimate  = base (of a query) + add (of a row) + scale (of a row) * <levels, q'>
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.distance import COSINE, DOT, L2, squared_norm
from vecdb.kernels.intrinsics import widen
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.types import AnyArray

# Width of a grid step for values of N(0, 1) at the least squared error, by bits; of one bit only the sign counts.
STEP_1, STEP_2, STEP_4 = np.float32(1.0), np.float32(0.9957), np.float32(0.3352)
TINY = np.float32(1e-30)
CLIP = 0.9999  # share of values that one-scale codes hold without clipping


@inlined
def step_of(bits: int) -> np.float32:
    if bits == 2:
        return STEP_2
    return STEP_4 if bits == 4 else STEP_1


def group_dims(bits: int) -> int:
    """Dimensions of one group of a block."""
    return 32 // bits


def block_bytes(bits: int, dim: int) -> int:
    """Bytes of one block of 32 rows; the dimensions are padded to whole groups."""
    return -(-dim // group_dims(bits)) * 128


@kernel
def residual(
    metric: int, vectors: AnyArray, inverse_norms: AnyArray, row: Integer, centre: AnyArray, out: AnyArray
) -> np.float32:
    """out[:dim] = vectors[row] (normalised under cosine) - centre; returns its squared length."""
    unit = inverse_norms[row] if metric == COSINE else np.float32(1.0)
    total = np.float32(0.0)
    for j in range(vectors.shape[1]):
        value = widen(vectors[row, j]) * unit - centre[j]
        out[j] = value
        total += value * value
    return total


@allocating
def encode_blocks(
    bits: int,
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centre: AnyArray,
    first: int,
    last: int,
    codes: AnyArray,
    add: AnyArray,
    scale: AnyArray,
) -> None:
    """Write codes and factors of rows first..last-1; codes uint8 (blocks, block_bytes), add and scale float32."""
    dim = vectors.shape[1]
    slots = 8 // bits
    groups = codes.shape[1] // 128
    rest, levels = np.empty(dim, np.float32), np.zeros(groups * 4 * slots, np.uint8)
    for row in range(first, last):
        norm = residual(metric, vectors, inverse_norms, row, centre, rest)
        along, _, cross = take_levels(bits, rest, norm, centre, levels)
        factor = norm / along if along > np.float32(0.0) else np.float32(0.0)
        write_factors(metric, row, norm, factor, cross, add, scale)
        pack_levels(bits, levels, codes, row, groups)


@kernel
def take_levels(
    bits: int, rest: AnyArray, norm: np.float32, centroid: AnyArray, levels: AnyArray
) -> tuple[np.float32, np.float32, np.float32]:
    """levels[:dim] of the residual `rest`; returns (<rest, levels>, <centroid, levels>, <centroid, rest>).

    The products are those with the levels around their middle.
    """
    dim = rest.shape[0]
    top = np.float32((1 << bits) - 1)
    half = top * np.float32(0.5)
    if bits == 8:  # fine enough to hold the largest value too
        largest = TINY
        for j in range(dim):
            largest = max(largest, abs(rest[j]))
        per_step = half / largest
    else:
        per_step = np.float32(np.sqrt(np.float32(dim))) / ((np.float32(np.sqrt(norm)) + TINY) * step_of(bits))
    along, cross, plain = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for j in range(dim):
        level = np.float32(np.floor(rest[j] * per_step)) + (half + np.float32(0.5))
        level = min(max(level, np.float32(0.0)), top)
        levels[j] = np.uint8(level)
        level -= half
        along += rest[j] * level
        cross += centroid[j] * level
        plain += centroid[j] * rest[j]
    return along, cross, plain


@kernel
def write_factors(
    metric: int, row: int, norm: np.float32, factor: np.float32, cross: np.float32, add: AnyArray, scale: AnyArray
) -> None:
    if metric == L2:
        add[row], scale[row] = norm, np.float32(-2.0) * factor
    else:
        add[row], scale[row] = -cross, -factor


@kernel
def pack_levels(bits: int, levels: AnyArray, codes: AnyArray, row: int, groups: int) -> None:
    """Write one row's levels into its lane of its block; no other lane is touched."""
    slots = 8 // bits
    block, lane = row // BLOCK, row % BLOCK
    for group in range(groups):
        for j in range(4):
            byte = 0
            for slot in range(slots):
                byte |= int(levels[group * 4 * slots + 4 * slot + j]) << (slot * bits)
            codes[block, group * 128 + lane * 4 + j] = np.uint8(byte)


@kernel
def quantise(values: AnyArray, count: int, out: AnyArray) -> tuple[np.float32, np.int64]:
    """out[:count] int8 = values / scale, the largest becoming 127; returns (scale, sum of out)."""
    # Without the sign bit floats order like their bits, and a maximum of integers is computed in parallel lanes.
    bits, top, total = values.view(np.int32), np.int32(0), np.int32(0)
    for j in range(count):
        top = max(top, np.int32(bits[j] & np.int32(0x7FFFFFFF)))
    largest = np.float32(np.int32(top).view(np.float32))
    inverse = np.float32(127.0) / largest if largest > np.float32(0.0) else np.float32(0.0)
    for j in range(count):
        level = np.int32(np.rint(values[j] * inverse))
        out[j] = np.int8(level)
        total += level
    return largest / np.float32(127.0), np.int64(total)


@kernel
def centre_query(
    metric: int, queries: AnyArray, i: int, centre: AnyArray, out: AnyArray
) -> tuple[np.float32, np.float32]:
    """out[:dim] = q' of the table above; returns (base, 1 / |query| under cosine, else 1)."""
    dim = queries.shape[1]
    unit, base = np.float32(1.0), np.float32(0.0)
    if metric == COSINE:
        norm = squared_norm(queries, i)
        unit = np.float32(1.0 / np.sqrt(norm)) if norm > 0.0 else np.float32(0.0)
    for j in range(dim):
        value = queries[i, j] * unit
        moved = value - centre[j]
        out[j] = moved
        base += moved * moved if metric == L2 else value * centre[j]
    if metric != L2:
        base = -base
    return base, unit


def centre_of(metric: int, vectors: AnyArray, inverse_norms: AnyArray | None, sample: int = 16_384) -> AnyArray:
    """float32 (dim,): the mean of (normalised) rows, from evenly spaced ones; zeros under dot."""
    if metric == DOT or not len(vectors):
        return np.zeros(vectors.shape[1], np.float32)
    spaced = slice(0, None, max(1, len(vectors) // sample))
    part = vectors[spaced]
    if metric == COSINE:
        assert inverse_norms is not None
        part = part * inverse_norms[spaced, None]
    return np.asarray(part.mean(0, dtype=np.float64).astype(np.float32))


@kernel
def quantise_with(scale: np.float32, values: AnyArray, count: int, out: AnyArray) -> np.int64:
    """out[:count] int8 = values / scale, clipped to 127 either way; returns the sum of out."""
    total = np.int64(0)
    inverse = np.float32(1.0) / scale
    for j in range(count):
        level = np.int8(max(min(np.float32(np.rint(values[j] * inverse)), np.float32(127.0)), np.float32(-127.0)))
        out[j] = level
        total += np.int64(level)
    return total


@allocating
def encode_rows(
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centre: AnyArray,
    scale: np.float32,
    first: int,
    last: int,
    codes: AnyArray,
    bias: AnyArray,
    offsets: AnyArray,
) -> None:
    """One-scale codes of rows first..last-1: codes uint8 (n, stride) = level + 128, bias and offsets int32 (n,).

    bias     half the squared length of the levels, 0 under dot: bias - level . query orders like the distance
    offsets  128 * the sum of the levels: what the + 128 of another row adds to a product with this one

    A zero vector under cosine is as far from everything as an orthogonal one, so it takes the place of the centre with
    a bias that makes up the difference for a typical query.
    """
    dim, rest, levels = vectors.shape[1], np.empty(vectors.shape[1], np.float32), np.zeros(vectors.shape[1], np.int8)
    middle = np.float32(0.0)
    for j in range(dim):
        middle += centre[j] * centre[j]
    for row in range(first, last):
        residual(metric, vectors, inverse_norms, row, centre, rest)
        zero = metric == COSINE and inverse_norms[row] == np.float32(0.0)
        if zero:
            rest[:] = np.float32(0.0)
        total = quantise_with(scale, rest, dim, levels)
        norm = np.int64(0)
        for j in range(dim):
            codes[row, j] = np.uint8(np.int32(levels[j]) + np.int32(128))
            norm += np.int64(np.int32(levels[j]) * np.int32(levels[j]))
        for j in range(dim, codes.shape[1]):
            codes[row, j] = np.uint8(128)
        if zero:
            norm = np.int64(min((np.float32(1.0) + middle) / (scale * scale), np.float32(1e9)))
        bias[row] = np.int32(0) if metric == DOT else np.int32(norm // 2)
        offsets[row] = np.int32(np.int64(128) * total)


def scale_of(
    metric: int, vectors: AnyArray, inverse_norms: AnyArray | None, centre: AnyArray, sample: int = 8192
) -> float:
    """The step of one-scale codes: nearly all values of evenly spaced rows fit into 127 steps.

    Under dot all values of all rows do: clipping would shorten the longest rows, which are the answers.
    """
    if not len(vectors):
        return 1.0
    if metric == DOT:
        if vectors.dtype == np.float16:  # slow to compare in NumPy; the bits of magnitudes are in the same order
            largest = (vectors.view(np.uint16) & np.uint16(0x7FFF)).max().view(np.float16)
        else:
            largest = max(vectors.max(), -vectors.min())
        return float(np.float32(largest) / np.float32(127)) or 1.0
    spaced = slice(0, None, max(1, len(vectors) // sample))
    part = vectors[spaced]
    if metric == COSINE:
        assert inverse_norms is not None
        part = part * inverse_norms[spaced, None]
    return float(np.float32(np.quantile(np.abs(part - centre), CLIP) / 127)) or 1.0
