"""The catalog: ordered tables of bytes with one writer and snapshot reads. The only commit point of a database.

`Catalog` is the protocol, `LmdbCatalog` the real one, `MemoryCatalog` (in memory_catalog.py) its twin for tests.
LMDB is opened fully synchronous, without a writable map. It never shrinks, and its map cannot grow under readers:
`compact` answers both, by copying the live pages to the next generation in a larger map.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from vecdb.errors import Closed, Poisoned, StorageFailed
from vecdb.files import names
from vecdb.files.disk import FILE_MODE, REMEDIES, remove_tree
from vecdb.files.pipe import relay
from vecdb.files.seams import Seams
from vecdb.storage.catalog_check import DATA, Look, check_catalog
from vecdb.storage.catalog_protocol import Catalog, MapFull, Reader, Writer
from vecdb.storage.schema import UUID_KEY, seal
from vecdb.storage.snapshot import Generation, LmdbReader, Table, scan

__all__ = ["DATA", "Catalog", "LmdbCatalog", "MapFull", "Reader", "Table", "Writer", "create_catalog"]
MAP_MIN = 1 << 30  # bytes of address space, not of disk
MAP_FACTOR = 4
READER_FACTOR = 16  # a reader maps more than a writer will fill before it compacts into a larger map
READERS_MAX = 1024


class LmdbWriter:
    def __init__(self, generation: Generation, transaction: Any) -> None:
        self.databases, self.transaction = generation.databases, transaction

    def get(self, table: Table, key: bytes) -> bytes | None:
        value: bytes | None = self.transaction.get(key, db=self.databases[table])
        return value

    def scan(self, table: Table, prefix: bytes, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(islice(scan(self.transaction, self.databases[table], prefix), limit)))

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.transaction.put(key, value, db=self.databases[table])

    def put_many(self, table: Table, items: list[tuple[bytes, bytes]]) -> None:
        with self.transaction.cursor(db=self.databases[table]) as cursor:
            cursor.putmulti(items)

    def delete(self, table: Table, key: bytes) -> None:
        self.transaction.delete(key, db=self.databases[table])


class LmdbCatalog:
    """The catalog in `directory/catalog-<generation>`. Holders of the writer's lock only may write or compact."""

    def __init__(
        self,
        seams: Seams,
        directory: Path,
        generation: int,
        *,
        writable: bool,
        locked: bool = True,
        create: bool = False,
        look: Look = "values",
    ) -> None:
        """`look`: what is looked at before LMDB opens the file, see `check_catalog`."""
        self.seams, self.directory, self.number = seams, directory, generation
        self.writable, self.locked = writable, locked
        if not create:
            self._look(directory / names.catalog(generation), look)
        self.current = self._open(generation)

    def _look(self, path: Path, look: Look) -> None:
        check_catalog(self.seams.disk, path, self._map_size(path), look)

    def _map_size(self, path: Path) -> int:
        return max(MAP_MIN, MAP_FACTOR * (self.seams.disk.size(path / DATA) or 0))

    @property
    def generation(self) -> int:
        return self.number

    def _open(self, generation: int) -> Generation:
        path = self.directory / names.catalog(generation)
        try:
            environment = lmdb.open(
                str(path),
                map_size=self._map_size(path) * (1 if self.writable else READER_FACTOR),
                readonly=not self.writable,
                create=False,
                lock=self.locked,
                writemap=False,
                max_dbs=len(Table),
                max_readers=READERS_MAX,
                mode=FILE_MODE,
                readahead=False,
            )
            if self.writable:
                environment.reader_check()
            databases = {table: environment.open_db(b"%d" % table, create=self.writable) for table in Table}
        except lmdb.Error as error:
            raise _translate(error, f"cannot open the catalog {path}") from error
        return Generation(environment, databases, path, lmdb.Error)

    def read(self) -> Reader:
        try:
            return LmdbReader(self.current)
        except lmdb.Error as error:
            raise _translate(error, "cannot read the catalog") from error

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """One durable transaction. Inside, any exception aborts it; an error of the commit itself is Poisoned."""
        try:
            transaction = self.current.environment.begin(write=True)
        except lmdb.PanicError as error:
            raise Poisoned(f"the catalog stopped after a failed write ({error})") from error
        except lmdb.Error as error:
            raise _translate(error, "cannot begin a catalog transaction") from error
        try:
            yield LmdbWriter(self.current, transaction)
        except lmdb.MapFullError as error:
            transaction.abort()
            raise MapFull from error
        except lmdb.Error as error:
            transaction.abort()
            raise _translate(error, "cannot write the catalog") from error
        except BaseException:
            transaction.abort()
            raise
        before = self.current.environment.info()["last_txnid"]
        try:
            transaction.commit()
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            if self._unchanged(before):
                raise _translate(error, "cannot commit to the catalog") from error
            raise Poisoned(f"a catalog commit ended in an unknown state ({error})") from error

    def _unchanged(self, last_transaction: int) -> bool:
        """Whether a failed commit left the old picture. LMDB refuses every use after a failed write of a meta page."""
        try:
            self.current.environment.begin().abort()
        except lmdb.Error:
            return False
        return bool(self.current.environment.info()["last_txnid"] == last_transaction)

    def compact(self) -> None:
        """Copies the live pages to the next generation and goes on there. The old one serves its snapshots."""
        disk, old = self.seams.disk, self.current
        target = self.directory / names.catalog(self.number + 1)
        temporary = target.with_suffix(names.TEMPORARY)
        remove_tree(disk, temporary)
        disk.make_directory(temporary)
        try:
            self._copy(temporary)
            disk.rename(temporary, target)
        except BaseException:
            remove_tree(disk, temporary)
            raise
        try:
            disk.sync_directory(self.directory)
            disk.reach("catalog:renamed")
            current = self._open(self.number + 1)
        except BaseException as error:
            self._take_back(target, temporary, error)
            raise
        self.current, self.number = current, self.number + 1
        old.leave(catalog=True)
        with contextlib.suppress(StorageFailed):  # the next open sweeps it
            remove_tree(disk, old.path)

    def _copy(self, temporary: Path) -> None:
        self._copy_pages(temporary)
        self._sync_copy(temporary)
        self.seams.disk.reach("catalog:copied")

    def _copy_pages(self, temporary: Path) -> None:
        try:
            self.current.environment.copy(str(temporary), compact=True)
        except lmdb.Error as error:
            raise _translate(error, "cannot copy the catalog") from error
        (temporary / DATA).chmod(FILE_MODE)  # LMDB does not ask for our mode

    def _take_back(self, target: Path, temporary: Path, error: BaseException) -> None:
        """A copy that is not gone on with must not be there at the next open, which takes the newest."""
        try:
            self.seams.disk.rename(target, temporary)
            self.seams.disk.sync_directory(self.directory)
        except StorageFailed as second:
            raise Poisoned(f"a copy of the catalog could neither be opened nor removed ({error}; {second})") from error
        with contextlib.suppress(StorageFailed):  # the next compaction or open sweeps it
            remove_tree(self.seams.disk, temporary)

    def _sync_copy(self, path: Path) -> None:
        # LMDB does not sync its copy.
        data = path / DATA
        file = self.seams.disk.open(data)
        try:
            file.sync()
        finally:
            file.close()
        self.seams.disk.sync_directory(path)

    def size(self) -> int:
        return self.seams.disk.size(self.current.path / DATA) or 0

    def free_bytes(self) -> int:
        """Bytes of pages that no live data uses."""
        environment = self.current.environment
        with environment.begin() as transaction:
            used = 2
            for database in (None, *self.current.databases.values()):
                stat = transaction.stat(database) if database is not None else environment.stat()
                used += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            page = environment.stat()["psize"]
        return max(0, self.size() - int(used * page))

    def retire(self) -> None:
        self.current.leave(catalog=True)

    def abandon(self) -> None:
        self.current.abandon()

    def close(self) -> None:
        self.current.close_snapshots()
        self.current.leave(catalog=True)


