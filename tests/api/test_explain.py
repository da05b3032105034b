"""explain: the plan of every segment as text and data, and what a search did."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

import vecdb
from tests import oracles
from vecdb import F
from vecdb.engine.filter_text import filter_text
from vecdb.filter.expression import And, Or
from vecdb.filter.parse import parse

ROWS, DIM = 4_200, 64
VECTORS = oracles.clustered(ROWS + 60, DIM, seed=5).astype(np.float32)
PAYLOADS = [{"n": n, "group": f"g{n % 7}", "even": n % 2 == 0} for n in range(ROWS + 60)]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Collection]:
    """A sealed segment with a graph, 100 of its rows deleted, and a growing one of 60 rows, ten without a vector."""
    path = tmp_path_factory.mktemp("explain") / "data"
    with vecdb.open(path, maintenance="manual", sync="none", threads=1) as db:
        made = db.create_collection("docs", dim=DIM, metric="l2", index=vecdb.HNSW(m=8, ef_construction=60))
        made.upsert(list(range(ROWS)), VECTORS[:ROWS], PAYLOADS[:ROWS])
        db.optimize()
        made.delete(list(range(0, 200, 2)))
        made.upsert(list(range(ROWS, ROWS + 50)), VECTORS[ROWS : ROWS + 50], PAYLOADS[ROWS : ROWS + 50])
        made.upsert(list(range(ROWS + 50, ROWS + 60)), payloads=PAYLOADS[ROWS + 50 :])
        yield made


@pytest.mark.parametrize(
    ("where", "arm"),
    [(None, "graph"), ({"even": True}, "graph"), ({"group": "g3"}, "gather"), ({"n": {"$lt": 5_000}}, "graph")],
)
def test_analyze_tells_what_the_search_did(docs: vecdb.Collection, where: object, arm: str) -> None:
    query = VECTORS[4_000]
    hits = docs.search(query, 10, where, recall=0.8)
    told = docs.explain(query, 10, where, recall=0.8, analyze=True)
    assert told.hits == len(hits) == 10
    assert list(told.stages) == ["filter", "plan", "search", "merge", "fetch"]
    assert all(spent > 0 for spent in told.stages.values())
    sealed, growing = told.segments
    assert (sealed.indexes, growing.segment) == (("flat", "hnsw"), "growing")
    assert sealed.plan.arm == arm
    assert sealed.work.distances >= sealed.work.rescored >= 10
    assert (sealed.work.visited > 0) == (arm == "graph")
    for stage in ("filter", "plan", "search"):
        parts = sum(getattr(part.work, f"{stage}_us") for part in told.segments)
        assert parts == pytest.approx(told.stages[stage])


def test_without_analyze_nothing_is_searched(docs: vecdb.Collection) -> None:
    told = docs.explain(VECTORS[0], 10, {"even": True})
    assert (told.stages, told.hits) == (None, None)
    assert [part.work for part in told.segments] == [None, None]


def test_an_estimate_says_how_it_was_made(docs: vecdb.Collection) -> None:
    where = {"group": "g2", "n": {"$lt": 2_003}}
    matching = sum(p["group"] == "g2" and p["n"] < 2_003 for p in PAYLOADS[:ROWS])
    deleted = sum(p["group"] == "g2" and p["n"] < 200 and p["even"] for p in PAYLOADS[:ROWS])
    first, again = (docs.explain(VECTORS[0], 10, where).segments[0] for _ in range(2))
    assert (first.counted, again.counted) == (
        "counted by the columns, without 100 deleted",
        "kept from an earlier query, without 100 deleted",
    )
    assert (first.plan.matching.low, first.plan.matching.high) == (matching - deleted, matching - deleted)
    assert first.bounds.low <= matching <= first.bounds.high
    assert not first.bounds.exact
    one = docs.explain(VECTORS[0], 10, {"group": "g2"}).segments[0].bounds
    assert (one.low, one.high) == (600, 600)
    sealed, growing = docs.explain(VECTORS[0]).segments
    assert (sealed.counted, sealed.bounds.low) == ("all, without 100 deleted", ROWS)
    assert (growing.counted, growing.plan.rows) == ("all, of those that have the field", 50)


def test_text(docs: vecdb.Collection) -> None:
    where = {"$or": [{"group": "g1"}, {"n": {"$gte": 4_000}}]}
    plain = str(docs.explain(VECTORS[0], 7, where)).splitlines()
    assert plain[0] == "search docs.vector, k=7, where group == 'g1' or 4000 <= n: 2 segments"
    assert plain[1].endswith("(indexes: flat, hnsw)")
    assert plain[2].startswith("    rows: counted by the columns, without 100 deleted; the columns tell ")
    assert [line.split()[0] for line in plain if line.endswith("predicted")].count("->") == 2
    assert not any("did:" in line for line in plain)
    analyzed = str(docs.explain(VECTORS[0], 7, where, analyze=True)).splitlines()
    assert sum("did:" in line for line in analyzed) == 2
    assert analyzed[-1].startswith("took ")
    assert analyzed[-1].endswith("; 7 hits")
    assert max(map(len, analyzed)) <= 120
    walk = str(docs.explain(VECTORS[0], recall=0.8))
    assert "gives up to scan after" in walk
    assert "gives up" not in str(docs.explain(VECTORS[0], exact=True))
    assert "distances" not in str(docs.explain(VECTORS[0], ef=20))


def test_a_notebook_shows_a_table(docs: vecdb.Collection) -> None:
    told = docs.explain(VECTORS[0], 3, F("group") == "<b>")
    page = told._repr_html_()
    assert page.count("<tr>") == 1 + len(told.segments)
    assert "<b>" not in page.replace("&lt;b&gt;", "")
    assert "escalated" not in page
    analyzed = docs.explain(VECTORS[0], 3, analyze=True)._repr_html_()
    head, *rows = analyzed.split("<tr>")[1:]
    assert [row.count("<td>") for row in rows] == [head.count("<th>")] * 2
    assert "took" in analyzed


def test_as_data(docs: vecdb.Collection) -> None:
    told = docs.explain(VECTORS[:3], 5, {"even": True}, analyze=True)
    assert told.hits == 15
    data = json.loads(json.dumps(told.to_dict()))
    sealed = data["segments"][0]
    assert data["where"] == "even == True"
    assert sealed["plan"]["arm"] in sealed["plan"]["costs"]
    assert set(sealed["plan"]["costs"]) - {"excerpt"} == {"exact", "gather", "scan", "graph"}  # if others asked before
    assert set(sealed["work"]) == {
        "visited", "distances", "rescored", "escalated", "filter_us", "plan_us", "search_us",
    }  # fmt: skip


def test_no_segment_no_match_no_rows(tmp_path) -> None:
    with vecdb.open(tmp_path / "data", maintenance="manual") as db:
        empty = db.create_collection("empty", dim=3)
        told = empty.explain([1, 2, 3], analyze=True)
        assert (told.segments, told.hits) == ((), 0)
        assert str(told).startswith("search empty.vector, k=10: 0 segments")
        empty.upsert([1], [[1, 2, 3]], [{"a": 1}])
        none = empty.explain([1, 2, 3], where={"a": 2}, analyze=True)
        assert (none.segments[0].plan.arm, none.hits) == ("none", 0)
        assert "no row matches" in str(none)


def test_analyze_is_a_flag(docs: vecdb.Collection) -> None:
    with pytest.raises(vecdb.InvalidInput, match="analyze must be True or False"):
        docs.explain(VECTORS[0], analyze="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"a": 1, "b": "x"}, "a == 1 and b == 'x'"),
        ({"$or": [{"a": 1}, {"a": 2, "b": None}]}, "a == 1 or (a == 2 and b null)"),
        ({"a": {"$in": [1, 2]}}, "a in (1, 2)"),
        ({"a": {"$in": list(range(1_000))}}, "a in (0, 1, 2, 3, ... 1,000 values)"),
        ({"a": {"$ne": True}}, "not (a == True)"),
        ({"a": {"$gt": 1, "$lte": 2.5}}, "1 < a and a <= 2.5"),
        ({"a": {"$between": ["b", "c"]}}, "'b' <= a <= 'c'"),
        ({"a": {"$startswith": "x"}}, "a starts with 'x'"),
        ({"a.b": {"$exists": True}}, "a.b present"),
        ({"a": "y" * 100}, "a == '" + 36 * "y" + "..."),
        ({"a": {"$in": []}}, "a in ()"),
    ],
)
def test_filters_as_text(where: dict, text: str) -> None:
    assert filter_text(parse(where)) == text


def test_joined_filters_of_nothing_as_text() -> None:
    assert filter_text(Or((And(()), And((Or(()), parse({"a": 1})))))) == "(everything) or ((nothing) and a == 1)"
