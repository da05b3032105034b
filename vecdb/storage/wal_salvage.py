"""Reading a log that `wal_scan` refuses: every batch up to the first damage, and what can be told of the rest.

A batch counts only if all before it are there, so nothing beyond the damage is taken; it is read to name what is lost.
A file without a header bars nothing by itself: what it held is missing before the next one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from vecdb.errors import Corrupted, StorageFailed, UnsupportedFormat
from vecdb.files import names
from vecdb.files.disk import Disk, read_file
from vecdb.files.record import (
    ALIGN,
    FILE_FORMAT,
    FILE_HEADER_SIZE,
    FileHeader,
    decode_file_header,
    next_record,
)
from vecdb.storage.wal_scan import LoggedBatch, in_order, is_torn, whole_batches


@dataclass(slots=True)
class LogTail:
    """What is left of a log.

    batches  whole ones after `applied_lsn`, dense from there on
    beyond   whole ones after the first damage
    damage   what is wrong, in order
    highest  the highest lsn that anything whole mentions
    """

    applied_lsn: int
    batches: list[LoggedBatch] = field(default_factory=list)
    beyond: list[LoggedBatch] = field(default_factory=list)
    damage: list[Corrupted] = field(default_factory=list)
    highest: int = 0

    @property
    def next_lsn(self) -> int:
        """What follows the batches."""
        return self.applied_lsn + len(self.batches) + 1

    def take(self, batch: LoggedBatch) -> None:
        self.highest = max(self.highest, batch.lsn)
        if batch.lsn <= self.applied_lsn:
            return
        if not self.damage and batch.lsn == self.next_lsn:
            self.batches.append(batch)
        else:
            self.beyond.append(batch)

    def take_all(self, data: memoryview, header: FileHeader, offset: int) -> int:
        """Takes the whole batches of a log file from `offset` to the first bad record; returns where that is."""
        for batch, end, _ in whole_batches(data, header, offset):
            offset = end
            if batch is not None:
                self.take(batch)
        return offset


def salvage(disk: Disk, directory: Path, uuid: bytes | None, applied_lsn: int | None) -> LogTail:
    """Reads the log of `directory`. Nothing is changed.

    uuid          of the database; None: what most of the files say
    applied_lsn   the last batch that the catalog has; None, when that is lost: the last before the first file
    """
    tail = LogTail(0)
    files, unusable = _files(disk, directory, uuid)
    # What is unusable before the first file is told by the batches that are missing, if the catalog lacks any.
    first = files[0][1].start_lsn if files else 1
    early = [damage for damage in unusable if _start(damage) < first]
    if applied_lsn is None:  # nobody knows what the catalog lacks
        applied_lsn, tail.damage = first - 1, list(early)
    tail.applied_lsn = tail.highest = applied_lsn
    for i, (path, header) in enumerate(files):
        successor = files[i + 1][1] if i + 1 < len(files) else None
        tail.highest = max(tail.highest, header.start_lsn - 1)
        if successor is not None and successor.start_lsn <= applied_lsn + 1:
            continue
        if header.start_lsn > tail.next_lsn:
            missing = f"batches {tail.next_lsn} to {header.start_lsn - 1} are missing before it"
            tail.damage.append(Corrupted(path, 0, missing))
        follows = successor is not None and successor.previous == header.checksum
        _read(disk, path, header, successor if follows else None, tail)
    if applied_lsn and not files and not unusable:
        tail.damage.append(Corrupted(directory, 0, "the log is missing"))
    tail.damage += [damage for damage in unusable if damage not in early]
    tail.damage.sort(key=lambda damage: Path(damage.path).name)
    return tail


def _start(damage: Corrupted) -> int:
    """The lsn that the name of the damaged file begins with."""
    return names.wal_start(Path(damage.path).name) or 0


def _files(disk: Disk, directory: Path, uuid: bytes | None) -> tuple[list[tuple[Path, FileHeader]], list[Corrupted]]:
    """The files of the highest epoch that belong to the database, in order; and what is wrong with the others."""
    found: list[tuple[Path, FileHeader]] = []
    unusable: list[Corrupted] = []
    for name in disk.list(directory) if disk.kind(directory) == "directory" else []:
        if names.wal_start(name) is None:
            continue
        path = directory / name
        try:
            header = decode_file_header(read_file(disk, path, FILE_HEADER_SIZE))
        except StorageFailed as error:
            unusable.append(Corrupted(path, 0, str(error)))
            continue
        if isinstance(header, int):
            raise UnsupportedFormat(header, FILE_FORMAT, FILE_FORMAT)
        if header is None:
            unusable.append(Corrupted(path, 0, "the header of the log file is damaged"))
        else:
            found.append((path, header))
    if uuid is None and found:
        uuid = Counter(header.uuid for _, header in found).most_common(1)[0][0]
    for path, header in found:
        if header.uuid != uuid:
            unusable.append(Corrupted(path, 0, "the log file belongs to another database"))
    own = [(path, header) for path, header in found if header.uuid == uuid]
    epoch = max((header.epoch for _, header in own), default=0)
    return in_order([(path, header) for path, header in own if header.epoch == epoch]), unusable


def _read(disk: Disk, path: Path, header: FileHeader, successor: FileHeader | None, tail: LogTail) -> None:
    try:
        data = memoryview(read_file(disk, path))
    except StorageFailed as error:
        tail.damage.append(Corrupted(path, 0, str(error)))
        return
    if successor is not None:
        data = data[: successor.previous_length]  # beyond it may be a closing record
    end = tail.take_all(data, header, FILE_HEADER_SIZE)
    if is_torn(data, header, end) if successor is None else end == successor.previous_length:
        return
    tail.damage.append(Corrupted(path, end, "the log is damaged from here on"))
    at = next_record(data, header.salt, end)
    while at is not None:
        at = next_record(data, header.salt, tail.take_all(data, header, at) + ALIGN)
