"""Goal: both catalogs keep the same promises: atomic commits, snapshots that stay, order, compaction without loss.

Method: one suite over `LmdbCatalog` and its twin in memory, and the whole engine on the twin.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.engine import recover
from vecdb.errors import Closed, Poisoned, StorageFailed
from vecdb.files.seams import Seams
from vecdb.storage.catalog import Catalog, LmdbCatalog, MapFull, create_catalog
from vecdb.storage.memory_catalog import MemoryCatalog
from vecdb.storage.snapshot import Table


def lmdb_catalog(path: Path) -> LmdbCatalog:
    if not (path / "catalog-1").exists():
        create_catalog(Seams(), path)
    return LmdbCatalog(Seams(), path, 1, writable=True)


def memory_catalog(path: Path) -> MemoryCatalog:
    return MemoryCatalog()


@pytest.fixture(params=[lmdb_catalog, memory_catalog], ids=["lmdb", "memory"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    make: Callable[[Path], Catalog] = request.param
    made = make(tmp_path)
    yield made
    with contextlib.suppress(Closed):
        made.close()


def put(catalog: Catalog, **rows: str) -> None:
    with catalog.write() as writer:
        for key, value in rows.items():
            writer.put(Table.IDS, key.encode(), value.encode())


def rows(reader: Any, prefix: str = "", limit: int | None = None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in reader.scan(Table.IDS, prefix.encode(), limit)}


def test_commits_are_read_in_order(catalog: Catalog) -> None:
    put(catalog, b="2", a="1", ab="12", c="3")
    reader = catalog.read()
    assert list(rows(reader)) == ["a", "ab", "b", "c"]
    assert rows(reader, "a") == {"a": "1", "ab": "12"}
    assert rows(reader, "a", 1) == {"a": "1"}
    assert rows(reader, "d") == {}
    assert reader.get(Table.IDS, b"b") == b"2"
    assert reader.get(Table.RECORDS, b"b") is None
    assert reader.get_many(Table.IDS, [b"c", b"x", b"a"]) == [b"3", None, b"1"]


def test_a_writer_sees_itself_and_others_do_not_before_the_commit(catalog: Catalog) -> None:
    put(catalog, a="1", b="2")
    with catalog.write() as writer:
        writer.put_many(Table.IDS, [(b"c", b"3"), (b"a", b"9")])
        writer.delete(Table.IDS, b"b")
        writer.delete(Table.IDS, b"never there")
        assert [key for key, _ in writer.scan(Table.IDS, b"")] == [b"a", b"c"]
        assert writer.get(Table.IDS, b"a") == b"9"
        assert rows(catalog.read()) == {"a": "1", "b": "2"}
    assert rows(catalog.read()) == {"a": "9", "c": "3"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_exception_aborts_all_of_it(catalog: Catalog, error: BaseException) -> None:
    put(catalog, a="1")

    def change() -> None:
        with catalog.write() as writer:
            writer.put(Table.IDS, b"a", b"2")
            writer.put(Table.RECORDS, b"r", b"2")
            raise error

    with pytest.raises(type(error)):
        change()
    assert rows(catalog.read()) == {"a": "1"}
    assert catalog.read().get(Table.RECORDS, b"r") is None
    put(catalog, a="3")
    assert rows(catalog.read()) == {"a": "3"}


def test_a_snapshot_stays_as_it_was(catalog: Catalog) -> None:
    put(catalog, a="1")
    before = catalog.read()
    put(catalog, a="2", b="2")
    middle = catalog.read()
    catalog.compact()
    put(catalog, a="3")
    assert (rows(before), rows(middle)) == ({"a": "1"}, {"a": "2", "b": "2"})
    assert rows(catalog.read()) == {"a": "3", "b": "2"}
    seen: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: seen.append(rows(before)))
    thread.start()
    thread.join()
    assert seen == [{"a": "1"}]


def test_compaction_counts_and_loses_nothing(catalog: Catalog) -> None:
    first = catalog.generation
    for number in range(3):
        put(catalog, **{f"key{number}": str(number)})
        catalog.compact()
    assert catalog.generation == first + 3
    assert rows(catalog.read()) == {"key0": "0", "key1": "1", "key2": "2"}
    assert catalog.size() > 0
    assert catalog.free_bytes() >= 0


def test_closing_closes_the_snapshots(catalog: Catalog) -> None:
    put(catalog, a="1")
    reader = catalog.read()
    catalog.close()
    with pytest.raises(Closed, match="open it again"):
        reader.get(Table.IDS, b"a")


# ---- LMDB only ------------------------------------------------------------------------------------------------------
def test_free_pages_are_counted_and_reclaimed(tmp_path: Path) -> None:
    catalog = lmdb_catalog(tmp_path)
    with catalog.write() as writer:
        writer.put_many(Table.RECORDS, [(b"%08d" % number, bytes(1000)) for number in range(3000)])
    full = catalog.size()
    with catalog.write() as writer:
        for number in range(2900):
            writer.delete(Table.RECORDS, b"%08d" % number)
    assert catalog.free_bytes() > 0.8 * full
    catalog.compact()
    assert catalog.size() < 0.2 * full
    assert catalog.free_bytes() < 0.5 * catalog.size()
    assert len(list(catalog.read().scan(Table.RECORDS, b""))) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["catalog-2"]
    catalog.close()


def test_a_full_map_is_told_and_aborted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.storage.catalog.MAP_MIN", 300_000)
    catalog = lmdb_catalog(tmp_path)
    put(catalog, a="1")

    def fill() -> None:
        with catalog.write() as writer:
            writer.put_many(Table.RECORDS, [(b"%08d" % number, bytes(1000)) for number in range(1000)])

    with pytest.raises(MapFull):
        fill()
    assert rows(catalog.read()) == {"a": "1"}
    catalog.close()


def test_a_map_grows_under_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that does not fit copies the catalog to a larger map, and is done there."""
    monkeypatch.setattr("vecdb.storage.catalog.MAP_MIN", 1_000_000)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=2)
        for first in range(0, 3000, 500):
            ids = list(range(first, first + 500))
            docs.upsert(ids, np.ones((500, 2)), [{"text": "x" * 500} for _ in ids])
            try:
                db.optimize()
            except StorageFailed as error:
                raise AssertionError(f"the map did not grow at {first}") from error
        assert docs.count() == 3000
        assert db._engine.catalog.generation > 1  # type: ignore[union-attr]
    with vecdb.open(tmp_path / "db") as db:
        assert db.get_collection("docs").count() == 3000


