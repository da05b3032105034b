"""Goal: the log gives back every batch, or the longest prefix, or says that it is damaged; never anything else.

Method: a small log is cut at every byte and flipped at every byte, in its synced and in its unsynced part, and files
are taken away, swapped and replaced.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults import FaultyDisk, bad_sync, no_space
from tests.storage.logs import UUID, Log, lsns, three_files
from vecdb.errors import Corrupted, Poisoned, StorageFailed, UnsupportedFormat
from vecdb.files.disk import LocalDisk
from vecdb.files.record import FILE_HEADER_SIZE, FRAME_MAX, RECORD_HEADER_SIZE, FileHeader
from vecdb.files.seams import Seams
from vecdb.storage.wal import Wal
from vecdb.storage.wal_scan import scan


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "wal")


# ---- one file -------------------------------------------------------------------------------------------------------
def test_batches_come_back(log: Log) -> None:
    log.write(1, 6)
    found = log.scan()
    assert lsns(found) == [1, 2, 3, 4, 5, 6]
    assert (found.last_lsn, found.epoch, found.clean) == (6, 1, False)
    assert lsns(log.scan(applied=4)) == [5, 6]
    assert lsns(log.scan(applied=6)) == []
    log.wal.close(clean=True)
    assert log.scan().clean


def test_a_batch_of_several_frames(tmp_path: Path) -> None:
    log = Log(tmp_path / "wal")
    parts = [bytes([i]) * (FRAME_MAX // 2 + 5) for i in range(5)]
    log.wal.append(1, 7, parts)
    log.wal.append(2, 8, [b""])
    found = log.scan()
    assert [batch.lsn for batch in found.batches] == [1, 2]
    assert bytes(found.batches[0].payload) == b"".join(parts)
    assert bytes(found.batches[1].payload) == b""
    with log.path.open("r+b") as file:  # the last frame of the first batch is torn: no frame of it counts
        file.truncate(FILE_HEADER_SIZE + 2 * (FRAME_MAX + RECORD_HEADER_SIZE) + 1000)
    assert log.scan().batches == []


def test_a_log_cut_at_every_byte_keeps_the_prefix(log: Log) -> None:
    ends = [FILE_HEADER_SIZE]
    for lsn in range(1, 6):
        log.write(lsn, lsn, sync=False)
        ends.append(log.wal.files[-1].end)
    data = log.path.read_bytes()
    assert len(data) == ends[-1]
    for size in range(FILE_HEADER_SIZE, len(data) + 1):
        log.path.write_bytes(data[:size])
        assert lsns(log.scan()) == list(range(1, sum(end <= size for end in ends)))
    for size in range(FILE_HEADER_SIZE):  # files get their name with a whole header
        log.path.write_bytes(data[:size])
        with pytest.raises(Corrupted, match="header"):
            log.scan()


def test_zeros_beyond_the_end_are_a_torn_tail(log: Log) -> None:
    log.write(1, 4)
    with log.path.open("ab") as file:
        file.write(bytes(5000))
    assert lsns(log.scan()) == [1, 2, 3, 4]


def test_a_flip_anywhere_in_the_synced_part_is_refused_and_nothing_changes(log: Log) -> None:
    log.write(1, 4)
    log.wal.mark()  # says that all four are on disk
    synced = log.wal.synced_upto
    data = log.path.read_bytes()
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x40
        log.path.write_bytes(flipped)
        if at < synced and not _is_padding(data, at):
            with pytest.raises((Corrupted, UnsupportedFormat)):
                log.scan()
        else:
            assert lsns(log.scan()) == [1, 2, 3, 4]
        assert log.path.read_bytes() == flipped
    log.path.write_bytes(data)


def _is_padding(data: bytes, at: int) -> bool:
    """Whether the byte is one of the zeros that fill a record up to 8 bytes; no checksum covers them."""
    offset = FILE_HEADER_SIZE
    while offset < len(data):
        length = int.from_bytes(data[offset + 8 : offset + 12], "little")
        end = offset + RECORD_HEADER_SIZE + length
        if end <= at < end + -length % 8:
            return True
        offset = end + -length % 8
    return False


def test_a_hole_in_the_unsynced_tail_is_torn(log: Log) -> None:
    log.write(1, 3)
    first_hole = log.wal.files[-1].end
    log.write(4, 8, sync=False)
    data = bytearray(log.path.read_bytes())
    data[first_hole : first_hole + 16] = bytes(16)  # the system wrote later pages, and not this one
    log.path.write_bytes(data)
    assert lsns(log.scan()) == [1, 2, 3]


def test_a_hole_before_a_record_that_knows_of_a_sync_is_damage(log: Log) -> None:
    log.write(1, 3)
    hole = log.wal.files[-1].end
    log.write(4, 4)
    log.write(5, 5, sync=False)  # its header says that batch 4 was synced
    data = bytearray(log.path.read_bytes())
    data[hole : hole + 16] = bytes(16)
    log.path.write_bytes(data)
    with pytest.raises(Corrupted, match="after batch 3") as caught:
        log.scan()
    assert caught.value.offset == hole


# ---- writing under failure ------------------------------------------------------------------------------------------
def test_a_failed_write_is_cut_back_and_the_lsn_is_used_again(tmp_path: Path) -> None:
    full = False
    disk = FaultyDisk(LocalDisk(), lambda call: _raise(no_space(call.path)) if full and call.name == "write" else None)
    log = Log(tmp_path / "wal", disk)
    log.write(1, 3)
    before = log.path.read_bytes()
    full = True
    for _ in range(3):
        with pytest.raises(StorageFailed):
            log.wal.append(4, 0, [b"x" * 1000])
        assert log.path.read_bytes() == before
    full = False
    log.write(4, 5)
    assert lsns(log.scan()) == [1, 2, 3, 4, 5]


def _raise(error: BaseException) -> None:
    raise error


def test_a_failed_sync_poisons_for_good(tmp_path: Path) -> None:
    bad = False
    disk = FaultyDisk(LocalDisk(), lambda call: _raise(bad_sync(call.path)) if bad and call.name == "sync" else None)
    log = Log(tmp_path / "wal", disk)
    log.write(1, 2)
    log.write(3, 3, sync=False)
    bad = True
    with pytest.raises(Poisoned, match="could not be synced"):
        log.wal.sync()
    bad = False
    calls = disk.calls
    for attempt in (lambda: log.write(4, 4), log.wal.sync, log.wal.rotate):
        with pytest.raises(Poisoned):
            attempt()
    log.wal.close(clean=True)
    assert disk.calls == calls


def test_a_failed_rotation_leaves_the_old_file_in_use(tmp_path: Path) -> None:
    failing: set[str] = set()
    disk = FaultyDisk(LocalDisk(), lambda call: _raise(no_space(call.path)) if call.name in failing else None)
    log = Log(tmp_path / "wal", disk)
    log.write(1, 2)
    for name in ("create", "write", "rename"):
        failing = {name}
        with pytest.raises(StorageFailed):
            log.wal.rotate()
    failing = set()
    log.write(3, 4)
    log.wal.rotate()
    log.write(5, 5)
    assert lsns(log.scan()) == [1, 2, 3, 4, 5]
    assert not list(log.directory.glob("*.tmp"))


# ---- several files --------------------------------------------------------------------------------------------------
def test_files_follow_each_other_and_retire(log: Log) -> None:
    paths = three_files(log)
    assert lsns(log.scan()) == list(range(1, 9))
    log.wal.retire(2)
    assert all(path.exists() for path in paths)
    log.wal.retire(5)
    assert [path.exists() for path in paths] == [False, True, True]
    assert lsns(log.scan(applied=5)) == [6, 7, 8]
    log.wal.retire(8)
    assert [path.exists() for path in paths] == [False, False, True]  # the newest stays
    assert lsns(log.scan(applied=8)) == []


def test_empty_files_keep_the_chain(log: Log) -> None:
    for _ in range(5):
        log.wal.rotate()
    log.write(1, 2)
    for _ in range(3):
        log.wal.rotate()
    log.write(3, 3)
    found = log.scan()
    assert lsns(found) == [1, 2, 3]
    assert len(found.files) == 9


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_is_damage(log: Log, missing: int) -> None:
    paths = three_files(log)
    paths[missing].unlink()
    with pytest.raises(Corrupted, match="missing"):
        log.scan()
    if missing == 0:
        assert lsns(log.scan(applied=3)) == [4, 5, 6, 7, 8]  # the catalog holds what it had


def test_a_damaged_file_before_the_last_is_never_a_torn_tail(log: Log) -> None:
    paths = three_files(log)
    data = paths[1].read_bytes()
    for size in range(FILE_HEADER_SIZE, len(data)):
        paths[1].write_bytes(data[:size])
        with pytest.raises(Corrupted):
            log.scan()
    paths[1].write_bytes(data)
    assert len(lsns(log.scan())) == 8


def test_a_swapped_file_is_refused(log: Log, tmp_path: Path) -> None:
    paths = three_files(log)
    other = Log(tmp_path / "other")
    others = three_files(other)
    shutil.copy(others[1], paths[1])
    with pytest.raises(Corrupted, match=r"swapped|damaged"):
        log.scan()


def test_a_file_of_another_database_is_refused(log: Log, tmp_path: Path) -> None:
    log.write(1, 2)
    with pytest.raises(Corrupted, match="another database"):
        scan(LocalDisk(), log.directory, bytes(16), 0)


def test_an_unknown_format_names_itself(log: Log) -> None:
    log.write(1, 1)
    header = bytearray(FileHeader(UUID, 1, 1, 5).encode())
    header[8] = 9
    header[-4:] = _crc(bytes(header[:-4]))
    data = bytes(header) + log.path.read_bytes()[FILE_HEADER_SIZE:]
    log.path.write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="format 9"):
        log.scan()


def _crc(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")


def test_a_rewritten_tail_replaces_every_older_file(log: Log) -> None:
    paths = three_files(log)
    copies = {path: path.read_bytes() for path in paths}
    tail = log.scan(applied=4).batches
    log.wal.rewrite(5, ((b.lsn, b.time_ns, [b.payload]) for b in tail))
    log.write(9, 9)
    assert not any(path.exists() for path in paths)
    assert lsns(log.scan(applied=4)) == [5, 6, 7, 8, 9]
    for path, data in copies.items():  # a crash before the removal: the older epoch does not count
        path.write_bytes(data)
    found = log.scan(applied=4)
    assert lsns(found) == [5, 6, 7, 8, 9]
    assert (found.epoch, sorted(found.leftovers)) == (2, sorted(paths))


def test_a_rewriting_that_fails_leaves_the_old_files(tmp_path: Path) -> None:
    full = False
    disk = FaultyDisk(LocalDisk(), lambda call: _raise(no_space(call.path)) if full and call.name == "write" else None)
    log = Log(tmp_path / "wal", disk)
    log.write(1, 3)
    log.wal.close(clean=False)
    wal = Wal(Seams(disk=disk), log.directory, UUID, log.scan().files, 1)
    full = True
    with pytest.raises(StorageFailed):
        wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    full = False
    assert lsns(log.scan()) == [1, 2, 3]
    wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    wal.append(4, 1004, [b"batch 4 ", bytes([4]) * 28])
    assert lsns(log.scan()) == [1, 2, 3, 4]
