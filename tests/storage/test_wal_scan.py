"""Goal: what is read of a log depends on what its files say and on nothing else; every refusal names file and byte.

Method: logs of several files, each fact of a file or record changed alone, at the last value that is right and the
first that is not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults import PassingDisk
from tests.storage.logs import UUID, CountingDisk, Log, lsns, payload_of, three_files
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files import names
from vecdb.files.disk import LocalDisk
from vecdb.files.record import BATCH, COMMIT, FILE_HEADER_SIZE, MARK, FileHeader, encode_record, read_records
from vecdb.files.seams import Seams
from vecdb.storage import wal as wal_module
from vecdb.storage.wal import Wal
from vecdb.storage.wal_scan import scan


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "wal")


def write_file(directory: Path, header: FileHeader, batches: range = range(0), unique: int = 0) -> Path:
    """A log file made by hand."""
    path = directory / names.wal(header.start_lsn, unique.to_bytes(16, "big"))
    data = header.encode()
    for lsn in batches:
        data += b"".join(encode_record(header.salt, BATCH, COMMIT, lsn, 0, 1000 + lsn, b"".join(payload_of(lsn))))
    path.write_bytes(data)
    return path


# ---- what the catalog has -------------------------------------------------------------------------------------------
def test_a_database_without_a_batch_needs_no_log(tmp_path: Path) -> None:
    found = scan(LocalDisk(), tmp_path, UUID, 0)
    assert (found.files, found.batches, found.epoch, found.last_lsn, found.clean) == ([], [], 0, 0, True)


def test_a_log_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupted, match="batches after 1 would be lost") as caught:
        scan(LocalDisk(), tmp_path, UUID, 1)
    assert (caught.value.path, caught.value.offset) == (str(tmp_path), 0)


def test_a_log_that_misses_one_batch_is_refused(log: Log) -> None:
    """The first file must start at the batch after those of the catalog, or before."""
    paths = three_files(log)
    paths[0].unlink()
    for applied in (3, 4, 6):
        assert lsns(log.scan(applied=applied)) == list(range(applied + 1, 9))
    for applied, told in ((2, "batches 3 to 3 are missing"), (0, "batches 1 to 3 are missing")):
        with pytest.raises(Corrupted, match=told) as caught:
            log.scan(applied=applied)
        assert (caught.value.path, caught.value.offset) == (str(paths[1]), 0)


def test_a_file_of_which_the_catalog_has_everything_is_not_read(log: Log) -> None:
    """Damage in it is no concern, until one batch of it is wanted."""
    paths = three_files(log)
    paths[0].write_bytes(paths[0].read_bytes()[:FILE_HEADER_SIZE] + b"rot")
    for applied in (3, 4):
        found = log.scan(applied=applied)
        assert lsns(found) == list(range(applied + 1, 9))
        assert [file.last_lsn for file in found.files] == [3, 6, 8]
        assert [file.end for file in found.files] == [file.end for file in log.wal.files]
        assert [file.path for file in found.files] == paths
    with pytest.raises(Corrupted, match="after batch 0"):
        log.scan(applied=2)


def test_the_last_batch_is_that_of_the_catalog_or_of_the_log(log: Log) -> None:
    log.write(1, 4)
    assert [log.scan(applied=applied).last_lsn for applied in (0, 3, 4)] == [4, 4, 4]
    assert log.scan(applied=5).last_lsn == 5


# ---- whether the end is in doubt ------------------------------------------------------------------------------------
def test_only_a_closing_record_at_the_very_end_is_a_clean_end(log: Log) -> None:
    assert not log.scan().clean  # nothing but the header
    log.write(1, 2)
    assert not log.scan().clean
    log.wal.mark()
    assert not log.scan().clean
    log.wal.close(clean=True)
    assert log.scan().clean
    with log.path.open("ab") as file:
        file.write(bytes(8))
    assert not log.scan().clean


def test_a_clean_file_before_one_in_doubt_says_nothing_of_the_end(log: Log) -> None:
    log.write(1, 2)
    log.wal.close(clean=True)
    wal = Wal(Seams(), log.directory, UUID, log.scan().files, 1)
    wal.rotate()
    assert not log.scan().clean
    wal.close(clean=True)
    assert log.scan().clean


def test_nothing_counts_on_the_closing_record_of_the_last_file(log: Log) -> None:
    """It may have been read from the cache: the next file follows what is before it."""
    log.write(1, 3)
    log.wal.mark()
    end = log.wal.files[-1].end
    log.wal.close(clean=True)
    found = log.scan()
    assert (found.clean, found.files[-1].end) == (True, end)
    wal = Wal(Seams(), log.directory, UUID, found.files, 1)
    wal.rotate()
    wal.append(4, 1004, payload_of(4))
    first = found.files[0].path
    assert lsns(log.scan()) == [1, 2, 3, 4]
    first.write_bytes(first.read_bytes()[:end])  # the power went, and the closing record with it
    again = log.scan()
    assert lsns(again) == [1, 2, 3, 4]
    assert again.files[0].end == end


# ---- order and chain ------------------------------------------------------------------------------------------------
def test_batches_are_dense(log: Log) -> None:
    log.write(1, 2)
    end = log.wal.files[-1].end
    log.write(4, 4)
    log.write(5, 5)
    with pytest.raises(Corrupted, match="batch 4 follows batch 2") as caught:
        log.scan()
    assert (caught.value.path, caught.value.offset > end) == (str(log.path), True)


def test_the_first_batch_of_a_file_is_the_one_that_its_header_names(tmp_path: Path) -> None:
    write_file(tmp_path, FileHeader(UUID, 1, 1, 7), range(2, 4))
    with pytest.raises(Corrupted, match="batch 2 follows batch 0"):
        scan(LocalDisk(), tmp_path, UUID, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"start_lsn": 3}, "does not follow"),
        ({"start_lsn": 5}, "does not follow"),
        ({"previous": 1}, "does not follow"),
        ({"previous": 0}, "does not follow"),
    ],
    ids=str,
)
def test_a_file_follows_the_one_before_by_its_batches_and_by_its_header(
    tmp_path: Path, change: dict[str, Any], told: str | None
) -> None:
    first = FileHeader(UUID, 1, 1, 7)
    length = write_file(tmp_path, first, range(1, 4)).stat().st_size
    second = replace(FileHeader(UUID, 1, 4, 8, first.checksum, length), **change)
    path = write_file(tmp_path, second, range(second.start_lsn, 7))
    if told is None:
        assert lsns(scan(LocalDisk(), tmp_path, UUID, 0)) == [1, 2, 3, 4, 5, 6]
        return
    with pytest.raises(Corrupted, match=told) as caught:
        scan(LocalDisk(), tmp_path, UUID, 0)
    assert (caught.value.path, caught.value.offset) == (str(path), 0)


@pytest.mark.parametrize("change", [-8, 8])
def test_a_file_has_the_length_that_its_successor_names(tmp_path: Path, change: int) -> None:
    first = FileHeader(UUID, 1, 1, 7)
    path = write_file(tmp_path, first, range(1, 4))
    length = path.stat().st_size
    write_file(tmp_path, FileHeader(UUID, 1, 4, 8, first.checksum, length + change), range(4, 5))
    with pytest.raises(Corrupted, match=f"{length + change} bytes were valid") as caught:
        scan(LocalDisk(), tmp_path, UUID, 0)
    assert caught.value.path == str(path)


def test_what_follows_the_valid_length_of_a_file_does_not_count(log: Log) -> None:
    paths = three_files(log)
    for path in paths[:2]:
        with path.open("ab") as file:
            file.write(b"rot" * 100)
    assert lsns(log.scan()) == list(range(1, 9))


def test_empty_files_are_ordered_by_their_chain(tmp_path: Path) -> None:
    """All start at the same batch, and their names say nothing."""
    log = Log(tmp_path / "wal")
    for _ in range(12):
        log.wal.rotate()
    log.write(1, 2)
    found = log.scan()
    assert [file.path for file in found.files] == [file.path for file in log.wal.files]
    assert lsns(found) == [1, 2]


# ---- frames ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 99, 100, 101, 199, 200, 201, 1000])
def test_a_batch_is_whole_whatever_its_frames(log: Log, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(wal_module, "FRAME_MAX", 100)
    payload = bytes(i % 251 for i in range(size))
    log.wal.append(1, 1, [payload[:70], payload[70:]])
    log.wal.append(2, 2, [b"after"])
    assert [bytes(batch.payload) for batch in log.scan().batches] == [payload, b"after"]
    records = list(read_records(memoryview(log.path.read_bytes()), log.wal.files[0].header.salt, FILE_HEADER_SIZE))
    assert [record.lsn for record in records] == [1] * max(1, -(-size // 100)) + [2]
    log.wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    assert [bytes(batch.payload) for batch in log.scan().batches] == [payload, b"after"]


def test_frames_without_an_end_belong_to_no_batch(tmp_path: Path) -> None:
    header = FileHeader(UUID, 1, 1, 7)
    path = write_file(tmp_path, header)
    lost = encode_record(header.salt, BATCH, 0, 1, 0, 0, b"lost")
    mark = encode_record(header.salt, MARK, 0, 0, FILE_HEADER_SIZE, 0, b"")
    whole = encode_record(header.salt, BATCH, COMMIT, 1, FILE_HEADER_SIZE, 0, b"whole")
    path.write_bytes(header.encode() + b"".join([*lost, *mark, *whole]))
    assert [bytes(batch.payload) for batch in scan(LocalDisk(), tmp_path, UUID, 0).batches] == [b"whole"]
    path.write_bytes(header.encode() + b"".join(lost))
    assert scan(LocalDisk(), tmp_path, UUID, 0).batches == []


# ---- refusals and files ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["rot", "short", "foreign"])
def test_a_header_that_cannot_be_used_names_its_file(log: Log, way: str) -> None:
    path = three_files(log)[1]
    data = path.read_bytes()
    header = FileHeader(bytes(16), 1, 4, 5)
    path.write_bytes({"rot": b"\1" + data[1:], "short": data[:10], "foreign": header.encode()}[way])
    with pytest.raises(Corrupted, match="another database" if way == "foreign" else "header") as caught:
        log.scan()
    assert (caught.value.path, caught.value.offset) == (str(path), 0)


def test_files_that_are_not_of_the_log_stay(log: Log) -> None:
    log.write(1, 2)
    (log.directory / "notes.txt").write_text("mine")
    (log.directory / f"{1:020d}-{'0' * 32}.tmp").write_bytes(b"half a header")
    found = log.scan()
    assert lsns(found) == [1, 2]
    assert [path.suffix for path in found.leftovers] == [".tmp"]


class Vanishing(PassingDisk):
    """Another process retires a file right after its header was read."""

    def size(self, path: Path) -> int | None:
        path.unlink()
        return self.inner.size(path)


def test_a_file_that_vanishes_is_no_damage(log: Log) -> None:
    log.write(1, 3)
    with pytest.raises(StorageFailed, match=r"vanished .* open the database again"):
        scan(Vanishing(LocalDisk()), log.directory, UUID, 0)


def test_no_file_stays_open(tmp_path: Path) -> None:
    disk = CountingDisk()
    log = Log(tmp_path / "wal", disk)
    paths = three_files(log)
    assert disk.open_files == [paths[2].with_suffix(names.TEMPORARY)]  # created under that name: the one that grows
    log.wal.close(clean=True)
    assert disk.open_files == []
    log.scan()
    paths[1].write_bytes(b"damaged")
    with pytest.raises(Corrupted):
        log.scan()
    assert disk.open_files == []
