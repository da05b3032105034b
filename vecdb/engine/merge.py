"""Merging neighbouring segments into one, without the rows whose deletion the catalog knows; their graphs go along.

A row may go only when its deletion has an lsn up to `applied_lsn`: what only the log holds must find its row again.
Deletions that come while the merge runs are mapped by row when the views change. Only neighbours merge, so that rows
stay in order of sequence within and across segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vecdb.engine.apply import replace_views
from vecdb.engine.build import code_segment
from vecdb.engine.carry import carry_indexes
from vecdb.engine.checkpoint import BLOCK_ROWS, carry_deletions, put_deletion_chunk, put_segment
from vecdb.engine.commit import flush_pending
from vecdb.engine.interrupts import held_interrupts, naming, taking_over
from vecdb.engine.load import load_segment
from vecdb.engine.schema import change_catalog, stored_collection
from vecdb.engine.sources import Source, source_of
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.view import Segment
from vecdb.files.disk import remove_tree
from vecdb.storage.catalog import Table, Writer
from vecdb.storage.columns import merge_sealed
from vecdb.storage.ids import IdColumn
from vecdb.storage.plausible import decode_deletions
from vecdb.storage.schema import (
    CollectionMeta,
    FieldMeta,
    SegmentEntry,
    collection_key,
    encode_collection,
    segment_key,
    unseal,
)
from vecdb.storage.sealed import Draft, DraftField, Files, Sealed, write_segment
from vecdb.types import I32, I64, Progress, Vectors


def merge(engine: Engine, state: CollectionState, storages: Sequence[Sealed], progress: Progress) -> None:
    """Replaces neighbouring segments by one, or by none when nothing of them lives. Held: maintenance_lock."""
    for storage in storages:  # damage must not get a new checksum
        storage.verify(engine.segment_directory(state.meta.number, storage.entry.number))
    sources = [source_of(engine, state, storage) for storage in storages]
    entry, files = _write(engine, state, sources, progress)
    engine.seams.disk.reach("merge:written")
    made = [] if entry is None else [engine.segment_directory(state.meta.number, entry.number)]
    with engine.catalog_lock, held_interrupts():
        if state.dropped:
            return  # the purge of the collection removes what was written
        with naming(engine, made):
            change_catalog(engine, lambda writer: _commit(engine, writer, state, sources, entry, files))
        engine.seams.disk.reach("merge:committed")
        with taking_over(engine):
            new = None if entry is None else load_segment(engine, state.meta, entry, engine.snapshot)
            _install(engine, state, sources, new)
    with engine.removal_lock:
        for source in sources:
            remove_tree(engine.seams.disk, engine.segment_directory(state.meta.number, source.storage.entry.number))
    engine.seams.disk.reach("merge:removed")


# ---- files ----------------------------------------------------------------------------------------------------------
def _write(
    engine: Engine, state: CollectionState, sources: list[Source], progress: Progress
) -> tuple[SegmentEntry | None, Files]:
    rows = sum(len(source.keep) for source in sources)
    if rows == 0:
        return None, {}
    number = state.take_segment_number()
    directory = engine.segment_directory(state.meta.number, number)
    try:
        meta = state.meta
        entry, files, _ = write_segment(engine.seams.disk, directory, meta, number, _draft(meta, sources, progress))
        entry, files = carry_indexes(engine, state, meta, sources, entry, files, progress)
        return code_segment(engine, meta, entry, files)
    except BaseException:
        remove_tree(engine.seams.disk, directory)
        raise


def _draft(meta: CollectionMeta, sources: list[Source], progress: Progress) -> Draft:
    starts = np.cumsum([0, *(len(source.keep) for source in sources)])
    placed = [(source, source.renumbered(start)) for source, start in zip(sources, starts[:-1].tolist(), strict=True)]
    total = int(starts[-1])
    fields = [_draft_field(field, placed, total, progress) for field in meta.fields]
    return Draft(
        np.concatenate([source.storage.sequences[source.keep] for source in sources]),
        IdColumn.gather([(source.storage.ids, source.keep) for source in sources]),
        tuple(field for field in fields if field is not None and field.count),
        merge_sealed([(source.storage.columns, renumbered) for source, renumbered in placed], total),
    )


def _draft_field(
    meta: FieldMeta, placed: Sequence[tuple[Source, I32]], total: int, progress: Progress
) -> DraftField | None:
    """The field's rows of all sources, each with the new rows of its records; a progress call for each block copied."""
    parts: list[tuple[Vectors, I32]] = []  # (vectors of a source, its field rows that stay)
    places: list[I32] = []
    for source, renumbered in placed:
        field = source.storage.fields.get(meta.number)
        if field is not None:
            kept = source.kept_of_field(meta.number)
            parts.append((field.matrix.vectors, kept))
            places.append(renumbered[kept if field.rows_of is None else field.rows_of[kept]])
    if not parts:
        return None
    rows = np.concatenate(places)
    dim = parts[0][0].shape[1]

    def blocks() -> Iterator[Vectors]:
        done = 0
        for vectors, chosen in parts:
            for first in range(0, len(chosen), BLOCK_ROWS):
                block = vectors[chosen[first : first + BLOCK_ROWS]]
                done += len(block)
                progress(done, len(rows))
                yield block

    return DraftField(meta, dim, len(rows), None if len(rows) == total else rows, blocks)


# ---- commit and views -----------------------------------------------------------------------------------------------
def _commit(
    engine: Engine,
    writer: Writer,
    state: CollectionState,
    sources: list[Source],
    entry: SegmentEntry | None,
    files: Files,
) -> None:
    collection = state.meta.number
    meta = stored_collection(writer, collection)
    if meta is None:
        return
    ended: list[I64] = []
    for source in sources:
        prefix = segment_key(collection, source.storage.entry.number)
        ended += [decode_deletions(unseal(key, value)) for key, value in writer.scan(Table.DELETIONS, prefix)]
        for table in (Table.DELETIONS, Table.FILES, Table.SEGMENTS):
            for key, _ in writer.scan(table, prefix):
                writer.delete(table, key)
    if entry is not None:
        put_segment(writer, collection, entry, files)
        kept = np.concatenate([source.storage.sequences[source.keep] for source in sources])
        gone = np.unique(np.concatenate([*ended, np.zeros(0, np.int64)]))
        places = np.minimum(np.searchsorted(kept, gone), len(kept) - 1)  # ascending, by invariant
        put_deletion_chunk(writer, collection, entry.number, engine.state.applied_lsn, gone[kept[places] == gone])
    counted = replace(meta, next_segment=state.next_segment)
    writer.put(Table.COLLECTIONS, collection_key(collection), encode_collection(counted))


def _install(engine: Engine, state: CollectionState, sources: list[Source], new: Segment | None) -> None:
    with engine.both_locks():
        flush_pending(engine)
        if state.dropped:
            return
        view = state.view
        old = {id(source.storage): source for source in sources}
        parts = [(segment, old[id(segment.storage)].keep) for segment in view.segments if id(segment.storage) in old]
        segments: list[Segment] = []
        for segment in view.segments:
            if id(segment.storage) not in old:
                segments.append(segment)
            elif segment is parts[0][0] and new is not None:
                segments.append(carry_deletions(new, parts))
        replace_views(state, replace(view, segments=tuple(segments)))
        engine.filters.forget(set(old))
