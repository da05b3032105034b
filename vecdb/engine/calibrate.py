"""Measuring what searches cost here, as a step of maintenance: once a machine for a kind of segment, once a graph."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from vecdb.engine.build import change_field, lacks
from vecdb.engine.costs import read_walks, stored_walks
from vecdb.engine.door import Door, open_door, place_of
from vecdb.engine.measure import measure_lines, measure_walks
from vecdb.engine.plans import costs_of
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.view import FieldView, Segment
from vecdb.storage.sealed import Sealed
from vecdb.types import Progress

MEASURED_ROWS = 50_000  # below this any way to search is fast


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A field of a sealed segment whose costs are not known. `walks`: nor how walks of its graph go."""

    state: CollectionState
    segment: Segment
    number: int
    walks: bool


def find_unmeasured(engine: Engine) -> Unmeasured | None:
    """Kernels must be loaded: nothing is compiled to measure it."""
    for state in list(engine.collections.values()):
        if state.dropped:
            continue
        for segment, number, field in _large(state):
            if not engine.kernels.ready(field.matrix.vectors.dtype.name) or not _complete(state, number, field):
                continue
            slot = (field.indexes or {}).get("hnsw")
            walks = slot is not None and not slot.damaged and read_walks(slot.entry.parameters) is None
            if walks or _unknown(engine, open_door(engine.kernels, field)):
                return Unmeasured(state, segment, number, walks)
    return None


def _large(state: CollectionState) -> Iterator[tuple[Segment, int, FieldView]]:
    for segment in state.view.segments:
        for number, field in segment.fields.items():
            if isinstance(segment.storage, Sealed) and field.matrix.rows >= MEASURED_ROWS:
                yield segment, number, field


def _complete(state: CollectionState, number: int, field: FieldView) -> bool:
    return lacks(next(meta for meta in state.meta.fields if meta.number == number), field) is None


def _unknown(engine: Engine, door: Door) -> bool:
    place = place_of(door)
    return place is not None and engine.costs.find(place) is None


def calibrate(engine: Engine, missing: Unmeasured, progress: Progress) -> None:
    """Measures, keeps the costs in the cache directory, and how walks go with the graph. Held: maintenance_lock."""
    field = missing.segment.fields[missing.number]
    door = open_door(engine.kernels, field)
    place = place_of(door)

    def tick() -> None:
        progress(0, 1)

    if place is not None and engine.costs.find(place) is None:
        when = dt.datetime.fromtimestamp(engine.seams.clock.time_ns() / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        engine.costs.put(place, measure_lines(door, tick), when)
    if missing.walks and door.graph is not None:
        _keep_walks(engine, missing, door, tick)


def _keep_walks(engine: Engine, missing: Unmeasured, door: Door, tick: Callable[[], None]) -> None:
    walks = measure_walks(door, costs_of(door, engine.costs)[0], tick)
    storage = missing.segment.storage
    assert isinstance(storage, Sealed)
    before = storage.fields[missing.number].entry
    indexes = tuple(
        replace(index, parameters={**index.parameters, **stored_walks(walks)}) if index.kind == "hnsw" else index
        for index in before.indexes
    )
    change_field(engine, missing.state, storage, replace(before, indexes=indexes), {})
