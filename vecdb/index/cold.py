"""Rows that are not in memory: which ones a search needs is told to the system at once, before the first is read.

A row that is read from the disk when it is scored costs a wait each, and the system reads some of its neighbours, which
nobody needs. Asked for together they cost a fiftieth of that. Where all rows are in memory asking costs more than it
saves, so it is done only after a search that had to wait.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vecdb.index.base import frozen, result_arrays
from vecdb.index.flat import search_exact
from vecdb.types import F32, I32, I64, Matrix, Pages

Found = tuple[I32, F32]
WAITS_MIN = 4  # waits for the disk in one search that make rows cold
COLD_SEARCHES = 64  # that ask for their rows before one does not, to see whether they are in memory by now


class Cold:
    """Whether searches ask for their rows first. Any number of threads; what one overwrites of another is no loss."""

    __slots__ = ("left", "pages")

    def __init__(self, pages: Pages | None) -> None:
        self.pages, self.left = pages, 0

    def search(self, straight: Callable[[], Found], asking: Callable[[], Found]) -> Found:
        """straight(), and after a search that had to wait for the disk asking()."""
        if self.pages is None:
            return straight()
        if self.left > 0:
            self.left -= 1
            return asking()
        before = self.pages.faults()
        found = straight()
        if self.pages.faults() - before >= WAITS_MIN:
            self.pages.scatter()
            self.left = COLD_SEARCHES
        return found


def decide_cold(matrix: Matrix, queries: F32, k: int, candidates: I32, counters: I64 | None) -> Found:
    """The k nearest of each query's candidates, int32 (q, pool), -1 where there are fewer."""
    assert matrix.pages is not None
    chosen = [np.unique(rows[rows >= 0]) for rows in candidates]
    matrix.pages.ask(np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int32))
    found, distances = result_arrays(queries, k)
    for i, rows in enumerate(chosen):
        query = queries[i : i + 1]
        found[i : i + 1], distances[i : i + 1] = search_exact(matrix, query, k, None, frozen(rows), counters)
    return found, distances
