"""Many centroids stand in groups; very many are trained group by group, and a row is compared with the nearest groups.

A row is compared with about twice the square root of so many centroids, times PROBES, instead of with all of them
(Nister and Stewenius, "Scalable recognition with a vocabulary tree", 2006). What a tree gets wrong along the borders
of its groups, rounds of Lloyd over the nearest groups put right.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from vecdb.index import clustering
from vecdb.index.base import frozen
from vecdb.index.clustering import (
    ITERATIONS,
    LONGEST,
    Centroids,
    Forms,
    balanced,
    means,
    move_to_members,
)
from vecdb.index.grouped import PROBES, GroupedCentroids, one_group, starts_of
from vecdb.index.samples import SAMPLE_EACH, load, sample_of, spread
from vecdb.index.team import Team, slices
from vecdb.options import LISTS_MAX
from vecdb.types import F32, I32, I64, Matrix, Progress

LIST_ROWS = 256  # of a list, on average: shorter ones are padding, longer ones are scanned for little
MANY_LISTS, MANY_ROWS = 8192, 10_000_000  # from so many lists on longer ones are nearer in memory than more are
GROUPED_FROM = 2048  # centroids that stand in groups, by which lists are ranked
TRAINED_FROM = 10_000  # ... that are trained in them too, and compared with where the nearest groups are
GROUP_ROWS = 4 * SAMPLE_EACH  # rows that the middle of a group is trained on
REFINEMENTS = 2


def list_count(rows: int, wanted: int) -> int:
    """Lists for so many rows: as asked, else of LIST_ROWS rows; MANY_LISTS up to MANY_ROWS, then as the root grows."""
    many = MANY_LISTS * max(1.0, math.sqrt(rows / MANY_ROWS))
    return max(1, min(wanted or round(min(rows / LIST_ROWS, many)), rows, LISTS_MAX))


def train(
    matrix: Matrix, count: int, *, seed: int = 0, threads: int = 1, sample: int = 0, progress: Progress | None = None
) -> tuple[F32, I32]:
    """Centroids float32 (count, dim), of the space that lists are searched in; and int32 (groups + 1,): the first of
    each group, and their number. Rows are read from a sample only.

    sample    rows to train on; 0: as many as `sample_of` takes
    progress  called about every 50 ms with (row comparisons done, of all); may raise to interrupt

    With fewer different rows than centroids some centroids are equal, and `assign` takes the first of those.
    """
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
    """As clustering.assign; of many groups only the nearest count, and about one row in a hundred is put wrongly."""
    return clustering.assign(matrix, forms_of(centroids, starts), threads=threads, progress=progress)


def evened(
    matrix: Matrix,
    centroids: F32,
    starts: I32,
    assigned: I32,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[F32, I32]:
    """Centroids and assigned again, where groups with a list of more than LONGEST times the mean are balanced by all
    of their rows: of many lists some are much longer than in the sample that they were trained on.

    progress  called with (groups done, groups to balance)
    """
    values, places, rng = centroids.copy(), assigned.copy(), np.random.default_rng(seed)
    sizes = np.bincount(assigned, minlength=len(centroids))
    long = np.flatnonzero(sizes > LONGEST * sizes.mean()) if len(starts) > 2 else sizes[:0]
    groups = np.unique(np.searchsorted(starts, long, side="right") - 1)
    for number, at in enumerate(groups):
        if progress is not None:
            progress(number, len(groups))
        first, last = starts[at], starts[at + 1]
        own = np.flatnonzero((assigned >= first) & (assigned < last)).astype(np.int32)
        rows = load(matrix, own)
        with Team(threads, None, 0) as team:
            part = balanced(rows, values[first:last], sizes.mean(), rng, team)
            chosen = _compared(Centroids.of(frozen(part)), rows, team)
        if np.bincount(chosen).max() < sizes[first:last].max():
            values[first:last], places[own] = part, first + chosen
    return frozen(values), places


def forms_of(centroids: F32, starts: I32) -> Forms:
    grouped = len(centroids) >= TRAINED_FROM and len(starts) - 1 > PROBES
    return GroupedCentroids.of(centroids, starts) if grouped else Centroids.of(centroids)


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
    return values[np.argsort(groups, kind="stable")], starts_of(sizes[sizes > 0])


def _grouped(rows: F32, centres: F32, count: int, rng: np.random.Generator, team: Team) -> tuple[F32, I32]:
    """Centroids trained in the group of rows of each centre that has any, as many as its share of the rows."""
    assigned = _compared(Centroids.of(centres), rows, team)
    sizes = np.bincount(assigned, minlength=len(centres))
    held = np.flatnonzero(sizes)
    shares = _shares(sizes[held], count)
    parts = [means(rows[assigned == at], int(share), rng, team) for at, share in zip(held, shares, strict=True)]
    return np.concatenate(parts), starts_of(shares)


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
