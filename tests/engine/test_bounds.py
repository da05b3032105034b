"""Goal: space comes back without any call, results stay complete, and the sizes keep to the bounds that are promised.

Method: maintenance in manual steps on a clock that the test moves; thresholds as they are shipped, but for the small
ones that would need millions of records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.engine import policy, registry

DIM, ROWS = 8, 6000


class Moved:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def time_ns(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Moved:
    usual, clock = registry.DEFAULT_SEAMS, Moved()
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", type(usual)(usual.disk, clock, usual.random))
    monkeypatch.setattr(policy, "FREE_BYTES_MIN", 1 << 18)
    return clock


def tend(db: vecdb.Database) -> list[str]:
    """Every step that is due now."""
    names = []
    while (name := db.maintain()) is not None:
        names.append(name)
    return names


def filled(path: Path) -> tuple[vecdb.Database, vecdb.Collection, Any]:
    db = vecdb.open(path, maintenance="manual")
    docs = db.create_collection("docs", dim=DIM)
    vectors = np.random.default_rng(3).standard_normal((ROWS, DIM)).astype(np.float32)
    for first in range(0, ROWS, 1000):
        ids = list(range(first, first + 1000))
        docs.upsert(ids, vectors[first : first + 1000], [{"id": i, "text": "x" * 400} for i in ids])
    return db, docs, vectors


def test_deleting_most_records_gives_their_space_back(tmp_path: Path, clock: Moved) -> None:
    db, docs, vectors = filled(tmp_path / "db")
    db.optimize()
    before = docs.stats().segment_bytes
    dead = list(range(int(ROWS * 0.6)))
    for first in range(0, len(dead), 400):
        docs.delete(dead[first : first + 400])
    left = np.arange(len(dead), ROWS)
    assert tend(db) == []  # a write has just been: nothing is due yet
    clock.seconds += policy.IDLE_SECONDS
    steps = tend(db)
    assert steps[:2] == ["checkpoint", "merge"]
    assert "compact" in steps
    stats, own = db.stats(), docs.stats()
    assert sum(segment.rows for segment in own.segments) == len(left) == docs.count()
    assert all(segment.dead <= policy.DEAD_SHARE * segment.rows for segment in own.segments)
    assert own.segment_bytes < 0.5 * before
    assert stats.catalog_free_bytes <= max(policy.FREE_BYTES_MIN, policy.FREE_SHARE * stats.catalog_bytes)
    assert stats.log_bytes <= 2 * policy.LOG_TRIGGER
    for query in (vectors[3], vectors[-1]):
        hits = docs.search(query, k=20, exact=True)
        order = np.argsort(-(vectors[left] @ query) / np.linalg.norm(vectors[left], axis=1), kind="stable")[:20]
        assert hits.ids.tolist() == left[order].tolist()
    db.close()


def test_results_stay_complete_between_all_steps(tmp_path: Path, clock: Moved) -> None:
    db, docs, _ = filled(tmp_path / "db")
    db.optimize()
    docs.upsert(list(range(ROWS, ROWS + 7000)), np.ones((7000, DIM), np.float32))
    docs.delete(where={"id": {"$lt": 3000}})
    expected = ROWS + 7000 - 3000
    clock.seconds += policy.DIRTY_SECONDS
    taken = 0
    while db.maintain() is not None:
        taken += 1
        assert docs.count() == expected
        assert len(docs.search(np.ones(DIM), k=expected, exact=True)) == expected
        assert docs.count({"id": {"$gte": 3000}}) == 3000
    assert taken >= 2
    assert len(docs.stats().segments) == 1
    db.close()


def test_the_log_is_sealed_when_it_passes_its_trigger(
    tmp_path: Path, clock: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "LOG_TRIGGER", 1 << 20)
    db, docs, _ = filled(tmp_path / "db")
    assert db.stats().log_bytes > policy.LOG_TRIGGER
    assert "checkpoint" in tend(db)
    assert db.stats().log_bytes <= 2 * policy.LOG_TRIGGER
    assert docs.count() == ROWS
    db.close()


def test_the_log_of_a_dropped_collection_is_retired(
    tmp_path: Path, clock: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "LOG_TRIGGER", 1 << 20)
    db, _, _ = filled(tmp_path / "db")
    db.delete_collection("docs")
    assert db.stats().log_bytes > policy.LOG_TRIGGER
    assert "checkpoint" in tend(db)
    assert db.stats().log_bytes < 1024
    other = db.create_collection("other", dim=DIM)
    other.upsert([1], np.ones((1, DIM), np.float32))
    db.close()
    with vecdb.open(tmp_path / "db") as again:
        assert again.list_collections() == ["other"]
        assert again.get_collection("other").count() == 1


def test_writers_wait_for_no_more_than_two_frozen_segments(
    tmp_path: Path, clock: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb.storage import growing

    monkeypatch.setattr(growing, "ROWS_MAX", 100)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=DIM)
        rows = np.ones((100, DIM), np.float32)
        for batch in range(3):
            docs.upsert(list(range(100 * batch, 100 * batch + 100)), rows)
        with pytest.raises(vecdb.StorageFailed, match="maintain"):
            docs.upsert(list(range(300, 400)), rows)
        assert docs.count() == 300
        assert db.maintain() == "checkpoint"
        docs.upsert(list(range(300, 400)), rows)
        assert docs.count() == 400
        assert tend(db)[:2] == ["checkpoint", "checkpoint"]
