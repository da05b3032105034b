"""Goal: of a damaged log every batch before the damage is taken, none after it, and what is lost is told.

Method: small logs damaged in one place; what must be taken is worked out from the place.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import PassingDisk
from tests.storage.logs import UUID, CountingDisk, Log, payload_of, three_files
from vecdb.errors import StorageFailed, UnsupportedFormat
from vecdb.files import names
from vecdb.files.disk import Disk, File, LocalDisk
from vecdb.files.record import BATCH, FILE_HEADER_SIZE, FileHeader, decode_file_header, read_records
from vecdb.storage.wal_salvage import LogTail, salvage

OTHER = bytes(range(16, 32))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "wal")


def tail_of(log: Log, applied: int | None = 0, uuid: bytes | None = UUID, disk: Disk | None = None) -> LogTail:
    tail = salvage(disk or LocalDisk(), log.directory, uuid, applied)
    for batch in [*tail.batches, *tail.beyond]:
        assert bytes(batch.payload) == b"".join(payload_of(batch.lsn))
    return tail


def summary(tail: LogTail) -> tuple[list[int], list[int], list[str], int]:
    """Lsns taken, lsns beyond the damage, name of the first damaged file, the highest lsn that is known of."""
    damaged = [Path(damage.path).name for damage in tail.damage[:1]]
    return [batch.lsn for batch in tail.batches], [batch.lsn for batch in tail.beyond], damaged, tail.highest


def rot(path: Path, lsn: int, *, header: bool = False) -> int:
    """Changes a byte of batch `lsn`, in its payload or in the header of its record. Returns where the record begins."""
    data = bytearray(path.read_bytes())
    head = decode_file_header(bytes(data))
    assert isinstance(head, FileHeader)
    records = read_records(memoryview(bytes(data)), head.salt, FILE_HEADER_SIZE)
    record = next(record for record in records if record.kind == BATCH and record.lsn == lsn)
    data[record.offset + (20 if header else 50)] ^= 1
    path.write_bytes(data)
    return record.offset


# ---- sound logs -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("applied", range(9))
def test_a_sound_log_is_taken_whole(log: Log, applied: int, closed: bool) -> None:
    three_files(log)
    log.wal.close(clean=closed)
    tail = tail_of(log, applied)
    assert summary(tail) == (list(range(applied + 1, 9)), [], [], 8)
    assert tail.next_lsn == 9


def test_without_a_catalog_the_first_file_says_where_the_log_begins(log: Log) -> None:
    paths = three_files(log)
    assert summary(tail_of(log, None)) == (list(range(1, 9)), [], [], 8)
    paths[0].unlink()
    tail = tail_of(log, None)
    assert summary(tail) == ([4, 5, 6, 7, 8], [], [], 8)
    assert (tail.applied_lsn, tail.next_lsn) == (3, 9)


def test_without_a_superblock_the_files_say_whose_log_it_is(log: Log) -> None:
    three_files(log)
    foreign = log.directory / names.wal(2, bytes(16))
    foreign.write_bytes(FileHeader(OTHER, 9, 2, 5).encode())
    assert summary(tail_of(log, 0, None)) == (list(range(1, 9)), [], [foreign.name], 8)


def test_a_torn_tail_is_no_damage(log: Log) -> None:
    log.write(1, 3)
    log.write(4, 5, sync=False)
    data = log.path.read_bytes()
    log.path.write_bytes(data[:-3])
    assert summary(tail_of(log)) == ([1, 2, 3, 4], [], [], 4)
    log.path.write_bytes(data)
    rot(log.path, 4)
    assert summary(tail_of(log)) == ([1, 2, 3], [], [], 3)


def test_what_is_no_file_of_the_log_is_passed_over(log: Log) -> None:
    log.write(1, 2)
    (log.directory / "notes.txt").write_text("mine")
    (log.directory / f"{1:020d}-{'0' * 32}.tmp").write_bytes(b"half a header")
    for applied in (0, None):
        assert summary(tail_of(log, applied)) == ([1, 2], [], [], 2)


def test_only_the_newest_epoch_counts(log: Log) -> None:
    old = three_files(log)
    copies = {path: path.read_bytes() for path in old}
    log.wal.rewrite(1, [])
    log.write(1, 2)
    for path, data in copies.items():
        path.write_bytes(data)
    assert summary(tail_of(log)) == ([1, 2], [], [], 2)


def test_a_file_that_the_catalog_covers_is_not_read(log: Log) -> None:
    paths = three_files(log)
    rot(paths[0], 2)
    assert summary(tail_of(log, 3)) == ([4, 5, 6, 7, 8], [], [], 8)
    assert summary(tail_of(log, 4)) == ([5, 6, 7, 8], [], [], 8)
    assert summary(tail_of(log, 2)) == ([], [3, 4, 5, 6, 7, 8], [paths[0].name], 8)


# ---- damage ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("lsn", range(1, 8))
def test_nothing_beyond_the_first_damage_is_taken_and_all_of_it_is_told(log: Log, lsn: int, header: bool) -> None:
    """In the last file damage is what some later record calls synced: of the last batch only a torn tail is known."""
    paths = three_files(log)
    log.wal.mark()
    path = paths[0 if lsn < 4 else 1 if lsn < 7 else 2]
    at = rot(path, lsn, header=header)
    tail = tail_of(log)
    assert summary(tail) == (list(range(1, lsn)), list(range(lsn + 1, 9)), [path.name], 8)
    assert (tail.damage[0].offset, tail.next_lsn) == (at, lsn)


def test_every_damaged_file_is_told(log: Log) -> None:
    paths = three_files(log)
    log.wal.mark()
    places = [(str(path), rot(path, lsn)) for path, lsn in ((paths[0], 2), (paths[1], 5), (paths[2], 7))]
    tail = tail_of(log)
    assert summary(tail)[:2] == ([1], [3, 4, 6, 8])
    assert [(d.path, d.offset) for d in tail.damage if "from here on" in d.reason] == places


def test_several_damages_of_one_file_do_not_hide_what_is_between(log: Log) -> None:
    log.write(1, 8)
    log.wal.mark()
    for lsn in (7, 5, 4, 2):
        rot(log.path, lsn)
    assert summary(tail_of(log)) == ([1], [3, 6, 8], [log.path.name], 8)


def test_batches_that_the_catalog_has_are_neither_taken_nor_lost(log: Log) -> None:
    paths = three_files(log)
    rot(paths[0], 1)
    tail = tail_of(log, 2)
    assert summary(tail) == ([], [3, 4, 5, 6, 7, 8], [paths[0].name], 8)


@pytest.mark.parametrize(("first", "second"), [(3, 5), (3, 7), (6, 7)])
def test_a_missing_file_ends_what_is_taken(tmp_path: Path, first: int, second: int) -> None:
    """All before it is taken, whether it was longer than the one before or shorter."""
    log = Log(tmp_path / "wal")
    for start, end in ((1, first), (first + 1, second), (second + 1, 9)):
        log.write(start, end)
        log.wal.rotate()
    paths = [file.path for file in log.wal.files]
    paths[1].unlink()
    tail = tail_of(log)
    assert summary(tail) == (list(range(1, first + 1)), list(range(second + 1, 10)), [paths[2].name], 9)
    assert f"batches {first + 1} to {second} are missing" in str(tail.damage[0])


def test_a_missing_file_that_was_empty_takes_nothing_with_it(log: Log) -> None:
    log.write(1, 3)
    log.wal.rotate()
    log.wal.rotate()
    log.write(4, 5)
    log.wal.files[1].path.unlink()
    assert summary(tail_of(log)) == ([1, 2, 3, 4, 5], [], [], 5)


def test_batches_missing_before_a_file_are_named(log: Log) -> None:
    paths = three_files(log)
    paths[0].unlink()
    for applied, told in ((0, "batches 1 to 3 are missing"), (2, "batches 3 to 3 are missing")):
        tail = tail_of(log, applied)
        assert summary(tail) == ([], [4, 5, 6, 7, 8], [paths[1].name], 8)
        assert (told in str(tail.damage[0]), tail.damage[0].offset) == (True, 0)
    assert summary(tail_of(log, 3)) == ([4, 5, 6, 7, 8], [], [], 8)


@pytest.mark.parametrize("way", ["empty", "gone"])
def test_a_log_that_is_gone_is_damage_unless_nothing_was_written(tmp_path: Path, way: str) -> None:
    directory = tmp_path / "wal"
    if way == "empty":
        directory.mkdir()
    assert summary(salvage(LocalDisk(), directory, UUID, 0)) == ([], [], [], 0)
    assert summary(salvage(LocalDisk(), directory, UUID, None)) == ([], [], [], 0)
    tail = salvage(LocalDisk(), directory, UUID, 4)
    assert summary(tail) == ([], [], ["wal"], 4)
    assert (tail.damage[0].reason, tail.damage[0].offset) == ("the log is missing", 0)


# ---- headers --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["rot", "foreign", "unreadable"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_that_cannot_be_used_ends_what_is_taken(log: Log, number: int, way: str) -> None:
    """All before it is taken, and it is told, or what is missing before the next."""
    paths = three_files(log)
    tail = tail_of(log, disk=spoil(paths[number], way))
    taken, beyond, damaged, highest = summary(tail)
    assert taken == list(range(1, 1 + 3 * number))
    assert beyond == list(range(4 + 3 * number, 9))
    assert damaged == [paths[max(1, number)].name]
    assert (tail.damage[0].offset, highest) == (0, 6 if number == 2 else 8)


@pytest.mark.parametrize("way", ["rot", "foreign", "unreadable"])
def test_a_file_that_cannot_be_used_is_no_loss_if_the_catalog_has_its_batches(log: Log, way: str) -> None:
    path = three_files(log)[0]
    disk = spoil(path, way)
    assert summary(tail_of(log, 3, disk=disk)) == ([4, 5, 6, 7, 8], [], [], 8)
    assert summary(tail_of(log, 2, disk=disk))[:2] == ([], [4, 5, 6, 7, 8])
    taken, beyond, damaged, _ = summary(tail_of(log, None, disk=disk))  # nobody knows what the catalog has
    assert (taken, beyond, damaged) == ([], [4, 5, 6, 7, 8], [path.name])


def test_an_empty_file_that_cannot_be_used_takes_nothing_with_it(log: Log) -> None:
    log.write(1, 3)
    log.wal.rotate()
    log.wal.rotate()
    log.write(4, 5)
    disk = spoil(log.wal.files[1].path, "rot")
    taken, beyond, damaged, _ = summary(tail_of(log, disk=disk))
    assert (taken, beyond, damaged) == ([1, 2, 3, 4, 5], [], [log.wal.files[1].path.name])


@pytest.mark.parametrize("way", ["rot", "foreign", "unreadable"])
def test_a_log_of_which_no_file_can_be_used_is_told_by_its_files(log: Log, way: str) -> None:
    log.write(1, 3)
    assert summary(tail_of(log, 2, disk=spoil(log.path, way))) == ([], [], [log.path.name], 2)


def spoil(path: Path, way: str) -> Disk:
    """Makes a log file that cannot be used. Returns the disk to read it from."""
    data = path.read_bytes()
    if way == "rot":
        path.write_bytes(b"\1" + data[1:])
    elif way == "foreign":
        path.write_bytes(FileHeader(OTHER, 1, 1, 5).encode() + data[FILE_HEADER_SIZE:])
    return Unreadable(path) if way == "unreadable" else LocalDisk()


class Unreadable(PassingDisk):
    """A file on bad sectors."""

    def __init__(self, bad: Path, reads: int = 0) -> None:
        super().__init__(LocalDisk())
        self.bad, self.reads = bad, reads

    def open(self, path: Path) -> File:
        if path == self.bad:
            if self.reads == 0:
                raise StorageFailed(5, f"cannot read {path}: Input/output error")
            self.reads -= 1
        return self.inner.open(path)


def test_a_file_whose_body_cannot_be_read_is_damage(log: Log) -> None:
    paths = three_files(log)
    tail = tail_of(log, disk=Unreadable(paths[1], reads=1))
    assert summary(tail)[:2] == ([1, 2, 3], [7, 8])
    assert Path(tail.damage[0].path) == paths[1]
    assert "Input/output error" in tail.damage[0].reason


def test_another_format_is_not_guessed_at(log: Log) -> None:
    import zlib

    path = three_files(log)[1]
    data = bytearray(path.read_bytes())
    data[8] = 9
    data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="format 9"):
        tail_of(log)


def test_no_file_stays_open(tmp_path: Path) -> None:
    disk = CountingDisk()
    log = Log(tmp_path / "wal", disk)
    rot(three_files(log)[0], 2)
    log.wal.close(clean=True)
    tail_of(log, disk=disk)
    assert disk.open_files == []
