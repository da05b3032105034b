"""Goal: a field of dtype float16 keeps the nearest float16 of every value, and every way to search, read and recover
works on exactly these, in half the space.

Method: collections of random vectors are compared with NumPy on the rounded vectors, through every state of a record.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import oracles
from tests.oracles_api import METRICS
from vecdb.errors import Corrupted, InvalidInput
from vecdb.files.arrays import write_array
from vecdb.files.disk import LocalDisk
from vecdb.storage import batch, schema
from vecdb.storage.sealed import Sealed, open_segment
from vecdb.types import Metric

ROWS, DIM, K = 1500, 40, 10
RNG = np.random.default_rng(16)
GIVEN = RNG.standard_normal((ROWS, DIM)).astype(np.float32)
STORED = GIVEN.astype(np.float16)
QUERIES = RNG.standard_normal((6, DIM)).astype(np.float32)


def filled(db: vecdb.Database, metric: str = "l2", index: Any = "auto", name: str = "docs") -> vecdb.Collection:
    docs = db.create_collection(name, dim=DIM, metric=metric, dtype="float16", index=index)
    for start in range(0, ROWS, 500):
        docs.upsert(list(range(start, start + 500)), GIVEN[start : start + 500])
    return docs


def assert_searched(docs: vecdb.Collection, metric: str, stored: np.ndarray = STORED, **options: Any) -> None:
    rows, distances = oracles.nearest(METRICS[metric], stored, QUERIES, K)
    for found in ([docs.search(query, k=K, **options) for query in QUERIES], docs.search(QUERIES, k=K, **options)):
        for i, hits in enumerate(found):
            np.testing.assert_array_equal(hits.ids, rows[i])
            np.testing.assert_array_equal(hits.distances, distances[i])


def assert_stored(docs: vecdb.Collection, stored: np.ndarray = STORED) -> None:
    records = docs.get(list(range(len(stored))), include=("vectors",))
    got = np.stack([record.vector for record in records])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, stored.astype(np.float32))


@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, list])
def test_the_nearest_float16_is_stored_whatever_is_given(db: vecdb.Database, given: Any) -> None:
    values = [[1 / 3, -65504.0, 6e-8], [65519.0, 0.1, 1e-9], [2049.0, 0.0, -1.0009765]]
    docs = db.create_collection("docs", dim=3, metric="l2", dtype="float16")
    docs.upsert([1, 2, 3], values if given is list else np.array(values).astype(given))
    found = [record.vector for record in docs.scroll(include=("vectors",))]
    np.testing.assert_array_equal(found, np.array(values).astype(np.float16).astype(np.float32))
    assert docs.info()["fields"]["vector"]["dtype"] == "float16"


@pytest.mark.parametrize("value", [65_520.0, -1e5, 1e300, 70_000])
def test_a_value_beyond_float16_is_refused_with_the_remedy(db: vecdb.Database, value: float) -> None:
    docs = db.create_collection("docs", dim=2, dtype="float16")
    for write in (docs.upsert, docs.add):
        with pytest.raises(InvalidInput, match=r"vector 1 of 'vector' holds a value beyond float16.* scale .*float32"):
            write([1, 2], [[1, 2], [3, value]])
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidInput, match="holds NaN, infinity"):
            docs.upsert([1], [[1, bad]])
    assert docs.count() == 0
    docs.upsert([1], [[3, 4]])
    assert docs.search([70_000, 1], k=1).ids.tolist() == [1]  # a query is not stored


@pytest.mark.parametrize("metric", METRICS)
def test_every_way_to_search_gives_the_same_distances(db: vecdb.Database, metric: str) -> None:
    docs = filled(db, metric)
    assert_searched(docs, metric)  # NumPy, growing
    assert db._engine is not None
    db._engine.kernels.wait("float16")
    assert_searched(docs, metric)  # codes of a growing segment
    assert_searched(docs, metric, exact=True)
    docs.set_index(vecdb.HNSW(m=8, ef_construction=60, ef=300))
    db.optimize()
    assert set(docs.stats().segments[0].indexes["vector"]) == {"flat", "hnsw"}
    assert_searched(docs, metric)
    assert_searched(docs, metric, exact=True)
    assert_searched(docs, metric, where={"missing": {"$exists": False}})
    assert_stored(docs)


def test_files_and_log_are_half_as_large(path: Path) -> None:
    sizes = {}
    for dtype, stored in (("float32", "<f4"), ("float16", "<f2")):
        place = path.with_name(dtype)
        with vecdb.open(place, maintenance="manual") as db:
            docs = db.create_collection("docs", dim=DIM, dtype=dtype)  # type: ignore[arg-type]
            docs.upsert(list(range(ROWS)), GIVEN)
            log = sum(found.stat().st_size for found in (place / "wal").iterdir())
            db.optimize()
            file = next(place.rglob("vectors.npy"))
            array = np.load(file)
            assert array.dtype.str == stored
            np.testing.assert_array_equal(array, GIVEN.astype(dtype))
            sizes[dtype] = file.stat().st_size, log
    assert sizes["float32"][0] - sizes["float16"][0] == sizes["float16"][0] - 128 == 2 * DIM * ROWS
    assert sizes["float32"][1] - sizes["float16"][1] == 2 * DIM * ROWS


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_reopened_replayed_and_merged(path: Path, index: str) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        docs = filled(db, "cosine", index)
        db.optimize()
        docs.upsert([0, 1, ROWS], GIVEN[[5, 6, 7]])
        shutil.copytree(path, path.with_name("killed"))  # the last batch is in the log alone
    after = np.concatenate([STORED, STORED[7:8]])
    after[:2] = STORED[5:7]
    for place in (path.with_name("killed"), path):
        with vecdb.open(place, maintenance="manual") as db:
            docs = db.get_collection("docs")
            assert_stored(docs, after)
            docs.delete(ids=list(range(100, 1400)))
            docs.upsert([*range(100, 1400)], GIVEN[100:1400])
            db.optimize()
            assert len(docs.stats().segments) == 1
            assert_stored(docs, after)
        with vecdb.open(place, mode="r") as db:
            assert_stored(db.get_collection("docs"), after)
            assert db.get_collection("docs").search(GIVEN[50], k=1).ids.tolist() == [50]


def test_updates_keep_every_bit_of_what_they_do_not_change(db: vecdb.Database) -> None:
    docs = filled(db)
    db.optimize()
    docs.update([3, 4], payloads=[{"seen": True}, {"seen": True}])
    assert_stored(docs)
    docs.update([4], vectors=[GIVEN[9]])
    changed = STORED.copy()
    changed[4] = STORED[9]
    assert_stored(docs, changed)
    db.optimize()
    assert_stored(docs, changed)
    with pytest.raises(InvalidInput, match="beyond float16"):
        docs.update([4], vectors=[np.full(DIM, 1e6)])


def test_fields_of_both_dtypes_some_missing(path: Path) -> None:
    """An odd number of float16 values before float32 ones: what follows in the log is not aligned."""
    fields = {
        "half": vecdb.VectorField(3, metric="l2", dtype="float16"),
        "full": vecdb.VectorField(5, metric="dot"),
        "open": vecdb.VectorField(dtype="float16"),
    }
    halves: list[Any] = [None if row % 3 == 0 else GIVEN[row, :3] for row in range(50)]
    opens: list[Any] = [GIVEN[row, :7] if row == 11 else None for row in range(50)]
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", fields=fields)
        docs.upsert(list(range(50)), {"half": halves, "full": GIVEN[:50, :5], "open": opens})
        shutil.copytree(path, path.with_name("killed"))
        db.optimize()
    for place in (path.with_name("killed"), path):
        with vecdb.open(place, maintenance="manual") as db:
            docs = db.get_collection("docs")
            assert [f["dtype"] for f in docs.info()["fields"].values()] == ["float16", "float32", "float16"]
            for name, given in (("half", halves), ("full", list(GIVEN[:50, :5])), ("open", opens)):
                records = docs.get(list(range(50)), include=("vectors",), field=name)
                for record, vector in zip(records, given, strict=True):
                    if vector is None:
                        assert record.vector is None
                    else:
                        wanted = vector.astype(fields[name].dtype).astype(np.float32)
                        np.testing.assert_array_equal(record.vector, wanted)
            hit = docs.search(GIVEN[11, :7], k=3, field="open")[0]
            assert hit.id == 11
            assert hit.distance < 1e-6


def test_the_dtype_is_part_of_what_a_collection_is(db: vecdb.Database) -> None:
    db.create_collection("docs", dim=3, dtype="float16")
    assert db.get_or_create_collection("docs", dim=3, dtype="float16").count() == 0
    with pytest.raises(InvalidInput, match="exists with other vector fields"):
        db.get_or_create_collection("docs", dim=3)


def test_a_file_of_another_dtype_is_refused(path: Path) -> None:
    """Even one that the catalog describes as it is: the field decides what its vectors are."""
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=4, dtype="float16")
        docs.upsert([1, 2], GIVEN[:2, :4])
        db.optimize()
        disk, storage = LocalDisk(), docs._state.view.segments[0].storage
        assert isinstance(storage, Sealed)
        place = next(path.rglob("vectors.npy"))
        directory, name = place.parents[1], "field-1/vectors.npy"
        for other in (GIVEN[:2, :4], STORED[:2, :3], STORED[:1, :4]):
            place.unlink()
            files = {**storage.files, name: write_array(disk, place, other)}
            with pytest.raises(Corrupted, match=r"vectors\.npy.* not float16\(2, 4\)"):
                open_segment(disk, directory, docs._state.meta, storage.entry, files)


def test_an_unknown_dtype_in_catalog_or_log_is_refused() -> None:
    field = schema.FieldMeta(1, "vector", 3, Metric.L2, "float16", vecdb.Flat())
    meta = schema.CollectionMeta(1, "docs", bytes(16), (field,))
    key, stored = schema.collection_key(1), schema.encode_collection(meta)
    assert schema.decode_collection(key, stored) == meta
    other = schema.unseal(key, stored).replace(b"float16", b"float64")
    with pytest.raises(vecdb.Corrupted, match="unknown dtype 'float64'"):
        schema.decode_collection(key, schema.seal(key, other))
    part = batch.Part(1, 1, [b"k"], [b"p"], {1: batch.FieldBlock(STORED[:1, :3])})
    payload = b"".join(bytes(piece) for piece in batch.encode([part]))
    (block,) = batch.decode(payload)[0].vectors.values()
    assert block.values.dtype == np.float16
    np.testing.assert_array_equal(block.values, STORED[:1, :3])
    with pytest.raises((ValueError, vecdb.Corrupted), match="unknown dtype 'float64'"):
        batch.decode(payload.replace(b"float16", b"float64"))
