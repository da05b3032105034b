"""Goal: the hard interleavings of writers, readers and maintenance keep every record, once, with its last version.

Method: maintenance in manual steps, and a hook at a named point inside a step that writes, deletes or reads. After each
story the open database and a copy of its files, opened as after a crash, are compared with what must be there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.engine.stepping import DIM, Stepped, check, stepped, vectors_of
from vecdb.storage.sealed import Sealed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Stepped]:
    with stepped(tmp_path / "db") as made:
        yield made


def two_segments(store: Stepped) -> None:
    store.write(0, 50)
    assert store.step() == "checkpoint"
    store.write(50, 80)
    assert store.step() == "checkpoint"
    assert len(store.docs.stats().segments) == 2


def test_merge_keeps_rows_whose_deletion_only_the_log_holds(store: Stepped, tmp_path: Path) -> None:
    two_segments(store)
    store.docs.delete([3, 60])
    expected = dict.fromkeys(set(range(80)) - {3, 60}, 0)
    from vecdb.engine.maintain import breathe
    from vecdb.engine.merge import merge

    state = store.docs._state
    storages = [s.storage for s in state.view.segments if isinstance(s.storage, Sealed)]
    merge(store.engine, state, storages, breathe(store.engine))
    assert store.sealed_rows() == 80  # the rows must wait for the checkpoint
    store.check(expected)
    store.check_copy(expected, tmp_path / "copy")
    while store.step():
        pass
    assert store.sealed_rows() == 78
    store.check(expected)
    store.check_copy(expected, tmp_path / "later")


def test_checkpoint_at_an_lsn_with_later_deletions(store: Stepped, tmp_path: Path) -> None:
    store.write(0, 40)

    def meanwhile() -> None:
        store.docs.delete([0, 1, 2])
        store.write(5, 8, version=1)
        store.write(100, 103, version=1)

    store.disk.hooks["checkpoint:written"] = meanwhile
    assert store.step() == "checkpoint"
    expected = dict.fromkeys(range(3, 40), 0) | dict.fromkeys([5, 6, 7, 100, 101, 102], 1)
    assert store.sealed_rows() == 40
    store.check(expected)
    store.check_copy(expected, tmp_path / "copy")
    while store.step():
        pass
    store.check(expected)
    store.check_copy(expected, tmp_path / "later")


def test_two_threads_add_one_id_under_group_commit(store: Stepped) -> None:
    synced, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        synced.set()
        assert go_on.wait(20)

    store.disk.hooks["log:synced"] = hold
    outcome: dict[str, object] = {}

    def add(name: str) -> None:
        try:
            outcome[name] = store.docs.add([7], vectors_of([7], 0), [{"id": 7, "version": 0}])
        except vecdb.AlreadyExists as error:
            outcome[name] = error

    first = threading.Thread(target=add, args=("first",))
    first.start()
    assert synced.wait(20)
    assert store.docs.count() == 0  # logged, and not yet shown
    second = threading.Thread(target=add, args=("second",))
    second.start()
    second.join(20)
    assert isinstance(outcome["second"], vecdb.AlreadyExists)
    go_on.set()
    first.join(20)
    assert outcome["first"] == [7]
    store.check({7: 0})


def test_an_old_view_does_not_move_while_rows_arrive(store: Stepped) -> None:
    store.write(0, 20)
    scrolled = store.docs.scroll(batch_size=3)
    seen = [next(scrolled).id]
    old = store.docs._state.view
    store.write(20, 60)
    store.write(0, 10, version=1)
    store.docs.delete([15])
    while store.step():
        pass
    assert seen + [record.id for record in scrolled] == list(range(20))
    assert old.records == 20
    assert store.docs.count() == 59


def test_payloads_are_those_of_the_view_after_the_version_was_superseded(store: Stepped) -> None:
    store.write(0, 30)
    assert store.step() == "checkpoint"
    sealed = store.docs.search(vectors_of([4], 0)[0], k=3)
    store.write(30, 40)
    growing = store.docs.search(vectors_of([33], 0)[0], k=3)
    store.write(0, 40, version=1)
    store.docs.delete(list(range(20, 25)))
    while store.step():
        pass
    for hits, nearest in ((sealed, 4), (growing, 33)):
        assert hits[0].id == nearest
        assert [payload["version"] for payload in hits.payloads] == [0, 0, 0]
        assert [payload["id"] for payload in hits.payloads] == hits.ids.tolist()


def test_deletes_race_a_merge(store: Stepped, tmp_path: Path) -> None:
    two_segments(store)
    store.docs.delete([1])
    assert store.step() == "checkpoint"

    def meanwhile() -> None:
        store.docs.delete([2, 55])
        store.write(10, 12, version=1)

    store.disk.hooks["merge:written"] = meanwhile
    assert store.step() == "merge"
    expected = dict.fromkeys(set(range(80)) - {1, 2, 55}, 0) | {10: 1, 11: 1}
    assert store.sealed_rows() == 79
    store.check(expected)
    store.check_copy(expected, tmp_path / "copy")
    while store.step():
        pass
    store.check(expected)
    assert store.sealed_rows() == len(expected)


def test_a_checkpoint_inside_a_merge_commits_deletions_of_merging_rows(store: Stepped, tmp_path: Path) -> None:
    two_segments(store)
    from vecdb.engine.checkpoint import checkpoint

    def meanwhile() -> None:
        store.docs.delete([2, 55])
        store.write(200, 205)
        checkpoint(store.engine)

    store.disk.hooks["merge:written"] = meanwhile
    assert store.step() == "merge"
    expected = dict.fromkeys([*set(range(80)) - {2, 55}, *range(200, 205)], 0)
    store.check(expected)
    store.check_copy(expected, tmp_path / "copy")
    while store.step():
        pass
    store.check(expected)
    store.check_copy(expected, tmp_path / "later")


def test_the_catalog_is_compacted_under_open_hits(store: Stepped) -> None:
    store.write(0, 30)
    assert store.step() == "checkpoint"
    hits = store.docs.search(np.ones(DIM), k=30)
    from vecdb.engine.maintain import compact_catalog

    store.write(0, 30, version=1)
    assert store.step() == "checkpoint"
    compact_catalog(store.engine)
    assert [payload["version"] for payload in hits.payloads] == [0] * 30
    store.check(dict.fromkeys(range(30), 1))
    assert [path.name for path in store.path.glob("catalog-*")] == ["catalog-2"]


def test_an_index_is_built_while_rows_are_deleted(tmp_path: Path) -> None:
    rows = 1500
    with stepped(tmp_path / "db") as store:
        store.db.delete_collection("docs")
        store.docs = store.db.create_collection("docs", dim=DIM, index=vecdb.HNSW(m=8, ef_construction=40))
        store.write(0, rows)
        assert store.step() == "checkpoint"
        store.disk.hooks["index:written"] = lambda: store.docs.delete([0, 1])
        names = []
        while (name := store.step()) is not None:
            names.append(name)
        assert "index" in names
        expected = dict.fromkeys(range(2, rows), 0)
        check(store.docs, expected)
        assert store.docs.stats().unindexed == 0
        hits = store.docs.search(vectors_of([5], 0)[0], k=5)
        assert hits[0].id == 5


def test_a_dropped_collection_is_skipped_by_replay_and_purged(store: Stepped, tmp_path: Path) -> None:
    store.write(0, 20)
    assert store.step() == "checkpoint"
    store.write(20, 25)
    store.db.delete_collection("docs")
    with pytest.raises(vecdb.NotFound):
        store.docs.count()
    store.docs = store.db.create_collection("docs", dim=DIM)
    store.write(0, 3, version=2)
    store.check(dict.fromkeys(range(3), 2))
    store.check_copy(dict.fromkeys(range(3), 2), tmp_path / "copy")
    names = set()
    while (name := store.step()) is not None:
        names.add(name)
    assert "purge" in names
    assert [path.name for path in (store.path / "segments").iterdir()] == ["2-1"]
    store.check(dict.fromkeys(range(3), 2))
