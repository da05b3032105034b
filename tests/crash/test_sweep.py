"""Goal: whenever a process dies, the next open finds every acknowledged batch, whole, and nothing else.

Method: a scripted workload with maintenance in steps runs once, and before every call that changes the disk (and once
in the middle of every write) the directory is copied as it is: that is what a death there leaves. Every copy is opened,
compared with the batches acknowledged by then, written to, checkpointed, and opened again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import vecdb
from tests.crash.ledger import Batch, check_prefix, make_batch, states_of, write
from tests.faults import OrderingDisk, PassingDisk
from vecdb.engine import maintain, registry, wanted
from vecdb.files.disk import Bytes, Disk, File

pytestmark = pytest.mark.crash
FULL = os.environ.get("VECDB_SWEEP") == "full"
EVERY = 1 if FULL else 40  # of the calls of one kind
POINTS = 10_000 if FULL else 2  # looks at one named point
BATCHES = [make_batch(seed, ids=90, rows=30) for seed in range(14)]
STATES = states_of(BATCHES)


class LookingFile:
    def __init__(self, disk: LookingDisk, inner: File) -> None:
        self.disk, self.inner = disk, inner

    def read_at(self, size: int, offset: int) -> bytes:
        return self.inner.read_at(size, offset)

    def write_at(self, data: Bytes, offset: int) -> None:
        self.disk.look("write")
        whole = memoryview(data).cast("B")
        half = len(whole) // 2
        self.inner.write_at(whole[:half], offset)
        self.disk.look("half a write")
        self.inner.write_at(whole[half:], offset + half)

    def truncate(self, size: int) -> None:
        self.disk.look("truncate")
        self.inner.truncate(size)

    def sync(self) -> None:
        self.inner.sync()  # a death leaves the page cache: synced or not is the same here

    def close(self) -> None:
        self.inner.close()


class LookingDisk(PassingDisk):
    """Calls `look` before everything that changes a file or a directory, and at every named point."""

    def __init__(self, inner: Disk, look: Callable[[str], None]) -> None:
        super().__init__(inner)
        self.look = look

    def create(self, path: Path) -> File:
        self.look("create")
        return LookingFile(self, self.inner.create(path))

    def open(self, path: Path) -> File:
        return LookingFile(self, self.inner.open(path))

    def make_directory(self, path: Path) -> None:
        self.look("make_directory")
        self.inner.make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self.look("rename")
        self.inner.rename(source, target)

    def remove(self, path: Path) -> None:
        self.look("remove")
        self.inner.remove(path)

    def remove_directory(self, path: Path) -> None:
        self.look("remove_directory")
        self.inner.remove_directory(path)

    def reach(self, point: str, lsn: int = 0) -> None:
        self.inner.reach(point, lsn)
        self.look(point)


class Sweep:
    """Runs a workload and copies the directory at every `EVERY`-th moment, with what was acknowledged by then."""

    def __init__(self, path: Path, copies: Path) -> None:
        self.path, self.copies = path, copies
        self.moments: list[tuple[Path, str, int]] = []
        self.seen: dict[str, int] = {}
        self.acknowledged = 0
        copies.mkdir()

    def look(self, what: str) -> None:
        self.seen[what] = seen = self.seen.get(what, 0) + 1
        if seen > POINTS if ":" in what else seen % EVERY != 1 % EVERY:
            return
        target = self.copies / str(len(self.moments))
        shutil.copytree(self.path, target)
        self.moments.append((target, what, self.acknowledged))

    def write(self, db: vecdb.Database, batches: list[Batch]) -> None:
        docs = db.get_or_create_collection("docs", dim=8)
        for batch in batches:
            write(docs, batch)
            self.acknowledged += 1


def step_until_idle(db: vecdb.Database, *, force: bool = True) -> list[str]:
    steps = []
    while (step := maintain.run_step(db._engine, force=force)) is not None:  # type: ignore[arg-type]
        steps.append(step)
    return steps


def workload(sweep: Sweep) -> None:
    """Upserts, deletes, checkpoints, indexes, merges, a carried graph, a compaction, reopening; ends with a close."""
    with vecdb.open(sweep.path, maintenance="manual") as db:
        sweep.write(db, BATCHES[:4])
        assert "checkpoint" in step_until_idle(db)
        sweep.write(db, BATCHES[4:7])
        assert {"checkpoint", "merge"} <= set(step_until_idle(db))
        db.get_collection("docs").set_index(vecdb.Flat(bits=8))
        assert "index" in step_until_idle(db)
        sweep.write(db, BATCHES[7:9])
        maintain.compact_catalog(db._engine)  # type: ignore[arg-type]
        sweep.write(db, BATCHES[9:10])
    with vecdb.open(sweep.path, maintenance="manual") as db:
        db.get_collection("docs").set_index(vecdb.HNSW(m=4, ef_construction=8))
        sweep.write(db, BATCHES[10:11])
        assert step_until_idle(db)[-2:] == ["merge", "index"]
        sweep.write(db, BATCHES[11:12])
        assert step_until_idle(db)[-1] == "merge"
        sweep.write(db, BATCHES[12:13])


def check_moment(copy: Path, acknowledged: int) -> None:
    """Opens a copy, compares, goes on writing there, and opens it again."""
    with vecdb.open(copy, maintenance="manual") as db:
        if "docs" not in db.list_collections():
            assert acknowledged == 0
            return
        there = check_prefix(db.get_collection("docs"), STATES, acknowledged)
        state = STATES[there]
        write(db.get_collection("docs"), BATCHES[13])
        step_until_idle(db)
    with vecdb.open(copy, maintenance="manual") as db:
        check_prefix(db.get_collection("docs"), states_of([BATCHES[13]], state), 1)
    check_no_leftovers(copy)


def check_no_leftovers(path: Path) -> None:
    """Everything that is there is named by the catalog, or is the log."""
    assert not list(path.rglob("*.tmp"))
    assert len(list(path.glob("catalog-*"))) == 1
    with vecdb.open(path, maintenance="manual") as db:
        named = {segment.name for c in db.stats().collections.values() for segment in c.segments}
    assert {found.name for found in (path / "segments").iterdir()} == named


@pytest.fixture
def small_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "CODED_ROWS_MIN", 16)


def test_death_at_every_disk_call(
    place: Path, small_codes: None, ordering: OrderingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(place / "db", place / "copies")
    (place / "db").mkdir(mode=0o700)
    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=LookingDisk(ordering, sweep.look)))
    workload(sweep)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", usual)
    assert sweep.acknowledged == 13
    points = {what for _, what, _ in sweep.moments if ":" in what}
    assert {"checkpoint:written", "merge:committed", "index:written", "catalog:renamed", "log:retire"} <= points
    for copy, what, acknowledged in sweep.moments:
        try:
            check_moment(copy, acknowledged)
        except Exception as error:
            raise AssertionError(f"death at {what!r} ({copy.name}): {error!r}") from error
        shutil.rmtree(copy)


def test_death_during_recovery(
    place: Path, small_codes: None, ordering: OrderingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery, the rewriting of a doubtful tail and the checkpoint after it may be cut off as well."""
    first = place / "db"
    db = vecdb.open(first, maintenance="manual")
    docs = db.create_collection("docs", dim=8)
    for batch in BATCHES[:6]:
        write(docs, batch)
    shutil.copytree(first, place / "left")  # as a killed process leaves it
    db.close()
    sweep = Sweep(place / "left", place / "copies")
    sweep.acknowledged = 6
    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=LookingDisk(ordering, sweep.look)))
    with vecdb.open(sweep.path, maintenance="manual") as db:
        sweep.write(db, BATCHES[6:8])
        step_until_idle(db)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", usual)
    assert "log:rewritten" in {what for _, what, _ in sweep.moments}
    for copy, what, acknowledged in sweep.moments:
        try:
            check_moment(copy, acknowledged)
        except Exception as error:
            raise AssertionError(f"death at {what!r} ({copy.name}): {error!r}") from error


def test_states_differ() -> None:
    """The oracle can tell the batches apart."""
    assert len({tuple(sorted(map(str, state.items()))) for state in STATES}) == len(STATES)
