"""Many centroids stand in groups; very many are trained group by group, and a row is compared with the nearest groups.

A row is compared with about twice the square root of so many centroids, times PROBES, instead of with all of them
(Nister and Stewenius, "Scalable recognition with a vocabulary tree", 2006). What a tree gets wrong along the borders
of its groups, rounds of Lloyd over the nearest groups put right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vecdb.index.base import frozen
from vecdb.index.clustering import (
    ITERATIONS,
    LONGEST,
    Centroids,
    Forms,
    assign_by,
    balanced,
    means,
    move_to_members,
)
from vecdb.index.samples import SAMPLE_EACH, load, sample_of, spread
from vecdb.index.team import Team, slices
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.grouped import nearest_in_groups, nearest_in_groups_by_values
from vecdb.kernels.kmeans import FLOAT_DIMS, pack_centroids
from vecdb.kernels.quantize import block_bytes
from vecdb.options import LISTS_MAX
from vecdb.types import F32, I32, I64, AnyArray, Matrix, Progress

LIST_ROWS = 256  # of a list, on average: shorter ones are padding, longer ones are scanned for little
MANY_LISTS, MANY_ROWS = 8192, 10_000_000  # from so many lists on longer ones are nearer in memory than more are
GROUPED_FROM = 2048  # centroids that stand in groups, by which lists are ranked
TRAINED_FROM = 10_000  # ... that are trained in them too, and compared with where the nearest groups are
GROUP_ROWS = 4 * SAMPLE_EACH  # rows that the middle of a group is trained on
PROBES = 8  # groups with whose centroids a row is compared
REFINEMENTS = 2


def list_count(rows: int, wanted: int) -> int:
    """Lists for so many rows: as asked, else of LIST_ROWS rows; MANY_LISTS up to MANY_ROWS, then as the root grows."""
    many = MANY_LISTS * max(1.0, math.sqrt(rows / MANY_ROWS))
    return max(1, min(wanted or round(min(rows / LIST_ROWS, many)), rows, LISTS_MAX))


def train(
    matrix: Matrix, count: int, *, seed: int = 0, threads: int = 1, sample: int = 0, progress: Progress | None = None
) -> tuple[F32, I32]:
    """As clustering.train; and int32 (groups + 1,): the first centroid of each group, and their number."""
    rng = np.random.default_rng(seed)
    rows = sample_of(matrix, count, sample, rng)
    if not len(rows):
        return np.zeros((count, matrix.dim), np.float32), one_group(count)
    wanted = round(math.sqrt(count)) if count >= GROUPED_FROM else 1
    if count < TRAINED_FROM:
        with Team(threads, progress, (ITERATIONS + 1) * (len(rows) + wanted) * count) as team:
            return _parted(means(rows, count, rng, team), wanted, rng, team)
    few, each = rows[spread(len(rows), GROUP_ROWS * wanted, rng)], count // wanted + 1
    total = (ITERATIONS + 1) * (len(few) * wanted + len(rows) * each)
    total += len(rows) * (wanted + (REFINEMENTS + 1) * (wanted + PROBES * each))
    with Team(threads, progress, total) as team:
        values, starts = _grouped(rows, means(few, wanted, rng, team), count, rng, team)
        if len(starts) > 2:
            values = _refined(rows, values, starts, rng, team)
    return values, starts


def assign(matrix: Matrix, centroids: F32, starts: I32, *, threads: int = 1, progress: Progress | None = None) -> I32:
    """As clustering.assign; of many groups only the nearest count, so for a few rows in a hundred not the nearest."""
    return assign_by(forms_of(centroids, starts), matrix, threads, progress)


def evened(
    matrix: Matrix, centroids: F32, starts: I32, assigned: I32, *, seed: int = 0, threads: int = 1
) -> tuple[F32, I32]:
    """Centroids and assigned again, where groups with a list of more than LONGEST times the mean are balanced by all
    of their rows: of many lists some are much longer than in the sample that they were trained on."""
    values, places, rng = centroids.copy(), assigned.copy(), np.random.default_rng(seed)
    sizes = np.bincount(assigned, minlength=len(centroids))
    long = np.flatnonzero(sizes > LONGEST * sizes.mean()) if len(starts) > 2 else sizes[:0]
    for at in np.unique(np.searchsorted(starts, long, side="right") - 1):
        first, last = starts[at], starts[at + 1]
        own = np.flatnonzero((assigned >= first) & (assigned < last)).astype(np.int32)
        rows = load(matrix, own)
        with Team(threads, None, 0) as team:
            part = balanced(rows, values[first:last], sizes.mean(), rng, team)
            chosen = _compared(Centroids.of(frozen(part)), rows, team)
        if np.bincount(chosen).max() < sizes[first:last].max():
            values[first:last], places[own] = part, first + chosen
    return frozen(values), places


def one_group(count: int) -> I32:
    return frozen(np.array([0, count], np.int32))


def forms_of(centroids: F32, starts: I32) -> Forms:
    grouped = len(centroids) >= TRAINED_FROM and len(starts) - 1 > PROBES
    return GroupedCentroids.of(centroids, starts) if grouped else Centroids.of(centroids)


def middles(centroids: F32, starts: I32) -> F32:
    """float32 (groups, dim): the mean of the centroids of each group."""
    parts = [centroids[first:last].mean(0, dtype=np.float64) for first, last in pairwise(starts)]
    return np.stack(parts).astype(np.float32)


Packed = tuple[AnyArray, F32, F32]  # blocks, add, scale: see kernels.kmeans.pack_centroids


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


def aligned(starts: I32) -> I32:
    """int32 (groups + 1,): the first block of each group, if each begins one."""
    return _starts(-(-np.diff(starts).astype(np.int64) // BLOCK))


def _compared(forms: Forms, rows: F32, team: Team) -> I32:
    assigned, distances = np.zeros(len(rows), np.int32), np.empty(len(rows), np.float32)

    def work(first: int, last: int) -> int:
        forms.nearest(rows, first, last, assigned, distances)
        return (last - first) * forms.comparisons

    team.share(work, slices(len(rows), forms.comparisons * rows.shape[1]))
    return assigned


def _parted(values: F32, wanted: int, rng: np.random.Generator, team: Team) -> tuple[F32, I32]:
    """Centroids in the order of their groups, which are clusters of centroids."""
    if wanted == 1:
        return values, one_group(len(values))
    groups = _compared(Centroids.of(means(values, wanted, rng, team)), values, team)
    sizes = np.bincount(groups)
    return values[np.argsort(groups, kind="stable")], _starts(sizes[sizes > 0])


def _starts(sizes: I64) -> I32:
    return frozen(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


def _grouped(rows: F32, centres: F32, count: int, rng: np.random.Generator, team: Team) -> tuple[F32, I32]:
    """Centroids trained in the group of rows of each centre that has any, as many as its share of the rows."""
    assigned = _compared(Centroids.of(centres), rows, team)
    sizes = np.bincount(assigned, minlength=len(centres))
    held = np.flatnonzero(sizes)
    shares = _shares(sizes[held], count)
    parts = [means(rows[assigned == at], int(share), rng, team) for at, share in zip(held, shares, strict=True)]
    return np.concatenate(parts), _starts(shares)


def _refined(rows: F32, values: F32, starts: I32, rng: np.random.Generator, team: Team) -> F32:
    """Rounds of Lloyd over all groups; what is out of balance after them is put right within a group."""
    for _ in range(REFINEMENTS):
        move_to_members(rows, _compared(forms_of(values, starts), rows, team), values, team)
    groups = np.searchsorted(starts, _compared(forms_of(values, starts), rows, team), side="right") - 1
    parts, mean = [], len(rows) / len(values)
    for at, (first, last) in enumerate(pairwise(starts)):
        own, part = rows[groups == at], values[first:last]
        parts.append(balanced(own, part, mean, rng, team) if len(own) else part)
    return np.concatenate(parts)


def _shares(sizes: I64, count: int) -> I64:
    """int64, of sum `count`, at least 1 each: proportional to the sizes, of which there are no more than `count`."""
    exact = sizes * (count / sizes.sum())
    shares: I64 = np.maximum(1, exact.astype(np.int64))
    while shares.sum() < count:
        shares[np.argmax(exact - shares)] += 1
    while shares.sum() > count:
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return shares
