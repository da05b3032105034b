"""What add, upsert, update and delete mean."""

from __future__ import annotations

import datetime as dt
import math
import threading
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import REMOVE

A, B, C = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def stored(docs: vecdb.Collection) -> dict:
    """id -> (vector, payload) of every record."""
    found = docs.get(include=("payloads", "vectors"))
    return {r.id: (None if r.vector is None else r.vector.tolist(), r.payload) for r in found}


# ---- ids ------------------------------------------------------------------------------------------------------------
def test_generated_ids_are_uuids_of_version_7_in_order(docs: vecdb.Collection) -> None:
    ids = [*docs.upsert(vectors=[A, B, C]), *docs.add(payloads=[{"n": 3}, {"n": 4}])]
    assert [uuid.UUID(value).version for value in ids] == [7] * 5
    assert all(type(value) is str for value in ids)
    assert ids[:3] == sorted(ids[:3])
    assert ids[3:] == sorted(ids[3:])
    assert list(docs.get().ids) == ids
    assert len(set(ids)) == 5


@pytest.mark.parametrize("sealed", [False, True])
def test_ids_of_three_types_are_kept_apart(db: vecdb.Database, docs: vecdb.Collection, sealed: bool) -> None:
    ids = [1, "1", uuid.UUID(int=1), -(2**63), 2**63 - 1, "é\0", "x" * 480]
    docs.upsert(ids, [A] * len(ids), [{"at": i} for i in range(len(ids))])
    if sealed:
        db.optimize()
    assert docs.count() == len(ids)
    for i, value in enumerate(ids):
        (record,) = docs.get([value])
        assert (record.id, type(record.id), record.payload) == (value, type(value), {"at": i})
    hits = docs.search(A, k=len(ids))
    assert [hit.id for hit in hits] == ids
    assert [type(hit.id) for hit in hits] == [type(value) for value in ids]
    assert hits.ids.dtype == object
    assert docs.delete(["1"]) == 1
    assert docs.get([1, uuid.UUID(int=1), "1"]).ids.tolist() == [1, uuid.UUID(int=1)]


@pytest.mark.parametrize(
    "ids",
    [np.array([7, 8], np.int32), [np.int64(7), np.uint8(8)], (7, 8), range(7, 9), iter([7, 8])],
    ids=lambda ids: type(ids).__name__,
)
def test_integer_ids_of_every_kind_become_int(docs: vecdb.Collection, ids: object) -> None:
    written = docs.upsert(ids, [A, B])
    assert written == [7, 8]
    assert [type(value) for value in written] == [int, int]
    assert docs.search(A).ids.dtype == np.int64
    assert docs.get(np.array([8, 7])).ids.tolist() == [8, 7]


def test_ids_of_a_numpy_array_of_strings(docs: vecdb.Collection) -> None:
    assert docs.upsert(np.array(["a", "b"]), np.array([A, B], np.float16)) == ["a", "b"]
    assert docs.get(["b"])[0].id == "b"
    assert [type(id) for id in docs.upsert([np.str_("c")], [C])] == [str]


# ---- upsert ---------------------------------------------------------------------------------------------------------
def test_upsert_replaces_the_whole_record(docs: vecdb.Collection) -> None:
    assert docs.upsert(["a", "b"], [A, B], [{"n": 1, "m": 1}, {"n": 2}]) == ["a", "b"]
    docs.upsert(["a"], [C], [{"n": 3}])
    assert stored(docs) == {"b": (B, {"n": 2}), "a": (C, {"n": 3})}
    docs.upsert(["a"])
    assert stored(docs) == {"b": (B, {"n": 2}), "a": (None, {})}
    assert docs.search(C).ids.tolist() == ["b"]


def test_listings_are_in_order_of_the_current_version(docs: vecdb.Collection) -> None:
    docs.upsert(["a", "b", "c"], [A, B, C])
    docs.upsert(["a"], [A])
    assert docs.get().ids.tolist() == ["b", "c", "a"]


