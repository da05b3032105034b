"""What a search decides before its query is known is kept with the segment, and decided again when it would differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests import oracles
from vecdb.engine.search import WAYS_MAX

ROWS, DIM, K = 5_000, 48, 10
VECTORS = oracles.clustered(ROWS, DIM, 3)
QUERIES = oracles.clustered(20, DIM, 4)


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[vecdb.Collection]:
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=DIM, metric="l2", index=vecdb.HNSW(m=8, ef_construction=60))
        docs.upsert(range(ROWS), VECTORS, [{"tenth": row % 10} for row in range(ROWS)])
        db.optimize()
        docs.explain(QUERIES[0])
        yield docs


def ways(docs: vecdb.Collection) -> list:
    return [way for segment in docs._state.view.segments for way in segment.ways.values()]


def nearest(query: np.ndarray, rows: np.ndarray) -> list[int]:
    distances = ((VECTORS[rows].astype(np.float64) - query) ** 2).sum(1)
    return rows[np.argsort(distances, kind="stable")[:K]].tolist()


def test_the_same_search_goes_the_same_way(docs: vecdb.Collection) -> None:
    for query in QUERIES:
        assert docs.search(query, K, {"tenth": 3}, exact=True).ids.tolist() == nearest(query, np.arange(3, ROWS, 10))
    (way,) = ways(docs)
    docs.search(QUERIES[0], K, {"tenth": 3}, exact=True)
    assert ways(docs) == [way]
    assert ways(docs)[0] is way


def test_searches_that_differ_do_not_share_one(docs: vecdb.Collection) -> None:
    every = np.arange(ROWS)
    for _ in range(3):
        for query in QUERIES[:5]:
            assert docs.search(query, K, exact=True).ids.tolist() == nearest(query, every)
            assert docs.search(query, K, {"tenth": 1}, exact=True).ids.tolist() == nearest(query, every[1::10])
            assert docs.search(query, K, {"tenth": True}, exact=True).ids.tolist() == []
            assert docs.search(query, K - 3, exact=True).ids.tolist() == nearest(query, every)[: K - 3]
            assert docs.search(query, K - 3, exact=True, offset=3).ids.tolist() == nearest(query, every)[3:]


def test_deletions_and_new_records_are_seen_at_once(docs: vecdb.Collection) -> None:
    query, left = QUERIES[0], np.arange(5, ROWS, 10)
    for _ in range(4):
        found = docs.search(query, K, {"tenth": 5}, exact=True).ids.tolist()
        assert found == nearest(query, left)
        docs.delete(found[:2])
        left = np.setdiff1d(left, found[:2])
    docs.upsert([ROWS], query[None], [{"tenth": 5}])
    assert docs.search(query, K, {"tenth": 5}, exact=True).ids.tolist() == [ROWS, *nearest(query, left)[: K - 1]]


def test_a_way_falls_with_its_costs_and_with_its_index(docs: vecdb.Collection) -> None:
    docs.search(QUERIES[0], K)
    (way,) = ways(docs)
    assert way.stands(1, docs._engine.costs.version)
    assert not way.stands(1, docs._engine.costs.version + 1)
    (segment,) = docs._state.view.segments
    for slot in segment.fields[way.tally.copies.key[0]].indexes.values():
        slot._reject(ValueError("damaged, says this test"))
    assert not way.stands(1, docs._engine.costs.version)
    for query in QUERIES:
        assert docs.search(query, K).ids.tolist() == nearest(query, np.arange(ROWS))


def test_a_list_of_what_to_include_is_as_good_as_a_tuple(docs: vecdb.Collection) -> None:
    for include in (("payloads",), ["payloads"], ["payloads"]):
        assert docs.search(QUERIES[0], K, include=include)[0].payload is not None
    assert len(ways(docs)) == 1


def test_they_are_bounded(docs: vecdb.Collection) -> None:
    for n in range(WAYS_MAX + 20):
        docs.search(QUERIES[0], 1, {"tenth": {"$in": [n % 10, n]}}, exact=True)
    assert 0 < len(ways(docs)) <= WAYS_MAX
