"""Taking a snapshot: a directory that opens in place, one file, or objects in a store. Writers go on meanwhile.

What it holds is decided in `snapshot_cut.py`; where its files go, in `vecdb/storage/snapshot_forms.py` and
`vecdb/storage/snapshot_store.py`. Files of segments never change, so their digests are those that the catalog has, and
a snapshot that builds on another (`base`) does not write again what is there. The manifest comes last.
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vecdb.engine.snapshot_cut import Cut, Named, cut, in_attempts
from vecdb.engine.state import Engine
from vecdb.errors import Corrupted, InvalidInput
from vecdb.files import names
from vecdb.files.disk import Bytes, try_link
from vecdb.files.record import FileHeader
from vecdb.files.workplace import Workplace
from vecdb.storage.catalog import LmdbCatalog, Reader, copy_catalog, reader_beside
from vecdb.storage.manifest import Manifest, ManifestEntry, digest_of
from vecdb.storage.snapshot_forms import DirectoryForm, FileForm, pieces_of
from vecdb.storage.snapshot_source import Source, open_source
from vecdb.storage.snapshot_store import StoreForm, is_uri, open_store
from vecdb.storage.stream import write_stream
from vecdb.storage.wal import sealed_log


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot, as its manifest tells.

    form        "directory" (opens in place with mode="r"), "file" or "store" (restored with `vecdb.restore`)
    uuid, lsn   the database, and the last batch of it that the snapshot holds
    new_bytes   those that were written for it, neither linked from the database or a base nor held by a base
    bases       names of the snapshots beside it that hold the others; it is lost with them
    digest      of the manifest, hex; kept elsewhere it proves that nobody changed the snapshot
    """

    path: str
    form: str
    uuid: str
    lsn: int
    time: dt.datetime
    files: int
    bytes: int
    new_bytes: int
    bases: tuple[str, ...]
    digest: str


def info_of(path: str, manifest: Manifest, digest: bytes) -> SnapshotInfo:
    return SnapshotInfo(
        path,
        manifest.form,
        str(uuid.UUID(bytes=manifest.uuid)),
        manifest.lsn,
        manifest.time,
        len(manifest.entries),
        manifest.size,
        manifest.written,
        manifest.bases,
        digest.hex(),
    )


def snapshot(engine: Engine, dest: Any, base: Any) -> SnapshotInfo:
    """Takes a snapshot in the form that the name of `dest` asks for."""
    engine.check_open()
    target = check_place("dest", dest)
    earlier = None if base is None else open_source(engine.seams, check_place("base", base))
    if is_uri(target):
        return _to_store(engine, str(target), earlier)
    path = Path(target).expanduser().absolute()
    if path.is_relative_to(engine.path):
        raise InvalidInput(f"a snapshot cannot lie in the database itself: {path}; choose a place outside of it")
    if path.suffix == names.ONE_FILE:
        return _to_file(engine, path, earlier)
    return _to_directory(engine, path, earlier)