def test_records_without_a_vector(docs: vecdb.Collection) -> None:
    docs.upsert(["a", "b", "c"], [A, None, C], [{"n": 1}, None, {}])
    docs.upsert(["d"], payloads=[{"n": 4}])
    assert stored(docs) == {"a": (A, {"n": 1}), "b": (None, {}), "c": (C, {}), "d": (None, {"n": 4})}
    assert docs.search(A).ids.tolist() == ["a", "c"]
    assert docs.count() == 4
    assert docs.search(A, where={"n": 4}).ids.tolist() == []


@pytest.mark.parametrize("sealed", [False, True])
def test_several_fields(db: vecdb.Database, sealed: bool) -> None:
    both = db.create_collection(
        "both", fields={"title": vecdb.VectorField(2, "l2"), "body": vecdb.VectorField(3, "dot")}
    )
    both.upsert([1, 2, 3], {"title": [[0, 0], None, [2, 0]], "body": [None, B, C]})
    both.upsert([4], {"body": [A]})
    both.upsert([5])
    if sealed:
        db.optimize()
    assert both.search([0, 0], field="title").ids.tolist() == [1, 3]
    assert both.search(C, field="body").ids.tolist() == [3, 2, 4]
    hit = both.search(C, k=1, field="body", include=("vectors",))[0]
    assert hit.vector is not None
    assert hit.vector.tolist() == C
    assert both.update([1, 5], {"body": [A, None]}) == 2
    assert both.search(A, field="body", max_distance=0).ids.tolist() == [4, 1]
    assert both.search([0, 0], field="title").ids.tolist() == [1, 3]
    both.upsert([3], {"title": [[9, 9]]})
    assert both.search(C, field="body").ids.tolist() == [2, 4, 1]


def test_vectors_are_copied_and_kept_as_given(docs: vecdb.Collection) -> None:
    given = np.array([[3, 4, 0]], np.float64)
    docs.upsert(["a"], given)
    given[:] = 0
    vector = docs.get(["a"], include=("vectors",))[0].vector
    assert vector is not None
    assert vector.tolist() == [3, 4, 0]
    vector[:] = 7
    again = docs.get(["a"], include=("vectors",))[0].vector
    assert again is not None
    assert again.tolist() == [3, 4, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint64, ">f4"])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "list"])
