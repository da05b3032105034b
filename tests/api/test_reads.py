"""Reading without vectors, and the care of collections."""

from __future__ import annotations

import datetime as dt
import pickle
import subprocess
import sys
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb

A = [1.0, 0.0, 0.0]
DAY = dt.datetime(2020, 5, 17, 12)
PAYLOADS: list[dict[str, Any]] = [
    {"n": 3, "name": "b", "tags": ["x", "y"], "day": DAY},
    {"n": 1.5, "name": "a", "tags": [], "deep": {"n": 1}},
    {"n": None, "name": "B"},
    {"name": "ab", "tags": ["y"], "day": DAY - dt.timedelta(1)},
    {"n": "text", "name": "", "flag": True},
    {"n": -7, "name": "ä", "flag": False},
    {"n": 3, "name": "b", "tags": ["x", "x"]},
]


@pytest.fixture(params=["growing", "sealed", "both"])
def filled(request: pytest.FixtureRequest, db: vecdb.Database, docs: vecdb.Collection) -> vecdb.Collection:
    """Records 0 to 6 with the payloads above."""
    cut = {"growing": 7, "sealed": 7, "both": 4}[request.param]
    docs.upsert([99], payloads=[{"n": 0, "gone": 1}])
    docs.upsert(range(cut), [A] * cut, PAYLOADS[:cut])
    docs.delete([99])
    if request.param != "growing":
        db.optimize()
    docs.upsert(range(cut, 7), [A] * (7 - cut), PAYLOADS[cut:])
    return docs


# ---- get ------------------------------------------------------------------------------------------------------------
def test_get_by_ids(filled: vecdb.Collection) -> None:
    assert filled.get([5, 0, 42, 3]).ids.tolist() == [5, 0, 3]
    assert [r.payload for r in filled.get([5, 0])] == [PAYLOADS[5], PAYLOADS[0]]
    assert filled.get([2, 1, 2]).ids.tolist() == [2, 1, 2]
    assert list(filled.get([])) == []
    assert list(filled.get(["0", 99, uuid.UUID(int=0)])) == []
    assert filled.get([5, 0, 3, 1], limit=2, offset=1).ids.tolist() == [0, 3]


def test_get_by_filter(filled: vecdb.Collection) -> None:
    assert filled.get().ids.tolist() == list(range(7))
    assert filled.get(where={"tags": "x"}).ids.tolist() == [0, 6]
    assert filled.get(limit=0).ids.tolist() == []
    assert filled.get(limit=2).ids.tolist() == [0, 1]
    assert filled.get(offset=5).ids.tolist() == [5, 6]
    assert filled.get(limit=2, offset=4).ids.tolist() == [4, 5]
    assert filled.get(offset=100).ids.tolist() == []
    assert filled.get(where={"n": {"$gte": 0}}, limit=1, offset=1).ids.tolist() == [1]


def test_get_in_an_order(filled: vecdb.Collection) -> None:
    assert filled.get(order_by="name").ids.tolist() == [4, 2, 1, 3, 0, 6, 5]
    numbers = filled.get(where={"n": {"$gte": -100}}, order_by="n")
    assert numbers.ids.tolist() == [5, 1, 0, 6]
    assert filled.get(where={"n": {"$gte": -100}}, order_by="-n").ids.tolist() == [0, 6, 1, 5]
    assert filled.get(order_by="day", limit=3).ids.tolist() == [3, 0, 1]
    assert filled.get(order_by="-day", limit=3).ids.tolist() == [0, 3, 1]
    assert filled.get(order_by="nowhere").ids.tolist() == list(range(7))
    assert filled.get(order_by="-nowhere").ids.tolist() == list(range(7))
    assert filled.get(order_by="deep.n", limit=2).ids.tolist() == [1, 0]
    assert filled.get([6, 0, 5], order_by="n").ids.tolist() == [5, 6, 0]


def test_what_get_includes(filled: vecdb.Collection) -> None:
    bare = filled.get([0], include=())
    assert (bare[0].id, bare[0].payload, bare[0].vector) == (0, None, None)
    with pytest.raises(vecdb.InvalidInput, match="payloads were not asked for"):
        _ = bare.payloads
    with pytest.raises(vecdb.InvalidInput, match="vectors were not asked for"):
        _ = filled.get([0]).vectors
    whole = filled.get([0], include=["vectors", "payloads"])
    assert whole[0].vector is not None
    assert whole[0].vector.tolist() == A
    assert whole.to_list() == [{"id": 0, "payload": PAYLOADS[0], "vector": whole[0].vector}]


