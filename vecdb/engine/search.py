"""A query from the view to its hits: one part per segment, merged by (distance, sequence).

Segments are in order of sequence, and so are the rows of each; a stable sort by distance is therefore the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.engine.segment_search import Found, SearchOptions, make_plan, open_door, search_segment
from vecdb.engine.state import Engine
from vecdb.engine.view import View
from vecdb.filter.expression import Node
from vecdb.results import Hits
from vecdb.storage.schema import FieldMeta
from vecdb.types import F32, I32, Metric, Plan


@dataclass(frozen=True, slots=True)
class Request:
    """A validated search. `limit` bounds distances; `offset` hits are skipped."""

    field: FieldMeta
    k: int
    node: Node | None
    options: SearchOptions
    offset: int = 0
    limit: float | None = None
    payloads: bool = True
    vectors: bool = False


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What was chosen for one segment: the plan, and what could have served it."""

    segment: str
    indexes: tuple[str, ...]
    plan: Plan


def search(engine: Engine, view: View, queries: F32, request: Request) -> list[Hits]:
    """The hits of each query row."""
    wanted = request.k + request.offset
    parts: list[tuple[int, Found]] = []
    for number, segment in enumerate(view.segments):
        field = segment.fields.get(request.field.number)
        if field is None or field.matrix.rows == 0 or segment.live == 0:
            continue
        door = open_door(engine.kernels, field)
        plan = make_plan(door, segment, request.node, wanted, request.options)
        found = search_segment(
            door, engine.filters, segment, request.node, plan, queries, wanted, request.options, engine.executor, None
        )
        if found is not None:
            parts.append((number, found))
    return _hits(view, request, _merge(parts, len(queries), wanted))


def _merge(parts: Sequence[tuple[int, Found]], queries: int, wanted: int) -> tuple[I32 | int, I32, F32]:
    """(segment of each result, or of all; rows; distances), each (q, <= wanted), nearest first."""
    if not parts:
        return 0, np.empty((queries, 0), np.int32), np.empty((queries, 0), np.float32)
    if len(parts) == 1:
        number, (rows, distances) = parts[0]
        return number, rows, distances
    rows = np.concatenate([found[0] for _, found in parts], axis=1)
    distances = np.concatenate([found[1] for _, found in parts], axis=1)
    at = np.concatenate([np.full(found[0].shape[1], number, np.int32) for number, found in parts])
    order = np.argsort(distances, axis=1, kind="stable")[:, :wanted]
    pick = np.arange(queries)[:, None]
    return at[order], rows[pick, order], distances[pick, order]


def _hits(view: View, request: Request, merged: tuple[I32 | int, I32, F32]) -> list[Hits]:
    at, rows, distances = merged
    field, metric = request.field.number, Metric(request.field.metric)
    hits = []
    for i in range(len(rows)):
        end = int(np.searchsorted(rows[i] < 0, True)) if rows.shape[1] and rows[i, -1] < 0 else rows.shape[1]
        if request.limit is not None:
            end = min(end, int(np.searchsorted(distances[i, :end], request.limit, "right")))
        chosen = slice(request.offset, max(end, request.offset))
        where = np.full(rows[i, chosen].shape, at, np.int32) if isinstance(at, int) else at[i, chosen]
        hits.append(
            Hits(view, where, rows[i, chosen], distances[i, chosen], metric, field, request.payloads, request.vectors)
        )
    return hits


def explain(engine: Engine, view: View, request: Request) -> list[SegmentPlan]:
    """The plan of every segment that has the field, without searching it."""
    plans = []
    for segment in view.segments:
        field = segment.fields.get(request.field.number)
        if field is None or field.matrix.rows == 0:
            continue
        engine.kernels.wait()
        door = open_door(engine.kernels, field)
        plan = make_plan(door, segment, request.node, request.k + request.offset, request.options)
        kinds = tuple(traits.kind for traits in door.traits)
        entry = getattr(segment.storage, "entry", None)
        plans.append(SegmentPlan("growing" if entry is None else str(entry.number), kinds, plan))
    return plans
