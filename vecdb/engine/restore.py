"""Making a database of a snapshot, in a fresh directory, with everything checked before the directory gets its name.

    source     manifest whole, names generated, every file there and as long as it says; nothing was written so far
    fetch      each file copied and hashed; a stream of rows becomes a catalog
    log        the batches of the snapshot, and with `until` those of the archive up to there, in one new log
    check      the catalog names exactly these files; every collection opens, and answers queries (restore_check.py)
    place      the directory is renamed to `path`

The new database has an identity of its own, so that its log is never mixed with what the old one wrote later.
"""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from vecdb.engine import registry
from vecdb.engine.recover import find_newest_catalog
from vecdb.engine.restore_check import check_database, check_names
from vecdb.engine.rewind import Moment, apply_schema, batches_until, chunks_of, moment, replay_chunks, schema_at
from vecdb.engine.snapshot import SnapshotInfo, check_place, info_of
from vecdb.errors import Corrupted
from vecdb.files import names
from vecdb.files.disk import check_space
from vecdb.files.record import FILE_HEADER_SIZE, FileHeader, decode_file_header
from vecdb.files.seams import Seams
from vecdb.files.workplace import Workplace
from vecdb.storage.catalog import LmdbCatalog, MapFull, Table, create_catalog
from vecdb.storage.manifest import ANOTHER, ManifestEntry
from vecdb.storage.schema import UUID_KEY, Superblock, new_uuid, seal
from vecdb.storage.snapshot_forms import DirectoryForm
from vecdb.storage.snapshot_source import Resolved, open_source
from vecdb.storage.stream import Rows, read_stream
from vecdb.storage.wal import sealed_log
from vecdb.storage.wal_scan import LoggedBatch, whole_batches
from vecdb.threads import Pool

