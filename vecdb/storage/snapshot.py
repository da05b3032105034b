"""Snapshots of the catalog: read transactions that share one LMDB environment, and when it closes."""

from __future__ import annotations

import enum
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vecdb.errors import Closed, Corrupted


class Table(enum.IntEnum):
    """The tables of the catalog; the number is the first byte of the name of its LMDB database."""

    DATABASE = 0
    COLLECTIONS = 1
    SEGMENTS = 2
    FILES = 3
    IDS = 4
    RECORDS = 5
    DELETIONS = 6


class Generation:
    """One LMDB environment. It lives until the catalog has left it and the last snapshot of it is closed."""

    def __init__(self, environment: Any, databases: dict[Table, Any], path: Path, failure: type[Exception]) -> None:
        self.environment, self.databases, self.path = environment, databases, path
        self.failure = failure  # what the library raises
        self.lock = threading.RLock()  # a collected snapshot may leave while this thread enters
        self.snapshots = 0
        self.readers: weakref.WeakSet[LmdbReader] = weakref.WeakSet()
        self.left = False

    def enter(self, reader: LmdbReader) -> None:
        with self.lock:
            self.snapshots += 1
            self.readers.add(reader)

    def leave(self, *, catalog: bool = False) -> None:
        with self.lock:
            self.left |= catalog
            self.snapshots -= not catalog
            if self.left and self.snapshots == 0 and self.environment is not None:
                self.environment.close()

    def close_snapshots(self) -> None:
        """An environment cannot be opened twice in a process, so that one kept open would bar the next open."""
        with self.lock:
            readers = list(self.readers)
        for reader in readers:
            reader.close()

    def abandon(self) -> None:
        """In a forked child: drops the environment without closing it, so that the child may open its own.

        Closing would end the parent's read transactions; py-lmdb leaves objects of another process alone when they are
        freed. No lock is taken: a thread that the child does not have may hold it.
        """
        for reader in list(self.readers):
            reader.transaction = None
        self.databases.clear()
        self.environment = None


class LmdbReader:
    """A read transaction. LMDB allows one thread at a time in it, hence the lock; it is held for microseconds."""

    def __init__(self, generation: Generation) -> None:
        self.owner, self.lock = generation, threading.Lock()
        generation.enter(self)
        self.transaction: Any = None
        try:
            self.transaction = generation.environment.begin()
        except BaseException:
            generation.leave()
            raise
        self.pid = os.getpid()

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.get_many(table, [key])[0]

    def get_many(self, table: Table, keys: Iterable[bytes]) -> list[bytes | None]:
        with self.lock:
            get, database = self._open().get, self.owner.databases[table]
            try:
                return [get(key, None, database) for key in keys]
            except self.owner.failure as error:
                raise self._damaged(error) from error

    def scan(self, table: Table, prefix: bytes, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Read whole at once, so that no cursor stays open between two calls."""
        return iter(self._listed(table, prefix, None, limit))

    def page(self, table: Table, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """The next `limit` entries under `prefix` beyond the key `after`, None to begin: bounded memory at any size."""
        return self._listed(table, prefix, None if after is None else after + b"\0", limit)

    def _listed(self, table: Table, prefix: bytes, begin: bytes | None, limit: int | None) -> list[tuple[bytes, bytes]]:
        with self.lock:
            transaction = self._open()
            try:
                return list(islice(scan(transaction, self.owner.databases[table], prefix, begin), limit))
            except self.owner.failure as error:
                raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> Corrupted:
        return Corrupted(self.owner.path, 0, f"the pages of the catalog are damaged: {error}")

    def copy_pages(self, descriptor: int) -> None:
        """Writes the newest committed pages, compact, as one LMDB file. Closing the database waits for the end."""
        with self.lock:
            self._open()
            self.owner.environment.copyfd(descriptor, compact=True)

    def _open(self) -> Any:
        if self.transaction is None:
            raise Closed("the database was closed; open it again")
        return self.transaction

    def close(self) -> None:
        with self.lock:
            transaction, self.transaction = self.transaction, None
        if transaction is not None and self.pid == os.getpid():  # after a fork the parent owns the pages
            transaction.abort()
            self.owner.leave()

    def __del__(self) -> None:
        if getattr(self, "transaction", None) is not None:
            self.close()


def scan(transaction: Any, database: Any, prefix: bytes, begin: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
    """The entries whose keys start with `prefix`, from the key `begin` on."""
    with transaction.cursor(db=database) as cursor:
        if not cursor.set_range(prefix if begin is None else begin):
            return
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value
