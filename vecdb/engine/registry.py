"""One engine per directory and process: a second open shares it, and the last close ends it. What fork and exit do."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vecdb import threads
from vecdb.engine.allow import FilterCache
from vecdb.engine.interval import IntervalSync
from vecdb.engine.maintain import Scheduler, close_checkpoint
from vecdb.engine.recover import open_reader, open_writer
from vecdb.engine.rewrite import settle_doubtful_log
from vecdb.engine.state import Engine, ReadOnlyHandle, log
from vecdb.errors import InvalidInput, StorageFailed
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions

_lock = threading.RLock()
_open: dict[tuple[int, int], Engine] = {}  # by (device, inode)
_all: weakref.WeakSet[Engine] = weakref.WeakSet()
DEFAULT_SEAMS = Seams()


def acquire(path: Path, mode: str, options: DatabaseOptions, seams: Seams | None = None) -> Engine:
    """The engine of `path`. A directory that this process has open gives the same engine again."""
    with _lock:
        engine = _find(path)
        if engine is not None:
            _check_shared(path, engine, mode, options)
            engine.references += 1
            return ReadOnlyHandle(engine) if mode == "r" and engine.writable else engine
        opener: Callable[[Path, Seams, DatabaseOptions], Engine] = open_writer if mode == "rw" else open_reader
        engine = opener(path.resolve(), seams or DEFAULT_SEAMS, options)
        _start(engine)
        engine.references = 1
        _all.add(engine)
        status = path.stat()
        _open[(status.st_dev, status.st_ino)] = engine
        return engine


@contextmanager
def borrowed(path: Path) -> Iterator[Engine | None]:
    """The engine of this process that has `path` open, kept open meanwhile; None if there is none."""
    with _lock:
        engine = _find(path)
        if engine is not None:
            engine.references += 1
    try:
        yield engine
    finally:
        if engine is not None:
            release(engine)


def _check_shared(path: Path, engine: Engine, mode: str, options: DatabaseOptions) -> None:
    if mode == "r":
        return
    if not engine.writable:
        raise InvalidInput(f'{path} is open with mode="r" in this process; close that handle to open it for writing')
    if options != engine.options:
        raise InvalidInput(
            f"{path} is open in this process with {engine.options}; open it with the same options, or close it"
        )


def _find(path: Path) -> Engine | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _open.get((status.st_dev, status.st_ino))


def _start(engine: Engine) -> None:
    engine.filters = FilterCache()
    engine.executor = threads.Pool(engine.kernels.threads, "vecdb")
    if engine.writable and engine.options.sync == "interval":
        engine.syncer = IntervalSync(engine)
        engine.syncer.start()
    if engine.writable and engine.options.maintenance == "auto":
        engine.scheduler = Scheduler(engine)
        engine.scheduler.start()


def release(engine: Engine) -> None:
    """Gives one reference back; the last one closes the database: log synced, small tails left to the log."""
    with _lock:
        if engine.closed:
            return
        engine.references -= 1
        if engine.references > 0:
            return
        for key in [key for key, other in _open.items() if other.__dict__ is engine.__dict__]:
            del _open[key]
        try:
            shut(engine, seal=True)
        finally:
            _all.discard(engine)


def release_dropped(engine: Engine) -> None:
    """As release, for a handle that the garbage collector found: it may run on a maintenance thread, in the middle of
    a step, where closing would pull the catalog from under it."""
    if threading.current_thread().name.startswith("vecdb"):
        threads.start("vecdb-close", lambda: release(engine))
    else:
        release(engine)


def shut(engine: Engine, *, seal: bool) -> None:
    """Stops maintenance, makes everything durable, and lets go of files and locks."""
    if engine.scheduler is not None:
        engine.scheduler.stop()  # it stays known, so that optimize() in another thread stops too
    if engine.syncer is not None:
        engine.syncer.stop()
        engine.syncer = None
    try:
        if engine.writable and not engine.poisoned and not engine.forked:
            if seal:
                _seal(engine)
            with engine.both_locks():
                if engine.doubtful:
                    _settle(engine)
                if engine.wal is not None:
                    engine.wal.close(clean=not engine.doubtful)
                engine.closed = True
    finally:
        with engine.removal_lock:  # a snapshot in another thread still links files, or copies the catalog
            _let_go(engine)


def _seal(engine: Engine) -> None:
    try:
        close_checkpoint(engine)
    except StorageFailed as error:
        log.warning("close() could not seal new records, the log keeps them: %s", error)


def _settle(engine: Engine) -> None:
    try:
        settle_doubtful_log(engine)
    except StorageFailed as error:
        log.warning("the log of an earlier process could not be written anew, the next open tries again: %s", error)


def _let_go(engine: Engine) -> None:
    engine.closed = True
    engine.scheduler = None
    if engine.executor is not None:
        engine.executor.shutdown(wait=True)
    if engine.wal is not None and engine.wal.handle is not None:
        engine.wal.close(clean=False)
    for state in engine.collections.values():
        state.let_go()
    engine.frozen.clear()
    engine.recent.close()
    engine.snapshot.close()
    engine.catalog.close()
    if engine.lock is not None:
        engine.lock.release()


def _at_exit() -> None:
    """The interpreter ends without close(): maintenance stops, the log is synced, nothing is sealed."""
    threads.ending.set()
    for engine in list(_all):
        if not engine.closed and not engine.forked:
            shut(engine, seal=False)
    threads.end()


def _in_child() -> None:
    """After a fork every handle is dead: locks, maps of LMDB and threads belong to the parent."""
    global _lock
    _lock = threading.RLock()
    for engine in list(_all):
        engine.forked = True
        if engine.lock is not None:
            engine.lock.abandon()
        engine.catalog.abandon()
    _open.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