# ---- scroll ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_scroll_shows_one_moment(db: vecdb.Database, filled: vecdb.Collection, size: int) -> None:
    records = filled.scroll(batch_size=size, include=("payloads", "vectors"))
    first = next(records)
    filled.upsert([0, 1, 50], payloads=[{"new": 1}] * 3)
    filled.delete([2, 3])
    db.optimize()
    filled.delete(where={})
    db.optimize()
    rest = list(records)
    assert [record.id for record in [first, *rest]] == list(range(7))
    assert [record.payload for record in [first, *rest]] == PAYLOADS
    assert all(record.vector is not None and record.vector.tolist() == A for record in rest)
    assert list(filled.scroll()) == []


def test_scroll_shows_the_moment_of_the_call(filled: vecdb.Collection) -> None:
    records = filled.scroll({"tags": "y"})
    filled.delete(where={})
    assert [record.id for record in records] == [0, 3]


# ---- aggregates -----------------------------------------------------------------------------------------------------
def test_count(filled: vecdb.Collection) -> None:
    assert len(filled) == filled.count() == filled.count({}) == 7
    assert filled.count({"n": 3}) == 2
    assert filled.count(vecdb.F("n").exists()) == 6
    assert filled.count({"gone": 1}) == 0


def test_distinct(filled: vecdb.Collection) -> None:
    assert filled.distinct("name") == [("b", 2), ("", 1), ("B", 1), ("a", 1), ("ab", 1), ("ä", 1)]
    assert filled.distinct("tags") == [("x", 2), ("y", 2)]
    assert sorted(filled.distinct("n"), key=str) == [("text", 1), (-7, 1), (1.5, 1), (3, 2)]
    assert dict(filled.distinct("flag")) == {True: 1, False: 1}
    assert filled.distinct("name", where={"n": 3}) == [("b", 2)]
    assert filled.distinct("day", where={"tags": "x"})[0][1] == 1
    assert filled.distinct("deep") == filled.distinct("gone") == filled.distinct("nowhere") == []


def test_min_max(filled: vecdb.Collection) -> None:
    assert filled.min_max("n") == (-7, 3)
    assert filled.min_max("name") == ("", "ä")
    assert filled.min_max("n", where={"tags": "x"}) == (3, 3)
    assert filled.min_max("n", where={"name": ""}) == ("text", "text")
    assert filled.min_max("gone") is None
    assert filled.min_max("n", where={"n": 99}) is None


def test_fields(filled: vecdb.Collection) -> None:
    found = filled.fields()
    rows = {path: info.rows for path, info in found.items()}
    assert rows == {"n": 6, "name": 7, "tags": 4, "day": 2, "deep": 1, "deep.n": 1, "flag": 2}
    assert set(found["name"].types) == {"string"}
    assert len(found["n"].types) >= 2


# ---- what a search returns ------------------------------------------------------------------------------------------
def test_hits_are_a_sequence(filled: vecdb.Collection) -> None:
    hits = filled.search(A, 5)
    assert len(hits) == 5
    assert [hit.id for hit in hits] == hits.ids.tolist() == [0, 1, 2, 3, 4]
    assert hits[-1].id == 4
    assert [hit.id for hit in hits[1:4:2]] == [1, 3]
    assert [hit.id for hit in hits[::-1]] == [4, 3, 2, 1, 0]
    assert hits.distances.dtype == np.float32
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"hit {index} of 5"):
            hits[index]
    with pytest.raises(IndexError, match="record 7 of 7"):
        filled.get()[7]
    assert [record.id for record in filled.get()[5:]] == [5, 6]
    assert (type(hits[0].id), type(hits[0].distance), type(hits[0].score)) == (int, float, float)


