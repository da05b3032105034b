"""The handle of a database: a directory of collections."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from vecdb.collection import Collection
from vecdb.engine import database_calls as calls
from vecdb.engine.findings import RepairReport, VerifyReport
from vecdb.engine.report import DatabaseStats
from vecdb.engine.retention import take_generation
from vecdb.engine.snapshot import SnapshotInfo
from vecdb.engine.snapshot import snapshot as take_snapshot
from vecdb.engine.state import Engine
from vecdb.options import PAYLOAD_CACHE, Columns, IndexOptions, VectorField


class Database:
    """An open database; made by `vecdb.open`. A context manager: leaving it closes it. Any thread may use it.

    Every method raises Closed after close(), and in a process forked from the one that opened it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine

    def _open(self) -> Engine:
        return calls.checked(self._engine)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._open().path

    # ---- collections ----------------------------------------------------------------------------------------------
    def create_collection(
        self,
        name: str,
        *,
        dim: int | None = None,
        metric: str = "cosine",
        index: IndexOptions | str = "auto",
        dtype: Literal["float32", "float16"] = "float32",
        fields: Mapping[str, VectorField] | None = None,
        columns: Columns | Sequence[str] | Literal["all"] = "all",
    ) -> Collection:
        """A new, empty collection. AlreadyExists if there is one of this name.

        dim, metric, index   of its one vector field, called "vector"; without `dim` the first write decides it
        dtype                of its stored vectors; "float16" takes half the disk, see `vecdb.VectorField`
        fields               several named vector fields instead: {"title": vecdb.VectorField(384), ...}
        columns              payload paths that filters, `order_by`, `distinct` and `min_max` may use: "all", a list of
                             paths, or vecdb.Columns(exclude=["text"]); for good. A path stands for what is below it
        """
        engine = self._open()
        return Collection(
            engine, calls.create_collection(engine, name, dim, metric, index, dtype, fields, columns), self
        )

    def get_collection(self, name: str) -> Collection:
        """The collection of this name. NotFound if there is none."""
        engine = self._open()
        return Collection(engine, calls.get_collection(engine, name), self)

    def get_or_create_collection(
        self,
        name: str,
        *,
        dim: int | None = None,
        metric: str = "cosine",
        index: IndexOptions | str = "auto",
        dtype: Literal["float32", "float16"] = "float32",
        fields: Mapping[str, VectorField] | None = None,
        columns: Columns | Sequence[str] | Literal["all"] | None = None,
    ) -> Collection:
        """The collection of this name, made if there is none. InvalidInput if it exists with other vector fields,
        or with other columns than those given.

        An index that exists with other options stays as it is; see `Collection.set_index`.
        """
        engine = self._open()
        state = calls.get_or_create_collection(engine, name, dim, metric, index, dtype, fields, columns)
        return Collection(engine, state, self)

    def list_collections(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._open().names)

    def rename_collection(self, name: str, new_name: str) -> None:
        """Gives a collection another name; handles of it go on working."""
        calls.rename_collection(self._open(), name, new_name)

    def delete_collection(self, name: str) -> None:
        """Drops a collection with all its records, at once and for good; its space is reclaimed in the background."""
        calls.delete_collection(self._open(), name)

    # ---- snapshots ------------------------------------------------------------------------------------------------
    def snapshot(self, dest: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> SnapshotInfo:
        """Takes a snapshot of the whole database at one moment, while writers go on.

        dest   a directory to be made, which opens in place with mode="r"; a file, if the name ends in ".vecdb"; or a
               URI such as s3://bucket/name (needs the extra "cloud"). Nothing is ever written over
        base   an earlier snapshot of the same form; what has not changed since is not written again

        Every write acknowledged before the call is in it. On one file system a directory costs hard links and a copy
        of the catalog; it then shares its files with the database, so it is no backup against a failing disk.
        AlreadyExists, InvalidInput, Corrupted, StorageFailed; none leaves anything at `dest`.
        """
        return take_snapshot(self._open(), dest, base)

    def snapshot_generation(self, home: str | os.PathLike[str], *, one_file: bool = False) -> SnapshotInfo:
        """Takes a snapshot into `home`, a directory or a URI, under a name of the time and the last batch.

        It builds on the newest one there. `vecdb.list_snapshots` lists them, `vecdb.prune_snapshots` removes old ones.
        one_file   a file instead of a directory
        """
        return take_generation(self._open(), home, one_file)

    # ---- care -----------------------------------------------------------------------------------------------------
    def maintain(self) -> str | None:
        """With maintenance="manual": takes one step and returns its name, or None when there is nothing to do."""
        return calls.maintain(self._open())

    def optimize(self) -> None:
        """Returns when everything is sealed, merged, indexed and reclaimed."""
        calls.optimize(self._open())

    def flush(self) -> None:
        """Returns when every write before it is on disk. Needed only with sync="interval" or "none"."""
        calls.flush(self._open())

    def refresh(self) -> None:
        """With mode="r": sees what the writing process wrote since. Searches that run keep what they saw."""
        calls.refresh(self._open())

    def verify(self, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Looks at everything on disk, beside whoever writes, and changes nothing. See `vecdb.verify`."""
        return calls.verify(self._open(), deep, progress)

    def stats(self) -> DatabaseStats:
        """Records, segments, indexes and bytes of every part, as of now."""
        return calls.stats(self._open())

    def close(self) -> None:
        """Makes everything durable and lets go of the directory. May be called again; others' handles stay open."""
        engine, self._engine = self._engine, None
        if engine is not None:
            calls.release(engine)

    def __enter__(self) -> Database:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "Database(closed)" if self._engine is None else f"Database({str(self._engine.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        engine = self._open()
        return reopen, (str(engine.path), engine.options.allow_network_fs)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and not engine.closed and not engine.forked:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, source=self, stacklevel=1)
            calls.release_dropped(engine)

    @staticmethod
    def reopen(path: str, name: str, allow_network_fs: bool = False) -> Collection:
        """Unpickles a handle of a collection: read-only, in whatever process this is."""
        return open(path, mode="r", allow_network_fs=allow_network_fs).get_collection(name)


def reopen(path: str, allow_network_fs: bool = False) -> Database:
    """Unpickles a handle: read-only, in whatever process this is."""
    return open(path, mode="r", allow_network_fs=allow_network_fs)


def verify(
    path: str | os.PathLike[str], *, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Whether the database in a directory is what was written to it; damage is told in the report, never raised.

    Looks at the superblock, every value of the catalog, every file with its checksums, ids both ways, counts, columns,
    indexes (every live row must be reachable) and the log. Any process may write meanwhile. Memory is bounded, but for
    the log, which is read file by file.

    deep      also digests of the files, every payload, every vector, and the recall of a sample of searches
    progress  called with (bytes done, bytes in all); may raise to stop

    NotFound, UnsupportedFormat and StorageFailed where there is nothing that could be looked at.
    """
    return calls.verify_path(path, deep, progress)


def repair(path: str | os.PathLike[str], new: str | os.PathLike[str]) -> RepairReport:
    """Writes everything that can be read of a damaged database to a new directory, and tells what cannot.

    Each record is saved as far as its parts pass their checksums: without its vector or its payload if one is lost.
    The log is taken up to its first damage. The damaged directory stays as it is.

    InvalidInput if `new` exists, or if this process has `path` open; Locked if another writes it; Corrupted if the
    catalog cannot be read at all, without which nothing can be told apart: restore a snapshot then.
    """
    return calls.repair(path, new)


def open(
    path: str | os.PathLike[str],
    mode: Literal["rw", "r"] = "rw",
    *,
    sync: str = "full",
    interval_ms: int = 1000,
    maintenance: str = "auto",
    threads: int = 0,
    wal_archive: str | os.PathLike[str] | None = None,
    allow_network_fs: bool = False,
    payload_cache: int = PAYLOAD_CACHE,
) -> Database:
    """Opens the database in a directory; with mode="rw" it is created if there is none.

    mode          "rw": one process at a time (Locked names the other).  "r": any number, see `Database.refresh`
    sync          when a write is acknowledged: "full" when it is on disk, "interval", "none"
    maintenance   "auto" on a thread, or "manual": call `Database.maintain`
    threads       for index builds and batches of queries; 0 takes all processors
    wal_archive   a directory outside of `path` that keeps the log when it is no longer needed, so that
                  `vecdb.restore(snapshot, path, until=...)` reaches any moment after a snapshot
    allow_network_fs   open it on NFS, SMB and the like, which are refused: their locks and syncs do not hold
    payload_cache      bytes of payloads that searches and `get` read lately, kept in memory; 0 keeps none

    NotFound, Locked, Corrupted, UnsupportedFormat, StorageFailed; none of them changes anything.
    """
    return Database(
        calls.open_engine(
            path, mode, sync, interval_ms, maintenance, threads, wal_archive, allow_network_fs, payload_cache
        )
    )
