"""Which way a segment is searched under a filter: planned once, kept with the segment, and thought over again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from vecdb.engine.costs import CostBook, Measured, read_walks
from vecdb.engine.door import Door, place_of
from vecdb.engine.excerpts import Excerpts, Key
from vecdb.engine.view import Segment
from vecdb.filter.expression import Node
from vecdb.kernels import bitset
from vecdb.planner.choose import choose
from vecdb.planner.cost import NOT_MEASURED, Costs
from vecdb.types import I32, Arm, Estimate, Plan, RowSet

if TYPE_CHECKING:  # they load the compiler
    from vecdb.index.excerpt import Excerpt
    from vecdb.index.hnsw import HnswIndex

PLANS_MAX = 256  # plans kept with a segment
ESCALATED_MIN = 4  # escalations before a plan is judged by them
ASKED_FIRST, ASKED_AGAIN = 2, 3  # queries of a filter before its plan is thought over, and times as many from then on
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a query may ask for besides k; None leaves it to the index."""

    ef: int | None = None
    rescore: int | None = None
    exact: bool = False
    threads: int = 1
    recall: float | None = None  # picks the ef of a graph or the lists of an inverted file; all else finds more
    nprobe: int | None = None  # lists of an inverted file to scan


class Copies(NamedTuple):
    """Copies of the codes of the rows that one filter allows, once they are wanted."""

    excerpts: Excerpts
    key: Key
    allowed: RowSet | None

    def there(self, door: Door) -> bool:
        return door.graph is not None and self.excerpts.holds(self.key, door.graph)

    def get(self, door: Door) -> Excerpt:
        graph, total = cast("HnswIndex", door.graph), door.field.matrix.rows
        return self.excerpts.get(self.key, graph, lambda: rows_of(self.allowed, total))


def rows_of(allowed: RowSet | None, total: int) -> I32:
    """The ascending rows of a set; kernels are there to list them."""
    from vecdb.index.gather import rows_in

    if allowed is None:
        return np.arange(total, dtype=np.int32)
    return allowed.rows if allowed.rows is not None else rows_in(bitset.bits_of(allowed, total), allowed.count)


@dataclass(slots=True)
class Tally:
    """A plan, and how often it found too little: kept with the segment, whose rows never change.

    Racing threads may lose a count, which costs a query more before the plan changes.

    asked            queries with the filter; from `asked_again` on another plan may be better
    version          of the costs behind the plan
    copies           of the codes of the filter's rows
    book, measured   where the costs came from, to be told what queries took; None where nothing was measured
    """

    plan: Plan
    version: int = 0
    copies: Copies | None = None
    asked: int = 0
    asked_again: int = NEVER
    queries: int = 0
    escalated: int = 0
    book: CostBook | None = None
    measured: Measured | None = None

    def add(self, queries: int, escalated: int) -> None:
        """Gives the plan up for its fallback when that is cheaper, the escalations that were seen counted in."""
        self.queries += queries
        self.escalated += escalated
        plan = self.plan
        share = self.share_escalated
        if plan.fallback is None or plan.arm not in plan.costs or not share:
            return
        walk, fallback = plan.costs[plan.arm], plan.costs[plan.fallback]
        lost = (walk if plan.gives_up_us is None else plan.gives_up_us) + fallback
        if walk * (1 - share) + lost * share > fallback:
            self.plan = Plan(
                plan.fallback, self.told(plan.arm), plan.rows, plan.matching, plan.costs, source=plan.source
            )
            self.asked_again = min(self.asked_again, self.asked)  # what was seen may pay for copies

    def told(self, arm: str) -> str:
        return f"{self.escalated:,} of {self.queries:,} queries with this filter escalated from {arm}"

    @property
    def share_escalated(self) -> float:
        """What is believed of the escalations that were seen: a standard deviation less, for they may be few."""
        if self.escalated < ESCALATED_MIN:
            return 0.0
        share = self.escalated / self.queries
        return share - math.sqrt(share * (1 - share) / self.queries)

    def lost(self, door: Door) -> bool:
        """Whether it counts on copies that have made room for others: they have to be earned again."""
        counted_on = Arm.EXCERPT in (self.plan.arm, self.plan.fallback)
        return counted_on and self.copies is not None and not self.copies.there(door)

    def count(self, queries: int) -> None:
        """Also for the plans that the filter gets with other options, or when costs were corrected."""
        self.asked += queries
        if self.copies is not None and self.asked_again < NEVER:
            self.copies.excerpts.count(self.copies.key, queries)

    def observe(self, nanoseconds: int) -> None:
        """What one query took that was answered as planned."""
        if self.book is not None and self.measured is not None and (told := self.plan.costs.get(self.plan.arm)):
            self.book.observe(self.measured, self.plan.arm, nanoseconds / 1e3 / told)


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
    queries: int = 1,
) -> Tally:
    """The planner's choice for field number `field`; kept with the segment, whose numbers never change.

    It is thought over when a filter is asked for again and again, and by so many `queries` at once.
    """
    found = door.field.matrix.rows, door.flat is None, door.graph is None, door.lists is None
    key = (field, node, *found, k, options.exact, options.ef, options.nprobe, options.recall)
    tally: Tally | None = segment.plans.get(key)
    if tally is not None and tally.lost(door):
        tally = None
    if tally is None or tally.version != book.version or tally.asked + queries > tally.asked_again:
        if len(segment.plans) >= PLANS_MAX:
            segment.plans.clear()
        copies = Copies(segment.excerpts, (field, node), allowed)
        tally = segment.plans[key] = _next_tally(tally, queries, door, copies, k, options, book)
    return tally


def _next_tally(
    before: Tally | None,
    queries: int,
    door: Door,
    copies: Copies,
    k: int,
    options: SearchOptions,
    book: CostBook,
) -> Tally:
    """The plan of a filter that is new, or that was asked for so often meanwhile that copies of its codes may pay, or
    whose costs have changed.

    All of the `queries` at hand but one count like those that were.
    """
    costs, measured = costs_of(door, book)
    asked, filtered = copies.excerpts.asked(copies.key), copies.key[1] is not None
    copied, known = copies.there(door), asked + queries - 1 if filtered else 0
    escalated = 0.0 if before is None else before.share_escalated
    plan = _plan(door, copies.allowed, k, options, costs, known, copied, escalated)
    if Arm.EXCERPT in (plan.arm, plan.fallback) and not copied:
        copies.get(door)
        copied, plan = True, _plan(door, copies.allowed, k, options, costs, known, True, escalated)
    if before is not None and escalated and plan.costs.get(Arm.GRAPH, math.inf) < plan.costs.get(plan.arm, 0.0):
        plan = replace(plan, reason=before.told(Arm.GRAPH))
    again = NEVER if copied or not filtered else max(ASKED_FIRST, ASKED_AGAIN * known)
    tally = Tally(plan, book.version, copies, asked, again, book=book, measured=measured)
    if before is not None:
        tally.queries, tally.escalated = before.queries, before.escalated
    return tally


def _plan(
    door: Door,
    allowed: RowSet | None,
    k: int,
    options: SearchOptions,
    costs: Costs = NOT_MEASURED,
    asked: int = 0,
    copied: bool = False,
    escalated: float = 0.0,
) -> Plan:
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
        asked=asked, copied=copied, escalated=escalated, measured=costs,
    )  # fmt: skip
