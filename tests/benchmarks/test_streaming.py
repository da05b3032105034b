"""The runbook of the streaming benchmark in small: recall of the graph that lived through it, beside a fresh one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from benchmarks.streaming import Drift, Stream, order_of_topics, run, unit
from tests import oracles
from vecdb.index.hnsw import HnswIndex
from vecdb.options import HNSW

DIM, LIVE = 32, 2560


@pytest.fixture(scope="module")
def drift() -> Drift:
    vectors = unit(oracles.clustered(6400, DIM, seed=31, clusters=100))
    return Drift(*order_of_topics(vectors[400:], vectors[:400], topics=40))


class Inside(Stream):
    """Searches by the graph of the one segment, which the planner would not choose for so few records."""

    def search(self, queries: np.ndarray, kth: np.ndarray) -> float:
        segments = self.docs._state.view.segments
        graphs = [slot.get() for s in segments for f in s.fields.values() if (slot := (f.indexes or {}).get("hnsw"))]
        if len(segments) > 1:
            return super().search(queries, kth)
        (graph,) = graphs
        assert isinstance(graph, HnswIndex)
        graph.check()
        assert oracles.reached(graph.graph).all()
        self.seconds.append(0.0)
        distances = graph.search(np.ascontiguousarray(queries), kth_rank := 10, ef=self.ef)[1]
        return float((distances <= kth[:, None] + 1e-6).sum() / (len(queries) * kth_rank))


def test_recall_stays_beside_a_fresh_build(tmp_path: Path, drift: Drift) -> None:
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none", threads=1) as db:
        stream = Inside(db, drift, HNSW(m=8, ef_construction=60), ef=24)
        rows = list(run(stream, LIVE, turnovers=3))
    assert [row["live"] for row in rows] == [LIVE] * 3
    for row in rows:
        assert row["difference"] >= -0.01
        assert min(row["busy"], row["settled"]) >= row["fresh"] - 0.03


def test_topics_drift_and_come_around_changed(drift: Drift) -> None:
    count = len(drift.ordered)
    first, near, far = (drift.vectors(at, at + 100) for at in (0, 150, count // 2))
    assert (first @ near.T).mean() > (first @ far.T).mean()
    again = drift.vectors(count, count + 100)
    assert not (again == first).all(1).any()
    assert (again * first).sum(1).mean() > 0.8
    np.testing.assert_array_equal(drift.vectors(count - 50, count + 50)[50:], again[:50])
    assert len(drift.asked(0, count // 4)) < 400