def test_vectors_of_every_dtype_and_layout(docs: vecdb.Collection, dtype: object, layout: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    given = {"C": array, "F": np.asfortranarray(array), "strided": np.repeat(array, 2, 1)[:, ::2], "list": list(array)}
    docs.upsert(["a", "b"], given[layout])
    assert stored(docs) == {"a": ([0, 1, 2], {}), "b": ([3, 4, 5], {})}


def test_vectors_from_a_generator(docs: vecdb.Collection) -> None:
    docs.upsert(("a", "b"), (v for v in (A, None)), (p for p in ({"n": 1}, None)))
    assert stored(docs) == {"a": (A, {"n": 1}), "b": (None, {})}


# ---- add ------------------------------------------------------------------------------------------------------------
def test_add_refuses_what_exists_and_writes_nothing(docs: vecdb.Collection) -> None:
    assert docs.add(["a"], [A]) == ["a"]
    with pytest.raises(vecdb.AlreadyExists, match=r"1 of 2 ids exist already: 'a'"):
        docs.add(["b", "a"], [B, B])
    assert stored(docs) == {"a": (A, {})}


def test_add_skips_what_exists(docs: vecdb.Collection) -> None:
    docs.add(["a", "c"], [A, C], [{"n": 1}, {"n": 3}])
    assert docs.add(
        ["b", "a", "d", "c", "e"], [None, B, B, B, C], [{"n": i} for i in range(5)], on_conflict="skip"
    ) == [
        "b",
        "d",
        "e",
    ]
    assert stored(docs) == {
        "a": (A, {"n": 1}),
        "c": (C, {"n": 3}),
        "b": (None, {"n": 0}),
        "d": (B, {"n": 2}),
        "e": (C, {"n": 4}),
    }
    assert docs.add(["a", "b"], [C, C], on_conflict="skip") == []
    assert docs.count() == 5


def test_add_replaces_what_exists(docs: vecdb.Collection) -> None:
    docs.add(["a"], [A], [{"n": 1}])
    assert docs.add(["b", "a"], [B, C], on_conflict="replace") == ["b", "a"]
    assert stored(docs) == {"b": (B, {}), "a": (C, {})}


def test_a_deleted_id_can_be_added_again(db: vecdb.Database, docs: vecdb.Collection) -> None:
    docs.add(["a"], [A])
    docs.delete(["a"])
    docs.add(["a"], [B])
    db.optimize()
    docs.delete(["a"])
    docs.add(["a"], [C])
    db.optimize()
    assert stored(docs) == {"a": (C, {})}


# ---- update ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sealed", [False, True])
def test_update_patches(db: vecdb.Database, docs: vecdb.Collection, sealed: bool) -> None:
    docs.upsert(["a", "b", "c"], [A, B, None], [{"n": 1, "m": {"x": 1, "y": 2}, "gone": 1}, {"n": 2}, {}])
    if sealed:
        db.optimize()
    patches = [{"m": {"x": 9}, "gone": REMOVE, "null": None}, {"n": 0}, {"new": [1, 2], "never": REMOVE}]
    assert docs.update(["a", "unknown", "c"], payloads=patches) == 2
    assert stored(docs) == {
        "a": (A, {"n": 1, "m": {"x": 9}, "null": None}),
        "b": (B, {"n": 2}),
        "c": (None, {"new": [1, 2]}),
    }
    assert docs.count({"null": {"$is_null": True}}) == 1
    assert docs.count({"gone": {"$exists": True}}) == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_update_of_vectors_keeps_payloads(db: vecdb.Database, docs: vecdb.Collection, sealed: bool) -> None:
    docs.upsert(["a", "b", "c"], [A, B, None], [{"n": 1}, {"n": 2}, {"n": 3}])
    if sealed:
        db.optimize()
    assert docs.update(["c", "a", "b"], vectors=[B, C, None]) == 3
    assert stored(docs) == {"c": (B, {"n": 3}), "a": (C, {"n": 1}), "b": (B, {"n": 2})}
    assert docs.search(B, max_distance=0).ids.tolist() == ["c", "b"]
    assert docs.update(["x"], vectors=[A]) == 0
    assert docs.update([], vectors=[], payloads=[]) == 0
    assert docs.update(["a"], vectors=[B], payloads=[None]) == 1
    assert docs.get(["a"])[0].payload == {"n": 1}


def test_update_keeps_a_payload_that_grew_too_large_as_it_was(docs: vecdb.Collection) -> None:
    half = "x" * 700_000
    docs.upsert(["a"], [A], [{"one": half}])
    with pytest.raises(vecdb.InvalidInput, match="bytes packed"):
        docs.update(["a"], payloads=[{"two": half}])
    assert stored(docs) == {"a": (A, {"one": half})}


# ---- delete ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sealed", [False, True])
def test_delete(db: vecdb.Database, docs: vecdb.Collection, sealed: bool) -> None:
    docs.upsert(range(10), np.eye(10, 3), [{"n": i % 3} for i in range(10)])
    if sealed:
        db.optimize()
    assert docs.delete([3, 4, 99, 4]) == 2
    assert docs.delete([3]) == 0
    assert docs.delete([]) == 0
    assert docs.delete(where={"n": 0}) == 3
    assert docs.delete(where=vecdb.F("n") == 0) == 0
    assert docs.get().ids.tolist() == [1, 2, 5, 7, 8]
    assert docs.search(A, k=10).ids.tolist() == [5, 7, 8, 1, 2]
    assert docs.delete(where={}) == 5
    assert docs.count() == len(docs) == 0
    assert list(docs.search(A)) == []
    docs.upsert([1], [A])
    assert docs.get().ids.tolist() == [1]


# ---- payloads -------------------------------------------------------------------------------------------------------
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
PAYLOADS = [
    {},
    {"none": None, "yes": True, "no": False, "int": 0, "float": 0.0, "minus": -0.0, "text": "", "bytes": b""},
    {"big": 2**63 - 1, "small": -(2**63), "tiny": 5e-324, "huge": 1.7e308, "inf": math.inf, "nan": math.nan},
    {"naive": dt.datetime(2020, 2, 29, 23, 59, 59, 999_999), "day": dt.date(1, 1, 1), "last": dt.date.max},
    {"utc": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "first": dt.datetime.min, "last": dt.datetime.max},
    {"offset": dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))},
    {
        "zone": dt.datetime(2020, 7, 1, 12, tzinfo=BERLIN),
        "fold": dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    },
    {"list": [1, "a", None, [True, {"x": b"\x00\xff"}], {"day": dt.date(2020, 1, 1)}], "empty": [], "object": {}},
    {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "": "empty key", "ключ": "значение", "\0": "\0"},
    {"one": 1, "True": True, "1.0": 1.0},
]


