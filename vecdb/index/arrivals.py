"""The lists of rows: trained on all of them; or as they were for old ones, while new ones go to the nearest."""

from __future__ import annotations

import numpy as np

from vecdb.index.base import frozen
from vecdb.index.halves import Halves
from vecdb.index.lists import Grouping
from vecdb.index.two_levels import assign, evened, train
from vecdb.types import I32, Matrix, Progress

AT_ONCE = 65_536  # new rows that are copied to be assigned


def stage(progress: Progress | None, rows: int, start: float, end: float) -> Progress | None:
    """`progress` for one stage of a build over `rows` rows, which takes it from share `start` to `end`."""
    if progress is None:
        return None
    return lambda done, total: progress(int(rows * (start + (end - start) * done / max(1, total))), rows)


def trained(matrix: Matrix, count: int, seed: int, threads: int, progress: Progress | None) -> tuple[Grouping, I32]:
    """So many lists trained on the rows; and int32 (rows,): the list of each."""
    values, groups = train(matrix, count, seed=seed, threads=threads, progress=stage(progress, matrix.rows, 0.0, 0.5))
    values, told = Halves.of(values).values(), stage(progress, matrix.rows, 0.5, 0.65)
    assigned = assign(matrix, values, groups, threads=threads, progress=told)
    told = stage(progress, matrix.rows, 0.65, 0.7)
    values, assigned = evened(matrix, values, groups, assigned, seed=seed, threads=threads, progress=told)
    return Grouping.of(Halves.of(values), groups, assigned), assigned


def arrived(
    grouping: Grouping, old_rows: int, matrix: Matrix, new_rows: I32, threads: int, progress: Progress | None
) -> I32:
    """int32 (rows,): the list of each row of `matrix`; the `old_rows` of `grouping` move to it as `new_rows` says."""
    assigned, kept = np.full(matrix.rows, -1, np.int32), new_rows >= 0
    centroids = grouping.centroids.values()
    assigned[new_rows[kept]] = grouping.assigned(old_rows)[kept]
    fresh = np.flatnonzero(assigned < 0)
    for start in range(0, len(fresh), AT_ONCE):
        rows = fresh[start : start + AT_ONCE]
        norms = None if matrix.inverse_norms is None else frozen(matrix.inverse_norms[rows])
        part = Matrix(frozen(matrix.vectors[rows]), norms, matrix.metric)
        done = stage(progress, matrix.rows, 0.7 * start / len(fresh), 0.7 * (start + len(rows)) / len(fresh))
        assigned[rows] = assign(part, centroids, grouping.groups, threads=threads, progress=done)
    return assigned
