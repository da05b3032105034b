"""One segment's part of a search: choose by the number of allowed rows, search, escalate when short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from vecdb.engine.costs import CostBook, Measured, Place, read_walks
from vecdb.engine.kernels import Kernels
from vecdb.engine.slots import IndexSlot
from vecdb.engine.view import FieldView, Segment
from vecdb.errors import Closed
from vecdb.filter.expression import Node
from vecdb.index.base import ESCALATED, Index
from vecdb.index.growing import GrowingFlat
from vecdb.kernels import bitset
from vecdb.kernels.exact import exact_search
from vecdb.planner.choose import choose
from vecdb.planner.cost import NOT_MEASURED, Costs
from vecdb.types import F32, I32, I64, Arm, Estimate, Plan, RowSet, Traits

if TYPE_CHECKING:  # it loads the compiler
    from vecdb.index.hnsw import HnswIndex

CODED_BY_SEARCH = 16_384  # rows of a growing segment without codes at which a search codes them itself
PLANS_MAX = 256  # plans kept with a segment
ESCALATED_MIN = 4  # escalations before a plan is judged by them
OBSERVED_K = 32  # costs are measured for small k, and corrected by such queries only
PARALLEL_QUERIES = 8  # queries that are worth another thread


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a query may ask for besides k; None leaves it to the index."""

    ef: int | None = None
    rescore: int | None = None
    exact: bool = False
    threads: int = 1
    recall: float | None = (
        None  # picks the ef of a graph, the lists of an inverted file; whatever else may search finds more
    )
    nprobe: int | None = None  # lists of an inverted file to scan


class Door(NamedTuple):
    """What can search one field of one segment now. `compiled` is false while NumPy answers for the kernels."""

    field: FieldView
    compiled: bool
    flat: Index | GrowingFlat | None = None
    graph: Index | None = None
    lists: Index | None = None

    @property
    def traits(self) -> list[Traits]:
        traits = []
        if isinstance(self.flat, GrowingFlat):
            traits.append(self.flat.traits(self.field.matrix))
        elif self.flat is not None:
            traits.append(self.flat.traits)
        return traits + [index.traits for index in (self.graph, self.lists) if index is not None]


Found = tuple[I32, F32]
FLAT_KINDS = ("flat",)
GRAPH_KINDS = ("hnsw",)
LIST_KINDS = ("ivf", "ivfpq")


@dataclass(slots=True)
class Tally:
    """A plan, and how often it found too little: kept with the segment, whose rows never change.

    Racing threads may lose a count, which costs a query more before the plan changes.

    book, measured   where the costs came from, to be told what queries took; None where nothing was measured
    """

    plan: Plan
    queries: int = 0
    escalated: int = 0
    book: CostBook | None = None
    measured: Measured | None = None

    def add(self, queries: int, escalated: int) -> None:
        """Gives the plan up for its fallback when that is cheaper, the escalations that were seen counted in."""
        self.queries += queries
        self.escalated += escalated
        plan = self.plan
        if plan.fallback is None or plan.arm not in plan.costs or self.escalated < ESCALATED_MIN:
            return
        walk, fallback = plan.costs[plan.arm], plan.costs[plan.fallback]
        lost = (walk if plan.gives_up_us is None else plan.gives_up_us) + fallback
        if walk * (self.queries - self.escalated) + lost * self.escalated > fallback * self.queries:
            reason = f"{self.escalated:,} of {self.queries:,} queries with this filter escalated from {plan.arm}"
            self.plan = Plan(plan.fallback, reason, plan.rows, plan.matching, plan.costs, source=plan.source)

    def observe(self, nanoseconds: int) -> None:
        """What one query took that was answered as planned."""
        if self.book is not None and self.measured is not None and (told := self.plan.costs.get(self.plan.arm)):
            self.book.observe(self.measured, self.plan.arm, nanoseconds / 1e3 / told)


def open_door(kernels: Kernels, field: FieldView) -> Door:
    if not kernels.usable(field.matrix):
        return Door(field, compiled=False)
    if field.growing is not None:
        if field.matrix.rows - field.growing.coded_rows > CODED_BY_SEARCH:
            field.growing.extend(field.matrix, wait=False)
        return Door(field, True, field.growing)
    slots = field.indexes or {}
    flat, graph, lists = _attached(slots, FLAT_KINDS), _attached(slots, GRAPH_KINDS), _attached(slots, LIST_KINDS)
    return Door(field, True, flat, graph, lists)


def _attached(slots: Mapping[str, IndexSlot], kinds: Sequence[str]) -> Index | None:
    for kind in kinds:
        if kind in slots:
            return slots[kind].get()
    return None


def place_of(door: Door) -> Place | None:
    """What the costs of its searches depend on; None while NumPy answers."""
    if not door.compiled:
        return None
    matrix, flat, graph = door.field.matrix, door.flat, cast("HnswIndex | None", door.graph)
    flat_bits = 0 if flat is None or isinstance(flat, GrowingFlat) else flat.traits.code_bits
    graph_bits, m = (0, 0) if graph is None else (graph.traits.code_bits, graph.options.m)
    return Place(matrix.dim, matrix.vectors.dtype.name, flat_bits, graph_bits, m, matrix.rows.bit_length())


