"""Goal: a disk that refuses costs nothing that was acknowledged, and is told clearly; a failed sync ends writing.

Method: a disk under the engine refuses chosen calls, once or until there is space again; and real limits in a process
of its own. After each story the database is opened again and compared with the batches that were acknowledged.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
from tests.crash.test_sweep import check_no_leftovers, step_until_idle
from tests.faults import Call, FaultyDisk, OrderingDisk, bad_sync, no_space
from vecdb.engine import maintain, registry, wanted
from vecdb.errors import Poisoned, StorageFailed

pytestmark = pytest.mark.crash
ROOT = Path(__file__).parents[2]
BATCHES = [make_batch(seed, ids=90, rows=30) for seed in range(100, 112)]
STATES = states_of(BATCHES)


class Store:
    """A database over a disk whose fault can be set and cleared."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, ordering: OrderingDisk) -> None:
        self.path, self.fault = path, None
        self.refused = 0
        ordering.inner = FaultyDisk(ordering.inner, self._ask)
        self.disk: FaultyDisk = ordering.inner
        self.db = vecdb.open(path, maintenance="manual")
        self.docs = self.db.create_collection("docs", dim=DIM)
        self.acknowledged = 0

    fault: Callable[[Call], StorageFailed | None] | None

    def _ask(self, call: Call) -> None:
        error = self.fault(call) if self.fault is not None else None
        if error is not None:
            self.refused += 1
            raise error

    def write(self, count: int = 1) -> None:
        for batch in BATCHES[self.acknowledged : self.acknowledged + count]:
            write(self.docs, batch)
            self.acknowledged += 1

    def check(self) -> None:
        """The open handle and, after a close, a new one show exactly what was acknowledged."""
        check_prefix(self.docs, STATES[: self.acknowledged + 1], self.acknowledged)

    def check_reopened(self) -> None:
        self.fault = None
        self.db.close()
        with vecdb.open(self.path, maintenance="manual") as db:
            check_prefix(db.get_collection("docs"), STATES[: self.acknowledged + 1], self.acknowledged)
        check_no_leftovers(self.path)


@pytest.fixture
def store(place: Path, monkeypatch: pytest.MonkeyPatch, ordering: OrderingDisk) -> Store:
    monkeypatch.setattr(wanted, "CODED_ROWS_MIN", 16)
    return Store(place / "db", monkeypatch, ordering)


def full_for(*kinds: str, inside: str = "") -> Callable[[Call], StorageFailed | None]:
    return lambda call: no_space(call.path) if call.name in kinds and inside in str(call.path) else None


def test_a_write_that_does_not_fit_is_refused_and_can_be_tried_again(store: Store) -> None:
    store.write(3)
    store.fault = full_for("write", inside="/wal/")
    for _ in range(2):
        with pytest.raises(StorageFailed, match="No space left") as caught:
            write(store.docs, BATCHES[3])
        assert caught.value.errno == errno.ENOSPC
        store.check()
    store.fault = None
    store.write(2)
    store.check()
    store.check_reopened()


def growing_calls(store: Store, step: Callable[[], object]) -> int:
    """Fails the n-th call that needs space, for every n until the step succeeds. Returns n."""
    for number in range(1, 500):
        seen = 0

        def fault(call: Call, limit: int = number) -> StorageFailed | None:
            nonlocal seen
            if call.name not in ("create", "write", "make_directory"):
                return None
            seen += 1
            return no_space(call.path) if seen >= limit else None

        store.fault = fault
        try:
            step()
        except StorageFailed:
            assert not store.db._engine.poisoned  # type: ignore[union-attr]
            store.fault = None
            continue
        store.fault = None
        return number
    raise AssertionError("the step never succeeded")


@pytest.mark.parametrize("steps", [1, 2], ids=["checkpoint", "merge"])
def test_a_full_disk_during_maintenance_keeps_everything(store: Store, steps: int) -> None:
    store.write(4)
    if steps == 2:
        step_until_idle(store.db)
        store.write(4)
        assert maintain.run_step(store.db._engine, force=True) == "checkpoint"  # type: ignore[arg-type]
    tried = growing_calls(store, lambda: maintain.run_step(store.db._engine, force=True))  # type: ignore[arg-type]
    assert tried > 20
    store.check()
    store.write(1)
    segments = {path.name for path in (store.path / "segments").iterdir()}
    assert segments == {segment.name for segment in store.docs.stats().segments}  # no attempt left files
    store.check_reopened()


def test_a_checkpoint_that_does_not_fit_leaves_no_files_of_any_collection(store: Store) -> None:
    store.write(1)
    store.db.create_collection("other", dim=DIM).upsert([1], [[1.0] * DIM])
    store.fault = lambda call: no_space(call.path) if "2-1" in str(call.path) else None
    for _ in range(2):
        with pytest.raises(StorageFailed):
            maintain.run_step(store.db._engine, force=True)  # type: ignore[arg-type]
        assert list((store.path / "segments").iterdir()) == []
        store.fault = lambda call: no_space(call.path) if "2-2" in str(call.path) else None
    store.fault = None
    assert maintain.run_step(store.db._engine, force=True) == "checkpoint"  # type: ignore[arg-type]
    assert sorted(path.name for path in (store.path / "segments").iterdir()) == ["1-3", "2-3"]
    store.check()
    store.check_reopened()


