"""The nearest of many centroids for every row, and the means of the rows of each.

Rows and centroids, less a common middle, become int8 levels: the levels of 32 centroids lie in one block (`blocks`),
and a tile of rows shares each load of it, as in a matrix product. Every lane keeps its best centroid; those lanes
whose estimate is within the error of the best are measured again with float32. Short rows are compared with float32
at once, for their levels would tell too little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils

from vecdb.kernels import emit
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.distance import COSINE
from vecdb.kernels.emit import BYTES, FLOATS, I32, I64, SUMS
from vecdb.kernels.intrinsics import widen
from vecdb.kernels.jit import HAS_VNNI, Integer, allocating, inlined, kernel
from vecdb.kernels.level_sums import dot_step
from vecdb.kernels.quantize import pack_levels, quantise
from vecdb.types import AnyArray

TILE = 8 if HAS_VNNI else 2  # rows that share a load: as many as there are registers for their sums
SLAB = 64  # rows encoded before they are compared; a multiple of TILE
FLOAT_DIMS = 32  # up to here levels of 8 bits tell too little
ERRORS = np.float32(3.0)  # standard deviations of an estimate within which float32 decides
NOWHERE = np.float32(np.inf)  # the place of padding: nearer to nothing


def _nearest_tile_twin(
    blocks: AnyArray, add: AnyArray, scale: AnyArray, levels: AnyArray, first: int, shifts: AnyArray, units: AnyArray,
    best: AnyArray, which: AnyArray,
) -> None:  # fmt: skip
    part = slice(int(first), int(first) + TILE)
    asked, best[...], which[...] = levels[part].astype(np.int32), np.inf, 0
    for block in range(len(blocks)):
        lanes = slice(block * BLOCK, (block + 1) * BLOCK)
        codes = blocks[block].reshape(-1, BLOCK, 4).transpose(1, 0, 2).reshape(BLOCK, -1)
        products = (asked @ codes.T.astype(np.int32) - shifts[part, None]).astype(np.float32)
        values = products * units[part, None] * scale[lanes] + add[lanes]
        nearer = values < best
        best[nearer], which[nearer] = values[nearer], block


@emit.with_twin(_nearest_tile_twin)
def nearest_tile(
    typing_context: Any, blocks: Any, add: Any, scale: Any, levels: Any, first: Any, shifts: Any, units: Any,
    best: Any, which: Any,
) -> Any:  # fmt: skip
    """For TILE rows of `levels` from `first` on: best[row, lane] = the least estimate of a lane of all blocks.

    blocks  uint8 (blocks, groups * 128);  add, scale  float32 (blocks * 32,);  levels  int8 (rows, groups * 4)
    shifts  int32 (rows,), units  float32 (rows,): estimate = add + scale * units * (codes . levels - shifts)
    best    float32 (TILE, 32), which  int32 (TILE, 32): the block that it was found in
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shape = context.make_array(signature.args[0])(context, builder, args[0]).shape
        count, width = cgutils.unpack_tuple(builder, shape, 2)
        groups, stride = builder.sdiv(width, I64(128)), builder.sdiv(width, I64(BLOCK))
        code, plus, times = (emit.address(context, builder, signature.args[i], args[i]) for i in range(3))
        asked = emit.row_address(context, builder, signature.args[3], args[3], args[4])
        shift, unit = (emit.address(context, builder, signature.args[i], args[i], args[4], 4) for i in (5, 6))
        least, where = (emit.address(context, builder, signature.args[i], args[i]) for i in (7, 8))
        _reset(builder, least, where)
        totals = [cgutils.alloca_once(builder, SUMS) for _ in range(2 * TILE)]
        with cgutils.for_range(builder, count) as loop:
            for total in totals:
                builder.store(emit.constant(SUMS, 0), total)
            block = emit.forward(builder, code, builder.mul(loop.index, width))
            with cgutils.for_range(builder, groups) as inner:
                group = emit.forward(builder, block, builder.mul(inner.index, I64(128)))
                halves = [emit.load(builder, emit.forward(builder, group, 64 * h), BYTES) for h in range(2)]
                piece = emit.forward(builder, asked, builder.mul(inner.index, I64(4)))
                for row in range(TILE):
                    start = emit.forward(builder, piece, builder.mul(stride, I64(row)))
                    four = builder.bitcast(emit.splat(builder, emit.load(builder, start, I32), SUMS), BYTES)
                    for h in range(2):
                        cell = totals[2 * row + h]
                        builder.store(dot_step(builder, builder.load(cell), halves[h], four), cell)
            number = emit.splat(builder, builder.trunc(loop.index, I32), SUMS)
            lanes = builder.mul(loop.index, I64(4 * BLOCK))
            for half in range(2):
                at = builder.add(lanes, I64(64 * half))
                factors = [emit.load(builder, emit.forward(builder, p, at), FLOATS) for p in (plus, times)]
                for row in range(TILE):
                    moved = emit.splat(builder, emit.load(builder, emit.forward(builder, shift, 4 * row), I32), SUMS)
                    value = builder.sitofp(builder.sub(builder.load(totals[2 * row + half]), moved), FLOATS)
                    scaled = emit.load(builder, emit.forward(builder, unit, 4 * row), emit.F32)
                    value = builder.fmul(builder.fmul(value, emit.splat(builder, scaled, FLOATS)), factors[1])
                    cells = [emit.forward(builder, p, 128 * row + 64 * half) for p in (least, where)]
                    _keep_less(builder, builder.fadd(value, factors[0]), number, *cells)
        return context.get_dummy_value()

    return types.void(blocks, add, scale, levels, types.intp, shifts, units, best, which), codegen