def reader_beside(reader: Reader) -> Reader:
    """Another reader of the same environment, of its newest state. Closed when the database was closed meanwhile."""
    if not isinstance(reader, LmdbReader):
        raise TypeError(f"{reader!r} reads no LMDB environment")
    try:
        return LmdbReader(reader.owner)
    except (lmdb.Error, AttributeError) as error:  # its environment is closed, or a fork took it
        raise Closed("the database was closed; open it again") from error


def copy_catalog(reader: Reader, take: Callable[[bytes], None]) -> None:
    """Hands over the newest committed pages as one compact LMDB file, piece by piece; writers go on meanwhile."""
    if not isinstance(reader, LmdbReader):
        raise TypeError(f"{reader!r} reads no LMDB environment")
    try:
        relay(reader.copy_pages, take)
    except lmdb.Error as error:
        raise _translate(error, "cannot copy the catalog") from error


def create_catalog(seams: Seams, directory: Path, uuid: bytes | None = None) -> None:
    """An empty first generation of the database `uuid` (None: what is put into it says so), committed and synced."""
    path = directory / names.catalog(1)
    seams.disk.make_directory(path)
    catalog = LmdbCatalog(seams, directory, 1, writable=True, create=True)
    if uuid is not None:
        with catalog.write() as writer:
            writer.put(Table.DATABASE, UUID_KEY, seal(UUID_KEY, uuid))
    catalog.close()
    seams.disk.sync_directory(path)


def _translate(error: Any, action: str) -> StorageFailed:
    code = next((number for number in REMEDIES if os.strerror(number) in str(error)), 0)
    reason = REMEDIES.get(code, str(error))
    return StorageFailed(code, f"{action}: {reason}")
