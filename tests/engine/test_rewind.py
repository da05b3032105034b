"""Points in time: an archive of the log, and restores that replay it up to a batch or a time."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vecdb
from tests.engine.stepping import DIM, check, vectors_of
from tests.faults import FaultyDisk, PassingDisk
from vecdb.engine import registry, rewind
from vecdb.errors import StorageFailed
from vecdb.files.disk import Disk
from vecdb.storage.archive import archived_batches

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


class Minutes:
    """A clock that a test sets; each look at it moves it by a microsecond."""

    def __init__(self) -> None:
        self.now = int(START.timestamp()) * 1_000_000_000

    def time_ns(self) -> int:
        self.now += 1000
        return self.now

    def monotonic(self) -> float:
        return 0.0


class Story:
    """A database with an archive; what it held after every batch, and at every minute."""

    def __init__(self, root: Path, clock: Minutes) -> None:
        self.root, self.clock = root, clock
        self.held: dict[int, int] = {}
        self.at_lsn: dict[int, dict[int, int]] = {0: {}}
        self.at_minute: dict[int, dict[int, int]] = {}
        self.minute = 0
        self.open()
        self.docs = self.db.create_collection("docs", dim=DIM)

    def open(self) -> None:
        self.db = vecdb.open(self.root / "db", maintenance="manual", wal_archive=self.root / "archive")

    def reopen(self) -> None:
        self.db.close()
        self.open()
        self.docs = self.db.get_collection("docs")

    def write(self, first: int, last: int, version: int) -> None:
        """One batch, one minute later."""
        self.minute += 1
        self.clock.now = int((START + dt.timedelta(minutes=self.minute)).timestamp()) * 1_000_000_000
        ids = list(range(first, last))
        self.docs.upsert(ids, vectors_of(ids, version), [{"id": i, "version": version} for i in ids])
        self.held |= dict.fromkeys(ids, version)
        self.at_lsn[self.lsn] = self.at_minute[self.minute] = dict(self.held)

    @property
    def lsn(self) -> int:
        return self.db.stats().last_lsn

    def seal(self) -> None:
        self.db.optimize()

    @property
    def archives(self) -> list[Path]:
        return [self.root / "archive", self.root / "db" / "wal"]


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    clock = Minutes()
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(registry.DEFAULT_SEAMS, clock=clock))
    made = Story(tmp_path, clock)
    yield made
    made.db.close()


@pytest.fixture
def told(story: Story) -> Story:
    """Batches 1 to 9, a snapshot after 3 of which 1 is only in the log, seals after 2, 5 and 7, a reopening."""
    for n in range(1, 10):
        story.write(n * 5, n * 5 + 10, n)
        if n in (2, 5, 7):
            story.seal()
        if n == 3:
            story.db.snapshot(story.root / "snap.vecdb")
        if n == 6:
            story.reopen()
    return story


@pytest.mark.parametrize("lsn", range(2, 10))
def test_every_batch_can_be_reached(told: Story, lsn: int) -> None:
    report = vecdb.restore(told.root / "snap.vecdb", told.root / "back", lsn, wal_archive=told.archives)
    assert (report.lsn, report.replayed) == (lsn, lsn - 2)
    with vecdb.open(told.root / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), told.at_lsn[lsn])
        assert back.stats().last_lsn == lsn


@pytest.mark.parametrize("minute", range(3, 10))
def test_every_minute_can_be_reached(told: Story, minute: int) -> None:
    until = START + dt.timedelta(minutes=minute, seconds=30)
    vecdb.restore(told.root / "snap.vecdb", told.root / "back", until, wal_archive=told.archives)
    with vecdb.open(told.root / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), told.at_minute[minute])


def test_naive_times_are_utc(told: Story) -> None:
    until = (START + dt.timedelta(minutes=5, seconds=1)).replace(tzinfo=None)
    vecdb.restore(told.root / "snap.vecdb", told.root / "back", until, wal_archive=told.archives)
    with vecdb.open(told.root / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), told.at_minute[5])


def test_without_until_everything_is_replayed(told: Story) -> None:
    report = vecdb.restore(told.root / "snap.vecdb", told.root / "back", wal_archive=told.archives)
    assert report.lsn == 9
    with vecdb.open(told.root / "back") as back:
        check(back.get_collection("docs"), told.held)
        back.optimize()
        check(back.get_collection("docs"), told.held)


def test_long_archives_are_replayed_in_chunks(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewind, "LOG_TRIGGER", 1)  # a chunk for every batch
    report = vecdb.restore(told.root / "snap.vecdb", told.root / "back", wal_archive=told.archives)
    assert (report.lsn, report.replayed) == (9, 7)
    with vecdb.open(told.root / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), told.held)
        assert back.stats().applied_lsn == 8
        assert len(back.stats().collections["docs"].segments) == 7


def test_a_moment_within_the_snapshot_needs_no_archive(told: Story) -> None:
    assert vecdb.restore(told.root / "snap.vecdb", told.root / "back", 2).lsn == 2
    assert vecdb.restore(told.root / "snap.vecdb", told.root / "again", 3).lsn == 3


@pytest.mark.parametrize("archive", [True, False])
def test_moments_out_of_reach_are_refused(told: Story, archive: bool) -> None:
    given = told.archives if archive else None
    for until, error in (
        (1, vecdb.InvalidInput),
        (START, vecdb.InvalidInput),
        (10, vecdb.NotFound if archive else vecdb.InvalidInput),
        (-1, vecdb.InvalidInput),
        (True, vecdb.InvalidInput),
        ("yesterday", vecdb.InvalidInput),
    ):
        with pytest.raises(error):
            vecdb.restore(told.root / "snap.vecdb", told.root / "back", until, wal_archive=given)  # type: ignore[arg-type]
        assert not list(told.root.glob("back*"))
    with pytest.raises(vecdb.NotFound, match="no directory"):
        vecdb.restore(told.root / "snap.vecdb", told.root / "back", 3, wal_archive=told.root / "nowhere")


def test_archive_has_every_sealed_batch(told: Story) -> None:
    told.seal()
    told.write(0, 3, 10)
    uuid = told.db._engine.superblock.uuid  # type: ignore[union-attr]
    disk = registry.DEFAULT_SEAMS.disk
    assert [b.lsn for b in archived_batches(disk, [told.root / "archive"], uuid, 0)] == list(range(1, 10))
    assert [b.lsn for b in archived_batches(disk, told.archives, uuid, 4)] == list(range(5, 11))


def test_missing_file_of_the_archive_is_named(told: Story) -> None:
    logs = sorted((told.root / "archive").glob("*.wal"))
    logs[1].unlink()
    with pytest.raises(vecdb.Corrupted, match="missing from the archive"):
        vecdb.restore(told.root / "snap.vecdb", told.root / "back", wal_archive=told.archives)
    assert not list(told.root.glob("back*"))


def test_damaged_file_of_the_archive_is_named(told: Story) -> None:
    log = sorted((told.root / "archive").glob("*.wal"))[1]
    copy = bytearray(log.read_bytes())
    copy[200] ^= 1
    log.unlink()
    log.write_bytes(copy)
    with pytest.raises(vecdb.Corrupted, match="damaged"):
        vecdb.restore(told.root / "snap.vecdb", told.root / "back", wal_archive=told.archives)


# ---- the schema -----------------------------------------------------------------------------------------------------
def test_collections_made_after_the_snapshot_are_replayed(story: Story) -> None:
    story.write(0, 10, 1)
    story.db.snapshot(story.root / "snap")
    late = story.db.create_collection("late")  # its dimension comes with the first write
    late.upsert([1, 2], vectors_of([1, 2], 0), [{"version": 0}] * 2)
    story.write(10, 20, 2)
    story.seal()
    story.db.rename_collection("late", "later")
    late.upsert([3], vectors_of([3], 0), [{"version": 0}])
    vecdb.restore(story.root / "snap", story.root / "back", wal_archive=story.archives)
    with vecdb.open(story.root / "back", maintenance="manual") as back:
        assert back.list_collections() == ["docs", "later"]
        assert [record.id for record in back.get_collection("later").get()] == [1, 2, 3]
        check(back.get_collection("docs"), story.held)
        assert back.create_collection("next", dim=2).count() == 0
    vecdb.restore(story.root / "snap", story.root / "before", 2, wal_archive=story.archives)
    with vecdb.open(story.root / "before", maintenance="manual") as back:
        assert back.list_collections() == ["docs", "late"]
        assert back.get_collection("late").count() == 2


def test_a_dropped_collection_comes_back(story: Story) -> None:
    story.write(0, 10, 1)
    story.db.snapshot(story.root / "snap")
    story.write(10, 20, 2)
    dropped_at = START + dt.timedelta(minutes=story.minute, seconds=30)
    story.clock.now = int(dropped_at.timestamp() + 10) * 1_000_000_000
    story.db.delete_collection("docs")
    story.seal()
    story.db.create_collection("docs", dim=3).upsert([1], [[1, 2, 3]])
    for until in (2, dropped_at):
        back = story.root / f"back-{story.root.stat().st_mtime_ns}"
        vecdb.restore(story.root / "snap", back, until, wal_archive=story.archives)
        with vecdb.open(back, maintenance="manual") as db:
            check(db.get_collection("docs"), story.held)
    vecdb.restore(story.root / "snap", story.root / "now", wal_archive=story.archives)
    with vecdb.open(story.root / "now") as db:
        assert [record.id for record in db.get_collection("docs").get()] == [1]
        db.optimize()


def test_archiving_may_begin_after_the_snapshot(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=DIM)
        docs.upsert([1], vectors_of([1], 0), [{"version": 0}])
        db.snapshot(tmp_path / "snap")
        docs.upsert([2], vectors_of([2], 0), [{"version": 0}])
    with vecdb.open(tmp_path / "db", maintenance="manual", wal_archive=tmp_path / "archive") as db:
        db.get_collection("docs").upsert([3], vectors_of([3], 0), [{"version": 0}])
        db.optimize()
        db.get_collection("docs").upsert([4], vectors_of([4], 0), [{"version": 0}])
    assert vecdb.restore(tmp_path / "snap", tmp_path / "back", wal_archive=tmp_path / "archive").records == 3


# ---- stops and failures ---------------------------------------------------------------------------------------------
def test_what_an_unclean_stop_rewrites_is_archived_too(story: Story) -> None:
    """The log's tail goes to a new epoch; both epochs hold some of the batches."""
    story.db.snapshot(story.root / "snap")
    story.write(0, 10, 1)
    story.seal()
    story.write(5, 15, 2)
    story.write(8, 20, 3)
    shutil.copytree(story.root / "db", story.root / "left")  # as a killed process leaves it
    story.db.close()
    with vecdb.open(story.root / "left", maintenance="manual", wal_archive=story.root / "archive") as db:
        story.docs = db.get_collection("docs")
        ids = [100, 101]
        story.docs.upsert(ids, vectors_of(ids, 4), [{"id": i, "version": 4} for i in ids])
        db.optimize()
    expected = {**story.held, 100: 4, 101: 4}
    report = vecdb.restore(story.root / "snap", story.root / "back", 4, wal_archive=story.root / "archive")
    assert report.lsn == 4
    with vecdb.open(story.root / "back", maintenance="manual") as back:
        check(back.get_collection("docs"), expected)


