"""The log beyond its use for recovery: kept, so that a snapshot can be brought to any moment after it.

    <lsn>-<uuid>.wal        log files as they were, linked or copied here before they are removed from the database
    <lsn>-<time>.schema     every collection as it is from this batch and this time on; written before the commit that
                            makes it so, because changes of the schema are not in the log, and again after it

Names are never used twice, and nothing here is written over. Files of other databases may lie beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgpack

from vecdb.errors import Corrupted, InvalidInput, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk, copy_file, is_directory, read_file, remove_tree, try_link, write_file
from vecdb.files.record import FILE_HEADER_SIZE, FileHeader, decode_file_header
from vecdb.files.seams import Seams
from vecdb.storage.catalog import Table
from vecdb.storage.manifest import decoding, disclose, enclose
from vecdb.storage.schema import STATE_KEY, CollectionMeta, decode_collection, decode_state
from vecdb.storage.wal_scan import LoggedBatch, is_torn, whole_batches

SCHEMA_MAGIC = b"VECDBSCH"
SCHEMA_FORMAT = 1
LSN_MAX = 1 << 62


class Tables(Protocol):
    """A reader or a writer of a catalog."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...
    def scan(self, table: Table, prefix: bytes, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Schema:
    """The collections from batch `lsn` and `time_ns` on. Their counters mean nothing here."""

    uuid: bytes
    lsn: int
    time_ns: int
    next_collection: int
    collections: tuple[CollectionMeta, ...]


class Archive:
    """The writing end, of one database. Only its writer calls it."""

    def __init__(self, seams: Seams, directory: Path, uuid: bytes) -> None:
        self.seams, self.directory, self.uuid = seams, directory, uuid
        if not is_directory(seams.disk, directory):
            if seams.disk.kind(directory) is not None or not is_directory(seams.disk, directory.parent):
                raise InvalidInput(f"wal_archive= must be a directory, or a new one in one that exists: {directory}")
            seams.disk.make_directory(directory)
            seams.disk.sync_directory(directory.parent)
        numbers = [names.schema_numbers(name) for name in seams.disk.list(directory)]
        self.noted_ns = max((found[1] for found in numbers if found is not None), default=0)
        self.noted: Any = None  # what the last description said
        self.ahead: int | None = None  # the batch of a description of a commit that may not be

    def keep(self, paths: Sequence[Path]) -> None:
        """Returns when every file has a synced second name, or a synced copy, here."""
        disk = self.seams.disk
        for path in paths:
            target = self.directory / path.name
            found = disk.size(target)
            if found is not None:  # from an attempt that ended before the file was removed
                size = disk.size(path) or 0
                if found != size and not self._was_cut(path, size, target, found):
                    raise StorageFailed(f"{target} is there already with another content; give each database its own")
            elif not try_link(disk, path, target):
                self._copy(path, target)
        if paths:
            disk.sync_directory(self.directory)
            disk.reach("archive:kept")

    def _was_cut(self, path: Path, size: int, target: Path, found: int) -> bool:
        """Whether `target` is of the same file, and has the unsynced end too that the file lost with the power."""
        disk = self.seams.disk
        same = read_file(disk, path, FILE_HEADER_SIZE) == read_file(disk, target, FILE_HEADER_SIZE)
        return same and found > size >= FILE_HEADER_SIZE

    def _copy(self, path: Path, target: Path) -> None:
        disk, temporary = self.seams.disk, target.with_suffix(names.TEMPORARY)
        if disk.size(temporary) is not None:
            disk.remove(temporary)
        copy_file(disk, path, temporary)
        disk.rename(temporary, target)

    def note_of(self, tables: Tables, lsn: int, *, ahead: bool = False) -> None:
        """Describes the collections of a catalog, if they are not as last described. `ahead`: before the commit."""
        rows = list(tables.scan(Table.COLLECTIONS, b""))
        metas = [decode_collection(key, value) for key, value in rows]
        told = [(meta.number, meta.name, meta.uuid, meta.fields) for meta in metas]
        if told == self.noted:
            return
        state = decode_state(tables.get(Table.DATABASE, STATE_KEY))
        time_ns = max(self.noted_ns + 1, self.seams.clock.time_ns())
        body = msgpack.packb([self.uuid, lsn, time_ns, state.next_collection, [list(row) for row in rows]])
        while self.seams.disk.size(target := self.directory / names.schema(lsn, time_ns)) is not None:
            time_ns += 1  # of another database, or of an attempt that failed
        self.ahead = lsn if ahead else None
        temporary = target.with_suffix(names.TEMPORARY)
        remove_tree(self.seams.disk, temporary)  # of an attempt that failed
        write_file(self.seams.disk, temporary, enclose(SCHEMA_MAGIC, SCHEMA_FORMAT, body))
        self.seams.disk.rename(temporary, target)
        self.seams.disk.sync_directory(self.directory)
        self.noted, self.noted_ns = told, time_ns

    def settle(self, tables: Tables) -> None:
        """Describes what came of the commit that was described ahead. A snapshot of the time between the two may lack
        it, and a commit that failed is not to be believed. Where this fails, the next change describes it."""
        if self.ahead is not None:
            self.noted = None
            with contextlib.suppress(StorageFailed):
                self.note_of(tables, self.ahead)


# ---- reading --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    header: FileHeader


def archived_batches(disk: Disk, directories: Sequence[Path], uuid: bytes, after: int) -> Iterator[LoggedBatch]:
    """Every batch after lsn `after`, in order, to the end of what there is. Corrupted where some are missing.

    Where two epochs have a batch, the later one is right: the earlier was given up at an unclean stop.
    """
    files, need = _log_files(disk, directories, uuid), after + 1
    while True:
        begun = need
        for kept in _candidates(files, need):
            end = min((f.header.start_lsn for f in files if _overtakes(f, kept, need)), default=LSN_MAX)
            for batch in _read(disk, kept):
                if batch.lsn == need and need < end:
                    yield batch
                    need += 1
            if need > begun:
                break
        else:
            break
    later = [kept for kept in files if kept.header.start_lsn > need]
    if later:
        first = min(later, key=lambda kept: kept.header.start_lsn)
        last = first.header.start_lsn - 1
        raise Corrupted(first.path, 0, f"batches {need} to {last} before it are missing from the archive, or damaged")
    for kept in _candidates(files, need):
        if kept.header.epoch == max(other.header.epoch for other in files):
            _check_tail(disk, kept)


def _check_tail(disk: Disk, kept: _Kept) -> None:
    """A torn tail may end the log; what was on disk may not be missing from it."""
    data = memoryview(read_file(disk, kept.path))
    end = max((end for _, end, _ in whole_batches(data, kept.header)), default=FILE_HEADER_SIZE)
    if not is_torn(data, kept.header, end):
        raise Corrupted(kept.path, end, "the log is damaged in a part that was on disk; the batches after it are lost")


def _overtakes(other: _Kept, kept: _Kept, need: int) -> bool:
    return other.header.epoch > kept.header.epoch and other.header.start_lsn > need


def _candidates(files: Sequence[_Kept], need: int) -> list[_Kept]:
    """Files that may hold batch `need`: in each epoch those that start last before it, the newest epoch first."""
    found: list[_Kept] = []
    for epoch in sorted({kept.header.epoch for kept in files}, reverse=True):
        begun = [kept for kept in files if kept.header.epoch == epoch and kept.header.start_lsn <= need]
        last = max((kept.header.start_lsn for kept in begun), default=0)
        found += [kept for kept in begun if kept.header.start_lsn == last]
    return found


def _log_files(disk: Disk, directories: Sequence[Path], uuid: bytes) -> list[_Kept]:
    found: dict[str, _Kept] = {}
    for directory in directories:
        for name in disk.list(directory):
            if names.wal_start(name) is None or name in found:
                continue
            header = decode_file_header(read_file(disk, directory / name, FILE_HEADER_SIZE))
            if not isinstance(header, FileHeader):
                raise Corrupted(directory / name, 0, "the header of the log file is damaged")
            if header.uuid == uuid:
                found[name] = _Kept(directory / name, header)
    return list(found.values())


def _read(disk: Disk, kept: _Kept) -> Iterator[LoggedBatch]:
    data = memoryview(read_file(disk, kept.path))
    return (batch for batch, _, _ in whole_batches(data, kept.header) if batch is not None)


def archived_schemas(disk: Disk, directories: Sequence[Path], uuid: bytes) -> list[Schema]:
    """Every description of the database's collections, oldest first."""
    found = []
    for directory in directories:
        for name in disk.list(directory):
            if names.schema_numbers(name) is None:
                continue
            schema = decode_schema(read_file(disk, directory / name), directory / name)
            if schema.uuid == uuid:
                found.append(schema)
    return sorted(found, key=lambda schema: schema.time_ns)


def decode_schema(data: bytes, path: Path) -> Schema:
    body = disclose(data, SCHEMA_MAGIC, SCHEMA_FORMAT, str(path))
    with decoding(str(path)):
        uuid, lsn, time_ns, next_collection, rows = msgpack.unpackb(body)
        return Schema(uuid, lsn, time_ns, next_collection, tuple(decode_collection(key, value) for key, value in rows))
