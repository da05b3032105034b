"""One run of verification: the picture that it looks at, what it has found, and how far it is.

A picture is one read transaction of the catalog with every file that it names mapped. Segments that a merge replaces
meanwhile stay readable through their maps; what went before it could be mapped is looked for in a newer picture.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from vecdb.engine.findings import RESTORE, Finding, IndexCheck
from vecdb.errors import Corrupted, InvalidInput, StorageFailed
from vecdb.files import names
from vecdb.files.arrays import open_array
from vecdb.files.disk import Disk
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.schema import (
    STATE_KEY,
    CollectionMeta,
    DatabaseState,
    SegmentEntry,
    decode_collection,
    decode_file,
    decode_segment,
    decode_state,
    file_path,
    segment_key,
)
from vecdb.storage.sealed import Files
from vecdb.types import AnyArray, Progress

# What the operating system says where a file is not the one that was written.
DAMAGE = frozenset({errno.ENOENT, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
# A place that the device cannot read is damage to whoever asks what is wrong, and a failure to whoever reads for more.
UNREADABLE_PLACES = DAMAGE | {errno.EIO}
# What decoding a value raises whose checksum is right and whose content is not, besides Corrupted.
UNREADABLE = (Corrupted, InvalidInput, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error)
T = TypeVar("T")
PAGE = 2048  # catalog entries looked at between two calls of progress


@dataclass(slots=True)
class OpenedSegment:
    """A segment of the catalog with its files mapped.

    missing   why a file could not be opened, by its path
    damaged   paths of files that are missing or fail their checksums
    """

    meta: CollectionMeta
    entry: SegmentEntry
    stored: bytes
    files: Files = field(default_factory=dict)
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    missing: dict[str, Corrupted] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{names.SEGMENT_DIRECTORY}/{names.segment(self.meta.number, self.entry.number)}"


@dataclass(slots=True)
class Picture:
    """`unknown`: numbers of collections whose description or segment list cannot be read."""

    reader: Reader
    state: DatabaseState
    metas: dict[int, CollectionMeta] = field(default_factory=dict)
    segments: list[OpenedSegment] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for segment in self.segments for file in segment.files.values())

    def decoded(self, table: Table, key: bytes, value: bytes, decode: Callable[[bytes, bytes], T]) -> T | None:
        """decode(key, value); None after a finding if that fails."""
        try:
            return decode(key, value)
        except UNREADABLE as error:
            reason = error.reason if isinstance(error, Corrupted) else f"the value at key {key.hex()} says {error!r}"
            self.findings.append(Finding(catalog_place(table), reason, RESTORE))
            return None

    def __enter__(self) -> Picture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()


class Inspection:
    """Findings and progress of one run. `progress` is told bytes; it may raise to stop the run.

    damage   errnos that are findings; a StorageFailed with any other is raised
    """

    def __init__(
        self, path: Path, deep: bool, progress: Progress | None, damage: frozenset[int] = UNREADABLE_PLACES
    ) -> None:
        self.path, self.deep, self.progress, self.damage = path, deep, progress, damage
        self.findings: list[Finding] = []
        self.indexes: list[IndexCheck] = []
        self.files, self.bytes, self.batches = 0, 0, 0
        self.done, self.total = 0, 1

    def found(self, path: str, what: str, remedy: str = RESTORE, offset: int | None = None) -> None:
        self.findings.append(Finding(path, what, remedy, offset))

    def found_error(self, error: Corrupted, remedy: str = RESTORE) -> None:
        """An error that names its place."""
        place = os.path.relpath(error.path, self.path) if os.path.isabs(error.path) else error.path
        self.found(place, error.reason, remedy, error.offset or None)

    def found_failure(self, error: StorageFailed, path: str, more: str = "") -> None:
        """What the system refused is a finding at `path`, if it tells of damage; else it is raised."""
        if error.errno not in self.damage:
            raise error
        self.found(path, f"{error}{more}")

    def tick(self, count: int) -> None:
        self.done = min(self.done + count, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)


def catalog_place(table: Table) -> str:
    return f"catalog, table {table.name.lower()}"


def take_picture(reader: Reader, disk: Disk, root: Path, damage: frozenset[int] = UNREADABLE_PLACES) -> Picture:
    """Decodes what the catalog says of collections and segments, and maps every file it names."""
    picture = Picture(reader, DatabaseState(next_collection=1 << 32))
    stored = reader.get(Table.DATABASE, STATE_KEY)
    state = picture.decoded(Table.DATABASE, STATE_KEY, stored or b"", lambda key, value: decode_state(stored))
    picture.state = state or picture.state
    for key, value in reader.scan(Table.COLLECTIONS, b""):
        meta = picture.decoded(Table.COLLECTIONS, key, value, decode_collection)
        if meta is None:
            picture.unknown.add(collection_of_key(key))
        else:
            picture.metas[meta.number] = meta
    for key, value in reader.scan(Table.SEGMENTS, b""):
        meta = picture.metas.get(collection_of_key(key))
        entry = None if meta is None else picture.decoded(Table.SEGMENTS, key, value, decode_segment)
        if meta is None or entry is None:
            picture.unknown.add(collection_of_key(key))
        else:
            segment = OpenedSegment(meta, entry, value)
            _open_files(picture, disk, root, segment, damage)
            picture.segments.append(segment)
    picture.segments.sort(key=lambda segment: (segment.meta.number, segment.entry.first_sequence))
    return picture


def collection_of_key(key: bytes) -> int:
    return int.from_bytes(key[:4], "big")


def _open_files(picture: Picture, disk: Disk, root: Path, segment: OpenedSegment, damage: frozenset[int]) -> None:
    prefix = segment_key(segment.meta.number, segment.entry.number)
    for key, value in picture.reader.scan(Table.FILES, prefix):
        path = file_path(key)
        file = picture.decoded(Table.FILES, key, value, decode_file)
        if file is None:
            segment.damaged.add(path)
            continue
        segment.files[path] = file
        try:
            segment.arrays[path] = open_array(disk, root / segment.name / path, file)
        except Corrupted as error:
            segment.missing[path] = error
            segment.damaged.add(path)
        except StorageFailed as error:
            if error.errno not in damage:
                raise
            segment.missing[path] = Corrupted(root / segment.name / path, 0, str(error))
            segment.damaged.add(path)


def has_moved_on(old: Picture, fresh: Reader) -> bool:
    """Whether the catalog lets go of segments whose files could not be opened: a merge went on meanwhile."""
    for segment in old.segments:
        key = segment_key(segment.meta.number, segment.entry.number)
        if segment.missing and fresh.get(Table.SEGMENTS, key) != segment.stored:
            return True
    return False
