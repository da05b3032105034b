"""Repair: a new database with everything that can be read of a damaged one, and an account of what cannot.

The damaged directory is only read. The new one is written through the usual write path, beside its final name, and
gets that name when it is complete; so a repair that is interrupted can be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from vecdb.engine import write_calls
from vecdb.engine.catalog_salvage import hopeless, readable_catalog
from vecdb.engine.findings import RepairedCollection, RepairReport
from vecdb.engine.inspection import DAMAGE, UNREADABLE
from vecdb.engine.recover import read_superblock
from vecdb.engine.registry import acquire, release
from vecdb.engine.salvage import CollectionSalvage
from vecdb.engine.salvage_entries import Entries, guess_meta
from vecdb.engine.salvage_segment import Salvaged
from vecdb.engine.schema import DEFAULT_FIELD, create_collection
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.verify import verify
from vecdb.errors import Corrupted, InvalidInput, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk, give_name, remove_tree
from vecdb.files.lock import QuietLock
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions, VectorField
from vecdb.storage.batch import Part, decode
from vecdb.storage.catalog import Table
from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack
from vecdb.storage.schema import STATE_KEY, CollectionMeta, decode_collection, decode_state
from vecdb.storage.wal_salvage import LogTail, salvage
from vecdb.types import Id

ROWS = 512  # records written at a time


class Rebuilt:
    """One collection of the new database while it is written, and the keys of what is missing from it."""

    def __init__(self, engine: Engine, meta: CollectionMeta, guessed: bool) -> None:
        self.engine, self.meta, self.guessed = engine, meta, guessed
        fields = {
            field.name: VectorField(field.dim, field.metric.name.lower(), field.index or "auto", field.dtype)
            for field in meta.fields
        }
        self.state: CollectionState = create_collection(
            engine, meta.name, fields or {DEFAULT_FIELD: VectorField()}, meta.columns
        )
        self.names = {field.number: field.name for field in meta.fields}
        self.lost: dict[bytes, None] = {}
        self.without_payload: dict[bytes, None] = {}
        self.without_vectors: dict[bytes, None] = {}
        self.outdated: dict[bytes, None] = {}
        self.lost_unnamed = 0

    def write(self, records: Iterable[Salvaged]) -> None:
        """New versions of these records; what was missing of older ones does not matter any more."""
        remaining = iter(records)
        while chunk := list(islice(remaining, ROWS)):
            vectors: dict[str, Any] = {}
            for number, name in self.names.items():
                given = [record.vectors.get(number) for record in chunk]
                if any(vector is not None for vector in given):
                    vectors[name] = given
            ids = [decode_key(record.key) for record in chunk]
            payloads = [{} if record.payload is None else record.payload for record in chunk]
            write_calls.upsert(self.engine, self.state, ids, vectors or None, payloads)
            for record in chunk:
                self.forget(record.key)
                if record.payload is None:
                    self.without_payload[record.key] = None
                if record.lost_fields:
                    self.without_vectors[record.key] = None

    def remove(self, keys: Iterable[bytes]) -> None:
        removed = list(keys)
        write_calls.delete(self.engine, self.state, [decode_key(key) for key in removed], None)
        for key in removed:
            self.forget(key)

    def take(self, part: Part) -> None:
        """What a batch of the log does."""
        if part.removed:
            self.remove(part.removed)
        placed = {}
        for number, block in part.vectors.items():
            rows = range(len(part.keys)) if block.rows is None else block.rows.tolist()
            placed[number] = dict(zip(rows, block.values, strict=True))
        unknown = tuple(number for number in placed if number not in self.names)
        records = []
        for row, (key, packed) in enumerate(zip(part.keys, part.payloads, strict=True)):
            vectors = {number: given[row] for number, given in placed.items() if row in given}
            lost = tuple(number for number in unknown if number in vectors)
            records.append(Salvaged(key, _unpacked(packed), vectors, lost))
        self.write(records)

    def forget(self, key: bytes) -> None:
        for missing in (self.lost, self.without_payload, self.without_vectors):
            missing.pop(key, None)

    def told(self) -> RepairedCollection:
        return RepairedCollection(
            self.meta.name,
            self.state.view.records,
            _ids(self.lost),
            self.lost_unnamed,
            _ids(self.without_payload),
            _ids(self.without_vectors),
            _ids(self.outdated),
            self.guessed,
        )


def _unpacked(packed: bytes) -> dict[str, Any] | None:
    try:
        return unpack(packed)
    except UNREADABLE:
        return None


def _ids(keys: Iterable[bytes]) -> tuple[Id, ...]:
    return tuple(decode_key(key) for key in keys)


def repair(source: Path, new: Path, seams: Seams) -> RepairReport:
    """Writes what can be read of `source` to `new`, which must not exist.

    Locked while a process writes `source`, Corrupted when its catalog cannot be read at all: nothing is written then.
    """
    temporary = new.with_name(new.name + names.TEMPORARY)
    _check_free(seams.disk, new, temporary)
    lock = QuietLock(source / names.LOCK)
    try:
        damage = verify(source, seams, None, False, None).findings
        with readable_catalog(seams, source, temporary) as catalog:
            entries = Entries(catalog)
            collections, tail = _write(source, temporary, seams, entries)
        sound = verify(temporary, seams, None, False, None, DAMAGE).ok
        give_name(seams.disk, temporary, new)
    except BaseException:
        remove_tree(seams.disk, temporary)
        raise
    finally:
        lock.release()
    lost = (tail.next_lsn, max(tail.highest, tail.next_lsn)) if tail.damage else None
    more = Table.COLLECTIONS in entries.unread
    return RepairReport(str(source), str(new), damage, collections, more, len(tail.batches), lost, sound)


def _check_free(disk: Disk, new: Path, temporary: Path) -> None:
    if disk.kind(new.parent) != "directory":
        raise InvalidInput(f"{new.parent} does not exist; create it first")
    if disk.kind(new) is not None:
        raise InvalidInput(f"{new} exists; give a directory that is to be created")
    if disk.kind(temporary) is not None:
        raise InvalidInput(f"{temporary} is left of a repair that did not end; move it away, or give another name")


def _write(
    source: Path, temporary: Path, seams: Seams, entries: Entries
) -> tuple[tuple[RepairedCollection, ...], LogTail]:
    """Everything that can be read, into `temporary`."""
    applied, metas, guessed = _collections(entries)
    if Table.COLLECTIONS in entries.unread and not metas:
        raise hopeless(source, "no collection is told of")
    tail = salvage(seams.disk, source / names.WAL_DIRECTORY, _uuid(source, seams), applied)
    engine = acquire(temporary, "rw", DatabaseOptions(sync="none"), seams)
    try:
        rebuilt = {meta.number: Rebuilt(engine, meta, meta.number in guessed) for meta in metas}
        for one in rebuilt.values():
            _write_collection(one, source, seams, entries)
        for at, batch in enumerate(tail.batches):
            try:
                parts = decode(batch.payload)
            except UNREADABLE as error:  # its checksum is right: whoever wrote it was wrong
                tail.damage.insert(0, Corrupted(source / names.WAL_DIRECTORY, 0, f"batch {batch.lsn}: {error}"))
                tail.beyond[:0] = tail.batches[at + 1 :]
                del tail.batches[at:]
                break
            for part in parts:
                if part.collection in rebuilt:  # the others were dropped
                    rebuilt[part.collection].take(part)
        _note_outdated(rebuilt, tail)
        return tuple(one.told() for one in rebuilt.values()), tail
    finally:
        release(engine)


def _collections(entries: Entries) -> tuple[int | None, list[CollectionMeta], set[int]]:
    """(applied_lsn if it can be read, every collection, numbers of those whose description is lost)"""
    applied: int | None
    try:
        applied = decode_state(entries.get(Table.DATABASE, STATE_KEY)).applied_lsn
    except UNREADABLE:
        applied = None  # every batch that the log has is taken again: what it wrote, it writes again
    metas, guessed = [], set()
    for key, value in entries.under(Table.COLLECTIONS, b""):
        try:
            metas.append(decode_collection(key, value))
        except UNREADABLE:
            number = int.from_bytes(key[:4], "big")
            guessed.add(number)
            metas.append(guess_meta(number, entries))
    return applied, metas, guessed


def _uuid(source: Path, seams: Seams) -> bytes | None:
    try:
        return read_superblock(seams, source, writable=False).uuid
    except (Corrupted, StorageFailed):
        return None  # the log files name it too


def _write_collection(one: Rebuilt, source: Path, seams: Seams, entries: Entries) -> None:
    found = CollectionSalvage(one.meta)
    one.write(found.records(seams.disk, source, entries))
    one.lost.update(dict.fromkeys(found.lost_keys(entries)))
    if not one.guessed:
        one.lost_unnamed = max(0, one.meta.records - len(found.kept) - len(one.lost))


def _note_outdated(rebuilt: Mapping[int, Rebuilt], tail: LogTail) -> None:
    for batch in tail.beyond:
        try:
            parts = decode(batch.payload)
        except UNREADABLE:
            continue  # the number of the batch tells that it is lost
        for part in parts:
            if part.collection in rebuilt:
                rebuilt[part.collection].outdated.update(dict.fromkeys((*part.keys, *part.removed)))
