"""Reading the write-ahead log: R5 and R6 of recovery, and the tail that reading processes follow.

    scan   every batch after `applied_lsn` in order, what the writer needs to go on, and whether the end was clean

A first bad record is a torn tail, and is dropped, only in the last file and only beyond every byte that some record
says was synced. Anywhere else it is damage, and nothing is opened. A read that fails is neither: it raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vecdb.errors import Corrupted, StorageFailed, UnsupportedFormat
from vecdb.files import names
from vecdb.files.disk import Disk
from vecdb.files.record import (
    BATCH,
    CLOSE,
    COMMIT,
    FILE_FORMAT,
    FILE_HEADER_SIZE,
    FileHeader,
    decode_file_header,
    highest_synced,
    read_records,
)
from vecdb.storage.wal import LogFile


@dataclass(slots=True)
class LoggedBatch:
    """A whole batch as found, its payload still encoded."""

    lsn: int
    time_ns: int
    payload: memoryview
    path: Path | None = None  # of its log file


@dataclass(slots=True)
class LogScan:
    """What a scan found. `clean`: the last process closed the log, so its tail is durable."""

    files: list[LogFile]
    epoch: int
    batches: list[LoggedBatch]
    clean: bool
    last_lsn: int
    leftovers: list[Path]  # files that do not count: temporary, or of an older epoch


def scan(disk: Disk, directory: Path, uuid: bytes, applied_lsn: int) -> LogScan:
    """Reads the log of `directory`. Corrupted where acknowledged batches would be lost; nothing is changed."""
    headers, leftovers = _headers(disk, directory, uuid)
    epoch = max((header.epoch for _, header in headers), default=0)
    current = in_order([(path, header) for path, header in headers if header.epoch == epoch])
    leftovers += [path for path, header in headers if header.epoch != epoch]
    if applied_lsn and not current:  # a checkpoint leaves the newest file, so there is always one after the first
        raise Corrupted(directory, 0, f"the log is missing: batches after {applied_lsn} would be lost")
    result = LogScan([], epoch, [], True, applied_lsn, leftovers)
    for i, (path, header) in enumerate(current):
        successor = current[i + 1][1] if i + 1 < len(current) else None
        if not result.files and header.start_lsn > applied_lsn + 1:
            raise Corrupted(path, 0, f"batches {applied_lsn + 1} to {header.start_lsn - 1} are missing from the log")
        _read_file(disk, path, header, successor, applied_lsn, result)
    return result


def in_order(files: list[tuple[Path, FileHeader]]) -> list[tuple[Path, FileHeader]]:
    """By lsn; files that start at the same lsn, because the earlier got no batch, by their chain."""
    before = {header.checksum: header.previous for _, header in files}

    def depth(checksum: int) -> int:
        seen: set[int] = set()
        while checksum in before and checksum not in seen:
            seen.add(checksum)
            checksum = before[checksum]
        return len(seen)

    return sorted(files, key=lambda file: (file[1].start_lsn, depth(file[1].checksum)))


def _headers(disk: Disk, directory: Path, uuid: bytes) -> tuple[list[tuple[Path, FileHeader]], list[Path]]:
    found, leftovers = [], []
    for name in disk.list(directory):
        path = directory / name
        if names.wal_start(name) is None:
            if path.suffix == names.TEMPORARY:
                leftovers.append(path)
            continue
        file = disk.open(path)
        try:
            header = decode_file_header(file.read_at(FILE_HEADER_SIZE, 0))
        finally:
            file.close()
        # Files get their name after they are synced with their header, so a bad one is damage.
        if header is None:
            raise Corrupted(path, 0, "the header of the log file is damaged")
        if isinstance(header, int):
            raise UnsupportedFormat(header, FILE_FORMAT, FILE_FORMAT)
        if header.uuid != uuid:
            raise Corrupted(path, 0, "the log file belongs to another database")
        found.append((path, header))
    return found, leftovers


def _read_file(
    disk: Disk, path: Path, header: FileHeader, successor: FileHeader | None, applied_lsn: int, result: LogScan
) -> None:
    if successor is not None and successor.start_lsn <= applied_lsn + 1:
        result.files.append(LogFile(path, header, successor.start_lsn - 1, successor.previous_length))
        return
    _check_chain(path, header, result)
    size = disk.size(path)
    if size is None:
        raise StorageFailed(f"{path} vanished while the log was read; open the database again")
    file = disk.open(path)
    try:
        data = memoryview(file.read_at(size if successor is None else min(size, successor.previous_length), 0))
    finally:
        file.close()
    lsn, end, counted, closed = header.start_lsn - 1, FILE_HEADER_SIZE, FILE_HEADER_SIZE, False
    for batch, batch_end, is_close in whole_batches(data, header):
        end, closed = batch_end, is_close
        if not is_close or successor is not None:
            counted = end  # nobody knows whether a closing record got to the disk: what follows must not count on it
        if batch is None:
            continue
        if batch.lsn != lsn + 1:
            raise Corrupted(path, end, f"batch {batch.lsn} follows batch {lsn}")
        lsn = batch.lsn
        if lsn > applied_lsn:
            batch.path = path
            result.batches.append(batch)
    _check_end(path, data, header, successor, end, lsn)
    result.files.append(LogFile(path, header, lsn, counted))
    result.last_lsn = max(result.last_lsn, lsn)
    result.clean = closed and end == len(data)


def _check_chain(path: Path, header: FileHeader, result: LogScan) -> None:
    if not result.files:
        return
    before = result.files[-1]
    if header.start_lsn != before.last_lsn + 1 or header.previous != before.header.checksum:
        raise Corrupted(path, 0, f"the log file does not follow {before.path.name}: a file is missing or was swapped")


def whole_batches(
    data: memoryview, header: FileHeader, offset: int = FILE_HEADER_SIZE
) -> Iterator[tuple[LoggedBatch | None, int, bool]]:
    """Of one log file: (batch or None for a mark, end of the valid bytes, whether it is the closing record)."""
    frames: list[memoryview] = []
    for record in read_records(data, header.salt, offset):
        if record.kind != BATCH:
            frames = []
            yield None, record.end, record.kind == CLOSE
            continue
        frames.append(record.payload)
        if record.flags & COMMIT:
            payload = frames[0] if len(frames) == 1 else memoryview(b"".join(frames))
            frames = []
            yield LoggedBatch(record.lsn, record.time_ns, payload), record.end, False


def is_torn(data: memoryview, header: FileHeader, end: int) -> bool:
    """Whether nothing beyond `end`, where the valid bytes of the last log file end, is known to have been synced."""
    return end == len(data) or highest_synced(data, header.salt, FILE_HEADER_SIZE) <= end


def _check_end(
    path: Path, data: memoryview, header: FileHeader, successor: FileHeader | None, end: int, lsn: int
) -> None:
    """Decides whether what lies beyond `end` is a torn tail (fine) or damage (Corrupted)."""
    if successor is not None:
        if end != successor.previous_length:
            raise Corrupted(
                path, end, f"the log is damaged after batch {lsn}; {successor.previous_length} bytes were valid"
            )
        return
    if not is_torn(data, header, end):
        raise Corrupted(path, end, f"the log is damaged after batch {lsn}, in a part that was on disk")
