"""What a snapshot holds, decided while writers go on: one catalog, the files that it names, and the log to one batch.

    lsn      the last acknowledged batch when the cut begins, or the batch of the catalog when that went on meanwhile
    catalog  as of one commit; batches up to its `applied_lsn` are in it
    files    everything that the catalog names: linked, or mapped to be copied. Nothing is removed meanwhile
    batches  those after `applied_lsn`, up to `lsn`

The writer's process keeps its own maintenance from removing files (`removal_lock`) for as long as links and maps take.
Another process cannot: there a file may vanish between the catalog and its link, and the cut is taken anew.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vecdb.engine.recover import READ_ATTEMPTS, follow
from vecdb.engine.state import Engine, log
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files import names
from vecdb.files.arrays import ArrayEntry
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.manifest import ManifestEntry
from vecdb.storage.schema import STATE_KEY, decode_file, decode_state, file_path
from vecdb.storage.wal_scan import LoggedBatch, scan

MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, None}
WRITER_ATTEMPTS = 3  # the first write after an unclean stop may rewrite the log that is being read
PAGE_ROWS = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Named:
    """An immutable file that the catalog names, by its path in the database."""

    path: str
    entry: ArrayEntry

    def listed(self, at: int = 0) -> ManifestEntry:
        return ManifestEntry(self.path, self.entry.size, self.entry.digest, at)


@dataclass(frozen=True, slots=True)
class Cut:
    """`maps`: the content of the files that were not linked, by path. `time_ns`: before the catalog was taken."""

    lsn: int
    applied_lsn: int
    time_ns: int
    files: tuple[Named, ...]
    maps: dict[str, memoryview]
    batches: tuple[LoggedBatch, ...]


Link = Callable[[Path, str], bool]  # (file of the database, its path): whether it got its name in the snapshot


def in_attempts(engine: Engine, take: Callable[[int], T]) -> T:
    """`take(n)` from the newest facts, again when files vanished under it."""
    attempts = WRITER_ATTEMPTS if engine.writable else READ_ATTEMPTS
    for number in range(1, attempts):
        try:
            return _attempt(engine, take, number)
        except Corrupted:
            continue
        except StorageFailed as error:
            if error.errno not in MISSING:
                raise
    return _attempt(engine, take, attempts)


def _attempt(engine: Engine, take: Callable[[int], T], number: int) -> T:
    engine.check_open()
    if not engine.writable:
        follow(engine)
    return take(number)


def cut(engine: Engine, catalog: Callable[[], Reader], link: Link) -> Cut:
    """`catalog` is called when nothing can be removed any more, and hands over the catalog of the snapshot."""
    acknowledged = engine.published_lsn
    engine.seams.disk.reach("snapshot:begun", acknowledged)
    with engine.removal_lock:
        engine.check_open()
        time_ns = engine.seams.clock.time_ns()
        if engine.archive is not None:
            time_ns = max(time_ns, engine.archive.noted_ns)
        reader = catalog()
        applied = decode_state(reader.get(Table.DATABASE, STATE_KEY)).applied_lsn
        files, maps = _gather(engine, reader, link)
        batches = _tail(engine, applied, acknowledged)
    engine.seams.disk.reach("snapshot:cut", acknowledged)
    return Cut(max(acknowledged, applied), applied, time_ns, files, maps, batches)


def _gather(engine: Engine, reader: Reader, link: Link) -> tuple[tuple[Named, ...], dict[str, memoryview]]:
    files: list[Named] = []
    maps: dict[str, memoryview] = {}
    for named, place in named_files(engine.path, reader):
        try:
            if engine.seams.disk.size(place) != named.entry.size:
                raise Corrupted(place, 0, "the file is not what the catalog says; run vecdb verify on the database")
            if not link(place, named.path):
                maps[named.path] = engine.seams.disk.map(place, named.entry.size)
        except (Corrupted, StorageFailed) as error:
            if not names.is_index_file(named.path) or not engine.writable:
                raise
            log.warning("the snapshot leaves out a damaged file of an index, which will be rebuilt: %s", error)
            continue
        files.append(named)
    return tuple(files), maps


def named_files(directory: Path, reader: Reader) -> Iterator[tuple[Named, Path]]:
    """Every file that a catalog names, with its place below the directory of the database."""
    after: bytes | None = None
    while rows := reader.page(Table.FILES, b"", after, PAGE_ROWS):
        for key, value in rows:
            segment = names.segment(int.from_bytes(key[:4], "big"), int.from_bytes(key[4:8], "big"))
            path = f"{names.SEGMENT_DIRECTORY}/{segment}/{file_path(key)}"
            yield Named(path, decode_file(key, value)), directory / path
        after = rows[-1][0]


def _tail(engine: Engine, applied: int, upto: int) -> tuple[LoggedBatch, ...]:
    found = scan(engine.seams.disk, engine.wal_directory, engine.superblock.uuid, applied)
    if found.last_lsn < upto:
        raise StorageFailed(f"{engine.wal_directory} changed while it was read; take the snapshot again")
    return tuple(batch for batch in found.batches if batch.lsn <= upto)