def _reset(builder: Any, least: Any, where: Any) -> None:
    for part in range(2 * TILE):
        emit.store(builder, emit.constant(FLOATS, float("inf")), emit.forward(builder, least, 64 * part))
        emit.store(builder, emit.constant(SUMS, 0), emit.forward(builder, where, 64 * part))


def _keep_less(builder: Any, value: Any, number: Any, least: Any, where: Any) -> None:
    """Where `value` is less than what is stored, store it and the number of the block."""
    before, held = emit.load(builder, least, FLOATS), emit.load(builder, where, SUMS)
    nearer = builder.fcmp_ordered("<", value, before)
    emit.store(builder, builder.select(nearer, value, before), least)
    emit.store(builder, builder.select(nearer, number, held), where)


@kernel
def load_rows(metric: int, vectors: AnyArray, inverse_norms: AnyArray, rows: AnyArray, out: AnyArray) -> None:
    """out float32 (r, dim) = vectors[rows], times the inverse norms under cosine."""
    for i in range(rows.shape[0]):
        unit = inverse_norms[rows[i]] if metric == COSINE else np.float32(1.0)
        for j in range(vectors.shape[1]):
            out[i, j] = widen(vectors[rows[i], j]) * unit


@allocating
def pack_centroids(centroids: AnyArray, middle: AnyArray, blocks: AnyArray, add: AnyArray, scale: AnyArray) -> None:
    """Levels of the centroids less `middle`, 128 added, in blocks; estimates are |c|^2 - 2 <x, c> of what is left."""
    dim, groups = centroids.shape[1], blocks.shape[1] // 128
    rest, levels, codes = np.empty(dim, np.float32), np.empty(dim, np.int8), np.full(groups * 4, 128, np.uint8)
    add[:], scale[:] = NOWHERE, np.float32(0.0)
    blocks[:, :] = np.uint8(128)
    for i in range(centroids.shape[0]):
        norm = np.float32(0.0)
        for j in range(dim):
            rest[j] = centroids[i, j] - middle[j]
            norm += rest[j] * rest[j]
        step, _ = quantise(rest, dim, levels)
        for j in range(dim):
            codes[j] = np.uint8(np.int32(levels[j]) + np.int32(128))
        pack_levels(8, codes, blocks, i, groups)
        add[i], scale[i] = norm, np.float32(-2.0) * step


@inlined
def squared_distance(rows: AnyArray, row: Integer, centroids: AnyArray, centroid: Integer) -> np.float32:
    total = np.float32(0.0)
    for j in range(rows.shape[1]):
        step = rows[row, j] - centroids[centroid, j]
        total += step * step
    return total


