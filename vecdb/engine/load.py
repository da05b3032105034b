"""From the catalog's words to open segments: files mapped, deletions as bits, indexes attached or set aside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vecdb.engine.slots import IndexSlot, check_index_arrays
from vecdb.engine.state import CollectionState, Engine, IndexPlace, log
from vecdb.engine.view import FieldView, Segment, View
from vecdb.errors import Corrupted, NotFound
from vecdb.files import names
from vecdb.kernels import bitset
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.first_use import FirstUseCheck
from vecdb.storage.plausible import decode_deletions
from vecdb.storage.schema import (
    CollectionMeta,
    IndexEntry,
    SegmentEntry,
    collection_key,
    decode_collection,
    decode_file,
    decode_segment,
    file_path,
    segment_key,
    unseal,
)
from vecdb.storage.sealed import Files, Sealed, SealedField, open_index_arrays, open_segment
from vecdb.types import U64


def collection_of(engine: Engine, number: int) -> CollectionState:
    """The state of a collection, opened on first use."""
    state = engine.collections.get(number)
    if state is None:
        with engine.append_lock:
            state = engine.collections.get(number)
            if state is None:
                state = engine.collections[number] = load_collection(engine, number)
    return state


def load_collection(engine: Engine, number: int) -> CollectionState:
    """Opens what the snapshot of the engine names. Corrupted names the file that does not fit."""
    snapshot, key = engine.snapshot, collection_key(number)
    stored = snapshot.get(Table.COLLECTIONS, key)
    if stored is None:
        raise NotFound("the collection was deleted while it was being opened; create it again")
    meta = decode_collection(key, stored)
    entries = [decode_segment(segment_key, value) for segment_key, value in snapshot.scan(Table.SEGMENTS, key)]
    entries.sort(key=lambda entry: entry.first_sequence)  # a rewritten segment has a later number than younger ones
    check = FirstUseCheck()
    segments = tuple(load_segment(engine, meta, entry, snapshot, check) for entry in entries)
    _check_count(engine, meta, segments)
    view = View(engine.state.applied_lsn, meta, segments, (), snapshot, engine.recent)
    return CollectionState(meta, view, view, meta.next_sequence, next_segment=meta.next_segment)


def _check_count(engine: Engine, meta: CollectionMeta, segments: Sequence[Segment]) -> None:
    """Segments or deletions that the catalog lost its way to are missed here."""
    found = sum(segment.live for segment in segments)
    if found != meta.records:
        path = engine.path / names.catalog(engine.catalog.generation)
        raise Corrupted(
            path, 0, f"the collection {meta.name!r} has {found} records in its segments, not {meta.records}"
        )


def load_segment(
    engine: Engine, meta: CollectionMeta, entry: SegmentEntry, reader: Reader, check: FirstUseCheck | None = None
) -> Segment:
    """A sealed segment with every file that it names open, and the deletions that the catalog knows.

    check   given when another process may have written the files
    """
    files = segment_files(meta.number, entry.number, reader)
    directory = engine.segment_directory(meta.number, entry.number)
    storage = open_segment(engine.seams.disk, directory, meta, entry, files, check)
    fields = {number: open_field(engine, meta, storage, field, files) for number, field in storage.fields.items()}
    deleted = committed_deletions(meta.number, storage, reader)
    return Segment(storage, storage.rows, fields, deleted, 0 if deleted is None else bitset.count(deleted))


def segment_files(collection: int, segment: int, reader: Reader) -> Files:
    prefix = segment_key(collection, segment)
    return {file_path(key): decode_file(key, value) for key, value in reader.scan(Table.FILES, prefix)}


def committed_deletions(collection: int, storage: Sealed, reader: Reader) -> U64 | None:
    """The rows that batches up to `applied_lsn` deleted, as bits; None for none."""
    chunks = reader.scan(Table.DELETIONS, segment_key(collection, storage.entry.number))
    sequences = [decode_deletions(unseal(key, value)) for key, value in chunks]
    if not sequences:
        return None
    rows = storage.rows_of_sequences(np.concatenate(sequences))
    return bitset.from_rows(rows[rows >= 0], storage.rows)


def open_field(engine: Engine, meta: CollectionMeta, storage: Sealed, field: SealedField, files: Files) -> FieldView:
    """A field with its complete indexes. One whose files are damaged is set aside: scanned around, and rebuilt."""
    slots: dict[str, IndexSlot] = {}
    for index in field.entry.indexes:
        if index.indexed_rows != field.matrix.rows or index_place(meta, storage, field, index) in engine.damaged:
            continue
        try:
            slots[index.kind] = open_slot(engine, meta, storage, field, index, files)
        except Corrupted as error:
            set_aside(engine, index_place(meta, storage, field, index), error)
    return FieldView(field.matrix, field.rows_of, slots)


def index_place(meta: CollectionMeta, storage: Sealed, field: SealedField, index: IndexEntry) -> IndexPlace:
    return meta.number, storage.entry.number, field.entry.number, index.number


def open_slot(
    engine: Engine, meta: CollectionMeta, storage: Sealed, field: SealedField, index: IndexEntry, files: Files
) -> IndexSlot:
    disk, number = engine.seams.disk, field.entry.number
    directory = engine.segment_directory(meta.number, storage.entry.number)
    arrays = open_index_arrays(disk, directory, number, index, files)
    place = index_place(meta, storage, field, index)
    return IndexSlot(
        index,
        field.matrix,
        arrays,
        lambda error: set_aside(engine, place, error),
        lambda: check_index_arrays(directory, number, index.number, files, arrays),
    )


def set_aside(engine: Engine, place: IndexPlace, error: Exception) -> None:
    """A damaged index serves no more; maintenance builds its successor."""
    engine.damaged.add(place)
    log.warning("index %s of collection %s is set aside and will be rebuilt: %s", place[1:], place[0], error)
    if engine.scheduler is not None:
        engine.scheduler.wake()
