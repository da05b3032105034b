"""Goal: the writing end of the log says of itself what is true, survives a failing disk, and removes only what is kept.

Method: disks that fail at one call, a thread that comes in between, and files read back record by record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import Call, FaultyDisk, PassingDisk, bad_sync, no_space
from tests.storage.logs import UUID, CountingDisk, Log, lsns, payload_of, three_files
from vecdb.errors import Corrupted, Poisoned, StorageFailed
from vecdb.files import names
from vecdb.files.disk import File, LocalDisk
from vecdb.files.record import (
    CLOSE,
    FILE_HEADER_SIZE,
    MARK,
    FileHeader,
    Record,
    decode_file_header,
    read_records,
)
from vecdb.files.seams import Seams
from vecdb.storage import wal as wal_module
from vecdb.storage.wal import Wal, sealed_log
from vecdb.storage.wal_scan import scan


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "wal")


def header_of(path: Path) -> FileHeader:
    header = decode_file_header(path.read_bytes())
    assert isinstance(header, FileHeader)
    return header


def records_of(path: Path) -> list[Record]:
    return list(read_records(memoryview(path.read_bytes()), header_of(path).salt, FILE_HEADER_SIZE))


class Failing:
    """Makes the calls fail whose names are in `names`."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.disk = FaultyDisk(LocalDisk(), self._fault)

    def _fault(self, call: Call) -> None:
        if call.name in self.names:
            raise bad_sync(call.path) if call.name.startswith("sync") else no_space(call.path)


# ---- what records say of it -----------------------------------------------------------------------------------------
def test_damage_in_a_rewritten_batch_is_no_torn_tail(log: Log) -> None:
    """The rewriting was synced whole, and the next record says so."""
    log.write(1, 3, sync=False)
    log.wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    log.write(4, 4, sync=False)
    data = bytearray(log.path.read_bytes())
    data[FILE_HEADER_SIZE + 50] ^= 1
    log.path.write_bytes(data)
    with pytest.raises(Corrupted, match="after batch 0"):
        log.scan()


class Overtaken(PassingDisk):
    """Another thread starts the next file of the log while one waits for a sync."""

    def __init__(self) -> None:
        super().__init__(LocalDisk())
        self.rotating: Wal | None = None

    def create(self, path: Path) -> File:
        return OvertakenFile(self, self.inner.create(path))


class OvertakenFile:
    def __init__(self, disk: Overtaken, inner: File) -> None:
        self.disk, self.inner = disk, inner
        self.write_at, self.read_at, self.truncate, self.close = (
            inner.write_at,
            inner.read_at,
            inner.truncate,
            inner.close,
        )

    def sync(self) -> None:
        self.inner.sync()
        wal, self.disk.rotating = self.disk.rotating, None
        if wal is not None:
            wal.rotate()


def test_a_sync_that_a_rotation_overtook_says_nothing_of_the_new_file(tmp_path: Path) -> None:
    """Else a torn tail of the new file would be called damage."""
    disk = Overtaken()
    log = Log(tmp_path / "wal", disk)
    log.write(1, 20, sync=False)
    disk.rotating = log.wal
    log.wal.sync()
    assert len(log.wal.files) == 2
    log.write(21, 22, sync=False)
    assert {record.synced_upto for record in records_of(log.path)} == {FILE_HEADER_SIZE}
    data = bytearray(log.path.read_bytes())
    data[FILE_HEADER_SIZE] ^= 1
    log.path.write_bytes(data)
    assert lsns(log.scan()) == list(range(1, 21))


