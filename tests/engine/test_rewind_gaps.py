"""Points in time around a snapshot that is being taken, and archives that hold less than they should."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.engine.stepping import DIM, check, vectors_of
from tests.engine.test_rewind import START, Minutes, NoLinks, Story
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk
from vecdb.files.record import FileHeader
from vecdb.storage.archive import archived_batches
from vecdb.storage.catalog import Writer
from vecdb.storage.wal import sealed_log

EVERY_SECOND = 1_000_000_000
WRITER = """
import sys, vecdb
with vecdb.open(sys.argv[1], maintenance="manual", wal_archive=sys.argv[2]) as db:
    late = db.create_collection("late", dim=2)
    late.upsert([1, 2], [[1, 2], [3, 4]])
"""


class Meanwhile(PassingDisk):
    """Calls `then`, once, where the code of the library reaches `point`, or before it renames a description."""

    def __init__(self, inner: Disk, point: str, then: Callable[[], None]) -> None:
        super().__init__(inner)
        self.point, self.then = point, then
        self.armed = False

    def _call(self) -> None:
        if self.armed:
            self.armed = False
            self.then()

    def reach(self, point: str, lsn: int = 0) -> None:
        self.inner.reach(point, lsn)
        if point == self.point:
            self._call()

    def rename(self, source: Path, target: Path) -> None:
        self.inner.rename(source, target)
        if target.suffix == self.point:
            self._call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Minutes:
    made = Minutes()
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(registry.DEFAULT_SEAMS, clock=made))
    return made


def hook(monkeypatch: pytest.MonkeyPatch, point: str, then: Callable[[], None]) -> Meanwhile:
    disk = Meanwhile(registry.DEFAULT_SEAMS.disk, point, then)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(registry.DEFAULT_SEAMS, disk=disk))
    return disk


def names_in(path: Path) -> list[str]:
    with vecdb.open(path, maintenance="manual") as db:
        return db.list_collections()


def test_collection_made_while_a_reader_takes_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches are in the archive; a restore must not pass over them."""
    with vecdb.open(tmp_path / "db", maintenance="manual", wal_archive=tmp_path / "archive") as db:
        db.create_collection("docs", dim=DIM).upsert([1], vectors_of([1], 0))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "db"), str(tmp_path / "archive")]
    disk = hook(monkeypatch, "snapshot:begun", lambda: subprocess.run(command, check=True) and None)
    with vecdb.open(tmp_path / "db", mode="r") as reader:
        disk.armed = True
        reader.snapshot(tmp_path / "snap.vecdb")
    assert not disk.armed
    archives = [tmp_path / "archive", tmp_path / "db" / "wal"]
    vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", wal_archive=archives)
    with vecdb.open(tmp_path / "back", maintenance="manual") as back:
        assert [record.id for record in back.get_collection("late").get()] == [1, 2]