def same(one: object, other: object) -> bool:
    """Equal in value and type, all the way down; NaN is itself, and zones and folds count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    if isinstance(one, dt.datetime) and isinstance(other, dt.datetime):
        return (one, one.utcoffset(), repr(one)) == (other, other.utcoffset(), repr(other))
    return one == other


def test_payloads_come_back_exactly(path: Path) -> None:
    ids = list(range(len(PAYLOADS)))
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=3)
        docs.upsert(ids, [A] * len(ids), PAYLOADS)
        assert all(map(same, docs.get(ids).payloads, PAYLOADS))
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.get_collection("docs")
        assert all(map(same, docs.search(A, k=20).payloads, PAYLOADS))
        db.optimize()
        assert all(map(same, docs.get(ids).payloads, PAYLOADS))
        assert docs.update(ids, payloads=[None] * len(ids)) == len(ids)
        assert all(map(same, docs.get(ids).payloads, PAYLOADS))
        db.optimize()
    with vecdb.open(path, mode="r") as db:
        docs = db.get_collection("docs")
        assert all(map(same, [record.payload for record in docs.scroll(batch_size=3)], PAYLOADS))


def test_numpy_values_become_plain(docs: vecdb.Collection) -> None:
    given = {
        "i": np.int32(1),
        "u": np.uint64(2),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "s": np.str_("s"),
        "d": np.datetime64("2020-01-01T00:00:00", "us"),
        "a": np.array([1, 2]),
        "t": (1, 2),
    }
    wanted = {"i": 1, "u": 2, "f": 0.5, "b": True, "s": "s", "d": dt.datetime(2020, 1, 1), "a": [1, 2], "t": [1, 2]}
    docs.upsert(["a"], payloads=[given])
    assert same(docs.get(["a"])[0].payload, wanted)


def test_dotted_keys_win_over_nesting(docs: vecdb.Collection) -> None:
    docs.upsert([1, 2], payloads=[{"a.b": 1, "a": {"b": 2}}, {"a": {"b": 2}}])
    assert docs.get(where={"a.b": 1}).ids.tolist() == [1]
    assert docs.get(where={"a.b": 2}).ids.tolist() == [2]


def test_a_payload_is_copied(docs: vecdb.Collection) -> None:
    payload = {"list": [1], "object": {"x": 1}}
    docs.upsert(["a"], payloads=[payload])
    payload["list"].append(2)
    docs.get(["a"])[0].payload["object"]["x"] = 2
    assert docs.get(["a"])[0].payload == {"list": [1], "object": {"x": 1}}


# ---- dimensions -----------------------------------------------------------------------------------------------------
def test_the_first_vectors_decide_the_dimension(db: vecdb.Database) -> None:
    docs = db.create_collection("free")
    assert list(docs.search([1, 2, 3, 4])) == []
    assert docs.search(np.zeros((2, 5)))[1].ids.tolist() == []
    docs.upsert([], [])
    docs.upsert(["none", "also"], [None, None])
    docs.upsert(["without"], payloads=[{"n": 1}])
    assert docs.update(["unknown"], vectors=[[1, 2]]) == 0
    assert docs.info()["fields"]["vector"]["dim"] is None
    assert list(docs.search([1, 2, 3, 4])) == []
    docs.update(["none"], vectors=[[1, 0, 0, 0, 0]])
    assert docs.info()["fields"]["vector"]["dim"] == 5
    with pytest.raises(vecdb.InvalidInput, match="must have 5 dimensions, not 4"):
        docs.upsert(["b"], [[1, 2, 3, 4]])
    with pytest.raises(vecdb.InvalidInput, match="must have 5 dimensions, not 4"):
        docs.search([1, 2, 3, 4])
    assert docs.search([1, 0, 0, 0, 0]).ids.tolist() == ["none"]


@pytest.mark.parametrize("conflict", ["error", "skip"])
def test_vectors_that_are_not_written_decide_no_dimension(db: vecdb.Database, conflict: Any) -> None:
    docs = db.create_collection("free")
    docs.add(["a"])
    if conflict == "error":
        with pytest.raises(vecdb.AlreadyExists):
            docs.add(["a"], [A])
    else:
        assert docs.add(["a"], [A], on_conflict=conflict) == []
    assert docs.info()["fields"]["vector"]["dim"] is None
    assert docs.add(["b"], [[1, 2]], on_conflict=conflict) == ["b"]
    assert docs.info()["fields"]["vector"]["dim"] == 2


def test_a_decided_dimension_survives_reopening(path: Path) -> None:
    with vecdb.open(path) as db:
        db.create_collection("docs").upsert(["a"], [A])
    with vecdb.open(path) as db:
        docs = db.get_collection("docs")
        assert docs.info()["fields"]["vector"]["dim"] == 3
        assert docs.search(A).ids.tolist() == ["a"]


def test_two_threads_decide_one_dimension(db: vecdb.Database) -> None:
    docs = db.create_collection("free")
    start, outcomes = threading.Barrier(2), []

    def write(dim: int) -> None:
        start.wait()
        try:
            docs.upsert([dim], np.ones((1, dim)))
            outcomes.append(dim)
        except vecdb.InvalidInput:
            pass  # the other one was first

    threads = [threading.Thread(target=write, args=(dim,)) for dim in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert docs.info()["fields"]["vector"]["dim"] == outcomes[0]
    assert docs.get().ids.tolist() == outcomes


@pytest.mark.parametrize("sealed", [False, True])
def test_zero_vectors_under_cosine_are_at_distance_one(db: vecdb.Database, sealed: bool) -> None:
    docs = db.create_collection("cosine", dim=3, metric="cosine")
    docs.upsert(["far", "zero", "near"], [[-1, 0, 0], [0, 0, 0], [2, 0, 0]])
    if sealed:
        db.optimize()
    hits = docs.search(A)
    assert hits.ids.tolist() == ["near", "zero", "far"]
    assert hits.distances.tolist() == [0, 1, 2]
    assert hits.scores.tolist() == [1, 0, -1]
    assert docs.search([0, 0, 0]).distances.tolist() == [1, 1, 1]
    assert docs.search([0, 0, 0]).ids.tolist() == ["far", "zero", "near"]


# ---- empty calls ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("vectors", [[], np.empty((0, 3)), np.empty((0,)), {}, None], ids=repr)
def test_empty_batches_write_nothing(db: vecdb.Database, docs: vecdb.Collection, vectors: object) -> None:
    before = db.stats().last_lsn
    assert docs.upsert([], vectors, []) == []
    assert docs.add([], vectors, on_conflict="skip") == []
    assert docs.update([], vectors, []) == 0
    assert docs.delete([]) == 0
    assert docs.get([]).ids.tolist() == []
    assert db.stats().last_lsn == before