def test_an_idle_log_is_marked_once(log: Log) -> None:
    log.wal.mark()
    log.write(1, 2, sync=False)
    log.wal.mark()
    assert [record.kind for record in records_of(log.path)].count(MARK) == 0  # there is nothing to be said
    log.wal.sync()
    synced = log.wal.files[-1].end
    for _ in range(3):
        log.wal.mark()
        log.wal.sync()
    marks = [record for record in records_of(log.path) if record.kind == MARK]
    assert [(mark.flags, mark.lsn, mark.synced_upto, mark.offset) for mark in marks] == [(0, 2, synced, synced)]
    log.write(3, 3)
    log.wal.mark()
    assert [record.lsn for record in records_of(log.path) if record.kind == MARK] == [2, 3]
    assert lsns(log.scan()) == [1, 2, 3]


def test_a_log_that_is_not_written_to_needs_no_sync_mark_or_close(tmp_path: Path) -> None:
    """Opening a database and closing it again changes no file."""
    before = Log(tmp_path / "wal")
    before.write(1, 2)
    before.wal.close(clean=False)
    failing = Failing()
    wal = Wal(Seams(disk=failing.disk), before.directory, UUID, before.scan().files, 1)
    wal.sync()
    wal.mark()
    wal.close(clean=True)
    assert failing.disk.calls == 0
    assert wal.size == before.path.stat().st_size


# ---- failures -------------------------------------------------------------------------------------------------------
def test_a_write_that_cannot_be_cut_back_ends_writing(tmp_path: Path) -> None:
    failing = Failing()
    log = Log(tmp_path / "wal", failing.disk)
    log.write(1, 2)
    failing.names = {"write", "truncate"}
    with pytest.raises(StorageFailed, match="No space"):
        log.write(3, 3)
    failing.names = set()
    calls = failing.disk.calls
    for attempt in (lambda: log.write(3, 3), log.wal.sync, log.wal.rotate):
        with pytest.raises(Poisoned, match="could not be cut back"):
            attempt()
    log.wal.close(clean=True)
    assert failing.disk.calls == calls
    assert lsns(log.scan()) == [1, 2]


@pytest.mark.parametrize("name", ["write", "sync", "rename"])
def test_a_failed_rotation_leaves_no_file_and_none_open(tmp_path: Path, name: str) -> None:
    failing, counting = Failing(), CountingDisk()
    failing.disk.inner = counting
    log = Log(tmp_path / "wal", failing.disk)
    log.write(1, 2)
    open_before, there = counting.open_files[:], sorted(log.directory.iterdir())
    failing.names = {name}
    with pytest.raises(StorageFailed):
        log.wal.rotate()
    assert (counting.open_files, sorted(log.directory.iterdir())) == (open_before, there)


@pytest.mark.parametrize("act", ["rotate", "rewrite", "retire"])
def test_a_directory_that_cannot_be_synced_ends_writing(tmp_path: Path, act: str) -> None:
    failing = Failing()
    log = Log(tmp_path / "wal", failing.disk)
    three_files(log)
    failing.names = {"sync_directory"}
    acts = {"rotate": log.wal.rotate, "rewrite": lambda: log.wal.rewrite(9, []), "retire": lambda: log.wal.retire(8)}
    with pytest.raises(Poisoned, match="directory of the log could not be synced"):
        acts[act]()
    failing.names = set()
    with pytest.raises(Poisoned, match="directory of the log"):
        log.write(9, 9)


def test_closing_closes_the_file_when_the_disk_is_full(tmp_path: Path) -> None:
    """The closing record is dispensable: without it the next open doubts the tail, no more."""
    failing, counting = Failing(), CountingDisk()
    failing.disk.inner = counting
    log = Log(tmp_path / "wal", failing.disk)
    log.write(1, 3, sync=False)
    failing.names = {"write"}
    log.wal.close(clean=True)
    assert counting.open_files == []
    assert (lsns(log.scan()), log.scan().clean) == ([1, 2, 3], False)


def test_a_rewriting_that_failed_does_not_count_as_an_epoch(tmp_path: Path) -> None:
    failing = Failing()
    log = Log(tmp_path / "wal", failing.disk)
    log.write(1, 3)
    failing.names = {"rename"}
    with pytest.raises(StorageFailed):
        log.wal.rewrite(1, [])
    failing.names = set()
    assert [log.scan().epoch, header_of(log.path).epoch] == [1, 1]
    log.wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    assert (log.scan().epoch, lsns(log.scan())) == (2, [1, 2, 3])


