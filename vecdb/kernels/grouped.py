"""The nearest of centroids that stand in groups: a row is compared only with those of the groups nearest to it.

Rows are taken in slabs; those of a slab that ask for the same group are compared with it together.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.jit import Integer, allocating, inlined
from vecdb.kernels.kmeans import NOWHERE, TILE, nearest_lane, nearest_tile, squared_distance
from vecdb.kernels.quantize import quantise
from vecdb.types import AnyArray

SLAB = 1024  # rows that are compared with a group together


@inlined
def least_of(totals: AnyArray, chosen: AnyArray) -> None:
    """chosen int32 (probes,) = where the least of `totals` are, the least first."""
    probes = chosen.shape[0]
    for c in range(totals.shape[0]):
        if c >= probes and totals[c] >= totals[chosen[probes - 1]]:
            continue
        at = min(c, probes - 1)
        while at > 0 and totals[chosen[at - 1]] > totals[c]:
            chosen[at] = chosen[at - 1]
            at -= 1
        chosen[at] = c


@allocating  # Numba may copy a row before it assigns it
def compare_group(
    asking: AnyArray, levels: AnyArray, shifts: AnyArray, units: AnyArray, block: Integer, blocks: AnyArray,
    add: AnyArray, scale: AnyArray, tile: AnyArray, tile_shifts: AnyArray, tile_units: AnyArray, best: AnyArray,
    which: AnyArray, least: AnyArray, where: AnyArray,
) -> None:  # fmt: skip
    """least, where (rows, 32): by lane, the least estimate and its block, of the rows `asking` too; `block` is the
    number of the first of the group's blocks."""
    for first in range(0, asking.shape[0], TILE):
        here = min(TILE, asking.shape[0] - first)
        for i in range(here):
            row = asking[first + i]
            tile[i], tile_shifts[i], tile_units[i] = levels[row], shifts[row], units[row]
        nearest_tile(blocks, add, scale, tile, np.intp(0), tile_shifts, tile_units, best, which)
        for i in range(here):
            row = asking[first + i]
            for lane in range(BLOCK):
                nearer = best[i, lane] < least[row, lane]
                where[row, lane] = block + which[i, lane] if nearer else where[row, lane]
                least[row, lane] = best[i, lane] if nearer else least[row, lane]


@allocating
def nearest_in_groups(
    rows: AnyArray, first: int, last: int, probes: int, middle: AnyArray, group_blocks: AnyArray, group_add: AnyArray,
    group_scale: AnyArray, slots: AnyArray, numbers: AnyArray, blocks: AnyArray, block_starts: AnyArray, add: AnyArray,
    scale: AnyArray, assigned: AnyArray, distances: AnyArray,
) -> None:  # fmt: skip
    """As `nearest_by_levels`, among the centroids of the `probes` groups whose middles are nearest by estimate.

    group_*       the middles of the groups as in pack_centroids
    slots         float32 (32 * blocks, dim): the centroids, every group from a block of its own on, which block_starts
                  int32 (groups + 1,) names; blocks, add, scale  as in pack_centroids
    numbers       int32 (32 * blocks,): of the centroid in each slot
    """
    dim, width, groups = rows.shape[1], blocks.shape[1] // BLOCK, block_starts.shape[0] - 1
    levels, moved = np.zeros((SLAB, width), np.int8), np.empty(dim, np.float32)
    shifts, units, norms = np.zeros(SLAB, np.int32), np.zeros(SLAB, np.float32), np.zeros(SLAB, np.float32)
    tile = np.zeros((TILE, width), np.int8)
    tile_shifts, tile_units = np.zeros(TILE, np.int32), np.zeros(TILE, np.float32)
    best, which = np.empty((TILE, BLOCK), np.float32), np.empty((TILE, BLOCK), np.int32)
    least, where = np.empty((SLAB, BLOCK), np.float32), np.zeros((SLAB, BLOCK), np.int32)
    totals, chosen = np.empty((TILE, group_add.shape[0]), np.float32), np.empty((SLAB, probes), np.int32)
    asking, ends = np.empty(SLAB * probes, np.int32), np.empty(groups + 1, np.int64)
    for start in range(first, last, SLAB):
        here = min(SLAB, last - start)
        ends[:] = 0
        least[:, :] = NOWHERE
        for i in range(here):
            norms[i] = np.float32(0.0)
            for j in range(dim):
                moved[j] = rows[start + i, j] - middle[j]
                norms[i] += moved[j] * moved[j]
            units[i], total = quantise(moved, dim, levels[i])
            shifts[i] = np.int32(128 * total)
        for t in range(0, here, TILE):
            for block in range(group_blocks.shape[0]):  # of one block the least of a lane is every estimate
                lanes = slice(block * BLOCK, (block + 1) * BLOCK)
                nearest_tile(
                    group_blocks[block : block + 1], group_add[lanes], group_scale[lanes], levels, np.intp(t), shifts,
                    units, best, which,
                )  # fmt: skip
                totals[:, lanes] = best
            for i in range(min(TILE, here - t)):
                least_of(totals[i, :groups], chosen[t + i])
                for p in range(probes):
                    ends[chosen[t + i, p] + 1] += 1
        for g in range(groups):
            ends[g + 1] += ends[g]
        for i in range(here):  # moves the end of every group to where the next one begins
            for p in range(probes):
                asking[ends[chosen[i, p]]] = i
                ends[chosen[i, p]] += 1
        begin = np.int64(0)
        for g in range(groups):
            low, high = block_starts[g], block_starts[g + 1]
            compare_group(
                asking[begin : ends[g]], levels, shifts, units, low, blocks[low:high], add[low * BLOCK : high * BLOCK],
                scale[low * BLOCK : high * BLOCK], tile, tile_shifts, tile_units, best, which, least, where,
            )  # fmt: skip
            begin = ends[g]
        for i in range(here):
            nearest, distance = nearest_lane(rows, start + i, slots, add, scale, units[i], norms[i], least[i], where[i])
            assigned[start + i], distances[start + i] = numbers[nearest], distance


@allocating
def nearest_in_groups_by_values(
    rows: AnyArray, first: int, last: int, probes: int, middles: AnyArray, centroids: AnyArray, starts: AnyArray,
    assigned: AnyArray, distances: AnyArray,
) -> None:  # fmt: skip
    """The same with float32 at once, for few dimensions.

    middles  float32 (groups, dim);  starts  int32 (groups + 1,): the first centroid of each group
    """
    totals, chosen = np.empty(middles.shape[0], np.float32), np.empty(probes, np.int32)
    for row in range(first, last):
        for group in range(middles.shape[0]):
            totals[group] = squared_distance(rows, row, middles, group)
        least_of(totals, chosen)
        distances[row] = NOWHERE
        for p in range(probes):
            for at in range(starts[chosen[p]], starts[chosen[p] + 1]):
                distance = squared_distance(rows, row, centroids, at)
                if distance < distances[row] or (distance == distances[row] and at < assigned[row]):
                    assigned[row], distances[row] = np.int32(at), distance
