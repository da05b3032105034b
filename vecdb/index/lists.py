"""Rows grouped in inverted lists and coded: what IVF kinds have in common."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from vecdb.index.base import NO_NORMS, expect, frozen, kernel_inputs
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.list_codes import code_losses, encode_lists
from vecdb.kernels.quantize import block_bytes
from vecdb.kernels.rotation import ROUNDS, draw_signs, rotate_rows
from vecdb.types import F32, I32, U8, AnyArray, Matrix, Metric, Progress

CHUNK_VALUES = 4 << 20  # vector values coded between two calls of progress
CENTRE_BITS = 8
SPREAD = 0.4


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which rows stand where.

    centroids      float32 (nlist, dim), of rows as lists are searched: normalised under cosine
    starts, sizes  int32 (nlist + 1,) and (nlist,): the first block of each list, and its rows
    slots          int32 (32 * blocks,): the row in each slot; the slots that pad a list to whole blocks hold 0
    """

    centroids: F32
    starts: I32
    sizes: I32
    slots: I32

    @classmethod
    def of(cls, centroids: F32, assigned: I32) -> Self:
        """Rows in their lists, ascending. assigned int32 (rows,): the list of each row."""
        sizes = np.bincount(assigned, minlength=len(centroids)).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(-(-sizes // BLOCK))]).astype(np.int32)
        order = np.argsort(assigned, kind="stable").astype(np.int32)
        before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        slots = np.zeros(int(starts[-1]) * BLOCK, np.int32)
        lists = assigned[order]
        slots[starts[lists].astype(np.int64) * BLOCK + np.arange(len(order)) - before[lists]] = order
        return cls(frozen(centroids), frozen(starts), frozen(sizes), frozen(slots))

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def blocks(self) -> int:
        return len(self.slots) // BLOCK

    def filled(self) -> AnyArray:
        """bool (slots,): which slots hold a row."""
        lane = np.arange(len(self.slots)) - np.repeat(self.starts[:-1].astype(np.int64) * BLOCK, self._widths())
        return np.asarray(lane < np.repeat(self.sizes, self._widths()))

    def _widths(self) -> AnyArray:
        return np.asarray(np.diff(self.starts).astype(np.int64) * BLOCK)

    def assigned(self, rows: int) -> I32:
        """int32 (rows,): the list of each row."""
        lists, filled = np.repeat(np.arange(self.count, dtype=np.int32), self._widths()), self.filled()
        found = np.zeros(rows, np.int32)
        found[self.slots[filled]] = lists[filled]
        return found

    def parts(self, dim: int) -> list[tuple[int, int]]:
        """Runs of lists to work on one after the other, so that progress is called often enough."""
        step = max(1, CHUNK_VALUES // dim)
        edges = np.searchsorted(np.cumsum(self.sizes), np.arange(step, int(self.sizes.sum()), step)) + 1
        bounds = sorted({0, *(int(edge) for edge in edges), self.count})
        return list(pairwise(bounds))

    def check_bounds(self, rows: int) -> None:
        """What keeps a search within its arrays; ValueError says what is damaged."""
        starts, sizes = self.starts.astype(np.int64), self.sizes.astype(np.int64)
        if starts[0] != 0 or (sizes < 0).any() or (np.diff(starts) != -(-sizes // BLOCK)).any():
            raise ValueError("arrays 'starts' and 'sizes' do not fit together")
        if starts[-1] != self.blocks or (len(self.slots) and (self.slots.min() < 0 or self.slots.max() >= rows)):
            raise ValueError(f"array 'slots' holds a row outside the {rows} rows")

    def check(self, rows: int) -> None:
        """Every value; ValueError says what is damaged."""
        self.check_bounds(rows)
        if not np.array_equal(np.sort(self.slots[self.filled()]), np.arange(rows)):
            raise ValueError("array 'slots' holds a row twice")
        if not np.isfinite(self.centroids).all():
            raise ValueError("array 'centroids' holds a value that is not a number")


class Centres:
    """Codes of the centroids, by which lists are ranked; made from them, not stored.

    The nearest of a list's rows are nearer than its centroid, but those of a wide list are fewer: lists are
    ranked by |q - c|^2 + SPREAD * the mean |r|^2 of their rows, where 1 would be the mean |q - x|^2 and 0 the centroid.
    """

    __slots__ = ("add", "codes", "scale", "turned")

    def __init__(self, centroids: F32, spreads: F32, metric: Metric, signs: F32) -> None:
        count, dim = centroids.shape
        blocks = -(-count // BLOCK)
        codes = np.zeros((blocks, block_bytes(CENTRE_BITS, dim)), np.uint8)
        add, scale = np.zeros(blocks * BLOCK, np.float32), np.zeros(blocks * BLOCK, np.float32)
        turned = np.array(centroids)
        rotate_rows(turned, frozen(signs))
        slots = np.zeros(blocks * BLOCK, np.int32)
        slots[:count] = np.arange(count)
        origin = frozen(np.zeros((1, dim), np.float32))
        encode_lists(
            CENTRE_BITS, int(Metric.DOT if metric is Metric.DOT else Metric.L2), frozen(centroids), NO_NORMS, origin,
            origin, frozen(signs), frozen(np.array([0, blocks], np.int32)), frozen(np.array([count], np.int32)),
            frozen(slots), 0, 1, codes, add, scale, np.zeros(1, np.float32),
        )  # fmt: skip
        if metric is not Metric.DOT:
            add[:count] += np.float32(SPREAD) * spreads
        self.codes, self.add, self.scale, self.turned = (frozen(array) for array in (codes, add, scale, turned))


def encode(
    matrix: Matrix, grouping: Grouping, signs: F32, bits: int, threads: int, progress: Progress | None
) -> tuple[U8, F32, F32, F32]:
    """(codes, add, scale) of every slot, and the spread of every list."""
    codes = np.zeros((grouping.blocks, block_bytes(bits, matrix.dim)), np.uint8)
    add, scale = np.zeros(len(grouping.slots), np.float32), np.zeros(len(grouping.slots), np.float32)
    spreads, turned = np.zeros(grouping.count, np.float32), np.array(grouping.centroids)
    rotate_rows(turned, frozen(signs))

    def write(part: tuple[int, int]) -> int:
        encode_lists(
            bits, *kernel_inputs(matrix), grouping.centroids, frozen(turned), frozen(signs), grouping.starts,
            grouping.sizes, grouping.slots, *part, codes, add, scale, spreads,
        )  # fmt: skip
        return int(grouping.sizes[part[0] : part[1]].sum())

    pool, done = ThreadPoolExecutor(max(1, threads), thread_name_prefix="vecdb-build"), 0
    try:
        for rows in pool.map(write, grouping.parts(matrix.dim)):
            done += rows
            if progress is not None:
                progress(done, matrix.rows)
    finally:
        pool.shutdown(cancel_futures=True)
    return codes, add, scale, spreads


def no_signs(dim: int) -> F32:
    """The rotation that changes nothing."""
    return np.empty((0, dim), np.float32)


def choose_signs(part: Matrix, grouping: Grouping, bits: int) -> F32:
    """A rotation if it brings the codes of a sample of rows clearly nearer to them, else none.

    part      the sample, whose rows `grouping` holds
    """
    plain = no_signs(part.dim)
    if not part.rows:
        return plain
    turned = draw_signs(part.dim, SIGNS_SEED)
    losses = [_loss(part, grouping, signs, bits) for signs in (plain, turned)]
    return turned if losses[1] < WORTH * losses[0] else plain


SIGNS_SEED = 0
WORTH = 0.9  # a rotation costs a query some microseconds: the codes have to lose at least a tenth less with it


def _loss(part: Matrix, grouping: Grouping, signs: F32, bits: int) -> float:
    """The mean share of a residual that its code does not hold."""
    losses = np.zeros(len(grouping.slots), np.float32)
    code_losses(bits, *kernel_inputs(part), grouping.centroids, frozen(signs), grouping.starts, grouping.sizes,
                grouping.slots, losses)  # fmt: skip
    return float(losses[grouping.filled()].mean(dtype=np.float64))


def stored_signs(arrays: Mapping[str, AnyArray], dim: int) -> AnyArray:
    """The rotation of a stored index; none is stored as no rows."""
    return expect(arrays, "signs", np.float32, (ROUNDS, dim)) if "signs" in arrays else frozen(no_signs(dim))