def test_a_full_disk_during_an_index_build_and_a_compaction(store: Store) -> None:
    store.write(6)
    step_until_idle(store.db)
    store.docs.set_index(vecdb.Flat(bits=8))
    engine = store.db._engine
    assert growing_calls(store, lambda: maintain.run_step(engine)) > 5  # type: ignore[arg-type]
    store.fault = full_for("make_directory", inside="catalog-")
    with pytest.raises(StorageFailed, match="No space left"):
        maintain.compact_catalog(engine)  # type: ignore[arg-type]
    store.fault = None
    store.check()
    maintain.compact_catalog(engine)  # type: ignore[arg-type]
    store.write(1)
    store.check()
    store.check_reopened()


@pytest.mark.parametrize("call", ["sync", "rename", "sync_directory", "remove", "remove_directory"])
def test_a_compaction_that_fails_late_loses_no_later_commit(store: Store, call: str) -> None:
    store.write(4)
    engine = store.db._engine
    failed = False

    def once(made: Call) -> StorageFailed | None:
        nonlocal failed
        if failed or made.name != call:
            return None
        failed = True
        return bad_sync(made.path)

    store.fault = once
    try:
        maintain.compact_catalog(engine)  # type: ignore[arg-type]
    except StorageFailed:
        assert call in ("sync", "rename", "sync_directory")
    assert failed
    store.fault = None
    store.write(3)
    step_until_idle(store.db)
    store.check()
    store.check_reopened()


def test_a_failed_sync_ends_writing_and_reading_goes_on(store: Store) -> None:
    store.write(4)
    store.fault = lambda call: bad_sync(call.path) if call.name == "sync" else None
    with pytest.raises(Poisoned, match="could not be synced"):
        write(store.docs, BATCHES[4])
    store.fault = None
    store.check()
    calls = store.disk.calls
    for attempt in (
        lambda: write(store.docs, BATCHES[5]),
        lambda: store.docs.delete(where={}),
        lambda: store.db.create_collection("more", dim=2),
        lambda: store.db.flush(),
        lambda: store.db.maintain(),
        lambda: store.db.optimize(),
        lambda: store.docs.set_index("flat"),
    ):
        with pytest.raises(Poisoned, match="open it again"):
            attempt()
    assert store.disk.calls == calls
    store.check()
    store.db.close()
    with vecdb.open(store.path, maintenance="manual") as db:  # the batch in doubt may be there, whole
        there = check_prefix(db.get_collection("docs"), STATES, 4)
        write(db.get_collection("docs"), BATCHES[there])
        check_prefix(db.get_collection("docs"), STATES, there + 1)


def test_a_log_that_cannot_be_cut_back_ends_writing(store: Store) -> None:
    store.write(2)
    store.fault = full_for("write", "truncate", inside="/wal/")
    with pytest.raises(StorageFailed, match="No space left"):
        write(store.docs, BATCHES[2])
    with pytest.raises(Poisoned, match="could not be cut back"):
        write(store.docs, BATCHES[2])
    store.check()
    store.check_reopened()


def test_closing_on_a_full_disk_keeps_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.engine.policy.CLOSE_CHANGES", 1)
    store.write(5)
    store.fault = full_for("write", "create", "make_directory")
    store.db.close()
    assert store.refused
    store.fault = None
    with vecdb.open(store.path, maintenance="manual") as db:
        check_prefix(db.get_collection("docs"), STATES[:6], 5)
    check_no_leftovers(store.path)


def test_opening_on_a_full_disk_fails_and_changes_nothing(
    place: Path, ordering: OrderingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk(ordering, lambda call: (_ for _ in ()).throw(no_space(call.path)))
    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=disk))
    with pytest.raises(StorageFailed, match="No space left"):
        vecdb.open(place / "db")
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", usual)
    with vecdb.open(place / "db") as db:
        assert db.list_collections() == []


LIMITED = """
import resource, sys
import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
path, size = sys.argv[1], int(sys.argv[2])
db = vecdb.open(path, maintenance="manual")
docs = db.get_or_create_collection("docs", dim=DIM)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
batches = [make_batch(seed, ids=90, rows=30) for seed in range(100, 400)]
done = 0
try:
    for batch in batches:
        write(docs, batch)
        done += 1
        if done % 7 == 0:
            db.optimize()
except vecdb.StorageFailed as error:
    print(done, type(error).__name__, str(error).replace("\\n", " "))
else:
    raise SystemExit("the limit was never met")
states = states_of(batches[:done])
check_prefix(docs, states, done)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(docs, batches[done])
db.optimize()
db.close()
"""


@pytest.mark.parametrize("size", [30_000, 120_000], ids=["log", "catalog"])
def test_a_real_limit_on_file_sizes(place: Path, size: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(place / "db"), str(size)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = re.match(r"(\d+) StorageFailed .*(file size limit|Input/output error)", done.stdout)
    assert found, done.stdout
    batches = [make_batch(seed, ids=90, rows=30) for seed in range(100, 101 + int(found[1]))]
    with vecdb.open(place / "db") as db:
        check_prefix(db.get_collection("docs"), states_of(batches), len(batches))
