"""One segment's part of a search: by the arm of its plan, and by the fallback where that finds too little."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast

import numpy as np

from vecdb.engine.door import Door
from vecdb.engine.plans import Copies, SearchOptions, Tally, rows_of
from vecdb.errors import Closed
from vecdb.index.base import ESCALATED, Index
from vecdb.index.growing import GrowingFlat
from vecdb.kernels import bitset
from vecdb.kernels.exact import exact_search
from vecdb.types import F32, I32, I64, Arm, Plan, RowSet

if TYPE_CHECKING:  # it loads the compiler
    from vecdb.index.hnsw import HnswIndex

OBSERVED_K = 32  # costs are measured for small k, and corrected by such queries only
PARALLEL_QUERIES = 8  # queries that are worth another thread


Found = tuple[I32, F32]


@dataclass(slots=True)
class Way:
    """All of a search of one segment that is decided before its queries are known; kept for those that ask the same.

    plan     that the arm was made for; the tally may have a better one by now
    arm      queries -> (rows, distances)
    version  of the costs behind the plan
    """

    door: Door
    allowed: RowSet | None
    tally: Tally
    k: int
    options: SearchOptions
    plan: Plan
    arm: Callable[[F32], Found]
    version: int = 0
    counters: I64 | None = None

    @property
    def lasts(self) -> bool:
        """Whether what it searches stays as it is: a growing segment gets codes, and NumPy gives way to kernels."""
        return self.door.compiled and self.door.field.growing is None

    def stands(self, queries: int, version: int) -> bool:
        """Whether everything that was decided would be decided again, for so many queries."""
        tally = self.tally
        return (
            tally.plan is self.plan
            and version == self.version
            and tally.asked + queries <= tally.asked_again
            and not tally.lost(self.door)
            and self.door.stands()
        )

    def search(self, queries: F32, executor: Executor | None) -> Found:
        """Record rows int32 (q, k) and distances.

        Queries for which a walk gave up, or which met fewer than k allowed rows, are answered by the fallback.
        """
        field, plan, tally, options = self.door.field, self.plan, self.tally, self.options
        begin, escalated = perf_counter_ns(), 0
        tally.count(len(queries))
        rows, distances = _spread(self.arm, queries, options.threads, executor)
        spent = perf_counter_ns() - begin
        if plan.fallback is not None and self.door.compiled:
            escalated = self._escalate(queries, rows, distances, plan.fallback)
        if len(queries) == 1 and not escalated and self.k <= OBSERVED_K and options.rescore is None:
            tally.observe(spent)
        if field.rows_of is not None:
            rows = np.where(rows >= 0, field.rows_of[rows], -1).astype(np.int32)
        return rows, distances

    def _escalate(self, queries: F32, rows: I32, distances: F32, fallback: Arm) -> int:
        """Answers the queries that found too little, in place; their number."""
        short = [i for i, last in enumerate(rows[:, self.k - 1].tolist()) if last < 0]
        self.tally.add(len(queries), len(short))
        if short:
            again = replace(self.plan, arm=fallback)
            search = _arm(self.door, again, self.allowed, self.tally.copies, self.k, self.options, self.counters)
            rows[short], distances[short] = search(np.ascontiguousarray(queries[short]))
        if self.counters is not None:
            self.counters[ESCALATED] = len(short)
        return len(short)


def find_way(
    door: Door,
    allowed: RowSet | None,
    tally: Tally,
    k: int,
    options: SearchOptions,
    version: int = 0,
    counters: I64 | None = None,
) -> Way | None:
    """None when no row may be returned. `allowed` are field rows.

    counters   int64 (4,) zeros, or None: see vecdb.index.base; ESCALATED are the queries that the fallback answered
    """
    field, plan = door.field, tally.plan
    if plan.arm is Arm.NONE or field.matrix.rows == 0 or (allowed is not None and allowed.count == 0):
        return None
    k = min(k, field.matrix.rows if allowed is None else allowed.count)
    arm = _arm(door, plan, allowed, tally.copies, k, options, counters)
    return Way(door, allowed, tally, k, options, plan, arm, version, counters)


def _arm(
    door: Door,
    plan: Plan,
    allowed: RowSet | None,
    copies: Copies | None,
    k: int,
    options: SearchOptions,
    counters: I64 | None,
) -> Callable[[F32], Found]:
    matrix = door.field.matrix
    if plan.arm is Arm.EXACT or not door.compiled:
        bits, rows = _narrow(allowed, matrix.rows)
        return lambda queries: _exact(door, queries, k, bits, rows, counters)
    graph, flat, lists = door.graph, door.flat, door.lists
    if plan.arm is Arm.GATHER and graph is not None:
        return _gather(graph, rows_of(allowed, matrix.rows), k, options.rescore, counters)
    if plan.arm is Arm.EXCERPT and graph is not None and copies is not None:
        rescore = options.rescore  # the copies make room for others at any time, and are not held here
        return lambda queries: copies.get(door).search(queries, k, rescore=rescore, counters=counters)
    bits = None if allowed is None else bitset.bits_of(allowed, matrix.rows)
    if plan.arm is Arm.GRAPH and graph is not None:
        return lambda queries: graph.search(queries, k, allow=bits, ef=plan.ef, budget=plan.budget, counters=counters)
    if lists is not None and (plan.arm is Arm.LISTS or flat is None):
        nprobe = plan.nprobe if plan.arm is Arm.LISTS else lists.traits.lists
        return lambda queries: lists.search(
            queries, k, allow=bits, nprobe=nprobe, rescore=options.rescore, counters=counters
        )
    if isinstance(flat, GrowingFlat):
        return lambda queries: flat.search(matrix, queries, k, allow=bits, rescore=options.rescore, counters=counters)
    assert flat is not None
    return lambda queries: flat.search(queries, k, allow=bits, rescore=options.rescore, counters=counters)


def _gather(graph: Index, rows: I32, k: int, rescore: int | None, counters: I64 | None) -> Callable[[F32], Found]:
    index = cast("HnswIndex", graph)
    return lambda queries: index.gather(queries, k, rows, rescore=rescore, counters=counters)


def _narrow(allowed: RowSet | None, total: int) -> tuple[np.ndarray | None, I32 | None]:
    """(bits, None) for a set that is nearly all rows, else (None, rows): a gather costs more per row than a scan."""
    if allowed is None:
        return None, None
    if allowed.count * 2 > total:
        return bitset.bits_of(allowed, total), None
    return None, bitset.rows_of(allowed, total)


def _exact(
    door: Door,
    queries: F32,
    k: int,
    bits: np.ndarray | None,
    rows: I32 | None,
    counters: I64 | None,
) -> Found:
    matrix = door.field.matrix
    if not door.compiled:
        return exact_search(matrix, queries, k, bits, rows)
    from vecdb.index.exact import search_matrix

    return search_matrix(matrix, queries, k, bits, rows, counters)


def _spread(search: Callable[[F32], Found], queries: F32, threads: int, executor: Executor | None) -> Found:
    """Batches on several threads: the kernels hold no lock."""
    parts = min(threads, len(queries) // PARALLEL_QUERIES)
    if parts < 2 or executor is None:
        return search(queries)
    try:
        running = executor.map(search, np.array_split(queries, parts))
    except RuntimeError as error:  # it was shut down: another thread closed the database meanwhile
        raise Closed("the database was closed; open it again") from error
    found = list(running)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([distances for _, distances in found])
