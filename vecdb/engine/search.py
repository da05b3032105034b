"""A query from the view to its hits: one part per segment, merged by (distance, sequence).

Segments are in order of sequence, and so are the rows of each; a stable sort by distance is therefore the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vecdb.engine.allow import allowed_rows, in_field
from vecdb.engine.door import open_door
from vecdb.engine.plans import SearchOptions, make_plan
from vecdb.engine.segment_search import Found, Way, find_way
from vecdb.engine.state import Engine
from vecdb.engine.view import FieldView, Segment, View
from vecdb.filter.expression import Node
from vecdb.results import Hits, scores_of
from vecdb.storage.schema import FieldMeta
from vecdb.types import F32, I32, Metric

WAYS_MAX = 64  # kept with a segment: each holds the rows that its filter allows


@dataclass(frozen=True, slots=True, eq=False)  # told apart by identity, which is quick: equal ones are made once
class Asked:
    """Validated options; `offset` hits are skipped. Hits beyond `max_distance` or below `min_score` are left out."""

    k: int
    options: SearchOptions
    offset: int = 0
    max_distance: float | None = None
    min_score: float | None = None
    payloads: bool = True
    vectors: bool = False


class Request(NamedTuple):
    """A validated search."""

    field: FieldMeta
    node: Node | None
    asked: Asked


def search(engine: Engine, view: View, queries: F32, request: Request) -> list[Hits]:
    """The hits of each query row."""
    parts: list[tuple[int, Found]] = []
    for number, segment in enumerate(view.segments):
        field = segment.fields.get(request.field.number)
        if field is None or field.matrix.rows == 0 or segment.live == 0:
            continue
        way = segment.ways.get((request.field.number, request.node, request.asked))
        if way is None or not way.stands(len(queries), engine.costs.version):
            way = _find_way(engine, segment, field, request, len(queries))
        if way is not None:
            parts.append((number, way.search(queries, engine.executor)))
    return hits_of(view, request, merge(parts, len(queries), request.asked.k + request.asked.offset))


def _find_way(engine: Engine, segment: Segment, field: FieldView, request: Request, queries: int) -> Way | None:
    """How the segment is searched; kept with it, for searches that differ in nothing but their queries."""
    sought, node, asked = request
    wanted, options, version = asked.k + asked.offset, asked.options, engine.costs.version
    door = open_door(engine.kernels, field)
    allowed = in_field(allowed_rows(engine.filters, segment, node), field, segment.rows)
    tally = make_plan(door, segment, sought.number, node, allowed, wanted, options, engine.costs, queries)
    way = find_way(door, allowed, tally, wanted, options, version)
    if way is not None and way.lasts:
        if len(segment.ways) >= WAYS_MAX:
            segment.ways.clear()
        segment.ways[sought.number, node, asked] = way
    return way


def merge(parts: Sequence[tuple[int, Found]], queries: int, wanted: int) -> tuple[I32 | int, I32, F32]:
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


def hits_of(view: View, request: Request, merged: tuple[I32 | int, I32, F32]) -> list[Hits]:
    at, rows, distances = merged
    field, asked = request.field, request.asked
    hits = []
    for i in range(len(rows)):
        found, near = rows[i], distances[i]
        start, end = _shown(found, near, field.metric, asked)
        where = _everywhere(at, end - start) if isinstance(at, int) else at[i, start:end]
        if end - start < len(found):
            found, near = found[start:end], near[start:end]
        hits.append(Hits(view, where, found, near, field.metric, field.number, asked.payloads, asked.vectors))
    return hits


def _shown(rows: I32, distances: F32, metric: Metric, asked: Asked) -> tuple[int, int]:
    """Which of the results are hits: from the offset to the first that is missing or beyond a limit."""
    end = len(rows)
    if end and rows[-1] < 0:
        end = int(np.argmax(rows < 0))
    if asked.max_distance is not None:
        end = int(np.searchsorted(distances[:end], asked.max_distance, "right"))
    if asked.min_score is not None:
        scores = scores_of(metric, distances[:end])
        end = int(np.searchsorted(-scores, -asked.min_score, "right"))
    return min(asked.offset, end), end


@lru_cache(maxsize=1024)
def _everywhere(number: int, count: int) -> I32:
    """`count` times the same segment; shared, so read-only."""
    where = np.full(count, number, np.int32)
    where.flags.writeable = False
    return where