def test_hits_as_other_things(filled: vecdb.Collection) -> None:
    hits = filled.search(A, 3, where={"tags": {"$exists": True}})
    assert hits.to_list()[0] == {"id": 0, "distance": 0.0, "score": 0.0, "payload": PAYLOADS[0]}
    table = hits.to_arrow()
    assert table.column_names[:3] == ["id", "distance", "score"]
    assert table.column("name").to_pylist() == ["b", "a", "ab"]
    assert table.column("tags").to_pylist() == [["x", "y"], [], ["y"]]
    text = filled.get().to_arrow().column("n").to_pylist()
    assert text == ["3", "1.5", None, None, "text", "-7", "3"]
    page = filled.search(A, 7)._repr_html_()
    assert page.count("<tr>") == 8
    assert "<th>distance</th>" in page
    assert repr(hits).startswith("Hits([Hit(id=0, distance=0)")
    assert repr(filled.get([0])).startswith("Records([Record(id=0, payload={'n': 3,")
    assert filled.search(A, where={"n": 99}).to_arrow().num_rows == 0
    vectors = filled.search(A, 1, include=("vectors",)).to_arrow()
    assert vectors.column("vector").to_pylist() == [A]
    assert str(vectors.schema.field("vector").type) == f"fixed_size_list<item: float>[{len(A)}]"


def test_arrow_vectors_of_records_without_one(docs: vecdb.Collection) -> None:
    docs.upsert([1, 2], [None, A], [{"n": 1}, {"n": "x"}])
    table = docs.get(include=("vectors", "payloads")).to_arrow()
    assert table.column("vector").to_pylist() == [None, A]
    assert table.column("n").to_pylist() == ["1", "x"]
    assert docs.get([1], include=("vectors",)).to_arrow().column("vector").to_pylist() == [None]


def test_what_reads_from_the_database_says_how_to_pickle_it(filled: vecdb.Collection) -> None:
    hits = filled.search(A, 2)
    for values, remedy in ((hits, "to_list"), (hits[0], "to_dict"), (filled.get([0]), "to_list")):
        with pytest.raises(TypeError, match=remedy):
            pickle.dumps(values)


def test_get_and_scroll_include_the_vectors_of_the_field_they_are_told(db: vecdb.Database) -> None:
    named = db.create_collection("named", fields={"a": vecdb.VectorField(1), "b": vecdb.VectorField(2)})
    named.upsert([1], {"a": [[1]], "b": [[2, 3]]})
    for field, vector in ((None, [1]), ("a", [1]), ("b", [2, 3])):
        assert named.get([1], include=("vectors",), field=field)[0].vector.tolist() == vector
        assert [r.vector.tolist() for r in named.scroll(include=("vectors",), field=field)] == [vector]
    with pytest.raises(vecdb.InvalidInput, match="no vector field 'c'"):
        named.get(field="c")


def test_html_and_columns_of_awkward_payloads(docs: vecdb.Collection) -> None:
    docs.upsert([1, "1"], [A, A], [{"id": 5, "<b>": "<script>", "distance": 2}, {"score": b"\xff", "vector": [1]}])
    hits = docs.search(A)
    assert "<script>" not in hits._repr_html_()
    table = hits.to_arrow()
    assert table.column("id").to_pylist() == ["1", "1"]
    assert table.column("payload.id").to_pylist() == [5, None]
    assert table.column("payload.distance").to_pylist() == [2, None]


def test_what_a_search_includes(filled: vecdb.Collection) -> None:
    bare = filled.search(A, 2, include=())
    assert bare.to_list()[0].keys() == {"id", "distance", "score"}
    with pytest.raises(vecdb.InvalidInput, match="payloads were not asked for"):
        _ = bare[0].payload
    with pytest.raises(vecdb.InvalidInput, match="vectors were not asked for"):
        _ = filled.search(A)[0].vector
    assert filled.search(A, 1, include=["vectors"])[0].to_dict().keys() == {"id", "distance", "score", "vector"}
    assert filled.search(A, 1, include={"payloads"})[0].payload == PAYLOADS[0]


def test_payloads_are_those_of_the_moment_of_the_search(db: vecdb.Database, filled: vecdb.Collection) -> None:
    hits = filled.search(A, 7)
    filled.update([0], payloads=[{"n": 100}])
    filled.upsert([1], [A])
    filled.delete([2, 3])
    db.optimize()
    filled.delete(where={})
    db.optimize()
    assert hits.payloads == PAYLOADS
    assert [hit.payload for hit in hits] == PAYLOADS


def test_payloads_that_only_the_disk_has_raise_closed(path: Path) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=3)
        docs.upsert([1], [A], [{"n": 1}])
        db.optimize()
        read, unread, older = docs.search(A), docs.search(A), docs.search(A, include=("payloads",))
        assert read[0].payload == {"n": 1}
        docs.upsert([2], [A])
        db.optimize()
    assert read[0].payload == older[0].payload == {"n": 1}
    assert unread.distances.tolist() == [0]
    with pytest.raises(vecdb.Closed, match="open it again"):
        _ = unread[0].payload
    with vecdb.open(path, maintenance="manual") as db:
        assert db.get_collection("docs").search(A).payloads == [{"n": 1}, {}]