def check_place(name: str, value: Any) -> str:
    """A path or URI as text. InvalidInput tells which argument it is."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise InvalidInput(f"{name} must be a path or a URI such as s3://bucket/name, not {value!r}")
    text = os.fspath(value)
    if "\0" in text:
        raise InvalidInput(f"{name} holds a NUL character")
    return text


def _manifest(
    engine: Engine, form: str, taken: Cut, written: int, bases: Iterable[str], entries: list[ManifestEntry]
) -> Manifest:
    numbers = (taken.lsn, taken.applied_lsn, taken.time_ns, written)
    return Manifest(form, engine.superblock.uuid, *numbers, tuple(bases), tuple(entries))


def _log_name(engine: Engine, taken: Cut) -> str:
    name = names.wal(taken.applied_lsn + 1, engine.seams.random.bytes(16))
    return f"{names.WAL_DIRECTORY}/{name}"


def _log_bytes(engine: Engine, taken: Cut) -> Iterator[Bytes]:
    """One closed log file in an epoch of its own, with the batches that the catalog of the snapshot lacks."""
    salt = int.from_bytes(engine.seams.random.bytes(8), "little")
    header = FileHeader(engine.superblock.uuid, 1, taken.applied_lsn + 1, salt)
    batches = ((batch.lsn, batch.time_ns, batch.payload) for batch in taken.batches)
    return sealed_log(header, engine.seams.clock.time_ns(), batches)


# ---- a directory ----------------------------------------------------------------------------------------------------
def _to_directory(engine: Engine, target: Path, earlier: Source | None) -> SnapshotInfo:
    if earlier is not None and earlier.manifest.form != "directory":
        raise InvalidInput(f"a snapshot in a directory builds on another one in a directory, not on {earlier.place}")
    with Workplace(engine.seams.disk, target) as work, closing(DirectoryForm(engine.seams.disk, work)) as form:
        written = [_superblock(engine, form)]
        taken, catalog = in_attempts(engine, lambda number: _cut_directory(engine, form, number))
        unlinked = [named for named in taken.files if named.path in taken.maps]
        copied = [_fetch(form, named, taken.maps[named.path], earlier) for named in unlinked]
        written += [catalog, form.put(_log_name(engine, taken), _log_bytes(engine, taken))]
        entries = [*written, *(named.listed() for named in taken.files)]
        form.forget({entry.path for entry in entries})
        new_bytes = sum(entry.size for entry in written) + sum(copied)
        manifest = _manifest(engine, "directory", taken, new_bytes, (), entries)
        return info_of(str(target), manifest, digest_of(form.finish(manifest)))


def _superblock(engine: Engine, form: DirectoryForm) -> ManifestEntry:
    entry = form.put(names.SUPERBLOCK + names.TEMPORARY, [engine.superblock.encode()])
    return replace(entry, path=names.SUPERBLOCK)


def _cut_directory(engine: Engine, form: DirectoryForm, number: int) -> tuple[Cut, ManifestEntry]:
    made: list[ManifestEntry] = []
    with ExitStack() as opened:

        def catalog() -> Reader:
            reader = reader_beside(engine.snapshot)
            try:
                path = f"{names.catalog(number)}/data.mdb"
                made.append(form.write(path, lambda take: copy_catalog(reader, take)))
            finally:
                reader.close()
            copy = LmdbCatalog(engine.seams, form.root, number, writable=False, locked=False, look="nothing")
            opened.callback(copy.close)
            return copy.read()

        taken = cut(engine, catalog, lambda place, path: _link(form, place, path))
    return taken, made[0]


def _link(form: DirectoryForm, place: Path, path: str) -> bool:
    target = form.place_of(path)
    if form.disk.size(target) is not None:
        return True  # from an earlier attempt: names of segments are never used again
    return try_link(form.disk, place, target)


def _fetch(form: DirectoryForm, named: Named, content: memoryview, earlier: Source | None) -> int:
    """A file that cannot be linked from the database: linked from the base, or copied. Returns the bytes written."""
    if earlier is not None and named.listed() in earlier.own:
        place = Path(earlier.place) / named.path
        if form.disk.size(place) == named.entry.size and _link(form, place, named.path):
            return 0
    _check(named, form.put(named.path, pieces_of(content)))
    return named.entry.size


def _check(named: Named, entry: ManifestEntry) -> None:
    if entry.digest != named.entry.digest:
        raise Corrupted(named.path, 0, "the file is damaged in the database; run vecdb verify on it")


# ---- a stream of rows: one file, or a store -------------------------------------------------------------------------
def _to_file(engine: Engine, target: Path, earlier: Source | None) -> SnapshotInfo:
    _check_beside(target.parent, earlier, "file")
    with Workplace(engine.seams.disk, target) as work:
        with closing(FileForm(engine.seams.disk, work, engine.superblock.uuid)) as form:
            return _stream(engine, form, str(target), earlier)


def _to_store(engine: Engine, uri: str, earlier: Source | None) -> SnapshotInfo:
    store = open_store(uri)
    _check_beside(store.parent, earlier, "store")
    return _stream(engine, StoreForm(store), uri, earlier)


def _check_beside(parent: Any, earlier: Source | None, form: str) -> None:
    if earlier is not None and (earlier.manifest.form != form or str(earlier.parent) != str(parent)):
        raise InvalidInput(
            f"a base is a snapshot of the same form beside the new one, in {parent}; {earlier.place} is not"
        )


def _stream(engine: Engine, form: FileForm | StoreForm, place: str, earlier: Source | None) -> SnapshotInfo:
    bases = _Bases(earlier)
    entries = [form.put(names.SUPERBLOCK, [engine.superblock.encode()])]
    with ExitStack() as opened:

        def attempt(_: int) -> tuple[Cut, Reader]:
            readers: list[Reader] = []

            def catalog() -> Reader:
                readers.append(reader_beside(engine.snapshot))
                opened.callback(readers[0].close)
                return readers[0]

            return cut(engine, catalog, lambda place, path: False), readers[0]

        taken, reader = in_attempts(engine, attempt)
        entries.append(form.put(names.CATALOG_STREAM, write_stream(reader)))
    entries.append(form.put(_log_name(engine, taken), _log_bytes(engine, taken)))
    for named in taken.files:
        entry = bases.find(named)
        if entry is None:
            entry = form.put(named.path, pieces_of(taken.maps[named.path]))
            _check(named, entry)
        entries.append(entry)
    written = sum(entry.size for entry in entries if entry.at == 0)
    manifest = _manifest(engine, form.form, taken, written, bases.names, entries)
    return info_of(place, manifest, digest_of(form.finish(manifest)))


class _Bases:
    """Which snapshots hold what the new one does not write: the base itself, or one that the base builds on."""

    def __init__(self, earlier: Source | None) -> None:
        self.names: list[str] = []
        self.held: dict[ManifestEntry, str] = {}
        if earlier is not None:
            owners = [earlier.name, *earlier.manifest.bases]
            self.held = {replace(entry, at=0): owners[entry.at] for entry in earlier.manifest.entries}

    def find(self, named: Named) -> ManifestEntry | None:
        owner = self.held.get(named.listed())
        if owner is None:
            return None
        if owner not in self.names:
            self.names.append(owner)
        return named.listed(self.names.index(owner) + 1)
