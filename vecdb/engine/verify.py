"""Verification: everything that a database says of itself is looked at, and nothing is changed.

    superblock, catalog   they can be read, and every value has its checksum
    files                 sizes, headers and checksums are those that the catalog knows
    rows                  ids, sequences, payloads, deletions and counts agree, both ways
    columns, indexes      values are in range, and searches can find every row
    log                   it can be read to its end, and follows from the catalog

A live database is looked at beside its writer, in one picture of its catalog.
"""

from __future__ import annotations

from pathlib import Path

from vecdb.engine.findings import VerifyReport
from vecdb.engine.inspection import (
    UNREADABLE_PLACES,
    Inspection,
    OpenedSegment,
    Picture,
    catalog_place,
    has_moved_on,
    take_picture,
)
from vecdb.engine.recover import find_newest_catalog, follow, may_lock, read_superblock
from vecdb.engine.state import Engine
from vecdb.engine.verify_ids import Rows, check_count, check_deletions, check_ids, check_records
from vecdb.engine.verify_index import check_indexes
from vecdb.engine.verify_log import check_log
from vecdb.engine.verify_segment import check_columns, check_fields, check_files, rows_of_segment
from vecdb.errors import Corrupted, NotFound, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk, is_directory
from vecdb.files.seams import Seams
from vecdb.storage.catalog import Catalog, LmdbCatalog, Reader, Table
from vecdb.storage.catalog_check import DATA
from vecdb.storage.catalog_probe import probe
from vecdb.storage.schema import CollectionMeta, Superblock
from vecdb.types import Progress

ATTEMPTS = 20  # a writer may merge away what is about to be mapped; each attempt starts from newer facts
BEYOND = b"\xff"  # sorts after every key of a collection
ENTRY_TABLES = (Table.SEGMENTS, Table.FILES, Table.IDS, Table.RECORDS, Table.DELETIONS)


class Target:
    """A database directory: the catalog of the engine that has it open, or one opened for the occasion."""

    def __init__(self, path: Path, seams: Seams, engine: Engine | None) -> None:
        self.path, self.seams, self.engine = path, seams, engine
        self.own: LmdbCatalog | None = None

    def read(self) -> Reader:
        """A snapshot of the newest catalog. A writer may retire the one that is about to be opened."""
        while True:
            newest = find_newest_catalog(self.seams.disk, self.path)
            try:
                return self._read(newest)
            except (Corrupted, StorageFailed):
                if newest == find_newest_catalog(self.seams.disk, self.path):
                    raise

    def _read(self, newest: int) -> Reader:
        if self.engine is not None:
            if not self.engine.writable and self.engine.catalog.generation != newest:
                follow(self.engine)  # LMDB opens a directory once per process, so the handle moves on with us
            catalog: Catalog = self.engine.catalog
        else:
            if self.own is None or self.own.generation != newest:
                self.close()
                locked = may_lock(self.seams.disk, self.path)
                self.own = LmdbCatalog(self.seams, self.path, newest, writable=False, locked=locked, look="pages")
            catalog = self.own
        return catalog.read()

    def close(self) -> None:
        if self.own is not None:
            self.own.close()
            self.own = None


def verify(
    path: Path,
    seams: Seams,
    engine: Engine | None,
    deep: bool,
    progress: Progress | None,
    damage: frozenset[int] = UNREADABLE_PLACES,
) -> VerifyReport:
    """Looks at the database in `path`; `engine` is the one of this process, if it has the database open.

    damage   errnos of the system that are findings; what it refuses with any other is raised as StorageFailed

    NotFound, UnsupportedFormat and StorageFailed where there is nothing to look at; damage is never raised.
    """
    run, target = Inspection(path, deep, progress, damage), Target(path, seams, engine)
    superblock = _superblock(run, path, seams)
    try:
        picture = _picture(run, target)
        if picture is not None:
            with picture:
                _check_all(run, target, superblock, picture)
    finally:
        target.close()
    run.tick(run.total)
    metas = {} if picture is None else picture.metas
    return VerifyReport(
        str(path),
        deep,
        tuple(run.findings),
        tuple(run.indexes),
        len(metas),
        sum(meta.records for meta in metas.values()),
        run.files,
        run.bytes,
        run.batches,
    )


def _superblock(run: Inspection, path: Path, seams: Seams) -> Superblock | None:
    if not is_directory(seams.disk, path):
        raise NotFound(f"there is no database at {path}")
    if not {names.SUPERBLOCK, names.WAL_DIRECTORY, names.SEGMENT_DIRECTORY}.intersection(seams.disk.list(path)):
        raise NotFound(f"there is no database at {path}")
    try:
        return read_superblock(seams, path, writable=False)
    except Corrupted as error:
        run.found(names.SUPERBLOCK, f"{error.reason}; without it the log cannot be looked at")
    except StorageFailed as error:
        run.found_failure(error, names.SUPERBLOCK, "; without it the log cannot be looked at")
    return None


