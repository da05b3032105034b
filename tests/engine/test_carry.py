"""Goal: a merged segment has its graphs from its commit on, carried over from the segments that merged.

Method: maintenance in manual steps over small segments that get codes and graphs all the same. Answers of the graph are
compared with the exact ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import oracles
from tests.engine.stepping import Stepped, stepped
from vecdb.engine import build, maintain, merge, wanted
from vecdb.engine import slots as slots_room
from vecdb.engine.slots import IndexSlot
from vecdb.index import graph_builder
from vecdb.index.hnsw import HnswIndex
from vecdb.storage.sealed import Sealed

DIM, ROWS = 24, 900
GRAPH = vecdb.HNSW(m=8, ef_construction=40)
VECTORS = oracles.clustered(3 * ROWS, DIM, seed=21)
QUERIES = VECTORS[::60] + np.float32(0.01)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    monkeypatch.setattr(wanted, "CODED_ROWS_MIN", 16)
    with stepped(tmp_path / "db") as made:
        made.docs = made.db.create_collection("graphs", dim=DIM, index=GRAPH)
        yield made


def write(store: Stepped, first: int, last: int, version: int = 0) -> None:
    ids = list(range(first, last))
    store.docs.upsert(ids, VECTORS[first:last], [{"version": version, "even": i % 2 == 0} for i in ids])


def settle(store: Stepped) -> list[str | None]:
    """All steps that are due."""
    steps = []
    while (step := store.step()) is not None:
        steps.append(step)
    return steps


def slots(store: Stepped, field: int = 0) -> list[IndexSlot | None]:
    """The graph of each sealed segment."""
    segments = [s for s in store.docs._state.view.segments if isinstance(s.storage, Sealed)]
    found = [list(segment.fields.values())[field] for segment in segments]
    return [(view.indexes or {}).get("hnsw") for view in found]


def recall(docs: vecdb.Collection, ef: int = 60, **wish: Any) -> float:
    got = docs.search(QUERIES, k=10, ef=ef, include=(), **wish)
    exact = docs.search(QUERIES, k=10, exact=True, include=(), **wish)
    return float(np.mean([np.mean(a.distances <= b.distances[-1] + 1e-6) for a, b in zip(got, exact, strict=True)]))


def count_insertions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each later insertion searched places for."""
    inserted: list[int] = []
    usual = graph_builder.insert

    def counted(graph: Any, matrix: Any, first: int, *more: Any) -> None:
        inserted.append(matrix.rows - first)
        usual(graph, matrix, first, *more)

    monkeypatch.setattr(graph_builder, "insert", counted)
    return inserted


def test_the_merged_segment_has_its_graph_at_once(store: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 0, ROWS)
    assert settle(store) == ["checkpoint", "index"]
    inserted = count_insertions(monkeypatch)
    write(store, ROWS, ROWS + 300)
    store.docs.delete(list(range(0, 300, 3)))
    assert store.step() == "checkpoint"
    assert [slot is not None for slot in slots(store)] == [True, False]
    seen = []
    store.disk.hooks["merge:written"] = lambda: seen.append(recall(store.docs))
    assert store.step() == "merge"
    assert seen[0] >= 0.97
    (slot,) = slots(store)
    assert slot is not None
    assert slot.entry.indexed_rows == ROWS + 200
    assert 300 <= sum(inserted) <= 350  # the new rows, and few others
    graph = slot.get()
    assert isinstance(graph, HnswIndex)
    graph.check()
    assert oracles.reached(graph.graph).all()
    assert recall(store.docs) >= 0.97
    assert settle(store) == []


def test_patched_payloads_keep_their_places_in_the_graph(store: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 0, ROWS)
    settle(store)
    before = store.docs.search(QUERIES, k=10, ef=30, include=())
    inserted = count_insertions(monkeypatch)
    for first in range(0, ROWS, 100):
        ids = list(range(first, first + 100))
        assert store.docs.update(ids, payloads=[{"version": 1}] * 100) == 100
    assert settle(store) == ["checkpoint", "merge"]
    assert inserted == []
    assert store.sealed_rows() == ROWS
    assert store.docs.count({"version": 1}) == ROWS
    after = store.docs.search(QUERIES, k=10, ef=30, include=())
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.distances, new.distances)
        assert set(old.ids.tolist()) == set(new.ids.tolist())


def test_a_segment_that_is_rewritten_keeps_its_graph(store: Stepped) -> None:
    write(store, 0, ROWS)
    settle(store)
    store.docs.delete(list(range(300)))
    assert settle(store) == ["checkpoint", "merge"]
    (slot,) = slots(store)
    assert slot is not None
    assert recall(store.docs) >= 0.97