REBUILD_BYTES = 64 << 20  # rows of the catalog in one commit
FETCHERS = 4  # files copied at a time; hashing leaves the interpreter


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, and how long it took.

    uuid      of the new database; that of the snapshot's is in `vecdb.verify_snapshot`
    lsn       its last batch
    replayed  batches that were taken from a log, the snapshot's or an archive's
    queries   searches and reads that were answered as the records say, before the directory got its name
    seconds   from the call to the rename: the recovery time
    """

    path: str
    uuid: str
    lsn: int
    files: int
    bytes: int
    records: int
    replayed: int
    queries: int
    seconds: float


def restore(
    snapshot: str | os.PathLike[str],
    path: str | os.PathLike[str],
    until: int | dt.datetime | None = None,
    *,
    wal_archive: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> RestoreReport:
    """Makes a database in the new directory `path` of a snapshot: a directory, one file, or a URI.

    until         the last batch (lsn) that it shall hold, or a time (UTC if naive); None: all that there is
    wal_archive   the directories that `vecdb.open(..., wal_archive=...)` filled since the snapshot; the "wal"
                  directory of the database itself holds what is newest

    Nothing is written outside of `path` and, while it is made, `path` + ".tmp". Everything is checked before the
    directory appears: digests of all files, that the catalog names these and no others, that every collection opens
    and answers queries. AlreadyExists, Corrupted, NotFound, UnsupportedFormat, StorageFailed; none leaves anything.
    """
    began = time.monotonic()
    seams = registry.DEFAULT_SEAMS
    target = Path(os.path.abspath(Path(check_place("path", path)).expanduser()))
    wanted = moment(until, wal_archive)
    source = Resolved(open_source(seams, check_place("snapshot", snapshot)))
    manifest = source.source.manifest
    with Workplace(seams.disk, target) as work, closing(DirectoryForm(seams.disk, work)) as form:
        check_space(work.path, manifest.size)
        made = _Made(seams, source, form)
        superblock = made.superblock()
        made.fetch()
        chunks = chunks_of(batches_until(seams, manifest, logged_batches(source), wanted))
        first = next(chunks)
        made.write_log(superblock.uuid, first)
        form.complete()
        made.check()
        made.adopt(superblock.uuid)
        replayed = len(first) + made.go_on(superblock, wanted, chunks)
        lsn, records, queries = check_database(seams, work.path)
        form.settle()  # files went to the disk while they were checked
        seams.disk.reach("restore:written", manifest.lsn)
        seams.disk.reach("restore:checked", lsn)
        work.place()
        seams.disk.reach("restore:placed", lsn)
    return RestoreReport(
        str(target),
        str(uuid.UUID(bytes=superblock.uuid)),
        lsn,
        len(manifest.entries),
        manifest.size,
        records,
        replayed,
        queries,
        time.monotonic() - began,
    )


class _Made:
    """The database while it is made in a workplace."""

    def __init__(self, seams: Seams, source: Resolved, form: DirectoryForm) -> None:
        self.seams, self.source, self.form = seams, source, form
        self.manifest = source.source.manifest

    def superblock(self) -> Superblock:
        """Written under a name that does not count yet; with a new identity."""
        _, data = self.source.bytes_of(names.SUPERBLOCK)
        old = Superblock.decode(data, f"{self.source.source.place}/{names.SUPERBLOCK}")
        if old.uuid != self.manifest.uuid:
            raise Corrupted(self.source.source.place, 0, f"its superblock is that of another database; {ANOTHER}")
        made = replace(old, uuid=new_uuid(self.seams.random.bytes(16)))
        self.form.put(names.SUPERBLOCK + names.TEMPORARY, [made.encode()])
        self.form.settle()  # synced before it gets its name
        return made

    def fetch(self) -> None:
        """The immutable files and the catalog."""
        plain = [e for e in self.manifest.entries if e.path.startswith(("segments/", "catalog-"))]
        for entry in plain:
            self.form.place_of(entry.path)
        with Pool(FETCHERS, "vecdb-restore") as pool:
            stream = self.manifest.find(names.CATALOG_STREAM)
            if stream is not None:
                self._rebuild(stream)
            for _ in pool.map(self._copy, sorted(plain, key=lambda entry: -entry.size)):
                pass

    def _copy(self, entry: ManifestEntry) -> None:
        self.form.put(entry.path, self.source.pieces(entry))

    def _rebuild(self, entry: ManifestEntry) -> None:
        create_catalog(self.seams, self.form.root)
        catalog = LmdbCatalog(self.seams, self.form.root, 1, writable=True, look="nothing")
        try:
            place = f"{self.source.source.place}/{entry.path}"
            for rows in _gathered(read_stream(self.source.pieces(entry), place)):
                try:
                    _commit(catalog, rows)
                except MapFull:
                    catalog.compact()
                    _commit(catalog, rows)
        finally:
            catalog.close()

    def write_log(self, identity: bytes, batches: Iterable[LoggedBatch]) -> None:
        start, random = self.manifest.applied_lsn + 1, self.seams.random
        header = FileHeader(identity, 1, start, int.from_bytes(random.bytes(8), "little"))
        pieces = sealed_log(header, self.seams.clock.time_ns(), ((b.lsn, b.time_ns, b.payload) for b in batches))
        self.form.put(f"{names.WAL_DIRECTORY}/{names.wal(start, random.bytes(16))}", pieces)

    def check(self) -> None:
        """The catalog is that of the manifest."""
        check_names(self.seams, self.form.root, self.manifest, self.source.source.place)

    def adopt(self, identity: bytes) -> None:
        """The catalog becomes that of the new database."""
        number = find_newest_catalog(self.seams.disk, self.form.root)
        catalog = LmdbCatalog(self.seams, self.form.root, number, writable=True, look="nothing")
        try:
            _commit(catalog, [(Table.DATABASE, [(UUID_KEY, seal(UUID_KEY, identity))])])
        finally:
            catalog.close()

    def go_on(self, superblock: Superblock, wanted: Moment, chunks: Iterator[list[LoggedBatch]]) -> int:
        """The schema of the moment, and the batches beyond the first chunk, which are counted."""
        schema = schema_at(self.seams, self.manifest, wanted)
        following = next(chunks, None)
        if schema is not None or following is not None:
            self.form.settle()
        if schema is not None:
            apply_schema(self.seams, self.form.root, find_newest_catalog(self.seams.disk, self.form.root), schema)
        return replay_chunks(self.seams, self.form.root, superblock, following, chunks)


def logged_batches(source: Resolved) -> list[LoggedBatch]:
    """Those of the snapshot's own log, which must be whole."""
    manifest, place = source.source.manifest, source.source.place
    entry, data = source.bytes_of("wal/")
    header, place = decode_file_header(data[:FILE_HEADER_SIZE]), f"{place}/{entry.path}"
    applied, lsn = manifest.applied_lsn, manifest.lsn
    if not isinstance(header, FileHeader) or header.uuid != manifest.uuid or header.start_lsn != applied + 1:
        raise Corrupted(place, 0, f"the log is not that of the snapshot; {ANOTHER}")
    batches, end, closed = [], FILE_HEADER_SIZE, False
    for batch, end, closed in whole_batches(memoryview(data), header):  # noqa: B007  the last ones count
        if batch is not None:
            batches.append(batch)
    numbers = [batch.lsn for batch in batches]
    if not closed or end != len(data) or len(numbers) != lsn - applied or numbers != list(range(applied + 1, lsn + 1)):
        raise Corrupted(place, end, f"the log does not go from batch {applied + 1} to {lsn}; {ANOTHER}")
    return batches


def _commit(catalog: LmdbCatalog, rows: list[tuple[Table, Rows]]) -> None:
    with catalog.write() as writer:
        for table, part in rows:
            writer.put_many(table, part)


def _gathered(frames: Iterable[tuple[Table, Rows]]) -> Iterator[list[tuple[Table, Rows]]]:
    """Frames of about REBUILD_BYTES together."""
    gathered, size = [], 0
    for table, rows in frames:
        gathered.append((table, rows))
        size += sum(len(key) + len(value) for key, value in rows)
        if size >= REBUILD_BYTES:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


def verify_snapshot(snapshot: str | os.PathLike[str]) -> SnapshotInfo:
    """Reads every byte of a snapshot and compares it with the manifest: digests, the stream of rows, the log.

    Corrupted names what is damaged; NotFound, UnsupportedFormat, StorageFailed. Nothing is written. Snapshots that
    share files by hard links share damage too, with each other and with the database.
    """
    seams = registry.DEFAULT_SEAMS
    found = open_source(seams, check_place("snapshot", snapshot))
    source = Resolved(found)
    for entry in found.manifest.entries:
        pieces = source.pieces(entry)
        if entry.path == names.CATALOG_STREAM:
            pieces = (b"" for _ in read_stream(pieces, f"{found.place}/{entry.path}"))
        for _ in pieces:
            pass
    logged_batches(source)
    return info_of(found.place, found.manifest, found.digest)
