"""The way of a search, told: the plan of every segment and, when asked, the search itself under a stopwatch."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np

from vecdb.engine.allow import allowed_rows, in_field
from vecdb.engine.door import Door, open_door
from vecdb.engine.explanation import STAGES, Explanation, SegmentPlan, SegmentWork
from vecdb.engine.filter_text import filter_text
from vecdb.engine.plans import Tally, make_plan
from vecdb.engine.search import Asked, Request, hits_of, merge
from vecdb.engine.segment_search import Found, find_way
from vecdb.engine.state import Engine
from vecdb.engine.view import FieldView, Segment, View
from vecdb.filter.evaluate import estimate
from vecdb.results import Hits
from vecdb.types import F32, I64, Estimate, RowSet


class Stopwatch:
    """Microseconds by stage: `lap` adds the time since the last one."""

    def __init__(self) -> None:
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.last = perf_counter_ns()

    def restart(self) -> None:
        """What happened since the last lap is not counted."""
        self.last = perf_counter_ns()

    def lap(self, stage: str) -> float:
        now = perf_counter_ns()
        spent, self.last = (now - self.last) / 1e3, now
        self.stages[stage] += spent
        return spent


def explain(engine: Engine, view: View, queries: F32, request: Request, *, analyze: bool = False) -> Explanation:
    """The plan of every segment that has the field; with `analyze` also what searching them did."""
    watch, asked = Stopwatch(), request.asked
    wanted = asked.k + asked.offset
    plans: list[SegmentPlan] = []
    parts: list[tuple[int, Found]] = []
    for number, segment in enumerate(view.segments):
        field = segment.fields.get(request.field.number)
        if field is None or field.matrix.rows == 0:
            continue
        engine.kernels.wait(field.matrix.vectors.dtype.name)
        door = open_door(engine.kernels, field)
        bounds, counted = _known(engine, segment, field, request)
        watch.restart()
        allowed = in_field(allowed_rows(engine.filters, segment, request.node), field, segment.rows)
        filter_us = watch.lap("filter")
        tally = make_plan(
            door, segment, request.field.number, request.node, allowed, wanted, asked.options, engine.costs
        )
        plan, plan_us, work = tally.plan, watch.lap("plan"), None
        if analyze:
            found, counters = _run(engine, door, allowed, tally, queries, wanted, asked)
            if found is not None:
                parts.append((number, found))
            visited, distances, rescored, escalated = counters.tolist()
            work = SegmentWork(visited, distances, rescored, escalated, filter_us, plan_us, watch.lap("search"))
        kinds = tuple(traits.kind for traits in door.traits)
        plans.append(SegmentPlan(_name(segment), kinds, bounds, counted, plan, work))
    where = None if request.node is None else filter_text(request.node)
    told = view.meta.name, request.field.name, asked.k, where, tuple(plans)
    if not analyze:
        return Explanation(*told)
    watch.restart()
    hits = hits_of(view, request, merge(parts, len(queries), wanted))
    watch.lap("merge")
    _fetch(hits)
    watch.lap("fetch")
    return Explanation(*told, watch.stages, sum(map(len, hits)))


def _known(engine: Engine, segment: Segment, field: FieldView, request: Request) -> tuple[Estimate, str]:
    """(Bounds from the columns on the matching rows, how the number of those that may be returned is found)."""
    rows, node = segment.rows, request.node
    if node is None:
        bounds, counted = Estimate(rows, rows), "all"
    else:
        bounds = estimate(node, segment.columns())
        counted = "kept from an earlier query" if engine.filters.get(segment, node) else "counted by the columns"
    if segment.deleted_count:
        counted += f", without {segment.deleted_count:,} deleted"
    if field.rows_of is not None:
        counted += ", of those that have the field"
    return bounds, counted


def _run(
    engine: Engine, door: Door, allowed: RowSet | None, tally: Tally, queries: F32, wanted: int, asked: Asked
) -> tuple[Found | None, I64]:
    counters = np.zeros(4, np.int64)
    way = find_way(door, allowed, tally, wanted, asked.options, counters=counters)
    return None if way is None else way.search(queries, engine.executor), counters


def _fetch(found: Sequence[Hits]) -> None:
    """Ids and payloads of all hits, as a caller would read them."""
    for hits in found:
        _ = hits.ids, hits.payloads


def _name(segment: Segment) -> str:
    entry = getattr(segment.storage, "entry", None)
    return "growing" if entry is None else str(entry.number)
