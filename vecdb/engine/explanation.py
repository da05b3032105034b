"""How a search would be answered, or was: values that compare, and that read well in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vecdb.types import Arm, Estimate, Plan

STAGES = ("filter", "plan", "search", "merge", "fetch")
ARMS = (Arm.EXACT, Arm.GATHER, Arm.EXCERPT, Arm.SCAN, Arm.LISTS, Arm.GRAPH)
HEAD = ("segment", "rows", "match", "bounds", *map(str, ARMS), "chosen", "why", "costs")
WORK_HEAD = ("visited", "distances", "rescored", "escalated", "filter", "plan", "search")


@dataclass(frozen=True, slots=True)
class SegmentWork:
    """What a search did in one segment.

    visited      nodes that a walk expanded
    distances    estimates and exact ones
    rescored     rows scored exactly
    escalated    queries for which a walk gave up or found too little, and which the fallback answered
    filter_us, plan_us, search_us   microseconds: finding the allowed rows, choosing, searching
    """

    visited: int
    distances: int
    rescored: int
    escalated: int
    filter_us: float
    plan_us: float
    search_us: float


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What was chosen for one segment, and what it was based on.

    indexes   the kinds that can search it now
    bounds    on the rows that the filter matches, deleted ones included, as the columns tell without evaluating it
    counted   how the number of matching rows in the plan was found
    work      what the search did, with analyze=True
    """

    segment: str
    indexes: tuple[str, ...]
    bounds: Estimate
    counted: str
    plan: Plan
    work: SegmentWork | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search would be answered, segment by segment; with analyze=True also what it did.

    where    the filter as text; None without one
    stages   microseconds of the query by stage (filter, plan, search, merge, fetch), with analyze=True
    hits     the number of results, with analyze=True
    """

    collection: str
    field: str
    k: int
    where: str | None
    segments: tuple[SegmentPlan, ...]
    stages: Mapping[str, float] | None = None
    hits: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [self._title()]
        for part in self.segments:
            lines.extend(_segment_lines(part))
        if self.stages is not None:
            lines.append(self._stages_line())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        analyzed = self.stages is not None
        head = "".join(f"<th>{name}</th>" for name in (*HEAD, *(WORK_HEAD if analyzed else ())))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(part)) + "</tr>"
            for part in self.segments
        )
        below = f"<p>{html.escape(self._stages_line())}</p>" if analyzed else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{html.escape(self._title())}</p>{table}{below}"

    def _title(self) -> str:
        where = "" if self.where is None else f", where {self.where}"
        many = "segment" if len(self.segments) == 1 else "segments"
        return f"search {self.collection}.{self.field}, k={self.k}{where}: {len(self.segments)} {many}"

    def _stages_line(self) -> str:
        assert self.stages is not None
        told = ", ".join(f"{name} {_us(self.stages[name])}" for name in STAGES)
        return f"took {_us(sum(self.stages.values()))}: {told}; {self.hits:,} hits"


def _segment_lines(part: SegmentPlan) -> Iterator[str]:
    plan, work, bounds = part.plan, part.work, part.bounds
    told = f"{bounds.low:,}" if bounds.exact else f"{bounds.low:,} to {bounds.high:,}"
    yield f"  segment {part.segment} (indexes: {', '.join(part.indexes) or 'none'})"
    yield f"    rows: {part.counted}; the columns tell {told} without evaluating"
    for arm, microseconds in sorted(plan.costs.items(), key=lambda item: item[1]):
        yield f"    {'->' if arm == plan.arm else '  '} {arm:7s} {_us(microseconds):>9s} predicted"
    if plan.costs:
        yield f"    costs: {plan.source}"
    yield f"    {plan.arm}: {plan.reason}{_escape(plan)}"
    if work is not None:
        yield (
            f"    did: {work.visited:,} nodes visited, {work.distances:,} distances, {work.rescored:,} rescored, "
            f"{work.escalated:,} escalated"
        )
        yield f"    in: filter {_us(work.filter_us)}, plan {_us(work.plan_us)}, search {_us(work.search_us)}"


def _escape(plan: Plan) -> str:
    """What happens when the arm finds too little."""
    if plan.fallback is None:
        return ""
    limit = "" if plan.budget is None else f" after {plan.budget:,} distances"
    return f"; gives up to {plan.fallback}{limit}"


def _cells(part: SegmentPlan) -> Iterator[str]:
    plan, bounds, work = part.plan, part.bounds, part.work
    yield from (part.segment, f"{plan.rows:,}", f"{plan.matching.low:,}")
    yield f"{bounds.low:,}" if bounds.exact else f"{bounds.low:,} to {bounds.high:,}"
    for arm in ARMS:
        yield _us(plan.costs[arm]) if arm in plan.costs else "-"
    yield from (str(plan.arm), plan.reason, plan.source)
    if work is not None:
        yield from (f"{count:,}" for count in (work.visited, work.distances, work.rescored, work.escalated))
        yield from map(_us, (work.filter_us, work.plan_us, work.search_us))


def _us(microseconds: float) -> str:
    return f"{microseconds:,.0f} us" if microseconds < 10_000 else f"{microseconds / 1e3:,.1f} ms"
