"""Threads that share the rows of a build in slices, and tell how far they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np

from vecdb.threads import Pool
from vecdb.types import Progress

WORK = 1 << 29  # products of one slice: 5 to 20 ms
LEAST_ROWS = 1024  # of a slice, so that calling costs little


def slices(rows: int, products: int) -> list[tuple[int, int]]:
    """0..rows cut into parts of about WORK products, of which each row takes `products`."""
    step = max(LEAST_ROWS, WORK // max(1, products))
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


class Team:
    """Threads that share slices of rows; tells `progress` what is done after each of them."""

    def __init__(self, threads: int, progress: Progress | None, total: int) -> None:
        self._threads = max(1, threads)
        self._pool = Pool(self._threads, "vecdb-build")
        self._progress, self._total, self._done = progress, total, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if kind is None and self._progress is not None:
            self._progress(self._total, self._total)

    def columns(self, dim: int) -> list[tuple[int, int]]:
        """0..dim cut into a part for each thread."""
        bounds = np.linspace(0, dim, self._threads + 1).astype(int).tolist()
        return list(pairwise(bounds))

    def share(self, work: Callable[[int, int], int], parts: Sequence[tuple[int, int]]) -> None:
        """work(first, last) on all parts; it returns how much of the total that was."""
        for done in self._pool.map(lambda part: work(*part), parts):
            self._done = min(self._total, self._done + done)
            if self._progress is not None:
                self._progress(self._done, self._total)
