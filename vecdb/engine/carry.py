"""The graphs and lists of a merge: each field's are carried over from the segment that brings most of it.

So the new segment has its index from the commit on, and until then the old ones serve with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from vecdb.engine.build import build_apart, store_index
from vecdb.engine.slots import IndexSlot
from vecdb.engine.sources import Source
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.wanted import wanted_options
from vecdb.index.base import Index
from vecdb.options import Flat, IndexOptions
from vecdb.storage.schema import CollectionMeta, SegmentEntry
from vecdb.storage.sealed import Files, open_segment
from vecdb.types import I32, Matrix, Progress


def carry_indexes(
    engine: Engine,
    state: CollectionState,
    meta: CollectionMeta,
    sources: Sequence[Source],
    entry: SegmentEntry,
    files: Files,
    progress: Progress,
) -> tuple[SegmentEntry, Files]:
    """The graphs and lists that the new segment should have and that a source has; others are built later."""
    directory = engine.segment_directory(meta.number, entry.number)
    storage = open_segment(engine.seams.disk, directory, meta, entry, files)
    for number, field in storage.fields.items():
        field_meta = next(f for f in meta.fields if f.number == number)
        for options in wanted_options(field_meta, field.matrix.rows, field.matrix.dim):
            if isinstance(options, Flat):
                continue
            index = _carried(engine, state, sources, number, options, field.matrix, progress)
            if index is not None:
                changed, added = store_index(engine, meta.number, entry, field.entry, index, options)
                entry, files = entry.with_field(changed), {**files, **added}
    return entry, files


def _carried(
    engine: Engine,
    state: CollectionState,
    sources: Sequence[Source],
    number: int,
    options: IndexOptions,
    matrix: Matrix,
    progress: Progress,
) -> Index | None:
    slots = _slots(state, sources, number, options)
    at = _richest(sources, number, [slot is not None for slot in slots])
    slot = None if at is None else slots[at]
    if at is None or slot is None:
        return None
    old = slot.get_checked()
    if old is None:
        return None
    new_rows = _new_rows(sources, number, at)

    def carry(threads: int, checked: Progress) -> Index:
        return old.carried(matrix, new_rows, threads=threads, progress=checked)

    return build_apart(engine, matrix, carry, progress)


def _slots(
    state: CollectionState, sources: Sequence[Source], number: int, options: IndexOptions
) -> list[IndexSlot | None]:
    """The index of each source that was made with these options and is not known to be damaged."""
    views = {id(segment.storage): segment for segment in state.view.segments}
    slots: list[IndexSlot | None] = []
    for source in sources:
        segment = views.get(id(source.storage))
        field = None if segment is None else segment.fields.get(number)
        slot = None if field is None else (field.indexes or {}).get(options.kind)
        fits = slot is not None and not slot.damaged and dict(slot.entry.options) == asdict(options)
        slots.append(slot if fits else None)
    return slots


def _richest(sources: Sequence[Source], number: int, indexed: Sequence[bool]) -> int | None:
    """Which of the indexed sources brings most: the rows that it keeps, and those that others may hold again."""
    kept = [len(source.kept_of_field(number)) for source in sources]
    free = sum(count for count, has in zip(kept, indexed, strict=True) if not has)
    best, most = None, 0
    for at, source in enumerate(sources):
        if indexed[at]:
            gone = source.storage.fields[number].matrix.rows - kept[at]
            brings = kept[at] + min(gone, free)
            if brings > most:
                best, most = at, brings
    return best


def _new_rows(sources: Sequence[Source], number: int, at: int) -> I32:
    """The new row of each row of the field in sources[at], -1 for one that goes."""
    start = sum(len(source.kept_of_field(number)) for source in sources[:at])
    kept = sources[at].kept_of_field(number)
    rows = np.full(sources[at].storage.fields[number].matrix.rows, -1, np.int32)
    rows[kept] = np.arange(start, start + len(kept), dtype=np.int32)
    return rows