def test_the_graph_of_a_later_segment_is_carried(store: Stepped) -> None:
    """The rows of the graph do not come first, and it is carried for the rows that they really are."""
    write(store, 0, 200)
    assert store.step() == "checkpoint"
    write(store, 200, ROWS)
    assert store.step() == "checkpoint"
    store.docs.delete(list(range(150, 250)))
    assert store.step() == "checkpoint"
    state = store.docs._state
    for segment in state.view.segments:
        if segment.rows == ROWS - 200:
            (number,) = segment.fields
            build.complete(store.engine, build.Missing(state, segment, number, GRAPH, ()), lambda done, total: None)
    assert [slot is not None for slot in slots(store)] == [False, True]
    assert settle(store) == ["merge"]
    assert store.sealed_rows() == ROWS - 100
    assert recall(store.docs) >= 0.97
    graph = slots(store)[0]
    assert graph is not None
    _, distances = graph.get().search(graph.matrix.vectors[::7], 1)  # type: ignore[union-attr]
    assert (distances[:, 0] <= 1e-6).mean() >= 0.98


def test_several_fields_of_which_records_may_lack_one(store: Stepped) -> None:
    fields = {"a": vecdb.VectorField(DIM, index=GRAPH), "b": vecdb.VectorField(DIM, metric="l2", index=GRAPH)}
    store.docs = docs = store.db.create_collection("two", fields=fields)

    def put(first: int, last: int) -> None:
        ids = list(range(first, last))
        other = [VECTORS[i + ROWS] if i % 3 else None for i in ids]
        docs.upsert(ids, {"a": VECTORS[first:last], "b": other})

    put(0, ROWS)
    settle(store)
    docs.delete(list(range(0, 300, 2)))
    docs.update(list(range(400, 500)), payloads=[{"patched": True}] * 100)
    put(ROWS, ROWS + 200)
    assert settle(store) == ["checkpoint", "merge"]
    for field, name in enumerate("ab"):
        (slot,) = slots(store, field)
        assert slot is not None
        assert slot.get() is not None
        assert recall(docs, field=name) >= 0.97


def test_an_index_with_other_options_is_built_anew(store: Stepped) -> None:
    write(store, 0, ROWS)
    settle(store)
    store.docs.set_index(vecdb.HNSW(m=6, ef_construction=40))
    write(store, ROWS, ROWS + 100)
    assert settle(store) == ["checkpoint", "merge", "index"]
    (slot,) = slots(store)
    assert slot is not None
    assert slot.entry.options["m"] == 6


@pytest.mark.parametrize("at_once", [0, 1 << 26])
def test_a_damaged_graph_is_not_carried(store: Stepped, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Also one so large that searches use it before every byte was looked at."""
    monkeypatch.setattr(slots_room, "CHECKED_AT_ONCE", at_once)
    write(store, 0, ROWS)
    settle(store)
    (file,) = store.path.glob("segments/*/*/index-*/links.npy")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    write(store, ROWS, ROWS + 100)
    assert settle(store) == ["checkpoint", "merge", "index"]
    assert recall(store.docs) >= 0.97


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_merge_that_is_given_up_leaves_nothing(store: Stepped, calls: int) -> None:
    write(store, 0, ROWS)
    settle(store)
    write(store, ROWS, ROWS + 300)
    store.docs.delete(list(range(100)))
    assert store.step() == "checkpoint"
    there = sorted(path.name for path in (store.path / "segments").iterdir())
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if len(told) == calls:
            raise maintain.Stopped("enough")

    state = store.docs._state
    storages = [s.storage for s in state.view.segments if isinstance(s.storage, Sealed)]
    with pytest.raises(maintain.Stopped):
        merge.merge(store.engine, state, storages, stop)
    assert sorted(path.name for path in (store.path / "segments").iterdir()) == there
    assert recall(store.docs) >= 0.97
    assert settle(store) == ["merge"]
    assert [slot is not None for slot in slots(store)] == [True]


def test_writes_while_the_graph_is_carried(store: Stepped) -> None:
    write(store, 0, ROWS)
    settle(store)
    write(store, ROWS, ROWS + 300)
    assert store.step() == "checkpoint"

    def meanwhile() -> None:
        store.docs.delete(list(range(200)))
        write(store, 300, 350, version=2)

    store.disk.hooks["merge:written"] = meanwhile
    assert store.step() == "merge"
    assert store.docs.count() == ROWS + 100
    assert recall(store.docs) >= 0.97
    assert {"checkpoint", "merge"} <= set(settle(store))
    assert recall(store.docs) >= 0.97
    assert store.docs.count({"version": 2}) == 50