# ---- collections ----------------------------------------------------------------------------------------------------
def test_collections_are_listed_renamed_and_deleted(path: Path) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        for name in ("b", "a", "c-1_x"):
            db.create_collection(name, dim=3).upsert([name], [A])
        assert db.list_collections() == ["a", "b", "c-1_x"]
        handle = db.get_collection("a")
        db.rename_collection("a", "z")
        db.rename_collection("z", "z")
        assert (handle.name, handle.info()["name"], handle.count()) == ("z", "z", 1)
        with pytest.raises(vecdb.NotFound, match="no collection 'a'; this database has: b, c-1_x, z"):
            db.get_collection("a")
        db.delete_collection("b")
        assert db.list_collections() == ["c-1_x", "z"]
    with vecdb.open(path, maintenance="manual") as db:
        assert db.list_collections() == ["c-1_x", "z"]
        assert db.get_collection("z").get().ids.tolist() == ["a"]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_collection_made_again_is_empty(path: Path, sealed: bool) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        old = db.create_collection("docs", dim=3)
        old.upsert(range(10), [A] * 10, [{"n": 1}] * 10)
        if sealed:
            db.optimize()
        hits = old.search(A)
        db.delete_collection("docs")
        new = db.create_collection("docs", dim=2)
        assert new.count() == 0
        assert list(new.search([1, 0])) == list(new.get(range(10))) == []
        new.upsert([3], [[1, 0]])
        with pytest.raises(vecdb.NotFound, match="was deleted"):
            old.count()
        assert hits.payloads == [{"n": 1}] * 10
        db.optimize()
        assert new.get().ids.tolist() == [3]
        assert new.info()["uuid"] != old.name
    with vecdb.open(path, maintenance="manual") as db:
        assert db.get_collection("docs").get().ids.tolist() == [3]
        assert db.get_collection("docs").get([3])[0].payload == {}


def test_get_or_create(db: vecdb.Database) -> None:
    made = db.get_or_create_collection("docs", dim=3, metric="l2")
    made.upsert([1], [A])
    again = db.get_or_create_collection("docs", dim=3, metric="euclidean")
    assert again.count() == 1
    assert db.get_or_create_collection("docs", metric="l2").count() == 1
    with pytest.raises(vecdb.InvalidInput, match="exists with other vector fields"):
        db.get_or_create_collection("docs", dim=4, metric="l2")


def test_info_and_stats(db: vecdb.Database, filled: vecdb.Collection) -> None:
    info = filled.info()
    assert (info["name"], info["records"]) == ("docs", 7)
    assert info["fields"] == {"vector": {"dim": 3, "metric": "l2", "dtype": "float32", "index": "auto"}}
    assert uuid.UUID(info["uuid"])
    stats = filled.stats()
    assert stats.records == 7
    assert sum(segment.rows - segment.deleted for segment in stats.segments) + stats.growing_rows >= 7
    assert stats.segment_bytes == sum(segment.bytes for segment in stats.segments)
    whole = db.stats()
    assert whole.collections == {"docs": stats}
    assert (whole.format, whole.trouble, whole.frozen) == (1, None, 0)
    assert whole.last_lsn >= whole.applied_lsn >= 0
    assert whole.log_bytes > 0
    assert whole.catalog_bytes > 0
    assert repr(filled) == "Collection('docs', 7 records, vector: 3 l2)"


def test_set_index_builds_while_the_old_one_serves(db: vecdb.Database) -> None:
    docs = db.create_collection("docs", dim=16, metric="l2", index="flat")
    vectors = np.random.default_rng(1).standard_normal((1200, 16)).astype(np.float32)
    docs.upsert(range(1200), vectors)
    db.optimize()
    wanted = docs.search(vectors[5], 10, exact=True).ids.tolist()

    def kinds() -> list[str]:
        (segment,) = docs.stats().segments
        return segment.indexes["vector"]

    assert kinds() == ["flat"]
    docs.set_index(vecdb.HNSW(m=8))
    assert docs.info()["fields"]["vector"]["index"]["m"] == 8
    assert kinds() == ["flat"]
    assert docs.stats().unindexed == 1200
    assert docs.search(vectors[5], 10).ids.tolist() == wanted
    assert db.maintain() == "index"
    assert "hnsw" in kinds()
    assert docs.stats().unindexed == 0
    assert docs.search(vectors[5], 10, ef=400).ids.tolist() == wanted
    while db.maintain() is not None:
        pass
    docs.set_index(vecdb.HNSW(m=12))
    assert docs.stats().unindexed == 1200
    assert docs.search(vectors[5], 10, ef=400).ids.tolist() == wanted
    db.optimize()
    assert docs.stats().unindexed == 0
    docs.set_index("flat")
    while db.maintain() is not None:
        pass
    assert docs.search(vectors[5], 10).ids.tolist() == wanted


