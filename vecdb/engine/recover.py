"""Opening a database: R0 lock, R1 superblock, R2 catalog, R5-R7 log, R9 sweep. Each step returns a value.

Nothing is changed before everything was found sound; then only what no file names is removed. R8, writing a doubtful
tail of the log anew, waits for the first write. Readers do the same without the lock, and change nothing.
"""

from __future__ import annotations

from pathlib import Path

from vecdb.engine.apply import publish, reserve, stage
from vecdb.engine.create import create_database, prepare_directory
from vecdb.engine.freeze import freeze
from vecdb.engine.load import collection_of
from vecdb.engine.purge import find_dropped
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.upgrade import raise_format
from vecdb.errors import Corrupted, NotFound, ReadOnly, StorageFailed, UnsupportedFormat
from vecdb.files import names
from vecdb.files.disk import Disk, read_file, remove_tree
from vecdb.files.lock import WriterLock
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions
from vecdb.storage.archive import Archive
from vecdb.storage.batch import Batch, Part, decode
from vecdb.storage.catalog import LmdbCatalog, Table
from vecdb.storage.plausible import check_part, reading
from vecdb.storage.schema import (
    FORMAT_OLDEST,
    FORMAT_VERSION,
    STATE_KEY,
    SUPERBLOCK,
    UUID_KEY,
    Superblock,
    decode_collection,
    decode_state,
    segment_key,
    unseal,
)
from vecdb.storage.wal import Wal
from vecdb.storage.wal_scan import LogScan, scan


def open_writer(path: Path, seams: Seams, options: DatabaseOptions) -> Engine:
    """The engine of the one writing process. Locked when there is another."""
    if seams.disk.kind(path / names.MANIFEST) is not None:
        raise ReadOnly(
            f'{path} is a snapshot; open it with mode="r", or make a database of it with vecdb.restore(), to write'
        )
    prepare_directory(seams, path)
    engine = Engine(path, seams, options, writable=True)
    engine.lock = WriterLock(path / names.LOCK)
    try:
        if seams.disk.size(path / names.SUPERBLOCK) is None:
            create_database(seams, path)
        engine.superblock = read_superblock(seams, path, writable=True)
        open_catalog(engine, writable=True, locked=True)
        log = read_log(engine)
        seams.disk.reach("open:recovered", engine.state.applied_lsn)
        start_archive(engine)
        keep = engine.archive.keep if engine.archive is not None else lambda paths: None
        engine.wal = Wal(seams, engine.wal_directory, engine.superblock.uuid, log.files, max(1, log.epoch), keep)
        replay(engine, log)
        engine.doubtful = not log.clean
        settle_names(engine)
        engine.superblock = raise_format(seams, path, engine.superblock)
        if engine.archive is not None:
            engine.archive.note_of(engine.snapshot, engine.last_lsn)
        sweep(engine, log)
        engine.purge = find_dropped(engine)
    except BaseException:
        let_go_of_catalog(engine)
        engine.lock.release()
        raise
    return engine


def start_archive(engine: Engine) -> None:
    if engine.options.wal_archive is not None:
        engine.archive = Archive(engine.seams, Path(engine.options.wal_archive), engine.superblock.uuid)


def let_go_of_catalog(engine: Engine) -> None:
    """What opening got hold of before it failed: LMDB opens a directory once per process."""
    for part in ("snapshot", "catalog"):
        if hasattr(engine, part):
            getattr(engine, part).close()


def open_reader(path: Path, seams: Seams, options: DatabaseOptions) -> Engine:
    """An engine that sees the catalog and the log as they are now, and changes no file."""
    if seams.disk.size(path / names.SUPERBLOCK) is None:
        raise NotFound(f'there is no database at {path}; open it with mode="rw" to create one')
    engine = Engine(path, seams, options, writable=False)
    engine.superblock = read_superblock(seams, path, writable=False)
    follow(engine)
    return engine


READ_ATTEMPTS = 20  # a writer may retire what a reader is about to open; each attempt starts from newer facts


