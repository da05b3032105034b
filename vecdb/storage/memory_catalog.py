"""The twin of `LmdbCatalog` in memory, for tests: the same protocol and the same promises, with dictionaries.

A snapshot is the mapping that was current when it was taken: commits replace mappings and never change them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from vecdb.errors import Closed
from vecdb.storage.catalog import Reader, Writer
from vecdb.storage.snapshot import Table

Tables = Mapping[Table, Mapping[bytes, bytes]]


def _scan(rows: Mapping[bytes, bytes], prefix: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
    return list(islice(((key, rows[key]) for key in sorted(rows) if key.startswith(prefix)), limit))


class MemoryReader:
    def __init__(self, tables: Tables) -> None:
        self.tables: Tables | None = tables

    def _open(self, table: Table) -> Mapping[bytes, bytes]:
        if self.tables is None:
            raise Closed("the database was closed; open it again")
        return self.tables[table]

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._open(table).get(key)

    def get_many(self, table: Table, keys: Iterable[bytes]) -> list[bytes | None]:
        rows = self._open(table)
        return [rows.get(key) for key in keys]

    def scan(self, table: Table, prefix: bytes, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        return iter(_scan(self._open(table), prefix, limit))

    def page(self, table: Table, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        rows = self._open(table)
        return _scan({key: rows[key] for key in rows if after is None or key > after}, prefix, limit)

    def close(self) -> None:
        self.tables = None


class MemoryWriter:
    def __init__(self, tables: dict[Table, dict[bytes, bytes]]) -> None:
        self.tables = tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def scan(self, table: Table, prefix: bytes, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        return iter(_scan(self.tables[table], prefix, limit))

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.tables[table][bytes(key)] = bytes(value)

    def put_many(self, table: Table, items: list[tuple[bytes, bytes]]) -> None:
        self.tables[table].update(items)

    def delete(self, table: Table, key: bytes) -> None:
        self.tables[table].pop(key, None)


class MemoryCatalog:
    """`tables` may be handed to the next catalog, as a directory is to the next opening."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables: Tables = tables if tables is not None else {table: {} for table in Table}
        self.lock = threading.Lock()
        self.number = 1
        self.readers: list[MemoryReader] = []

    @property
    def generation(self) -> int:
        return self.number

    def read(self) -> Reader:
        reader = MemoryReader(self.tables)
        self.readers.append(reader)
        return reader

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        with self.lock:
            changed = {table: dict(rows) for table, rows in self.tables.items()}
            yield MemoryWriter(changed)
            self.tables = changed

    def compact(self) -> None:
        self.number += 1

    def size(self) -> int:
        return sum(len(key) + len(value) for rows in self.tables.values() for key, value in rows.items())

    def free_bytes(self) -> int:
        return 0

    def retire(self) -> None:
        """Nothing is held that would have to go."""

    def close(self) -> None:
        for reader in self.readers:
            reader.close()

    def abandon(self) -> None:
        """Memory is copied by a fork; only snapshots end."""
        self.close()
