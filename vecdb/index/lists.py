"""Rows grouped in inverted lists and coded: what IVF kinds have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from vecdb.index import grouped
from vecdb.index.base import NO_NORMS, frozen
from vecdb.index.halves import Halves
from vecdb.index.probing import Probing
from vecdb.index.team import Team
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.list_codes import encode_lists
from vecdb.kernels.list_ranking import centre_bits
from vecdb.kernels.quantize import block_bytes
from vecdb.memory import aligned
from vecdb.types import F32, I32, U8, AnyArray, Matrix, Metric, Progress

CHUNK_VALUES = 4 << 20  # vector values coded between two calls of progress
SPREAD = 0.4


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which rows stand where.

    centroids      (nlist, dim), of rows as lists are searched: normalised under cosine. A centroid is what float16
                   holds, and rows are coded as what they are away from that, so nothing is lost to rounding it
    starts, sizes  int32 (nlist + 1,) and (nlist,): the first block of each list, and its rows
    slots          int32 (32 * blocks,): the row in each slot; the slots that pad a list to whole blocks hold 0
    groups         int32 (groups + 1,): many lists stand in groups, of which this is the first list; and nlist
    """

    centroids: Halves
    groups: I32
    starts: I32
    sizes: I32
    slots: I32

    @classmethod
    def of(cls, centroids: Halves, groups: I32, assigned: I32) -> Self:
        """Rows in their lists, ascending. assigned int32 (rows,): the list of each row."""
        sizes = np.bincount(assigned, minlength=len(centroids.stored)).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(-(-sizes // BLOCK))]).astype(np.int32)
        order = np.argsort(assigned, kind="stable").astype(np.int32)
        before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        slots = np.zeros(int(starts[-1]) * BLOCK, np.int32)
        lists = assigned[order]
        slots[starts[lists].astype(np.int64) * BLOCK + np.arange(len(order)) - before[lists]] = order
        return cls(centroids, groups, frozen(starts), frozen(sizes), frozen(slots))

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
        if self.groups[0] != 0 or self.groups[-1] != self.count or (np.diff(self.groups) < 1).any():
            raise ValueError("array 'groups' does not part the lists")
        if starts[-1] != self.blocks or (len(self.slots) and (self.slots.min() < 0 or self.slots.max() >= rows)):
            raise ValueError(f"array 'slots' holds a row outside the {rows} rows")

    def check(self, rows: int) -> None:
        """Every value; ValueError says what is damaged."""
        self.check_bounds(rows)
        if not np.array_equal(np.sort(self.slots[self.filled()]), np.arange(rows)):
            raise ValueError("array 'slots' holds a row twice")


CentreInputs = tuple[AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray]


class Centres:
    """Codes of the centroids, by which lists are ranked, and of the middles of their groups; they are not stored.

    The nearest of a list's rows are nearer than its centroid, but those of a wide list are fewer: lists are
    ranked by |q - c|^2 + SPREAD * the mean |r|^2 of their rows, where 1 would be the mean |q - x|^2 and 0 the centroid.

    inputs  (codes, add, scale, starts, groups, group codes, add and scale) as kernels.list_ranking takes them
    """

    __slots__ = ("inputs",)

    def __init__(self, centroids: F32, groups: I32, spreads: F32, metric: Metric, signs: F32) -> None:
        codes, add, scale, starts = _ranking_codes(centroids, groups, metric, signs)
        middles = grouped.middles(centroids, groups)
        above, plus, times, _ = _ranking_codes(middles, grouped.one_group(len(middles)), metric, signs)
        if metric is not Metric.DOT:
            for (first, last), block in zip(pairwise(groups), starts, strict=False):
                add[block * BLOCK : block * BLOCK + last - first] += np.float32(SPREAD) * spreads[first:last]
        self.inputs: CentreInputs = (
            frozen(codes), frozen(add), frozen(scale), starts, groups, frozen(above), frozen(plus), frozen(times),
        )  # fmt: skip


def _ranking_codes(centroids: F32, groups: I32, metric: Metric, signs: F32) -> tuple[U8, F32, F32, I32]:
    """(codes, add, scale, starts): every group from the block on that starts int32 (groups + 1,) names."""
    dim, starts, sizes = centroids.shape[1], grouped.aligned(groups), np.diff(groups).astype(np.int32)
    blocks, bits = int(starts[-1]), centre_bits(dim)
    codes = np.zeros((blocks, block_bytes(bits, dim)), np.uint8)
    add, scale = np.zeros(blocks * BLOCK, np.float32), np.zeros(blocks * BLOCK, np.float32)
    slots = np.zeros(blocks * BLOCK, np.int32)
    for (first, last), block in zip(pairwise(groups), starts, strict=False):
        slots[block * BLOCK : block * BLOCK + last - first] = np.arange(first, last)
    origin = frozen(np.zeros((len(sizes), dim), np.float32))
    encode_lists(
        bits, int(Metric.DOT if metric is Metric.DOT else Metric.L2), frozen(centroids), NO_NORMS, origin,
        origin, frozen(signs), starts, frozen(sizes), frozen(slots), 0, len(sizes), codes, add, scale,
        np.zeros(len(sizes), np.float32),
    )  # fmt: skip
    return codes, add, scale, starts


Written = tuple[U8, F32, F32, F32]  # codes (blocks, stride), add and scale (slots,), spreads (lists,)
Write = Callable[[int, int, Written], None]  # the codes of lists first..last-1


class Codes(NamedTuple):
    """codes (blocks, stride), add and scale (slots,): see kernels.list_codes;  spreads (lists,)"""

    codes: U8
    add: Halves
    scale: Halves
    spreads: F32


class ListCodes(Protocol):
    """How the rows of lists are coded; what differs between the kinds."""

    @classmethod
    def learn(
        cls,
        matrix: Matrix,
        centroids: F32,
        assigned: I32,
        options: Any,
        *,
        seed: int = 0,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        """For rows in the lists `assigned` int32 (rows,)."""
        ...

    @property
    def name(self) -> str:
        """Of the quantiser, as it is stored."""
        ...

    @property
    def rows(self) -> int:
        """Rows that there were when it was learned; 0 if that does not matter."""
        ...

    @property
    def dim_bits(self) -> int:
        """Bits that a scan reads a dimension."""
        ...

    @property
    def usual(self) -> Probing:
        """Where nothing was measured: on the safe side."""
        ...

    def serves(self, rows: int) -> bool:
        """Whether it need not be learned again for so many rows."""
        ...

    def encode(self, matrix: Matrix, grouping: Grouping, threads: int, progress: Progress | None) -> Codes:
        """The codes of every slot."""
        ...

    def stride(self, dim: int) -> int:
        """Bytes of a block."""
        ...

    def inputs(self) -> tuple[int, AnyArray, AnyArray, AnyArray, AnyArray]:
        """(code, signs, turn, bounds, books) as search_lists takes them."""
        ...

    def arrays(self) -> dict[str, AnyArray]:
        """What must be stored of it."""
        ...

    @classmethod
    def read(cls, options: Any, arrays: Mapping[str, AnyArray], dim: int, rows: int) -> Self:
        """What was stored; ValueError says what does not fit."""
        ...


def write_codes(
    matrix: Matrix, grouping: Grouping, stride: int, write: Write, threads: int, progress: Progress | None
) -> Codes:
    """The codes of every slot, in blocks of `stride` bytes."""
    add, scale = (aligned((len(grouping.slots),), np.float32) for _ in range(2))
    codes = aligned((grouping.blocks, stride), np.uint8), add, scale, np.zeros(grouping.count, np.float32)

    def work(first: int, last: int) -> int:
        write(first, last, codes)
        return int(grouping.sizes[first:last].sum())

    with Team(threads, progress, matrix.rows) as team:
        team.share(work, grouping.parts(matrix.dim))
    return Codes(frozen(codes[0]), Halves.of(add), Halves.of(scale), frozen(codes[3]))