def follow(engine: Engine) -> None:
    """Brings a reading engine to the state that the files have now. One thread at a time, so it never goes back."""
    with engine.maintenance_lock:
        for attempt in range(READ_ATTEMPTS):
            try:
                _follow_once(engine)
                return
            except (Corrupted, StorageFailed):
                if attempt == READ_ATTEMPTS - 1:
                    raise


def _follow_once(engine: Engine) -> None:
    fresh = Engine(engine.path, engine.seams, engine.options, writable=False)
    fresh.superblock = engine.superblock
    known = getattr(engine, "catalog", None)
    if known is not None and find_newest_catalog(engine.seams.disk, engine.path) == known.generation:
        fresh.catalog = known
        read_state(fresh)
        _look(engine, fresh)
        return
    try:
        open_catalog(fresh, writable=False, locked=may_lock(engine.seams.disk, engine.path))
        _look(engine, fresh)
    except BaseException:
        let_go_of_catalog(fresh)
        raise
    if known is not None:
        known.retire()


def _look(engine: Engine, fresh: Engine) -> None:
    """Reads what the catalog and the log of `fresh` say, opens what `engine` has open, and moves `engine` there."""
    replay(fresh, read_log(fresh))
    with engine.append_lock:
        for number in engine.collections:
            if number in fresh.names.values():
                collection_of(fresh, number)
        adopt(engine, fresh)


def adopt(engine: Engine, fresh: Engine) -> None:
    """The reading engine takes over a newer state; collection handles keep working. Held: append_lock."""
    engine.catalog, engine.snapshot, engine.state = fresh.catalog, fresh.snapshot, fresh.state
    engine.names, engine.last_lsn, engine.published_lsn = fresh.names, fresh.last_lsn, fresh.published_lsn
    for number, old in list(engine.collections.items()):
        new = fresh.collections.pop(number, None)
        if new is None:
            old.dropped = True
            del engine.collections[number]  # its snapshot would keep the writer from using pages again
            continue
        old.meta, old.growing, old.flats, old.next_sequence = new.meta, new.growing, new.flats, new.next_sequence
        old.staged = new.staged
        old.view = new.view
    engine.collections.update(fresh.collections)


def read_superblock(seams: Seams, path: Path, *, writable: bool) -> Superblock:
    found = read_file(seams.disk, path / names.SUPERBLOCK, SUPERBLOCK.size + 1)
    superblock = Superblock.decode(found, str(path / names.SUPERBLOCK))
    if writable and superblock.read_only:
        unknown = f"{superblock.version} with unknown features {superblock.read_only:#x}"
        raise UnsupportedFormat(unknown, FORMAT_OLDEST, FORMAT_VERSION)
    return superblock


def find_newest_catalog(disk: Disk, path: Path) -> int:
    generations = [names.catalog_generation(name) for name in disk.list(path)]
    newest = max((g for g in generations if g is not None), default=None)
    if newest is None:
        raise Corrupted(path, 0, "the catalog is missing; restore it from a backup")
    return newest


def may_lock(disk: Disk, path: Path) -> bool:
    """Readers announce themselves in LMDB's lock file, unless nobody writes: on a read-only medium, in a snapshot."""
    import os

    return os.access(path, os.W_OK) and disk.kind(path / names.MANIFEST) is None


def open_catalog(engine: Engine, *, writable: bool, locked: bool) -> None:
    newest = find_newest_catalog(engine.seams.disk, engine.path)
    engine.catalog = LmdbCatalog(engine.seams, engine.path, newest, writable=writable, locked=locked)
    read_state(engine)


