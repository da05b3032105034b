"""Goal: what is remembered of one thing never answers for another: a field, a segment, a collection that is gone.

Method: two things that are alike in every number, one after the other; and a segment rewritten out of turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.engine.stepping import DIM, Stepped, stepped, vectors_of
from vecdb.engine import allow, registry
from vecdb.engine.maintain import breathe
from vecdb.engine.merge import merge
from vecdb.engine.state import Engine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Stepped]:
    with stepped(tmp_path / "db") as made:
        yield made


def test_a_plan_of_one_field_does_not_serve_another(store: Stepped) -> None:
    fields = {"a": vecdb.VectorField(DIM), "b": vecdb.VectorField(DIM)}
    both = store.db.create_collection("both", fields=fields)
    both.upsert(list(range(10)), {"a": vectors_of(list(range(10)), 0)}, [{"only": "a"}] * 10)
    both.upsert(list(range(10, 20)), {"b": vectors_of(list(range(10)), 0)}, [{"only": "b"}] * 10)
    for _ in ("growing", "sealed"):
        assert len(both.search(np.ones(DIM), k=3, where={"only": "a"}, field="b")) == 0
        assert len(both.search(np.ones(DIM), k=3, where={"only": "a"}, field="a")) == 3
        assert len(both.search(np.ones(DIM), k=3, where={"only": "b"}, field="b")) == 3
        while store.step():
            pass


def test_a_kept_filter_does_not_serve_another_segment(store: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allow, "id", lambda storage: 7, raising=False)  # as if each stood where one that is gone stood
    for attempt in range(2):
        ids = list(range(10))
        again = store.db.create_collection("again", dim=DIM)
        again.upsert(ids, vectors_of(ids, 0), [{"odd": (i + attempt) % 2} for i in ids])
        hits = again.search(np.ones(DIM), k=10, where={"odd": 1})
        assert sorted(hits.ids.tolist()) == [i for i in ids if (i + attempt) % 2]
        store.db.delete_collection("again")


def test_an_older_segment_that_was_rewritten_stays_before_younger_ones(store: Stepped) -> None:
    for first in (0, 10, 20):
        store.docs.upsert(list(range(first, first + 10)), np.ones((10, DIM)))
        assert store.step() == "checkpoint"
    store.docs.delete([0, 1, 2, 3])
    assert store.step() == "checkpoint"
    state = store.docs._state
    merge(store.engine, state, [state.view.segments[0].storage], breathe(store.engine))
    for _ in ("open", "reopened"):
        assert [record.id for record in store.docs.get()] == list(range(4, 30))
        assert store.docs.search(np.ones(DIM), k=9).ids.tolist() == list(range(4, 13))
        store.db.close()
        store.db = vecdb.open(store.path, maintenance="manual")
        store.docs = store.db.get_collection("docs")


def test_a_write_that_waits_while_its_collection_is_dropped_is_refused(store: Stepped) -> None:
    outcome: list[BaseException | None] = []

    def write() -> None:
        try:
            store.write(0, 5)
            outcome.append(None)
        except vecdb.NotFound as error:
            outcome.append(error)

    writer = threading.Thread(target=write, daemon=True)
    with store.engine.append_lock:
        writer.start()
        time.sleep(0.2)  # it has looked at its collection and waits for the lock
        store.db.delete_collection("docs")
    writer.join(20)
    assert [type(error) for error in outcome] == [vecdb.NotFound]


def test_a_handle_dropped_on_a_maintenance_thread_closes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = vecdb.open(tmp_path / "dropped", maintenance="manual")
    engine = db._engine
    assert engine is not None
    closers: list[str] = []
    shut = registry.shut

    def watched(closing: Engine, *, seal: bool) -> None:
        closers.append(threading.current_thread().name)
        shut(closing, seal=seal)

    monkeypatch.setattr(registry, "shut", watched)
    worker = threading.Thread(target=registry.release_dropped, args=(engine,), name="vecdb-maintenance")
    worker.start()
    worker.join()
    for thread in [thread for thread in threading.enumerate() if thread.name == "vecdb-close"]:
        thread.join()
    assert closers == ["vecdb-close"]
    assert engine.closed
    db.close()  # nothing is left to give back
