"""Centroids that stand in groups, which are runs of them: a row is compared with those of the nearest groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vecdb.index.base import frozen
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.grouped import nearest_in_groups, nearest_in_groups_by_values
from vecdb.kernels.kmeans import FLOAT_DIMS, pack_centroids
from vecdb.kernels.quantize import block_bytes
from vecdb.types import F32, I32, I64, AnyArray

PROBES = 8  # groups with whose centroids a row is compared

Packed = tuple[AnyArray, F32, F32]  # blocks, add, scale: see kernels.kmeans.pack_centroids


def starts_of(sizes: I64) -> I32:
    return frozen(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


def one_group(count: int) -> I32:
    return frozen(np.array([0, count], np.int32))


def aligned(starts: I32) -> I32:
    """int32 (groups + 1,): the first block of each group, if each begins one."""
    return starts_of(-(-np.diff(starts).astype(np.int64) // BLOCK))


def middles(centroids: F32, starts: I32) -> F32:
    """float32 (groups, dim): the mean of the centroids of each group."""
    parts = [centroids[first:last].mean(0, dtype=np.float64) for first, last in pairwise(starts)]
    return np.stack(parts).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GroupedCentroids:
    """Centroids in groups, in the forms that kernels.grouped compares with: of few dimensions the values themselves."""

    values: F32
    starts: I32
    middles: F32
    middle: F32
    group_codes: Packed
    slots: F32
    numbers: I32
    block_starts: I32
    codes: Packed

    @classmethod
    def of(cls, values: F32, starts: I32) -> GroupedCentroids:
        dim, centres = values.shape[1], middles(values, starts)
        middle = frozen(values.mean(0, dtype=np.float64).astype(np.float32))
        block_starts = aligned(starts) if dim > FLOAT_DIMS else np.zeros(len(starts), np.int32)
        codes = _room(int(block_starts[-1]), dim)
        slots, numbers = np.zeros((len(codes[1]), dim), np.float32), np.zeros(len(codes[1]), np.int32)
        for (first, last), low, high in zip(pairwise(starts), block_starts, block_starts[1:], strict=False):
            lanes, count = slice(low * BLOCK, high * BLOCK), last - first
            if high > low:
                pack_centroids(frozen(values[first:last]), middle, codes[0][low:high], codes[1][lanes], codes[2][lanes])
                slots[lanes][:count], numbers[lanes][:count] = values[first:last], np.arange(first, last)
        above = _room(-(-len(centres) // BLOCK), dim)
        pack_centroids(frozen(centres), middle, *above)
        return cls(
            frozen(values), frozen(starts), frozen(centres), middle, _frozen(above), frozen(slots), frozen(numbers),
            frozen(block_starts), _frozen(codes),
        )  # fmt: skip

    @property
    def comparisons(self) -> int:
        """Of a row, about."""
        groups = len(self.middles)
        return groups + PROBES * (len(self.values) // groups + 1)

    def nearest(self, rows: F32, first: int, last: int, assigned: I32, distances: F32) -> None:
        """The nearest centroid of the nearest groups of rows first..last-1, and its squared distance."""
        if not len(self.slots):
            nearest_in_groups_by_values(
                frozen(rows), first, last, PROBES, self.middles, self.values, self.starts, assigned, distances
            )
            return
        blocks, add, scale = self.codes
        nearest_in_groups(
            frozen(rows), first, last, PROBES, self.middle, *self.group_codes, self.slots, self.numbers, blocks,
            self.block_starts, add, scale, assigned, distances,
        )  # fmt: skip


def _room(blocks: int, dim: int) -> Packed:
    places = np.empty(blocks * BLOCK, np.float32), np.empty(blocks * BLOCK, np.float32)
    return np.empty((blocks, block_bytes(8, dim)), np.uint8), *places


def _frozen(codes: Packed) -> Packed:
    blocks, add, scale = codes
    return frozen(blocks), frozen(add), frozen(scale)
