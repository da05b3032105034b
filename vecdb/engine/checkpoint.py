"""A checkpoint: frozen growing segments become files, and the catalog moves on to their last batch.

    C0 C1  freeze      sync the log, choose the lsn, go on in a new log file       (freeze.py)
    C2-C4  seal        segment files written and synced, nothing names them yet
    C5     commit      ids, payloads, deletions, segments and `applied_lsn` in one catalog transaction
    C6     install     views show the sealed segment in the place of the growing one
    C7     retire      log files that the catalog covers are removed

Deletions after the frozen lsn stay in memory and in the log: they are bits of the views only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np

from vecdb.engine.apply import replace_views
from vecdb.engine.build import code_segment
from vecdb.engine.commit import flush_pending
from vecdb.engine.freeze import freeze
from vecdb.engine.interrupts import held_interrupts, naming, taking_over
from vecdb.engine.load import load_segment
from vecdb.engine.schema import change_catalog, stored_collection
from vecdb.engine.state import CollectionState, Engine, Frozen
from vecdb.engine.view import Segment
from vecdb.files.disk import remove_tree
from vecdb.files.pacing import give_way
from vecdb.kernels import bitset
from vecdb.storage.catalog import Table, Writer
from vecdb.storage.growing import REMOVED, Growing, GrowingField
from vecdb.storage.ids import IdColumn
from vecdb.storage.schema import (
    STATE_KEY,
    SegmentEntry,
    collection_key,
    decode_state,
    deletion_key,
    encode_collection,
    encode_file,
    encode_record,
    encode_segment,
    encode_sequence,
    encode_state,
    file_key,
    id_key,
    record_key,
    seal,
    segment_key,
)
from vecdb.storage.sealed import Draft, DraftField, Files, Sealed, write_segment
from vecdb.types import I32, I64, U64

PUT_SLICE = 128  # catalog entries written before other threads get a turn
BLOCK_ROWS = 8192  # vectors copied at a time


@dataclass(frozen=True, slots=True)
class SealedDraft:
    """Files of a segment that no catalog names yet. `keep`: the rows of the growing segment that it holds."""

    state: CollectionState
    growing: Growing
    keep: I32
    entry: SegmentEntry | None
    files: Files
    paths: tuple[str, ...]

    def directory(self, engine: Engine) -> Path:
        """Where the files are; a segment of no rows has none."""
        number = 0 if self.entry is None else self.entry.number
        return engine.segment_directory(self.state.meta.number, number)


def checkpoint(engine: Engine, *, codes: bool = True) -> bool:
    """Seals what is frozen, or freezes first. False when there is nothing to seal. Held: maintenance_lock.

    codes   whether the segments get their scan codes now, or later from maintenance
    """
    if not engine.frozen:
        with engine.both_locks():
            if not freeze(engine):
                return False
    frozen = engine.frozen[0]
    drafts = _seal_all(engine, frozen, codes)
    engine.seams.disk.reach("checkpoint:written", frozen.lsn)
    with engine.catalog_lock, held_interrupts():
        drafts = [draft for draft in drafts if not draft.state.dropped]
        with naming(engine, [draft.directory(engine) for draft in drafts]):
            change_catalog(engine, lambda writer: _commit(engine, writer, frozen, drafts))
        engine.seams.disk.reach("checkpoint:committed", frozen.lsn)
        with taking_over(engine):
            _install(engine, frozen, drafts)
    with engine.removal_lock, engine.both_locks(), held_interrupts():
        assert engine.wal is not None
        engine.wal.retire(frozen.lsn)
    engine.seams.disk.reach("checkpoint:retired", frozen.lsn)
    return True


# ---- C2-C4 ----------------------------------------------------------------------------------------------------------
def _seal_all(engine: Engine, frozen: Frozen, codes: bool) -> list[SealedDraft]:
    """A draft for each collection that is still there. When one fails, the files of the others go with it."""
    drafts: list[SealedDraft] = []
    try:
        for number, growing in list(frozen.growings.items()):
            state = engine.collections.get(number)
            if state is not None:
                drafts.append(_seal(engine, state, growing, codes))
    except BaseException:
        for draft in drafts:
            remove_tree(engine.seams.disk, draft.directory(engine))
        raise
    return drafts


def _seal(engine: Engine, state: CollectionState, growing: Growing, codes: bool) -> SealedDraft:
    number = state.meta.number
    ended = growing.rows_of_sequences(_ended(growing))
    alive = np.ones(growing.rows, np.bool_)
    alive[ended[ended >= 0]] = False
    keep = np.flatnonzero(alive).astype(np.int32)
    if len(keep) == 0:
        return SealedDraft(state, growing, keep, None, {}, state.meta.paths)
    segment = state.take_segment_number()
    directory = engine.segment_directory(number, segment)
    draft = Draft(
        growing.sequence_of(keep),
        IdColumn.from_keys(growing.keys, keep),
        tuple(field for field in (_draft_field(f, growing.rows, keep) for f in growing.fields.values()) if field.count),
        growing.columns.sealed(None if len(keep) == growing.rows else keep),
    )
    try:
        entry, files, paths = write_segment(engine.seams.disk, directory, state.meta, segment, draft)
        if codes:
            meta = replace(state.meta, paths=paths)
            entry, files = code_segment(engine, meta, entry, files)
    except BaseException:
        remove_tree(engine.seams.disk, directory)
        raise
    return SealedDraft(state, growing, keep, entry, files, paths)


def _ended(growing: Growing) -> I64:
    """Every sequence whose version ended with a batch of this growing segment."""
    return np.concatenate([deletion.sequences for deletion in growing.deletions] or [np.zeros(0, np.int64)])


def _draft_field(field: GrowingField, rows: int, keep: I32) -> DraftField:
    renumbered = np.full(rows, -1, np.int32)
    renumbered[keep] = np.arange(len(keep), dtype=np.int32)
    placed = renumbered[field.rows_of[: field.count]]
    chosen = np.flatnonzero(placed >= 0)
    rows_of = None if len(chosen) == len(keep) else placed[chosen]

    def blocks() -> Sequence[np.ndarray]:
        starts = range(0, len(chosen), BLOCK_ROWS)
        return [field.vectors[chosen[start : start + BLOCK_ROWS]] for start in starts]

    return DraftField(field.meta, field.dim, len(chosen), rows_of, blocks)


# ---- C5 -------------------------------------------------------------------------------------------------------------
def _commit(engine: Engine, writer: Writer, frozen: Frozen, drafts: list[SealedDraft]) -> None:
    for draft in drafts:
        meta = stored_collection(writer, draft.state.meta.number)
        if meta is None:
            continue
        collection, growing = meta.number, draft.growing
        _put_ids(writer, collection, growing)
        _put_records(writer, collection, growing, draft.keep)
        ended = _ended(growing)
        outside = ended[ended < growing.first_sequence]
        _put_deletions(writer, draft.state, outside, frozen.lsn)
        if draft.entry is not None:
            put_segment(writer, collection, draft.entry, draft.files)
        counted = replace(
            meta,
            next_sequence=frozen.next_sequences[collection],
            next_segment=draft.state.next_segment,
            records=meta.records + len(draft.keep) - len(outside),
            paths=draft.paths,
        )
        writer.put(Table.COLLECTIONS, collection_key(collection), encode_collection(counted))
    state = decode_state(writer.get(Table.DATABASE, STATE_KEY))
    writer.put(Table.DATABASE, STATE_KEY, encode_state(replace(state, applied_lsn=frozen.lsn)))


def _put_ids(writer: Writer, collection: int, growing: Growing) -> None:
    entries = list(growing.overlay.items())
    for start in range(0, len(entries), PUT_SLICE):
        # Sorted within a slice only: sorting all at once would hold the interpreter for a tenth of a second.
        for key, version in sorted(entries[start : start + PUT_SLICE], key=itemgetter(0)):
            stored = id_key(collection, key)
            if version.sequence == REMOVED:
                writer.delete(Table.IDS, stored)
            else:
                writer.put(Table.IDS, stored, encode_sequence(stored, version.sequence))
        give_way()


def _put_records(writer: Writer, collection: int, growing: Growing, keep: I32) -> None:
    for start in range(0, len(keep), PUT_SLICE):
        items = []
        for row in keep[start : start + PUT_SLICE].tolist():
            key = record_key(collection, growing.first_sequence + row)
            items.append((key, encode_record(key, growing.keys[row], growing.payloads[row])))
        writer.put_many(Table.RECORDS, items)
        give_way()


def _put_deletions(writer: Writer, state: CollectionState, sequences: I64, lsn: int) -> None:
    """Payloads of ended versions go; their rows are named, segment by segment."""
    collection = state.meta.number
    for at, sequence in enumerate(sequences.tolist()):
        writer.delete(Table.RECORDS, record_key(collection, sequence))
        if at % PUT_SLICE == PUT_SLICE - 1:
            give_way()
    for segment in state.view.segments:
        if isinstance(segment.storage, Sealed):
            here = sequences[segment.storage.rows_of_sequences(sequences) >= 0]
            put_deletion_chunk(writer, collection, segment.storage.entry.number, lsn, here)


def put_deletion_chunk(writer: Writer, collection: int, segment: int, lsn: int, sequences: I64) -> None:
    if len(sequences):
        key = deletion_key(collection, segment, lsn)
        writer.put(Table.DELETIONS, key, seal(key, sequences.astype("<i8").tobytes()))


def put_segment(writer: Writer, collection: int, entry: SegmentEntry, files: Files) -> None:
    writer.put(Table.SEGMENTS, segment_key(collection, entry.number), encode_segment(collection, entry))
    for path, file in files.items():
        key = file_key(collection, entry.number, path)
        writer.put(Table.FILES, key, encode_file(key, file))


# ---- C6 -------------------------------------------------------------------------------------------------------------
def _install(engine: Engine, frozen: Frozen, drafts: list[SealedDraft]) -> None:
    opened = [(draft, _open(engine, draft)) for draft in drafts]
    with engine.both_locks():
        flush_pending(engine)
        for draft, sealed in opened:
            _swap(engine, draft, sealed)
        engine.state = replace(engine.state, applied_lsn=frozen.lsn)
        engine.frozen.remove(frozen)
        engine.room.notify_all()


def _open(engine: Engine, draft: SealedDraft) -> Segment | None:
    if draft.entry is None:
        return None
    meta = replace(draft.state.meta, paths=draft.paths)
    return load_segment(engine, meta, draft.entry, engine.snapshot)


def _swap(engine: Engine, draft: SealedDraft, sealed: Segment | None) -> None:
    state, growing = draft.state, draft.growing
    view, collection = state.view, state.meta.number
    segments: list[Segment] = []
    for segment in view.segments:
        if segment.storage is not growing:
            segments.append(segment)
        elif sealed is not None:
            segments.append(carry_deletions(sealed, [(segment, draft.keep)]))
    engine.filters.forget({id(growing)})
    stored = engine.snapshot.get(Table.COLLECTIONS, collection_key(collection))
    if stored is None:
        return
    state.meta = state.stored_meta(stored)
    memtables = tuple(memtable for memtable in view.memtables if memtable is not growing)
    replace_views(
        state,
        replace(view, meta=state.meta, segments=tuple(segments), memtables=memtables, snapshot=engine.snapshot),
    )


def carry_deletions(new: Segment, parts: Sequence[tuple[Segment, I32]]) -> Segment:
    """`new` holds the kept rows of `parts`, one part after the other: what is deleted there now is deleted here."""
    masks = []
    for old, keep in parts:
        if old.deleted is None:
            masks.append(np.zeros(len(keep), np.bool_))
        else:
            masks.append(bitset.to_mask(old.deleted, old.rows)[keep])
    mask = np.concatenate(masks)
    deleted: U64 | None = bitset.from_mask(mask) if mask.any() else None
    return new.changed(deleted=deleted, deleted_count=int(mask.sum()))
