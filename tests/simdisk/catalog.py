"""The catalog on a simulated disk: the protocol of files is that of the real one, the pages are the tables of the twin.

A commit is atomic and durable, as LMDB promises; `pages.py` and real kills put that promise to the test. Copying a
catalog to its next generation goes through the same calls of the disk as in production.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest

from vecdb.engine import create, recover, snapshot
from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.disk import read_file
from vecdb.files.seams import Seams
from vecdb.files.workplace import Workplace, is_left
from vecdb.storage import snapshot_forms
from vecdb.storage.catalog import DATA, LmdbCatalog, Reader, Writer
from vecdb.storage.catalog_check import Look
from vecdb.storage.memory_catalog import MemoryReader, MemoryWriter
from vecdb.storage.schema import UUID_KEY, seal
from vecdb.storage.snapshot import Table


class Tables(dict[Table, Mapping[bytes, bytes]]):
    """The tables after one commit. They never change; `key` is equal for equal ones."""

    def __init__(self, tables: Mapping[Table, Mapping[bytes, bytes]]) -> None:
        super().__init__(tables)
        self.key = hash(tuple(frozenset(rows.items()) for rows in tables.values()))


class Opened:
    """What LMDB's environment is to the real catalog: it lives until the catalog has left it.

    copied   the tables of a copy in a snapshot, which nobody writes to
    """

    def __init__(self, path: Path, copied: Tables | None) -> None:
        self.path, self.copied = path, copied
        self.readers: list[MemoryReader] = []

    def leave(self, *, catalog: bool = False) -> None:
        """Nothing is held."""

    def close_snapshots(self) -> None:
        for reader in self.readers:
            reader.close()

    abandon = close_snapshots


class SimulatedCatalog(LmdbCatalog):
    """`LmdbCatalog` whose pages are tables in the simulated file."""

    def _look(self, path: Path, look: Look) -> None:
        """There are no pages."""

    def _open(self, generation: int) -> Any:
        path = self.directory / names.catalog(generation)
        size = self.seams.disk.size(path / DATA)
        copied = None
        if size is not None and self._disk.tables(path / DATA) is None:
            copied = decode_tables(read_file(self.seams.disk, path / DATA))
        if size is None or (copied is None and self._disk.tables(path / DATA) is None):
            raise StorageFailed(f"cannot open the catalog {path}: it is not a catalog")
        return Opened(path, copied)

    @property
    def _disk(self) -> Any:
        return self.seams.disk

    @property
    def _tables(self) -> Tables:
        opened: Any = self.current
        tables: Tables = opened.copied or self._disk.tables(opened.path / DATA)
        return tables

    def read(self) -> Reader:
        reader = SimulatedReader(self._tables)
        opened: Any = self.current
        opened.readers.append(reader)
        reader.catalog = self
        return reader

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        changed = {table: dict(rows) for table, rows in self._tables.items()}
        yield MemoryWriter(changed)
        self._disk.put_tables(self.current.path / DATA, Tables(changed), durable=True)

    def _copy_pages(self, temporary: Path) -> None:
        self.seams.disk.create(temporary / DATA).close()
        self._disk.put_tables(temporary / DATA, self._tables, durable=False)

    def free_bytes(self) -> int:
        return 0


class SimulatedReader(MemoryReader):
    catalog: SimulatedCatalog


def encode_tables(tables: Tables) -> bytes:
    """What the file of a snapshot's catalog holds in the place of pages."""
    data: bytes = msgpack.packb([[int(table), list(rows.items())] for table, rows in tables.items()])
    return zlib.crc32(data).to_bytes(4, "little") + data


def decode_tables(data: bytes) -> Tables | None:
    """None for what is not whole."""
    if len(data) < 5 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        return None
    return Tables({Table(number): dict(rows) for number, rows in msgpack.unpackb(data[4:])})


def copy_simulated(reader: Any, take: Callable[[bytes], None]) -> None:
    """As `copy_catalog`."""
    take(encode_tables(reader.catalog._tables))


def create_simulated(seams: Seams, directory: Path, uuid: bytes | None = None) -> None:
    """As `create_catalog`."""
    path = directory / names.catalog(1)
    seams.disk.make_directory(path)
    seams.disk.create(path / DATA).close()
    disk: Any = seams.disk
    tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
    if uuid is not None:
        tables[Table.DATABASE][UUID_KEY] = seal(UUID_KEY, uuid)
    disk.put_tables(path / DATA, Tables(tables), durable=True)
    seams.disk.sync_directory(path)


@contextlib.contextmanager
def twin_catalogs() -> Iterator[None]:
    """Inside, databases are opened with the twin: their disk must be a simulated one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover, "LmdbCatalog", SimulatedCatalog)
        patch.setattr(create, "create_catalog", create_simulated)
        patch.setattr(snapshot, "LmdbCatalog", SimulatedCatalog)
        patch.setattr(snapshot, "reader_beside", lambda reader: reader.catalog.read())
        patch.setattr(snapshot, "copy_catalog", copy_simulated)
        patch.setattr(snapshot_forms, "Pool", Deferring)
        patch.setattr(Workplace, "_lock", lock_simulated)
        patch.setattr(Workplace, "_is_left", is_left_simulated)
        yield


class Deferred:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act: Callable[[], Any] | None = act

    def result(self) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


class Deferring:
    """An executor that does nothing before it is asked for a result: as late as threads may be, and always the same."""

    def __init__(self, workers: int, name: str) -> None:
        self.submitted: list[Deferred] = []

    def submit(self, act: Callable[..., Any], *arguments: Any) -> Deferred:
        self.submitted.append(Deferred(lambda: act(*arguments)))
        return self.submitted[-1]

    def shutdown(self, wait: bool) -> None:
        for deferred in self.submitted:
            deferred.result()


class Held:
    """The lock of a workplace: one simulated process at a time has nobody to wait for."""

    def release(self) -> None: ...


def is_left_simulated(workplace: Workplace) -> bool:
    """The text of a lock is not on the simulated disk; here nobody else makes anything under that name."""
    return is_left(workplace.disk, workplace.path, workplace.target.name)


def lock_simulated(workplace: Workplace) -> Held:
    path = workplace.path / names.LOCK
    if workplace.disk.kind(path) is None:
        workplace.disk.create(path).close()
    return Held()