def test_a_commit_of_unknown_outcome_ends_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=2)
        docs.upsert([1], [[1, 0]])

        @contextlib.contextmanager
        def broken(self: LmdbCatalog) -> Iterator[Any]:
            raise Poisoned("a catalog commit ended in an unknown state (for the test)")
            yield

        monkeypatch.setattr(LmdbCatalog, "write", broken)
        with pytest.raises(Poisoned, match="unknown state"):
            db.optimize()
        monkeypatch.undo()
        for attempt in (lambda: docs.upsert([2], [[1, 0]]), db.optimize, db.flush):
            with pytest.raises(Poisoned, match="unknown state"):
                attempt()
        assert docs.count() == 1
    with vecdb.open(tmp_path / "db") as db:
        assert db.get_collection("docs").count() == 1


# ---- the engine on the twin -----------------------------------------------------------------------------------------
def test_the_engine_runs_on_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[MemoryCatalog] = []

    def make(seams: Seams, directory: Path, generation: int, *, writable: bool, locked: bool = True) -> MemoryCatalog:
        kept.append(MemoryCatalog(kept[-1].tables if kept else None))
        return kept[-1]

    monkeypatch.setattr(recover, "LmdbCatalog", make)
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=8)
        for first in range(0, 300, 100):
            ids = list(range(first, first + 100))
            docs.upsert(ids, vectors[first : first + 100], [{"n": i} for i in ids])
            db.optimize()
        docs.delete(where={"n": {"$lt": 50}})
        db.optimize()
        assert len(docs.stats().segments) == 1
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.get_collection("docs")
        assert docs.count() == 250
        hits = docs.search(vectors[77], k=3, where={"n": {"$gte": 60}})
        assert hits.ids[0] == 77
        assert hits[0].payload == {"n": 77}
        db.delete_collection("docs")
        db.optimize()
    assert not kept[-1].tables[Table.RECORDS]
