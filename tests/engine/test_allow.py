"""The rows that filters allow: kept by segment, brought up to date after deletions, counted without being found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.filter import oracle
from vecdb.engine import allow
from vecdb.engine.allow import FilterCache, allowed_rows, estimated
from vecdb.engine.view import Segment
from vecdb.filter.expression import And, Leaf, Node, Not, Or
from vecdb.filter.parse import parse
from vecdb.kernels import bitset

ROWS = 3000
PAYLOADS: list[dict[str, Any]] = [
    {
        "n": row % 100,
        "name": f"name {row % 700}",
        "tags": [f"t{row % 5}", f"t{row % 7}"],
        **({"rare": None if row % 2 else 1.5} if row % 90 == 0 else {}),
        **({"n": float(row % 100)} if row % 3 == 0 else {}),
    }
    for row in range(ROWS)
]
ONE: list[dict[str, Any]] = [  # single conditions, whose count is exact
    {"n": 5},
    {"n": {"$lt": 60}},
    {"n": {"$ne": 7}},
    {"name": {"$in": [f"name {number}" for number in range(0, 700, 3)]}},
    {"name": {"$startswith": "name 1"}},
    {"name": {"$regex": "[05]$"}},
    {"rare": {"$exists": True}},
    {"rare": None},
    {"tags": "t3"},
    {"tags": {"$size": 2}},
    {"nothing": 1},
    {"n": {"$gte": "a"}},
]
SEVERAL: list[dict[str, Any]] = [
    {"tags": {"$in": ["t3", "t4"]}},
    {"n": {"$lt": 60}, "tags": "t1"},
    {"$or": [{"n": 3}, {"name": "name 9"}, {"rare": {"$gt": 1}}]},
    {"n": {"$lt": 90}, "name": {"$ne": "name 3"}, "rare": {"$exists": False}},
]


@pytest.fixture(params=["growing", "sealed"])
def docs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[vecdb.Collection]:
    with vecdb.open(tmp_path / "data", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=2)
        docs.upsert(range(ROWS), payloads=PAYLOADS)
        if request.param == "sealed":
            db.optimize()
        yield docs


def segment_of(docs: vecdb.Collection) -> Segment:
    return docs._state.view.segments[0]  # deletions of sealed rows start an empty growing one


def node_of(where: dict[str, Any]) -> Node:
    node = parse(where)
    assert node is not None
    return node


@pytest.mark.parametrize("where", [*ONE, *SEVERAL], ids=lambda where: str(where)[:40])
def test_deleted_rows_are_neither_allowed_nor_counted(docs: vecdb.Collection, where: dict[str, Any]) -> None:
    node, cache = node_of(where), FilterCache()
    gone: set[int] = set()
    for more in ([], [0], range(0, ROWS, 7), range(ROWS // 2, ROWS)):
        docs.delete(list(more))
        gone.update(more)
        expected = [row for row, p in enumerate(PAYLOADS) if row not in gone and oracle.matches(p, where)]
        segment = segment_of(docs)
        for bounds in (estimated(FilterCache(), segment, node), estimated(cache, segment, node)):
            assert bounds.low <= len(expected) <= bounds.high
            assert bounds.exact or where in SEVERAL
        allowed = allowed_rows(cache, segment, node)
        assert allowed is not None
        assert bitset.rows_of(allowed, segment.rows).tolist() == expected
        assert estimated(cache, segment, node).exact
        assert docs.count(where) == len(expected)


def test_counting_one_condition_finds_no_rows(docs: vecdb.Collection) -> None:
    docs.delete(range(0, ROWS, 9))
    for where in ONE:
        docs.count(where)
    assert len(docs._engine.filters.entries) == 0


def test_deletions_do_not_evaluate_a_filter_again(docs: vecdb.Collection) -> None:
    cache, node = docs._engine.filters, node_of({"n": {"$lt": 50}, "tags": "t1"})
    before = docs.count({"n": {"$lt": 50}, "tags": "t1"})
    matching = cache.get(segment_of(docs), node).matching
    docs.delete([1])
    assert docs.count({"n": {"$lt": 50}, "tags": "t1"}) == before - 1
    entry = cache.get(segment_of(docs), node)
    assert entry.matching is matching
    assert entry.allowed.count == matching.count - 1
    assert entry.weight == allow.ENTRY_BYTES + sum(
        array.nbytes
        for found in (entry.matching, entry.allowed)
        for array in (found.rows, found.bits)
        if array is not None
    )


def test_what_is_kept_is_bounded_and_counted(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allow, "CACHE_BYTES", 20_000)
    cache, segment = FilterCache(), segment_of(docs)
    nodes = [node_of({"n": {"$lt": bound}, "tags": "t1"}) for bound in range(100)]
    for node in nodes:
        allowed_rows(cache, segment, node)
        allowed_rows(cache, segment, nodes[0])
        assert cache.bytes == sum(entry.weight for entry in cache.entries.values()) <= 20_000
    assert 1 < len(cache.entries) < len(nodes)
    assert cache.get(segment, nodes[0]) is not None  # used all the time
    assert cache.get(segment, nodes[1]) is None
    assert cache.get(segment, nodes[-1]) is not None
    cache.forget({id(segment.storage)})
    assert (cache.bytes, len(cache.entries)) == (0, 0)


def test_rows_that_came_later_are_not_left_out(docs: vecdb.Collection) -> None:
    where = {"n": {"$lt": 3}, "new": {"$exists": False}}
    before = docs.count(where)
    docs.upsert(["later"], payloads=[{"n": 2}])
    assert docs.count(where) == before + 1
    docs.upsert(["later"], payloads=[{"n": 2, "new": 1}])
    assert docs.count(where) == before


def test_hashes_of_filters() -> None:
    def built() -> Node:
        leaf = node_of({"a": {"$in": [1, "x"]}})
        return And((leaf, Or((Not(leaf), node_of({"b": None})))))

    assert built() == built()
    assert hash(built()) == hash(built())
    kinds = [Leaf, And, Or, Not]
    assert len({hash(kind((node_of({"a": 1}),))) for kind in kinds}) == len(kinds)
    assert len({node_of({"a": 1}), node_of({"a": True}), node_of({"a": 1.0})}) == 2
    assert np.array_equal(sorted({built(): 1}.values()), [1])