def read_state(engine: Engine) -> None:
    """Takes the newest committed picture of the catalog."""
    engine.snapshot = snapshot = engine.catalog.read()
    stored = snapshot.get(Table.DATABASE, STATE_KEY)
    if stored is None and next(snapshot.scan(Table.COLLECTIONS, b"", 1), None) is not None:
        raise Corrupted(
            engine.path / names.catalog(engine.catalog.generation), 0, "the state of the database is missing"
        )
    owner = snapshot.get(Table.DATABASE, UUID_KEY)
    if owner is not None and unseal(UUID_KEY, owner) != engine.superblock.uuid:
        raise Corrupted(engine.path / names.catalog(engine.catalog.generation), 0, "the catalog is of another database")
    engine.state = decode_state(stored)
    metas = [decode_collection(key, value) for key, value in snapshot.scan(Table.COLLECTIONS, b"")]
    engine.names = {meta.name: meta.number for meta in metas}


def read_log(engine: Engine) -> LogScan:
    applied = engine.state.applied_lsn
    log = scan(engine.seams.disk, engine.wal_directory, engine.superblock.uuid, applied)
    engine.last_lsn = engine.published_lsn = applied
    return log


def replay(engine: Engine, log: LogScan) -> None:
    """R7: every logged batch through the same `stage` that live writes take. Batches of dropped collections pass."""
    known = set(engine.names.values())
    for logged in log.batches:
        path = str(logged.path or engine.wal_directory)
        with reading(path, f"batch {logged.lsn}"):
            parts = [part for part in decode(logged.payload) if part.collection in known]
        states = [collection_of(engine, part.collection) for part in parts]
        for i, state in enumerate(states):
            with reading(path, f"batch {logged.lsn}"):
                parts[i] = check_part(state.meta, state.next_sequence, parts[i])
            _make_room(engine, state, parts[i])
        rooms = [reserve(state, part) for state, part in zip(states, parts, strict=True)]
        stage(engine, Batch(logged.lsn, logged.time_ns, parts), states, rooms)
        publish(engine, logged.lsn)


def _make_room(engine: Engine, state: CollectionState, part: Part) -> None:
    if state.growing is None or state.growing.room(len(part.keys)):
        return
    if engine.writable:
        freeze(engine)
    else:
        state.growing, state.flats = None, {}


def settle_names(engine: Engine) -> None:
    """Makes durable which catalog and which log files there are, before anything is built on that or removed.

    A process that was killed between a rename and the sync of the directory leaves names that only the cache has: a
    commit to such a catalog, or the removal of what such a file replaced, would lose everything with the power.
    """
    engine.seams.disk.sync_directory(engine.path)
    engine.seams.disk.sync_directory(engine.wal_directory)


def sweep(engine: Engine, log: LogScan) -> None:
    """R9: removes what nothing names: older catalogs, files of unfinished steps, leftovers of the log."""
    disk = engine.seams.disk
    if engine.archive is not None:
        engine.archive.keep([path for path in log.leftovers if names.wal_start(path.name) is not None])
    for path in log.leftovers:
        remove_tree(disk, path)
    for name in disk.list(engine.path):
        generation = names.catalog_generation(name.removesuffix(names.TEMPORARY))
        superseded = generation is not None and name != names.catalog(engine.catalog.generation)
        if superseded or name == names.SUPERBLOCK + names.TEMPORARY:
            remove_tree(disk, engine.path / name)
    for name in disk.list(engine.segment_root):
        numbers = names.segment_numbers(name)
        if numbers is not None:
            _sweep_segment(engine, *numbers)
    if engine.wal is not None and log.batches == []:
        engine.wal.retire(engine.state.applied_lsn)


def _sweep_segment(engine: Engine, collection: int, segment: int) -> None:
    directory = engine.segment_directory(collection, segment)
    prefix = segment_key(collection, segment)
    if engine.snapshot.get(Table.SEGMENTS, prefix) is None:
        remove_tree(engine.seams.disk, directory)
        return
    named = {key[8:].decode().rsplit("/", 1)[0] for key, _ in engine.snapshot.scan(Table.FILES, prefix)}
    for field in engine.seams.disk.list(directory):
        if not field.startswith("field-"):
            continue
        for name in engine.seams.disk.list(directory / field):
            if names.index_number(name) is not None and f"{field}/{name}" not in named:
                remove_tree(engine.seams.disk, directory / field / name)
