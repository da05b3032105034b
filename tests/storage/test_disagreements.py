"""Goal: a catalog whose rows have their checksums and do not agree with each other is damaged, and says where.

Method: rows of a database are changed through LMDB itself, one at a time, and sealed again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np
import pytest

import vecdb
from vecdb.files import names
from vecdb.files.disk import LocalDisk
from vecdb.storage.archive import archived_batches, archived_schemas, decode_schema
from vecdb.storage.manifest import enclose
from vecdb.storage.schema import seal
from vecdb.storage.snapshot import Table

Rows = dict[bytes, bytes]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with vecdb.open(tmp_path / "db", maintenance="manual", wal_archive=tmp_path / "archive") as db:
        docs = db.create_collection("docs", dim=4)
        docs.upsert(list(range(8)), np.eye(4)[np.arange(8) % 4], [{"n": n} for n in range(8)])
        db.optimize()
    return tmp_path / "db"


def change(place: Path, table: Table, act: Callable[[Rows], None]) -> None:
    (catalog,) = place.glob("catalog-*")
    environment = lmdb.open(str(catalog), map_size=1 << 30, max_dbs=16)
    database = environment.open_db(b"%d" % table, create=False)
    with environment.begin(write=True) as transaction:
        rows = {key: value[4:] for key, value in transaction.cursor(database)}
        before = dict(rows)
        act(rows)
        for key in before.keys() - rows.keys():
            transaction.delete(key, db=database)
        for key, value in rows.items():
            transaction.put(key, seal(key, value), db=database)
    environment.close()


def words(position: int, act: Callable[[Any], Any]) -> Callable[[Rows], None]:
    """Every row of the table: the word at `position` becomes another."""

    def changed(rows: Rows) -> None:
        for key, value in rows.items():
            values = msgpack.unpackb(value, strict_map_key=False)
            values[position] = act(values[position])
            rows[key] = msgpack.packb(values)

    return changed


def file_renamed(part: bytes, other: bytes | None) -> Callable[[Rows], None]:
    def changed(rows: Rows) -> None:
        (key,) = [key for key in rows if key.endswith(part)]
        value = rows.pop(key)
        if other is not None:
            rows[key[: -len(part)] + other] = value

    return changed


CASES: dict[str, tuple[Table, Callable[[Rows], None], str]] = {
    "a file that is left out": (Table.FILES, file_renamed(b"sequences.npy", None), "does not know the file"),
    "a field that is not there": (
        Table.SEGMENTS,
        words(4, lambda fields: [[9, *fields[0][1:]]]),
        "a field 9 that the collection does not have",
    ),
    "a path that is not there": (Table.SEGMENTS, words(5, lambda paths: [*paths, 99]), "a payload path that"),
    "a file of no part": (Table.FILES, file_renamed(b"order.npy", b"other.npy"), "does not know the file"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["rw", "r"])
def test_what_disagrees_is_damage(place: Path, name: str, mode: str) -> None:
    table, act, told = CASES[name]
    change(place, table, act)
    with pytest.raises(vecdb.Corrupted, match=told), vecdb.open(place, mode=mode) as db:
        db.get_collection("docs").count()


def test_a_file_that_no_part_of_its_segment_has_is_damage(place: Path) -> None:
    def add(rows: Rows) -> None:
        (key,) = [key for key in rows if key.endswith(b"order.npy")]
        rows[key[: -len(b"order.npy")] + b"another.npy"] = rows[key]

    change(place, Table.FILES, add)
    with pytest.raises(vecdb.Corrupted, match="no part of its segment has it"), vecdb.open(place) as db:
        db.get_collection("docs").count()


# ---- archives -------------------------------------------------------------------------------------------------------
def test_a_log_file_in_an_archive_is_whole_or_of_another_database(place: Path) -> None:
    archive, disk = place.parent / "archive", LocalDisk()
    (kept,) = [path for path in archive.iterdir() if names.wal_start(path.name) is not None]
    (uuid,) = {schema.uuid for schema in archived_schemas(disk, [archive], _uuid(place))}
    assert archived_schemas(disk, [archive], bytes(16)) == []
    assert list(archived_batches(disk, [archive], bytes(16), 0)) == []
    assert [batch.lsn for batch in archived_batches(disk, [archive], uuid, 0)] == [1]
    data = bytearray(kept.read_bytes())
    data[20] ^= 1
    kept.write_bytes(data)
    with pytest.raises(vecdb.Corrupted, match="the header of the log file is damaged"):
        list(archived_batches(disk, [archive], uuid, 0))


def _uuid(place: Path) -> bytes:
    with vecdb.open(place, mode="r") as db:
        assert db._engine is not None
        return db._engine.superblock.uuid


def test_a_collection_in_a_description_has_its_checksum(place: Path) -> None:
    path = max((place.parent / "archive").glob("*.schema"))
    data = path.read_bytes()
    schema = decode_schema(data, path)
    key = schema.collections[0].number.to_bytes(4, "big")
    body = msgpack.packb([schema.uuid, schema.lsn, schema.time_ns, 2, [[key, b"\0\0\0\0" + msgpack.packb([])]]])
    with pytest.raises(vecdb.Corrupted, match="checksum of the value"):
        decode_schema(enclose(data[:8], 1, body), path)
