"""The catalog on a simulated disk: the protocol of files is that of the real one, the pages are the tables of the twin.

A commit is atomic and durable, as LMDB promises; `pages.py` and real kills put that promise to the test. Copying a
catalog to its next generation goes through the same calls of the disk as in production.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vecdb.engine import create, recover
from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.seams import Seams
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
    """What LMDB's environment is to the real catalog: it lives until the catalog has left it."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        if self.seams.disk.size(path / DATA) is None or self._disk.tables(path / DATA) is None:
            raise StorageFailed(f"cannot open the catalog {path}: it is not a catalog")
        return Opened(path)

    @property
    def _disk(self) -> Any:
        return self.seams.disk

    @property
    def _tables(self) -> Tables:
        tables: Tables = self._disk.tables(self.current.path / DATA)
        return tables

    def read(self) -> Reader:
        reader = MemoryReader(self._tables)
        opened: Any = self.current
        opened.readers.append(reader)
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
        yield
