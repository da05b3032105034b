"""One segment's part of a search: dispatch by plan, budgets, and what answers when an arm finds too little."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import matrix_of
from vecdb.engine.door import Door
from vecdb.engine.plans import ESCALATED_MIN, SearchOptions, Tally
from vecdb.engine.segment_search import find_way
from vecdb.engine.view import FieldView
from vecdb.index.base import DISTANCES, ESCALATED, VISITED, Index, load_kind
from vecdb.index.flat import search_exact
from vecdb.kernels import bitset
from vecdb.options import HNSW, Flat
from vecdb.types import Arm, Estimate, Matrix, Metric, Plan, RowSet, Traits

ROWS, DIM, K = 3_000, 48, 10
VECTORS = oracles.clustered(ROWS + 12, DIM, seed=9).astype(np.float32)
QUERIES = VECTORS[ROWS:].copy()
VECTORS = VECTORS[:ROWS].copy()
MATRIX = matrix_of(VECTORS, Metric.L2)


class Lists:
    """An inverted file in its plainest form: every row is in the list of the nearest of some rows, searched exactly."""

    kind: ClassVar[str] = "ivf"

    def __init__(self, matrix: Matrix, lists: int) -> None:
        self.matrix, self.centres = matrix, matrix.vectors[:lists]
        self.of_row = self._nearest(matrix.vectors)[:, 0]
        self.traits = Traits("ivf", matrix.rows, matrix.dim, 2, masked=True, graph=False, lists=lists)
        self.probed: list[int] = []

    def _nearest(self, vectors: np.ndarray) -> np.ndarray:
        return np.argsort(((vectors[:, None] - self.centres) ** 2).sum(2), axis=1, kind="stable")

    def search(self, queries, k, *, allow=None, nprobe=None, rescore=None, counters=None, **others):
        self.probed.append(nprobe)
        allowed = np.ones(self.matrix.rows, bool) if allow is None else bitset.to_mask(allow, self.matrix.rows)
        parts = []
        for query, order in zip(queries, self._nearest(queries), strict=True):
            rows = np.flatnonzero(allowed & np.isin(self.of_row, order[:nprobe])).astype(np.int32)
            rows.flags.writeable = False
            parts.append(search_exact(self.matrix, query[None], k, None, rows, counters))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.fixture(scope="module")
def graph() -> Index:
    return load_kind("hnsw").build(MATRIX, HNSW(m=8, ef_construction=60), seed=2)


@pytest.fixture(scope="module")
def flat() -> Index:
    return load_kind("flat").build(MATRIX, Flat())


def door(**indexes) -> Door:
    return Door(FieldView(MATRIX), True, **indexes)


def plan(arm: Arm, **values) -> Plan:
    return Plan(arm, "given", ROWS, Estimate(ROWS, ROWS), **values)


def subset(share: float) -> tuple[RowSet, np.ndarray]:
    mask = np.random.default_rng(4).random(ROWS) < share
    return RowSet(int(mask.sum()), bits=bitset.from_mask(mask)), mask


def nearest(mask=None):
    return oracles.nearest(Metric.L2, VECTORS, QUERIES, K, mask)


def run(where: Door, allowed: RowSet | None, chosen: Plan, queries=QUERIES):
    counters = np.zeros(4, np.int64)
    way = find_way(where, allowed, Tally(chosen), K, SearchOptions(), counters=counters)
    rows, distances = way.search(queries, None)
    return rows, distances, counters


@pytest.mark.parametrize("fallback", [Arm.SCAN, Arm.EXACT])
def test_walks_that_give_up_are_answered_by_the_fallback(graph, flat, fallback):
    starved = plan(Arm.GRAPH, ef=400, budget=150, fallback=fallback)
    rows, distances, counters = run(door(graph=graph, flat=flat), None, starved)
    assert counters[ESCALATED] == len(QUERIES)
    assert counters[VISITED] > 0
    exact = nearest()
    assert oracles.recall(distances, exact[1]) >= 0.999
    if fallback is Arm.EXACT:
        np.testing.assert_array_equal(rows, exact[0])


def test_a_budget_that_is_kept_changes_nothing(graph, flat):
    both = door(graph=graph, flat=flat)
    free = run(both, None, plan(Arm.GRAPH, ef=40, fallback=Arm.SCAN))
    bounded = run(both, None, plan(Arm.GRAPH, ef=40, budget=10**6, fallback=Arm.SCAN))
    for one, other in zip(free, bounded, strict=True):
        np.testing.assert_array_equal(one, other)
    assert free[2][ESCALATED] == 0


def test_a_batch_escalates_by_the_query(graph):
    """Copies of one vector are one node, which has a walk of its own length."""
    limit = np.zeros(4, np.int64)
    spent = []
    for query in QUERIES:
        limit[:] = 0
        graph.search(query[None], K, ef=40, counters=limit)
        spent.append(int(limit[DISTANCES]))
    budget = sorted(spent)[len(spent) // 2]
    rows, _, counters = run(door(graph=graph), None, plan(Arm.GRAPH, ef=40, budget=budget, fallback=Arm.EXACT))
    over = np.array(spent) >= budget
    assert counters[ESCALATED] == over.sum()
    assert 0 < over.sum() < len(QUERIES)
    np.testing.assert_array_equal(rows[over], nearest()[0][over])


def test_lists_are_scanned_as_the_plan_says(flat):
    index = Lists(MATRIX, 40)
    _, distances, counters = run(door(lists=index, flat=flat), None, plan(Arm.LISTS, nprobe=9, fallback=Arm.SCAN))
    assert index.probed == [9]
    assert counters[ESCALATED] == 0
    assert oracles.recall(distances, nearest()[1]) >= 0.6
    allowed, mask = subset(0.3)
    _, distances, _ = run(door(lists=index), allowed, plan(Arm.SCAN, nprobe=40))
    assert index.probed == [9, 40]
    assert oracles.recall(distances, nearest(mask)[1]) == 1.0


@pytest.mark.parametrize("with_flat", [True, False])
def test_lists_with_too_few_matches_are_scanned_to_the_end(flat, with_flat):
    index, (allowed, mask) = Lists(MATRIX, 40), subset(0.02)
    opened = door(lists=index, flat=flat if with_flat else None)
    _, distances, counters = run(opened, allowed, plan(Arm.LISTS, nprobe=1, fallback=Arm.SCAN))
    assert 0 < counters[ESCALATED] <= len(QUERIES)
    assert index.probed == ([1] if with_flat else [1, 40])
    assert np.isfinite(distances).all()
    short = [i for i, query in enumerate(QUERIES) if count_in_first_list(index, query, mask) < K]
    assert len(short) == counters[ESCALATED]
    np.testing.assert_allclose(distances[short], nearest(mask)[1][short], rtol=1e-6)


def count_in_first_list(index: Lists, query: np.ndarray, mask: np.ndarray) -> int:
    return int(mask[index.of_row == index._nearest(query[None])[0, 0]].sum())


@pytest.mark.parametrize(
    ("graph_us", "escalated", "left"),
    [(20, ESCALATED_MIN - 1, False), (20, 8, False), (20, 9, True), (90, ESCALATED_MIN, True), (90, 1, False)],
)
def test_a_plan_that_escalates_too_often_is_left(graph_us, escalated, left):
    """A walk of 20 us, where a scan takes 100, pays until four of five queries escalate; one of 90 until one in ten."""
    walk = plan(Arm.GRAPH, ef=40, budget=500, fallback=Arm.SCAN, costs={"graph": graph_us, "scan": 100.0, "exact": 900})
    tally = Tally(walk)
    for query in range(10):
        tally.add(1, int(query >= 10 - escalated))
    assert (tally.plan.arm is Arm.SCAN) == left
    if left:
        assert (tally.plan.fallback, tally.plan.costs) == (None, walk.costs)
        assert "escalated from graph" in tally.plan.reason
        before = tally.plan
        tally.add(100, 0)
        assert tally.plan is before


def test_a_search_counts_its_escalations(graph, flat):
    costs = {"graph": 10.0, "scan": 100.0, "exact": 900.0}
    tally = Tally(plan(Arm.GRAPH, ef=400, budget=150, fallback=Arm.SCAN, costs=costs))
    for _ in range(2):
        find_way(door(graph=graph, flat=flat), None, tally, K, SearchOptions()).search(QUERIES, None)
    assert tally.escalated == len(QUERIES)
    assert tally.plan.arm is Arm.SCAN
