"""A small database that has everything, and the ways to damage a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

import vecdb
from vecdb.storage.schema import seal
from vecdb.storage.snapshot import Table

DIM = 24
ROWS = 1500  # enough for codes and a graph
SMALL = 40


def vector_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(DIM).astype(np.float32)


def payload_of(number: int) -> dict[str, Any]:
    payload = {"n": number, "word": f"w{number % 13}", "tags": [f"t{number % 3}", f"t{number % 5}"], "half": number / 2}
    return payload if number % 4 else {"n": number, "none": None}


def make(path: Path) -> None:
    """ "big": integer ids, cosine, a graph, twins, deletions; "small": string ids, two fields that some records lack.
    Both have records in segments and more in the log."""
    with vecdb.open(path, maintenance="manual") as db:
        graph = vecdb.HNSW(m=8, ef_construction=40)
        big = db.create_collection("big", dim=DIM, index=graph)
        vectors = np.stack([vector_of(n % 1450) for n in range(ROWS)])  # the last fifty are twins of the first
        big.upsert(list(range(ROWS)), vectors, [payload_of(n) for n in range(ROWS)])
        fields = {"a": vecdb.VectorField(4, "l2"), "b": vecdb.VectorField(3, "dot", dtype="float16")}
        small = db.create_collection("small", fields=fields)
        for start in (0, 20):
            ids = [f"id-{n}" for n in range(start, start + 20)]
            given = {
                "a": [np.full(4, n) if n % 2 else None for n in range(start, start + 20)],
                "b": [np.full(3, n) if n % 3 else None for n in range(start, start + 20)],
            }
            small.upsert(ids, given, [payload_of(n) for n in range(start, start + 20)])
        db.optimize()
        big.delete(list(range(0, 300, 3)))
        small.upsert(["id-1"], {"a": [np.full(4, 1)]}, [payload_of(1)])
        big.upsert(list(range(2000, 2010)), np.stack([vector_of(n) for n in range(2000, 2010)]))
        checkpoint_now(db)
        big.upsert([5000, 1], np.stack([vector_of(5000), vector_of(1)]), [payload_of(5000), payload_of(1)])
        small.delete(["id-2"])
        small.upsert(["late"], {"a": [np.ones(4)]}, [{"n": -1}])
        shutil.copytree(path, path.with_name("killed"))


def checkpoint_now(db: vecdb.Database) -> None:
    from vecdb.engine.checkpoint import checkpoint

    checkpoint(db._engine)  # type: ignore[arg-type]


def sealed_file(path: Path, collection: int, segment: int, name: str) -> Path:
    return path / "segments" / f"{collection}-{segment}" / name


def flip(file: Path, offset: int = -1, bit: int = 3) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


@contextmanager
def catalog(path: Path) -> Iterator[Any]:
    """A write transaction and the tables of the newest catalog: (transaction, {table: database})."""
    newest = max(path.glob("catalog-*"), key=lambda found: int(found.name.split("-")[1]))
    environment = lmdb.open(str(newest), max_dbs=len(Table), map_size=1 << 30)
    tables = {table: environment.open_db(b"%d" % table) for table in Table}
    try:
        with environment.begin(write=True) as transaction:
            yield transaction, tables
    finally:
        environment.close()


def entries(path: Path, table: Table, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    with catalog(path) as (transaction, tables):
        found = [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=tables[table])]
    return [(key, value) for key, value in found if key.startswith(prefix)]


def put(path: Path, table: Table, key: bytes, value: bytes, *, sealed: bool = True) -> None:
    """Writes an entry; with its checksum, so that only its meaning is wrong, unless `sealed` is False."""
    with catalog(path) as (transaction, tables):
        transaction.put(key, seal(key, value) if sealed else value, db=tables[table])


def drop(path: Path, table: Table, key: bytes) -> None:
    with catalog(path) as (transaction, tables):
        assert transaction.delete(key, db=tables[table])


def rewrite(path: Path, table: Table, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Changes the value at `key`, checksum apart, and seals it again."""
    old = dict(entries(path, table))[key]
    put(path, table, key, change(old[4:]))