def _picture(run: Inspection, target: Target) -> Picture | None:
    """What the catalog says, with its files mapped; None after a finding if it cannot be read."""
    try:
        newest = find_newest_catalog(target.seams.disk, target.path)
        wrong = _fault_of_catalog(run, target, newest)
        # A writer may have compacted the catalog away while it was being read.
        if wrong is not None and newest == find_newest_catalog(target.seams.disk, target.path):
            run.found(names.catalog(newest), wrong)
            return None
        picture = _opened(run, target)
    except Corrupted as error:
        run.found_error(error)
        return None
    run.findings += picture.findings
    run.total = picture.size + (target.seams.disk.size(target.path / names.catalog(newest) / DATA) or 0) + 1
    return picture


def _fault_of_catalog(run: Inspection, target: Target, generation: int) -> str | None:
    try:
        target.seams.disk.open(target.path / names.catalog(generation) / DATA).close()
    except StorageFailed as error:
        if error.errno not in run.damage:
            raise
        return str(error)
    fault = probe(target.path, generation, locked=may_lock(target.seams.disk, target.path))
    return None if fault is None else fault.reason


def _opened(run: Inspection, target: Target) -> Picture:
    picture = take_picture(target.read(), target.seams.disk, target.path, run.damage)
    for _ in range(ATTEMPTS):
        if not any(segment.missing for segment in picture.segments):
            break
        fresh = target.read()
        if not has_moved_on(picture, fresh):
            fresh.close()
            break
        picture.reader.close()
        picture = take_picture(fresh, target.seams.disk, target.path, run.damage)
    return picture


def _check_all(run: Inspection, target: Target, superblock: Superblock | None, picture: Picture) -> None:
    try:
        _check_strays(run, picture)
        for meta in picture.metas.values():
            _check_collection(run, target.seams.disk, picture, meta)
    except Corrupted as error:
        run.found_error(error)
    if superblock is not None:
        check_log(run, target.seams.disk, superblock.uuid, target.read)


def _check_strays(run: Inspection, picture: Picture) -> None:
    """Entries of collections that never were. Those of a dropped one wait for the purge."""
    for table in ENTRY_TABLES:
        after: bytes | None = None
        while page := picture.reader.page(table, b"", after, 1):
            number = int.from_bytes(page[0][0][:4], "big")
            if number >= picture.state.next_collection and number not in picture.unknown:
                run.found(catalog_place(table), f"there are entries of collection {number}, which never was")
            after = page[0][0][:4] + BEYOND


def _check_collection(run: Inspection, disk: Disk, picture: Picture, meta: CollectionMeta) -> None:
    segments = [segment for segment in picture.segments if segment.meta is meta]
    opened = []
    for segment in segments:
        check_files(run, disk, segment)
        check_fields(run, segment)
        check_columns(run, segment)
        opened.append(rows_of_segment(run, segment))
    _check_numbers(run, picture, meta, segments)
    rows = Rows(segments, opened, meta.number not in picture.unknown)
    check_deletions(run, picture, rows)
    for segment, live in zip(segments, rows.live, strict=True):
        check_indexes(run, segment, live)
    check_ids(run, picture, meta, rows)
    check_records(run, picture, meta, rows)
    check_count(run, meta, rows)


def _check_numbers(run: Inspection, picture: Picture, meta: CollectionMeta, segments: list[OpenedSegment]) -> None:
    """What is given out next was never given out, and segments follow each other."""
    place = catalog_place(Table.COLLECTIONS)
    if meta.number >= picture.state.next_collection:
        run.found(place, f"{meta.name}: its number {meta.number} is yet to be given out")
    if sum(other.name == meta.name for other in picture.metas.values()) > 1:
        run.found(place, f"{meta.name}: another collection has the same name")
    last = 0
    for segment in segments:
        entry = segment.entry
        if entry.number >= meta.next_segment or entry.last_sequence >= meta.next_sequence:
            run.found(place, f"{meta.name}: {segment.name} has numbers that are yet to be given out")
        if entry.first_sequence <= last:
            run.found(place, f"{meta.name}: {segment.name} overlaps the one before it")
        last = entry.last_sequence
    strays = {segment.entry.number for segment in segments}
    if meta.number in picture.unknown:
        return
    after: bytes | None = None
    found: set[int] = set()
    while page := picture.reader.page(Table.FILES, meta.number.to_bytes(4, "big"), after, 1):
        found.add(int.from_bytes(page[0][0][4:8], "big"))
        after = page[0][0][:8] + BEYOND
    for number in sorted(found - strays):
        run.found(
            catalog_place(Table.FILES), f"{meta.name}: files of segment {number}, which the catalog does not have"
        )
