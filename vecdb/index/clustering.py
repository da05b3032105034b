"""Clustering of the rows of a matrix: k-means (Lloyd, 1982) on a sample, and the nearest centroid of every row.

Lists are searched in the space of L2: rows are normalised under cosine, where a zero vector stays zero, and raw under
dot and l2. Seeds are drawn in rounds by squared distance (Bahmani et al., "Scalable k-means++", 2012), so duplicates
are not drawn twice and the last round leaves the first assignment behind. Centroids without rows, and those with very
few while other lists are too long, move into the longest lists. One seed gives one result, whatever the threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vecdb.index.base import frozen, kernel_inputs
from vecdb.index.samples import LOAD_ROWS, load
from vecdb.index.team import Team, slices
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.kmeans import (
    FLOAT_DIMS,
    add_members,
    load_rows,
    nearest_by_levels,
    nearest_by_values,
    pack_centroids,
)
from vecdb.kernels.quantize import block_bytes
from vecdb.types import F32, I32, I64, AnyArray, Matrix, Progress

ITERATIONS = 10
ROUNDS = 4  # of seeds; each draws as many as all before it
LONGEST = 3.0  # times the mean that a list of the sample may have; all rows vary a little more
SHORTEST = 0.5  # times the mean: lists below it may be given up for a part of one that is too long
BALANCE_ROUNDS = 8
SPLIT_ITERATIONS, SPLIT_ROWS = 4, 4096


class Forms(Protocol):
    """Centroids to compare rows with."""

    @property
    def comparisons(self) -> int: ...
    def nearest(self, rows: F32, first: int, last: int, assigned: I32, distances: F32) -> None: ...


@dataclass(frozen=True, slots=True)
class Centroids:
    """Centroids in the forms that kernels compare with: see kernels.kmeans."""

    values: F32
    middle: F32
    blocks: AnyArray
    add: F32
    scale: F32

    @classmethod
    def of(cls, values: F32) -> Centroids:
        count, dim = values.shape
        if dim <= FLOAT_DIMS:
            nothing = frozen(np.empty(0, np.float32))
            columns = frozen(np.ascontiguousarray(values.T))
            return cls(values, nothing, columns, nothing, nothing)
        middle = values.mean(0, dtype=np.float64).astype(np.float32)
        blocks = np.empty((-(-count // BLOCK), block_bytes(8, dim)), np.uint8)
        add, scale = np.empty(len(blocks) * BLOCK, np.float32), np.empty(len(blocks) * BLOCK, np.float32)
        pack_centroids(frozen(values), frozen(middle), blocks, add, scale)
        return cls(values, *(frozen(array) for array in (middle, blocks, add, scale)))

    @property
    def comparisons(self) -> int:
        """Of a row."""
        return len(self.values)

    def nearest(self, rows: F32, first: int, last: int, assigned: I32, distances: F32) -> None:
        """The nearest centroid of rows first..last-1, and its squared distance."""
        if not len(self.middle):
            nearest_by_values(frozen(rows), first, last, self.blocks, assigned, distances)
            return
        nearest_by_levels(
            frozen(rows), first, last, frozen(self.values), self.middle, self.blocks, self.add, self.scale,
            assigned, distances,
        )  # fmt: skip


def means(rows: F32, count: int, rng: np.random.Generator, team: Team) -> F32:
    """Centroids of these rows, of which there is one at least."""
    clusters = _Clusters(rows, np.zeros((count, rows.shape[1]), np.float32), rng, team)
    clusters.seed()
    for step in range(ITERATIONS):
        if step:
            clusters.assign()
        clusters.move(evenly=step < ITERATIONS - 2)
    clusters.balance()
    return clusters.centroids


def balanced(rows: F32, centroids: F32, mean: float, rng: np.random.Generator, team: Team) -> F32:
    """Centroids near to these of whose lists of rows none is empty or too long, if that can be; mean: a usual list."""
    clusters = _Clusters(rows, centroids, rng, team)
    clusters.mean = mean
    clusters.balance()
    return clusters.centroids


def assign(matrix: Matrix, forms: Forms, *, threads: int = 1, progress: Progress | None = None) -> I32:
    """int32 (rows,): the nearest centroid of every row, the first of equally near ones.

    Rows are read in slices, each LOAD_ROWS at a time. progress  called about every 50 ms with (rows done, rows)
    """
    rows = matrix.rows
    assigned = np.zeros(rows, np.int32)

    def compare(first: int, last: int) -> int:
        part, distances = np.empty((LOAD_ROWS, matrix.dim), np.float32), np.empty(LOAD_ROWS, np.float32)
        for start in range(first, last, LOAD_ROWS):
            here = min(LOAD_ROWS, last - start)
            load_rows(*kernel_inputs(matrix), frozen(np.arange(start, start + here, dtype=np.int32)), part)
            forms.nearest(part, 0, here, assigned[start : start + here], distances)
        return last - first

    with Team(threads, progress, rows) as team:
        team.share(compare, slices(rows, forms.comparisons * matrix.dim))
    return assigned


def objective(matrix: Matrix, centroids: F32, assigned: I32) -> float:
    """The mean squared distance of the rows to their centroids, summed in float64."""
    total = 0.0
    for start in range(0, matrix.rows, LOAD_ROWS):
        part = assigned[start : start + LOAD_ROWS]
        rest = load(matrix, np.arange(start, start + len(part), dtype=np.int32)) - centroids[part]
        total += float(np.einsum("ij,ij->", rest, rest, dtype=np.float64))
    return total / max(1, matrix.rows)


def move_to_members(rows: F32, assigned: I32, centroids: F32, team: Team) -> I64:
    """Every centroid that has rows to their mean; returns how many each has."""
    sums = np.zeros(centroids.shape, np.float64)

    def work(first: int, last: int) -> int:
        add_members(frozen(rows), frozen(assigned), first, last, sums)
        return 0

    team.share(work, team.columns(centroids.shape[1]))  # sums of a column know no threads
    sizes = np.bincount(assigned, minlength=len(centroids))
    held = sizes > 0
    centroids[held] = (sums[held] / sizes[held, None]).astype(np.float32)
    return sizes


class _Clusters:
    """The state of k-means on the rows of a sample.

    mean       rows of a usual list
    centroids  float32 (count, dim);  assigned int32 (n,), distances float32 (n,): the nearest of them as last compared
    """

    def __init__(self, rows: F32, centroids: F32, rng: np.random.Generator, team: Team) -> None:
        self._rows, self._rng, self._team = rows, rng, team
        self.centroids = np.array(centroids)
        self.mean = len(rows) / len(centroids)
        self.assigned = np.zeros(len(rows), np.int32)
        self.distances = np.full(len(rows), np.inf, np.float32)

    def seed(self) -> None:
        """Rows as centroids, in ROUNDS: evenly drawn at first, then by squared distance to those before."""
        count, first = len(self.centroids), 0
        assigned, distances = np.empty_like(self.assigned), np.empty_like(self.distances)
        for number in range(ROUNDS):
            last = max(first + 1, count >> (ROUNDS - 1 - number)) if number < ROUNDS - 1 else count
            last = min(last, count)
            if last == first:
                continue
            weights = self.distances if first else np.ones(len(self._rows), np.float32)
            self.centroids[first:last] = self._rows[_draw(weights, last - first, self._rng)]
            self._compare(self.centroids[first:last], assigned, distances)
            nearer = distances < self.distances
            self.assigned[nearer] = assigned[nearer] + first
            self.distances[nearer] = distances[nearer]
            first = last

    def _compare(self, centroids: F32, assigned: I32, distances: F32) -> None:
        forms = Centroids.of(centroids)

        def work(first: int, last: int) -> int:
            forms.nearest(self._rows, first, last, assigned, distances)
            return (last - first) * len(centroids)

        self._team.share(work, slices(len(self._rows), centroids.size))

    def assign(self) -> None:
        self._compare(self.centroids, self.assigned, self.distances)

    def sizes(self) -> I64:
        return np.bincount(self.assigned, minlength=len(self.centroids))

    def move(self, evenly: bool) -> None:
        """Every centroid to the mean of its rows; those without rows, and `evenly` some others, into long lists."""
        self._relocate(move_to_members(self._rows, self.assigned, self.centroids, self._team), evenly)

    def balance(self) -> None:
        """Compare and move until no list of the sample is empty or too long, or nothing helps."""
        for _ in range(BALANCE_ROUNDS):
            self.assign()
            if not self._relocate(self.sizes(), evenly=True):
                return
            self.assign()
            self.move(evenly=False)

    def _relocate(self, sizes: I64, evenly: bool) -> bool:
        """Whether centroids of empty lists, and `evenly` of short ones beside too long ones, went into long lists."""
        mean, sizes, moved = self.mean, sizes.copy(), False
        for giver in np.argsort(sizes, kind="stable"):
            if sizes[giver] > 0 and not (evenly and sizes[giver] < SHORTEST * mean and sizes.max() > LONGEST * mean):
                break
            while sizes.max() > 1 and not self._split(int(sizes.argmax()), int(giver), sizes):
                sizes[sizes.argmax()] = 0  # equal rows
            if sizes.max() <= 1:
                break
            moved = True
        return moved

    def _split(self, taker: int, giver: int, sizes: I64) -> bool:
        """Two means of the rows of `taker`, one of them by the centroid `giver`; False if all its rows are equal."""
        members = np.flatnonzero(self.assigned == taker)
        some = self._rows[self._rng.permutation(members)[:SPLIT_ROWS]]
        other = np.flatnonzero((some != some[0]).any(1))
        if not len(other):
            return False
        pair = some[[0, other[0]]]
        for _ in range(SPLIT_ITERATIONS):
            second = _second_is_nearer(some, pair)
            if second.all() or not second.any():  # rows too near to one another for float32
                break
            pair = np.stack([some[~second].mean(0), some[second].mean(0)])
        for start in range(0, len(members), SPLIT_ROWS):
            part = members[start : start + SPLIT_ROWS]
            self.assigned[part[_second_is_nearer(self._rows[part], pair)]] = giver
        self.centroids[[taker, giver]] = pair
        sizes[[taker, giver]] = [np.count_nonzero(self.assigned == at) for at in (taker, giver)]
        return True


def _second_is_nearer(rows: F32, pair: F32) -> AnyArray:
    """bool (r,): rows that are nearer to pair[1] than to pair[0]."""
    difference = pair[1] - pair[0]
    return np.asarray((rows - pair[0]) @ difference > np.float32(0.5) * (difference @ difference))


def _draw(weights: F32, count: int, rng: np.random.Generator) -> I64:
    """`count` places, with chances by weight and without return; places of no weight only when no others are left."""
    times = rng.standard_exponential(len(weights))
    with np.errstate(divide="ignore"):
        keys = np.where(weights > 0, times / weights, np.inf)
    order = np.argsort(keys, kind="stable")
    return np.resize(order, count)