def costs_of(door: Door, book: CostBook) -> tuple[Costs, Measured | None]:
    """(costs for the planner, what they come from when they were measured)"""
    place, slot = place_of(door), (door.field.indexes or {}).get("hnsw")
    walks = None if slot is None or door.graph is None else read_walks(slot.entry.parameters)
    return book.costs(place, walks), None if place is None else book.find(place)


def make_plan(
    door: Door,
    segment: Segment,
    field: int,
    node: Node | None,
    allowed: RowSet | None,
    k: int,
    options: SearchOptions,
    book: CostBook,
) -> Tally:
    """The planner's choice for field number `field`; kept with the segment, whose numbers never change."""
    found = door.field.matrix.rows, door.flat is None, door.graph is None, door.lists is None, book.version
    key = (field, node, *found, k, options.exact, options.ef, options.nprobe, options.recall)
    tally: Tally | None = segment.plans.get(key)
    if tally is None:
        if len(segment.plans) >= PLANS_MAX:
            segment.plans.clear()
        costs, measured = costs_of(door, book)
        tally = segment.plans[key] = Tally(_plan(door, allowed, k, options, costs), book=book, measured=measured)
    return tally


def _plan(door: Door, allowed: RowSet | None, k: int, options: SearchOptions, costs: Costs = NOT_MEASURED) -> Plan:
    rows, dim = door.field.matrix.rows, door.field.matrix.dim
    count = rows if allowed is None else allowed.count
    share = count / max(1, rows)
    ef, nprobe = options.ef, options.nprobe
    if ef is None and door.graph is not None:
        ef = door.graph.effort(k, options.recall, share)
    if nprobe is None and door.lists is not None:
        nprobe = door.lists.effort(k, options.recall, share)
    matching = Estimate(count, count)
    bounded = options.ef is None
    return choose(
        matching, door.traits, rows, 0, dim, k, exact=options.exact, ef=ef or 0, nprobe=nprobe or 0, bounded=bounded,
        measured=costs,
    )  # fmt: skip


def search_segment(
    door: Door,
    allowed: RowSet | None,
    tally: Tally,
    queries: F32,
    k: int,
    options: SearchOptions,
    executor: Executor | None,
    counters: I64 | None = None,
) -> Found | None:
    """Record rows int32 (q, k) and distances; None when no row may be returned. `allowed` are field rows.

    Queries for which a walk gave up, or which met fewer than k allowed rows, are answered by the fallback.

    counters   int64 (4,) zeros, or None: see vecdb.index.base; ESCALATED are the queries that the fallback answered
    """
    field, plan = door.field, tally.plan
    if plan.arm is Arm.NONE or field.matrix.rows == 0 or (allowed is not None and allowed.count == 0):
        return None
    k = min(k, field.matrix.rows if allowed is None else allowed.count)
    search = _arm(door, plan, allowed, k, options, counters)
    begin, escalated = perf_counter_ns(), 0
    rows, distances = _spread(search, queries, options.threads, executor)
    spent = perf_counter_ns() - begin
    if plan.fallback is not None and door.compiled:
        short = [i for i, last in enumerate(rows[:, k - 1].tolist()) if last < 0]
        escalated = len(short)
        tally.add(len(queries), escalated)
        if short:
            again = replace(plan, arm=plan.fallback)
            search = _arm(door, again, allowed, k, options, counters)
            rows[short], distances[short] = search(np.ascontiguousarray(queries[short]))
        if counters is not None:
            counters[ESCALATED] = len(short)
    if len(queries) == 1 and not escalated and k <= OBSERVED_K and options.rescore is None and door.compiled:
        tally.observe(spent)
    if field.rows_of is not None:
        rows = np.where(rows >= 0, field.rows_of[rows], -1).astype(np.int32)
    return rows, distances


def _arm(
    door: Door, plan: Plan, allowed: RowSet | None, k: int, options: SearchOptions, counters: I64 | None
) -> Callable[[F32], Found]:
    matrix = door.field.matrix
    if plan.arm is Arm.EXACT or not door.compiled:
        bits, rows = _narrow(allowed, matrix.rows)
        return lambda queries: _exact(door, queries, k, bits, rows, counters)
    graph, flat, lists = door.graph, door.flat, door.lists
    if plan.arm is Arm.GATHER and graph is not None:
        return _gather(graph, _rows(allowed, matrix.rows), k, options.rescore, counters)
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


def _rows(allowed: RowSet | None, total: int) -> I32:
    """The ascending rows of a set; kernels are there to list them."""
    from vecdb.index.gather import rows_in

    if allowed is None:
        return np.arange(total, dtype=np.int32)
    return allowed.rows if allowed.rows is not None else rows_in(bitset.bits_of(allowed, total), allowed.count)


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
