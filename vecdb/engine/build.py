"""Indexes of sealed segments: which one is wanted, building it beside the old one, and putting it in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vecdb.engine.apply import replace_views
from vecdb.engine.commit import flush_pending
from vecdb.engine.interrupts import held_interrupts, naming, taking_over
from vecdb.engine.load import open_slot, segment_files
from vecdb.engine.schema import change_catalog
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.view import FieldView, Segment
from vecdb.engine.wanted import sealed_codes, wanted_options
from vecdb.files import names
from vecdb.files.disk import remove_tree
from vecdb.files.priority import lower_priority
from vecdb.index.base import Index, load_kind
from vecdb.options import IndexOptions
from vecdb.storage.catalog import Table, Writer
from vecdb.storage.schema import (
    CollectionMeta,
    FieldEntry,
    FieldMeta,
    IndexEntry,
    SegmentEntry,
    decode_segment,
    encode_file,
    encode_segment,
    file_key,
    segment_key,
)
from vecdb.storage.sealed import Files, Sealed, SealedField, open_segment, write_index_arrays
from vecdb.threads import Pool
from vecdb.types import Matrix, Progress

SEED = 20_240


def code_segment(engine: Engine, meta: CollectionMeta, entry: SegmentEntry, files: Files) -> tuple[SegmentEntry, Files]:
    """Scan codes for the fields of a segment that is being written: fast enough to be part of sealing."""
    directory = engine.segment_directory(meta.number, entry.number)
    storage = open_segment(engine.seams.disk, directory, meta, entry, files)
    for field in storage.fields.values():
        field_meta = next(f for f in meta.fields if f.number == field.entry.number)
        kinds = tuple(index.kind for index in field.entry.indexes)
        options = sealed_codes(field_meta, field.matrix.rows, field.matrix.dim, kinds)
        if options is not None:
            index = build_index(engine, field, options, None)
            changed, added = store_index(engine, meta.number, entry, field.entry, index, options)
            entry, files = entry.with_field(changed), {**files, **added}
    return entry, files


def build_index(engine: Engine, field: SealedField, options: IndexOptions, progress: Progress | None) -> Index:
    def build(threads: int, checked: Progress) -> Index:
        return load_kind(options.kind).build(field.matrix, options, seed=SEED, threads=threads, progress=checked)

    return build_apart(engine, field.matrix, build, progress)


def build_apart(
    engine: Engine, matrix: Matrix, build: Callable[[int, Progress], Index], progress: Progress | None
) -> Index:
    """build(threads, progress), over `matrix`, on a thread of low priority, for searches share the processors.

    `progress` is called on that thread.
    """
    engine.kernels.wait_for_all(matrix.vectors.dtype.name)
    cancelled = threading.Event()

    def checked(done: int, total: int) -> None:
        if cancelled.is_set():
            raise InterruptedError("the build was given up")
        if progress is not None:
            progress(done, total)

    with Pool(1, "vecdb-build", lower_priority) as pool:
        try:
            return pool.submit(build, engine.kernels.threads, checked).result()
        except BaseException:
            cancelled.set()
            raise


def store_index(
    engine: Engine, collection: int, entry: SegmentEntry, field: FieldEntry, index: Index, options: IndexOptions
) -> tuple[FieldEntry, Files]:
    """Writes the arrays of an index in a directory of its own; no catalog names it yet."""
    directory = engine.segment_directory(collection, entry.number)
    number = engine.take_index_number(collection, entry.number, field)
    try:
        files = write_index_arrays(engine.seams.disk, directory, field.number, number, index.arrays())
    except BaseException:
        remove_tree(engine.seams.disk, directory / names.index_directory(field.number, number))
        raise
    parameters = index.parameters()
    made = IndexEntry(
        number, options.kind, asdict(options), str(parameters["quantiser"]), index.indexed_rows, parameters
    )
    others = tuple(old for old in field.indexes if old.kind != options.kind)
    return replace(field, indexes=(*others, made), next_index=number + 1), files


# ---- one missing index ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Missing:
    """An index that a sealed segment should have and has not. `drop`: kinds it has and should not."""

    state: CollectionState
    segment: Segment
    field: int
    options: IndexOptions | None
    drop: tuple[str, ...]


def lacks(meta: FieldMeta, field: FieldView) -> IndexOptions | None:
    """The first index that the field should have and has not, or has with other options or damaged."""
    for options in wanted_options(meta, field.matrix.rows, field.matrix.dim):
        slot = (field.indexes or {}).get(options.kind)
        if slot is None or slot.damaged or dict(slot.entry.options) != asdict(options):
            return options
    return None


def find_missing(state: CollectionState) -> Missing | None:
    for segment in state.view.segments:
        if not isinstance(segment.storage, Sealed):
            continue
        for number, field in segment.fields.items():
            missing = _missing_in(state, segment, number, field)
            if missing is not None:
                return missing
    return None


def _missing_in(state: CollectionState, segment: Segment, number: int, field: FieldView) -> Missing | None:
    meta = next(f for f in state.meta.fields if f.number == number)
    options = lacks(meta, field)
    if options is not None:
        return Missing(state, segment, number, options, ())
    wanted = {options.kind for options in wanted_options(meta, field.matrix.rows, field.matrix.dim)}
    surplus = tuple(kind for kind in field.indexes or {} if kind not in wanted)
    return Missing(state, segment, number, None, surplus) if surplus else None


def complete(engine: Engine, missing: Missing, progress: Progress) -> None:
    """Builds what is missing and commits it; the old index serves until then. Held: maintenance_lock."""
    storage = missing.segment.storage
    assert isinstance(storage, Sealed)
    field, collection = storage.fields[missing.field], missing.state.meta.number
    files: Files = {}
    changed = field.entry
    if missing.options is not None:
        index = build_index(engine, field, missing.options, progress)
        changed, files = store_index(engine, collection, storage.entry, field.entry, index, missing.options)
        engine.seams.disk.reach("index:written")
    kept = tuple(index for index in changed.indexes if index.kind not in missing.drop)
    change_field(engine, missing.state, storage, replace(changed, indexes=kept), files)


def change_field(engine: Engine, state: CollectionState, storage: Sealed, changed: FieldEntry, files: Files) -> None:
    """Commits another entry of a field, with the `files` of new indexes, and shows it. Held: maintenance_lock."""
    before, collection = storage.fields[changed.number].entry, state.meta.number
    with engine.catalog_lock, held_interrupts():
        with naming(engine, _new_directories(engine, collection, storage, before, changed)):
            change_catalog(engine, lambda writer: _commit(writer, collection, storage, changed, files))
        engine.seams.disk.reach("index:committed")
        with taking_over(engine):
            _install(engine, state, storage, changed)
    _remove_old(engine, collection, storage, before, changed)


def _new_directories(
    engine: Engine, collection: int, storage: Sealed, before: FieldEntry, after: FieldEntry
) -> list[Path]:
    old = {index.number for index in before.indexes}
    directory = engine.segment_directory(collection, storage.entry.number)
    new = [index.number for index in after.indexes if index.number not in old]
    return [directory / names.index_directory(before.number, number) for number in new]


def _commit(writer: Writer, collection: int, storage: Sealed, field: FieldEntry, files: Files) -> None:
    key = segment_key(collection, storage.entry.number)
    stored = writer.get(Table.SEGMENTS, key)
    if stored is None:
        return
    entry = decode_segment(key, stored)
    old = entry.field(field.number)
    kept = {index.number for index in field.indexes}
    for index in old.indexes if old else ():
        if index.number not in kept:
            prefix = file_key(
                collection, entry.number, names.index_directory(field.number, index.number).as_posix() + "/"
            )
            for file_key_bytes, _ in writer.scan(Table.FILES, prefix):
                writer.delete(Table.FILES, file_key_bytes)
    for path, file in files.items():
        at = file_key(collection, entry.number, path)
        writer.put(Table.FILES, at, encode_file(at, file))
    writer.put(Table.SEGMENTS, key, encode_segment(collection, entry.with_field(field)))


def _install(engine: Engine, state: CollectionState, storage: Sealed, field: FieldEntry) -> None:
    with engine.both_locks():
        flush_pending(engine)
        if state.dropped:
            return
        key = segment_key(state.meta.number, storage.entry.number)
        stored = engine.snapshot.get(Table.SEGMENTS, key)
        if stored is None:
            return
        storage.entry = decode_segment(key, stored)
        storage.files = segment_files(state.meta.number, storage.entry.number, engine.snapshot)
        old = storage.fields[field.number]
        sealed = storage.fields[field.number] = SealedField(field, old.matrix, old.rows_of)
        segments = tuple(
            _with_indexes(engine, state.meta, segment, sealed) if segment.storage is storage else segment
            for segment in state.view.segments
        )
        replace_views(state, replace(state.view, segments=segments))


def _with_indexes(engine: Engine, meta: CollectionMeta, segment: Segment, field: SealedField) -> Segment:
    storage, number = segment.storage, field.entry.number
    assert isinstance(storage, Sealed)
    old = segment.fields[number]
    slots = {}
    for index in field.entry.indexes:
        slot = (old.indexes or {}).get(index.kind)
        if slot is None or slot.entry.number != index.number:
            slot = open_slot(engine, meta, storage, field, index, storage.files)
        slot.entry = index  # its parameters may be others
        slots[index.kind] = slot
    return segment.changed(fields={**segment.fields, number: replace(old, indexes=slots)})


def _remove_old(engine: Engine, collection: int, storage: Sealed, before: FieldEntry, after: FieldEntry) -> None:
    kept = {index.number for index in after.indexes}
    directory = engine.segment_directory(collection, storage.entry.number)
    for index in before.indexes:
        if index.number not in kept:
            engine.damaged.discard((collection, storage.entry.number, before.number, index.number))
            with engine.removal_lock:
                remove_tree(engine.seams.disk, directory / names.index_directory(before.number, index.number))
