"""The one way a batch changes the state in memory, for live writes and for replay alike.

reserve   the arrays of a growing segment that is new, or of a field that is: what memory may not have
stage     rows into the growing segment, and the next view beside the published one
publish   views of durable batches, in order of lsn, each by one assignment
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vecdb.engine.state import CollectionState, Engine, Pending
from vecdb.engine.view import Segment, View, growing_segment
from vecdb.errors import StorageFailed
from vecdb.index.growing import GrowingFlat
from vecdb.storage.batch import Batch, Part
from vecdb.storage.growing import Growing, GrowingField
from vecdb.types import I64, Metric


class Reserved(NamedTuple):
    """Where a part goes: the growing segment of its collection, or a new one, and fields that are new in it."""

    growing: Growing
    fields: dict[int, GrowingField]


def reserve(state: CollectionState, part: Part) -> Reserved:
    """Room for `part`, up to 256 MiB at once. Nothing changes before it is staged. Held: append_lock."""
    growing = state.growing
    if growing is None:
        growing = Growing(state.meta, state.next_sequence, len(part.keys))
    with enough_memory():
        return Reserved(growing, growing.reserve(state.meta, part))


@contextmanager
def enough_memory() -> Iterator[None]:
    """StorageFailed for a MemoryError inside."""
    try:
        yield
    except MemoryError as error:
        raise StorageFailed(
            errno.ENOMEM,
            "there is not enough memory to take this batch, and nothing of it was written; free some, or raise the "
            "limit (ulimit -v), and try again",
        ) from error


def stage(engine: Engine, batch: Batch, states: Sequence[CollectionState], rooms: Sequence[Reserved]) -> None:
    """Takes a logged batch; `states` are the collections of its parts, `rooms` what `reserve` gave for each.

    Held: append_lock. Nothing here can refuse.
    """
    views = []
    for state, part, room in zip(states, batch.parts, rooms, strict=True):
        growing = state.growing
        if growing is None:
            growing = state.growing = room.growing
            state.flats = {}
        growing.stage(batch.lsn, part, room.fields)
        state.next_sequence = part.first_sequence + len(part.keys)
        state.staged = _next_view(state, growing, batch.lsn, part)
        views.append((state, state.staged))
    engine.pending.append(Pending(batch.lsn, tuple(views)))
    engine.last_lsn = batch.lsn
    engine.last_write = engine.seams.clock.monotonic()
    if engine.dirty_since is None:
        engine.dirty_since = engine.last_write


def _next_view(state: CollectionState, growing: Growing, lsn: int, part: Part) -> View:
    view = state.staged
    segments = without_sequences(view.segments, part.superseded)
    before = next((s for s in segments if s.storage is growing), None)
    sealed = tuple(segment for segment in segments if segment is not before)
    _reserve_codes(state, growing)
    grown = growing_segment(growing, growing.rows, state.flats, before)
    memtables = view.memtables if growing in view.memtables else (*view.memtables, growing)
    return replace(view, lsn=lsn, segments=(*sealed, grown), memtables=memtables)


def _reserve_codes(state: CollectionState, growing: Growing) -> None:
    for number, field in growing.fields.items():
        if number not in state.flats:
            state.flats[number] = GrowingFlat(growing.capacity, field.dim, Metric(field.meta.metric))


def without_sequences(segments: tuple[Segment, ...], sequences: I64) -> tuple[Segment, ...]:
    """The segments after these versions ended."""
    if len(sequences) == 0:
        return segments
    changed = list(segments)
    for i, segment in enumerate(segments):
        rows = segment.storage.rows_of_sequences(sequences)
        rows = np.unique(rows[rows >= 0])
        if len(rows):
            changed[i] = segment.with_deleted(rows)
    return tuple(changed)


def publish(engine: Engine, upto: int) -> None:
    """Shows every staged batch up to lsn `upto`. Held: append_lock."""
    while engine.pending and engine.pending[0].lsn <= upto:
        batch = engine.pending.popleft()
        for state, view in batch.views:
            state.view = view
    engine.published_lsn = max(engine.published_lsn, upto)


def replace_views(state: CollectionState, view: View) -> None:
    """Maintenance publishes a rearranged picture of the same records. Held: append_lock, with nothing pending."""
    state.staged = view
    state.view = view