def test_collection_made_while_the_writer_takes_the_snapshot(
    tmp_path: Path, clock: Minutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking: list[threading.Thread] = []

    def take() -> None:  # another thread, while the collection is described and not yet there
        taking.append(threading.Thread(target=lambda: story.db.snapshot(tmp_path / "snap.vecdb")))
        taking[0].start()
        taking[0].join(1)

    disk = hook(monkeypatch, ".schema", take)
    story = Story(tmp_path, clock)
    story.write(0, 10, 1)
    disk.armed = True
    late = story.db.create_collection("late", dim=DIM)
    taking[0].join()
    late.upsert([1], vectors_of([1], 0))
    vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", wal_archive=story.archives)
    story.db.close()
    with vecdb.open(tmp_path / "back", maintenance="manual") as back:
        assert [record.id for record in back.get_collection("late").get()] == [1]


def test_batch_written_while_the_snapshot_begins_counts_for_its_time(
    tmp_path: Path, clock: Minutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot may lack it, and then the archive has it."""

    def write() -> None:
        story.write(5, 15, 2)
        clock.now += 60 * EVERY_SECOND

    disk = hook(monkeypatch, "snapshot:begun", write)
    story = Story(tmp_path, clock)
    story.write(0, 10, 1)
    disk.armed = True
    assert story.db.snapshot(tmp_path / "snap.vecdb").lsn == 1
    until = START + dt.timedelta(minutes=2, seconds=30)
    vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", until, wal_archive=story.archives)
    story.db.close()
    with vecdb.open(tmp_path / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), story.held)


def test_rot_in_the_last_file_of_the_archive_is_no_end(tmp_path: Path, clock: Minutes) -> None:
    """Nothing comes after the damaged batches, and still a restore to the end is not whole without them."""
    story = Story(tmp_path, clock)
    story.db.snapshot(tmp_path / "snap.vecdb")
    for n in range(1, 6):
        story.write(n * 5, n * 5 + 10, n)
    story.db.close()
    log = next((tmp_path / "db" / "wal").glob("*.wal"))
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    for until in (None, dt.datetime(2031, 1, 1, tzinfo=dt.UTC), 5):
        with pytest.raises(vecdb.Corrupted, match="damaged"):
            vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", until, wal_archive=story.archives)
        assert not list(tmp_path.glob("back*"))
    assert vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", 1, wal_archive=story.archives).lsn == 1


def test_databases_that_share_an_archive_keep_their_own_descriptions(tmp_path: Path, clock: Minutes) -> None:
    """Even when a clock was set back, and the numbers of both are the same."""
    with vecdb.open(tmp_path / "before", wal_archive=tmp_path / "archive"):
        pass
    clock.now -= 3600 * EVERY_SECOND
    opened = {
        name: vecdb.open(tmp_path / name, maintenance="manual", wal_archive=tmp_path / "archive") for name in "ab"
    }
    for name, db in opened.items():
        db.snapshot(tmp_path / f"{name}.vecdb")
    opened["b"].create_collection("docs", dim=2)
    opened["a"].create_collection("others", dim=2)
    for db in opened.values():
        db.close()
    for name, held in (("a", ["others"]), ("b", ["docs"])):
        archives = [tmp_path / "archive", tmp_path / name / "wal"]
        vecdb.restore(tmp_path / f"{name}.vecdb", tmp_path / f"back-{name}", wal_archive=archives)
        assert names_in(tmp_path / f"back-{name}") == held


def test_a_drop_that_failed_is_not_believed(tmp_path: Path, clock: Minutes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the catalog commits: the collection stays, and so it does in a restore."""
    story = Story(tmp_path, clock)
    story.write(0, 10, 1)
    story.db.snapshot(tmp_path / "snap.vecdb")
    story.write(5, 15, 2)

    engine: Any = story.db._engine
    usual = engine.catalog.write

    @contextlib.contextmanager
    def full() -> Iterator[Writer]:
        with usual() as writer:
            yield writer
            raise StorageFailed(28, "cannot commit to the catalog: the disk is full")

    monkeypatch.setattr(engine.catalog, "write", full)
    with pytest.raises(StorageFailed):
        story.db.delete_collection("docs")
    monkeypatch.undo()
    story.write(8, 20, 3)
    story.db.close()
    vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", wal_archive=story.archives)
    with vecdb.open(tmp_path / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), story.held)


class Dying(NoLinks):
    """Another file system, and the process ends before the first log file is removed."""

    def remove(self, path: Path) -> None:
        if path.suffix == ".wal":
            raise Killed
        self.inner.remove(path)


class Killed(BaseException):
    pass


def test_power_lost_after_an_unsynced_tail_was_archived(
    tmp_path: Path, clock: Minutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy in the archive is longer than what is left of the file: the database opens, and nothing is missing."""
    story = Story(tmp_path, clock)
    story.db.snapshot(tmp_path / "snap.vecdb")
    story.write(0, 10, 1)
    story.write(5, 15, 2)
    shutil.copytree(tmp_path / "db", tmp_path / "left")  # as a killed process leaves it
    story.db.close()
    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=Dying(usual.disk)))
    db = vecdb.open(tmp_path / "left", maintenance="manual", wal_archive=tmp_path / "archive")
    with pytest.raises(Killed):
        db.get_collection("docs").upsert([100], vectors_of([100], 3), [{"id": 100, "version": 3}])
    shutil.copytree(tmp_path / "left", tmp_path / "after")
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", usual)
    old = [path for path in (tmp_path / "after" / "wal").glob("*.wal") if (tmp_path / "archive" / path.name).exists()]
    assert len(old) == 1
    os.truncate(old[0], old[0].stat().st_size - 100)  # what was never synced is gone
    with vecdb.open(tmp_path / "after", maintenance="manual", wal_archive=tmp_path / "archive") as db:
        check(db.get_collection("docs"), story.held)
        db.optimize()
    archives = [tmp_path / "archive", tmp_path / "after" / "wal"]
    assert vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", wal_archive=archives).lsn == 2
    with vecdb.open(tmp_path / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), story.held)


def test_a_later_epoch_counts_from_its_first_batch_on(tmp_path: Path) -> None:
    """An earlier one may go on beside it: that was given up."""
    uuid = bytes(range(16))
    for epoch, start, payload in ((1, 1, b"old"), (2, 4, b"new")):
        batches = [(lsn, lsn, payload) for lsn in range(start, 7)]
        data = b"".join(sealed_log(FileHeader(uuid, epoch, start, epoch), 9, batches))
        (tmp_path / names.wal(start, bytes([epoch]) * 16)).write_bytes(data)
    found = archived_batches(registry.DEFAULT_SEAMS.disk, [tmp_path], uuid, 1)
    told = [(batch.lsn, bytes(batch.payload)) for batch in found]
    assert told == [(2, b"old"), (3, b"old"), (4, b"new"), (5, b"new"), (6, b"new")]


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_restore_accepts_every_vector_that_can_be_stored(tmp_path: Path, metric: str) -> None:
    """What lies nearest to itself, and how near, is another question for each metric, and for tiny and huge vectors."""
    vectors = [[0.0, 0.0], [1e-3, 1e-3], [0.3, -0.4], [1e6, 2e6]]
    for n, vector in enumerate(vectors):
        with vecdb.open(tmp_path / f"db-{n}", maintenance="manual") as db:
            db.create_collection("docs", dim=2, metric=metric).upsert([1], [vector])
            db.snapshot(tmp_path / f"snap-{n}")
        report = vecdb.restore(tmp_path / f"snap-{n}", tmp_path / f"back-{n}")
        assert (report.records, report.queries) == (1, 2)
