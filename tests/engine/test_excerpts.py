"""A filter that repeats is searched by copies of its codes: after some queries, until others need the room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests import oracles
from vecdb.engine import plans
from vecdb.engine.plans import ASKED_AGAIN, ASKED_FIRST
from vecdb.planner.cost import Costs, Line
from vecdb.types import Arm

ROWS, DIM, K = 6_000, 64, 10
VECTORS = oracles.clustered(ROWS, DIM, 7)
QUERIES = oracles.clustered(40, DIM, 8)
EACH = {"exact": 70.0, "gather": 20.0, "excerpt": 4.0, "scan": 10.0, "walk": 4_000.0}


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[vecdb.Collection]:
    costs = Costs({name: Line(12.0, each) for name, each in EACH.items()})
    monkeypatch.setattr(plans, "costs_of", lambda door, book: (costs, None))
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=DIM, index=vecdb.HNSW(m=8, ef_construction=40))
        docs.upsert(range(ROWS), VECTORS, [{"tenth": row % 10, "row": row} for row in range(ROWS)])
        db.optimize()
        docs.explain(QUERIES[0])
        yield docs


def arm(docs: vecdb.Collection, where: dict) -> Arm:
    (part,) = docs.explain(QUERIES[0], K, where).segments
    return part.plan.arm


def held(docs: vecdb.Collection) -> int:
    return sum(segment.excerpts._held for segment in docs._state.view.segments)


def ask(docs: vecdb.Collection, where: dict, times: int) -> list[list[int]]:
    return [docs.search(QUERIES[i % len(QUERIES)], K, where).ids.tolist() for i in range(times)]


def test_a_filter_earns_copies_by_repeating(docs: vecdb.Collection) -> None:
    where = {"tenth": 3}
    assert arm(docs, where) is Arm.GATHER
    first = ask(docs, where, ASKED_FIRST * ASKED_AGAIN**2)
    assert arm(docs, where) is Arm.EXCERPT
    assert held(docs) == ROWS // 10
    assert ask(docs, where, len(first)) == first
    assert "excerpt" in str(docs.explain(QUERIES[0], K, where, analyze=True))
    exact = [docs.search(query, K, where, exact=True).distances[-1] for query in QUERIES]
    found = [docs.search(query, K, where).distances for query in QUERIES]
    assert np.mean([(near <= bound + 1e-6).mean() for near, bound in zip(found, exact, strict=True)]) >= 0.999


def test_a_batch_is_as_many_queries(docs: vecdb.Collection) -> None:
    where = {"tenth": 4}
    hits = docs.search(np.tile(QUERIES, (5, 1)), K, where)
    assert held(docs) == ROWS // 10
    assert [one.ids.tolist() for one in hits] == ask(docs, where, 5 * len(QUERIES))


def test_no_filter_earns_none(docs: vecdb.Collection) -> None:
    docs.delete([1, 2, 3])
    for _ in range(100):
        docs.search(QUERIES[0], K)
    docs.search(QUERIES, K)
    assert held(docs) == 0


def test_deletions_are_not_found_in_copies(docs: vecdb.Collection) -> None:
    where = {"tenth": 5}
    before = ask(docs, where, 60)[0]
    assert arm(docs, where) is Arm.EXCERPT
    docs.delete(before[:4])
    assert held(docs) == 0
    for _ in range(60):
        assert not set(docs.search(QUERIES[0], K, where).ids.tolist()) & set(before[:4])
    assert held(docs) == ROWS // 10 - 4


def test_copies_that_made_room_are_earned_again(docs: vecdb.Collection) -> None:
    """Thirteen filters of two fifths of the rows do not fit together: none is copied for a single query."""
    filters = [{"row": {"$gte": first, "$lt": first + ROWS * 2 // 5}} for first in range(0, 1_300, 100)]
    expected = [docs.search(QUERIES[0], K, where, exact=True).ids.tolist() for where in filters]
    made, shares = [], []
    (segment,) = docs._state.view.segments
    graph = next(iter(segment.fields.values())).indexes["hnsw"].get()
    real = type(graph).excerpt
    type(graph).excerpt = lambda self, rows: made.append(len(rows)) or real(self, rows)
    try:
        for _ in range(30):
            for where, right in zip(filters, expected, strict=True):
                found = docs.search(QUERIES[0], K, where).ids.tolist()
                shares.append(len(set(found) & set(right)) / K)
                assert held(docs) <= ROWS
    finally:
        type(graph).excerpt = real
    assert np.mean(shares) >= 0.9
    assert 0 < len(made) <= 30 * len(filters) / ASKED_FIRST


def test_a_fallback_that_repeats_earns_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks find nothing of what lies far from the query; when every third query is such a one, the scan repeats."""
    lines = {"walk": Line(1.0, 1.0), "excerpt": Line(40.0, 1.0), "scan": Line(1_000.0, 1.0), "gather": Line(1e5, 1.0)}
    costs = Costs(lines | {"exact": Line(1e5, 1.0)}, ((0.01, 1.0),))
    monkeypatch.setattr(plans, "costs_of", lambda door, book: (costs, None))
    points = oracles.clustered(ROWS, DIM, 9)
    far = points @ points[0] < np.median(points @ points[0])
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=DIM, index=vecdb.HNSW(m=8, ef_construction=40))
        docs.upsert(range(ROWS), points, [{"far": bool(value)} for value in far])
        db.optimize()
        docs.explain(points[0])
        queries = [points[0], *points[np.flatnonzero(far)[:2]]]
        for turn in range(120):
            docs.search(queries[turn % 3], K, {"far": True})
        (part,) = docs.explain(points[0], K, {"far": True}).segments
        assert Arm.EXCERPT in (part.plan.arm, part.plan.fallback)
        assert held(docs) == far.sum()


def test_corrected_costs_leave_what_is_known_of_escalations(docs: vecdb.Collection) -> None:
    where = {"tenth": {"$lt": 5}}
    ask(docs, where, 3)
    (segment,) = docs._state.view.segments
    (key,) = (key for key in segment.plans if key[1] is not None)
    segment.plans[key].queries, segment.plans[key].escalated = 40, 20
    docs._engine.costs.version += 1
    ask(docs, where, 1)
    tally = segment.plans[key]
    assert tally.version == docs._engine.costs.version
    assert (tally.queries, tally.escalated) == (40, 20)
    assert len(segment.plans) <= 2  # that of the version before is not left behind