# ---- files that go --------------------------------------------------------------------------------------------------
class Archive:
    """Copies what it is given; or fails."""

    def __init__(self) -> None:
        self.kept: dict[Path, bytes] = {}
        self.full = False

    def __call__(self, paths: Sequence[Path]) -> None:
        if self.full and paths:
            raise no_space(paths[0])
        self.kept |= {path: path.read_bytes() for path in paths}


def test_a_file_retires_only_when_the_archive_has_it(log: Log) -> None:
    paths = three_files(log)
    contents = {path: path.read_bytes() for path in paths}
    log.wal.archive = archive = Archive()
    archive.full = True
    with pytest.raises(StorageFailed):
        log.wal.retire(6)
    assert all(path.exists() for path in paths)
    archive.full = False
    log.wal.retire(6)
    assert archive.kept == {path: contents[path] for path in paths[:2]}
    assert [path.exists() for path in paths] == [False, False, True]


@pytest.mark.parametrize("full", [False, True])
def test_what_a_rewriting_replaces_goes_only_when_the_archive_has_it(log: Log, full: bool) -> None:
    """Without, the new epoch counts, and the next open finds the old files."""
    paths = three_files(log)
    contents = {path: path.read_bytes() for path in paths}
    log.wal.archive = archive = Archive()
    archive.full = full
    with pytest.raises(StorageFailed) if full else contextlib.nullcontext():
        log.wal.rewrite(9, [])
    assert archive.kept == ({} if full else contents)
    assert (log.scan(applied=8).epoch, sorted(log.scan(applied=8).leftovers)) == (2, paths if full else [])


def test_a_file_retires_with_its_last_batch(log: Log) -> None:
    paths = three_files(log)
    for applied, gone in ((0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (100, 2)):
        log.wal.retire(applied)
        assert [path.exists() for path in paths] == [False] * gone + [True] * (3 - gone)
        assert [file.path for file in log.wal.files] == paths[gone:]
    assert log.wal.size == paths[2].stat().st_size


# ---- headers and whole logs -----------------------------------------------------------------------------------------
def test_the_first_file_of_an_epoch_follows_none(log: Log) -> None:
    three_files(log)
    headers = [header_of(file.path) for file in log.wal.files]
    assert [(h.epoch, h.start_lsn) for h in headers] == [(1, 1), (1, 4), (1, 7)]
    assert [h.previous for h in headers] == [0, headers[0].checksum, headers[1].checksum]
    assert [h.previous_length for h in headers] == [0, *(file.end for file in log.wal.files[:2])]
    log.wal.rewrite(4, [])
    header = header_of(log.path)
    assert (header.epoch, header.start_lsn, header.previous, header.previous_length) == (2, 4, 0, 0)
    assert log.wal.files[-1].last_lsn == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_sealed_log_is_a_log_that_was_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Snapshots and restored databases have one: whole, durable to its end, closed."""
    monkeypatch.setattr(wal_module, "FRAME_MAX", 20)
    header = FileHeader(UUID, 3, 5, 99)
    batches = [(lsn, 1000 + lsn, b"".join(payload_of(lsn))) for lsn in range(5, 5 + count)]
    data = b"".join(sealed_log(header, 77, batches))
    path = tmp_path / names.wal(5, bytes(16))
    path.write_bytes(data)
    found = scan(LocalDisk(), tmp_path, UUID, 4)
    assert (lsns(found), found.clean, found.epoch, found.last_lsn) == ([b[0] for b in batches], True, 3, 4 + count)
    closing = records_of(path)[-1]
    assert (closing.kind, closing.flags, closing.lsn, closing.time_ns) == (CLOSE, 0, 4 + count, 77)
    assert (closing.synced_upto, closing.end) == (closing.offset, len(data))