# ---- handles --------------------------------------------------------------------------------------------------------
def test_a_collection_keeps_its_database_open(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        docs = vecdb.open(path).create_collection("docs", dim=3)
        docs.upsert([1], [A])
        assert docs.count() == 1
    with pytest.warns(ResourceWarning, match="was dropped without close"):
        del docs


def test_a_second_open_shares_the_database(path: Path) -> None:
    with vecdb.open(path) as first, vecdb.open(str(path)) as second:
        first.create_collection("docs", dim=3).upsert([1], [A])
        first.close()
        assert second.get_collection("docs").count() == 1
    with pytest.raises(vecdb.Closed):
        second.list_collections()


UNPICKLE = """
import pickle, sys
docs = pickle.load(sys.stdin.buffer)
print(docs.count(), docs.get([1])[0].payload)
try:
    docs.upsert([2])
except Exception as error:
    print(type(error).__name__)
"""


def test_handles_travel_to_other_processes_read_only(path: Path) -> None:
    with vecdb.open(path) as db:
        docs = db.create_collection("docs", dim=3)
        docs.upsert([1], [A], [{"n": 1}])
        done = subprocess.run(
            [sys.executable, "-c", UNPICKLE], input=pickle.dumps(docs), capture_output=True, check=True
        )
    assert done.stdout.decode().split("\n") == ["1 {'n': 1}", "ReadOnly", ""]


FORK = """
import os, sys, vecdb
db = vecdb.open(sys.argv[1], sync="none")
docs = db.create_collection("docs", dim=3)
docs.upsert([1], [[1, 0, 0]])
hits = docs.search([1, 0, 0])
child = os.fork()
if child == 0:
    for call in (docs.count, db.list_collections, lambda: docs.upsert([2]), lambda: docs.search([1, 0, 0])):
        try:
            call()
            os._exit(1)
        except vecdb.Closed as error:
            if "forked" not in str(error):
                os._exit(2)
    db.close()
    try:
        vecdb.open(sys.argv[1])
        os._exit(3)
    except vecdb.Locked:
        pass
    with vecdb.open(sys.argv[1], mode="r") as reader:
        os._exit(0 if reader.get_collection("docs").count() == 1 else 4)
_, status = os.waitpid(child, 0)
docs.upsert([2], [[0, 1, 0]])
print(os.waitstatus_to_exitcode(status), docs.count(), docs.search([0, 1, 0]).ids.tolist(), hits.payloads)
db.close()
with vecdb.open(sys.argv[1]) as db:
    print(db.get_collection("docs").count())
"""


def test_a_forked_child_has_no_handle_and_may_read(path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (["0 2 [2, 1] [{}]", "2"], "")


def test_reports_print_short(db: vecdb.Database, docs: vecdb.Collection) -> None:
    docs.upsert([1, 2], np.ones((2, 3), np.float32), [{"a": 1}, {"a": 2}])
    assert str(docs.stats()).startswith("2 records: 0 sealed segment(s)")
    assert "  docs: 2 records" in str(db.stats())
    text = str(docs.explain(np.ones(3), where={"a": 1}))
    assert text.splitlines()[1] == "  segment growing (indexes: flat)"
    assert "exact" in text


def test_a_held_collection_keeps_nothing_after_close(path: Path) -> None:
    db = vecdb.open(path, maintenance="manual")
    docs = db.create_collection("held", dim=4)
    docs.upsert([1, 2], np.ones((2, 4), np.float32))
    db.optimize()
    hits = docs.search(np.ones(4), k=2)
    db.close()
    assert docs._state.view.segments == ()
    assert hits.ids.tolist() == [1, 2]  # its own view lives on
    with pytest.raises(vecdb.Closed):
        docs.count()