@inlined
def nearest_lane(
    rows: AnyArray, row: Integer, centroids: AnyArray, add: AnyArray, scale: AnyArray, unit: np.float32,
    norm: np.float32, best: AnyArray, which: AnyArray,
) -> tuple[np.int32, np.float32]:  # fmt: skip
    """(centroid, squared distance): the nearest by float32 of those lanes that the best may be wrong about."""
    first = 0
    for lane in range(1, BLOCK):
        if best[lane] < best[first]:
            first = lane
    # A level is wrong by a third of a squared half step on average: in <x, c> by unit^2 |c|^2 / 12 + step^2 |x|^2 / 12.
    least, at = best[first], which[first] * BLOCK + first
    mine = unit * unit * add[at] + np.float32(0.25) * scale[at] * scale[at] * norm
    nearest, distance = np.int32(at), squared_distance(rows, row, centroids, at)
    for lane in range(BLOCK):
        other = which[lane] * BLOCK + lane
        gap = best[lane] - least
        spread = mine + unit * unit * add[other] + np.float32(0.25) * scale[other] * scale[other] * norm
        if lane != first and best[lane] < NOWHERE and gap * gap <= ERRORS * ERRORS / np.float32(3.0) * spread:
            measured = squared_distance(rows, row, centroids, other)
            if measured < distance or (measured == distance and other < nearest):
                nearest, distance = np.int32(other), measured
    return nearest, distance


@allocating
def nearest_by_levels(
    rows: AnyArray, first: int, last: int, centroids: AnyArray, middle: AnyArray, blocks: AnyArray, add: AnyArray,
    scale: AnyArray, assigned: AnyArray, distances: AnyArray,
) -> None:  # fmt: skip
    """assigned int32, distances float32 (squared): of the nearest of `centroids` for rows first..last-1.

    rows float32 (n, dim);  blocks, add, scale  see pack_centroids
    """
    dim, width = rows.shape[1], blocks.shape[1] // BLOCK
    levels, moved = np.zeros((SLAB, width), np.int8), np.empty(dim, np.float32)
    shifts, units, norms = np.zeros(SLAB, np.int32), np.zeros(SLAB, np.float32), np.zeros(SLAB, np.float32)
    best, which = np.empty((TILE, BLOCK), np.float32), np.empty((TILE, BLOCK), np.int32)
    for start in range(first, last, SLAB):
        here = min(SLAB, last - start)
        for i in range(here):
            norm = np.float32(0.0)
            for j in range(dim):
                moved[j] = rows[start + i, j] - middle[j]
                norm += moved[j] * moved[j]
            units[i], total = quantise(moved, dim, levels[i])
            shifts[i], norms[i] = np.int32(128 * total), norm
        for tile in range(0, here, TILE):
            nearest_tile(blocks, add, scale, levels, np.intp(tile), shifts, units, best, which)
            for i in range(min(TILE, here - tile)):
                assigned[start + tile + i], distances[start + tile + i] = nearest_lane(
                    rows, start + tile + i, centroids, add, scale, units[tile + i], norms[tile + i], best[i], which[i]
                )


@allocating
def nearest_by_values(
    rows: AnyArray, first: int, last: int, columns: AnyArray, assigned: AnyArray, distances: AnyArray
) -> None:
    """The same with float32 at once, for few dimensions: columns float32 (dim, count), the centroids transposed."""
    dim, count = columns.shape
    totals = np.empty(count, np.float32)
    for row in range(first, last):
        totals[:] = np.float32(0.0)
        for j in range(dim):
            value, column = rows[row, j], columns[j]
            for c in range(count):
                step = value - column[c]
                totals[c] += step * step
        least = totals[0]
        for c in range(count):
            least = min(least, totals[c])
        nearest = 0
        while nearest < count - 1 and totals[nearest] != least:
            nearest += 1
        assigned[row], distances[row] = np.int32(nearest), totals[nearest]


@kernel
def add_members(rows: AnyArray, assigned: AnyArray, first: int, last: int, sums: AnyArray) -> None:
    """sums float64 (count, dim) += columns first..last-1 of the rows of each centroid, in order of the rows."""
    for row in range(rows.shape[0]):
        at = assigned[row]
        for j in range(first, last):
            sums[at, j] += np.float64(rows[row, j])