class NoLinks(PassingDisk):
    def link(self, source: Path, target: Path) -> None:
        raise StorageFailed(18, f"cannot link {source}: another file system")  # EXDEV


def test_archive_elsewhere_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(seams, disk=NoLinks(seams.disk)))
    story = Story(tmp_path, Minutes())
    story.db.snapshot(tmp_path / "snap.vecdb")
    story.write(0, 10, 1)
    story.seal()
    story.write(5, 15, 2)
    story.seal()
    story.db.close()
    kept = sorted((tmp_path / "archive").glob("*.wal"))
    assert kept
    assert all(path.stat().st_nlink == 1 for path in kept)
    assert vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back", wal_archive=tmp_path / "archive").records == 15


def test_a_log_that_cannot_be_archived_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost when the archive's disk is full; the next checkpoint archives it."""
    full = [False]

    def fault(call: object) -> None:
        if full[0] and "archive" in str(call.path):  # type: ignore[attr-defined]
            raise StorageFailed(28, "cannot write: the disk is full")

    def disk(inner: Disk) -> Disk:
        return NoLinks(FaultyDisk(inner, fault))

    seams = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(seams, disk=disk(seams.disk)))
    story = Story(tmp_path, Minutes())
    story.db.snapshot(tmp_path / "snap")
    story.write(0, 10, 1)
    full[0] = True
    with pytest.raises(StorageFailed):
        story.seal()
    check(story.docs, story.held)
    full[0] = False
    story.write(5, 15, 2)
    story.seal()
    story.db.close()
    assert vecdb.restore(tmp_path / "snap", tmp_path / "back", wal_archive=tmp_path / "archive").records == 15


@pytest.mark.parametrize("content", [b"other", bytes(1 << 20)], ids=["shorter", "longer"])
def test_a_foreign_file_of_the_name_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    story = Story(tmp_path, Minutes())
    story.write(0, 10, 1)
    log = next((tmp_path / "db" / "wal").glob("*.wal"))
    (tmp_path / "archive" / log.name).write_bytes(content)
    with pytest.raises(StorageFailed, match="another content"):
        story.seal()
    assert log.exists()
    assert (tmp_path / "archive" / log.name).read_bytes() == content
    story.db.close()


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for archive in (tmp_path / "db" / "archive", tmp_path / "file", tmp_path / "no" / "archive", 3, ""):
        with pytest.raises(vecdb.InvalidInput):
            vecdb.open(tmp_path / "db", wal_archive=archive)  # type: ignore[arg-type]
    vecdb.open(tmp_path / "db").close()
    with pytest.raises(vecdb.InvalidInput, match="reader keeps no log"):
        vecdb.open(tmp_path / "db", mode="r", wal_archive=tmp_path / "archive")
    assert not os.path.exists(tmp_path / "archive")
