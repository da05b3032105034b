"""A log to write, break and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults import PassingDisk
from vecdb.files.disk import Disk, File, LocalDisk
from vecdb.files.seams import Seams
from vecdb.storage.wal import Wal
from vecdb.storage.wal_scan import LogScan, scan

UUID = bytes(range(16))


class Log:
    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self.directory, self.disk = directory, disk or LocalDisk()
        if not directory.is_dir():
            directory.mkdir()
        self.wal = Wal(Seams(disk=self.disk), directory, UUID, [], 1)
        self.wal.start(1)

    def write(self, first: int, last: int, *, sync: bool = True) -> None:
        for lsn in range(first, last + 1):
            self.wal.append(lsn, 1000 + lsn, payload_of(lsn))
            if sync:
                self.wal.sync()

    @property
    def path(self) -> Path:
        """The file that grows."""
        return self.wal.files[-1].path

    def scan(self, applied: int = 0) -> LogScan:
        return scan(self.disk, self.directory, UUID, applied)


def three_files(log: Log) -> list[Path]:
    """Batches 1 to 3, 4 to 6, 7 and 8."""
    log.write(1, 3)
    log.wal.rotate()
    log.write(4, 6)
    log.wal.rotate()
    log.write(7, 8)
    return [file.path for file in log.wal.files]


def payload_of(lsn: int) -> list[bytes | bytearray | memoryview]:
    return [b"batch %d " % lsn, bytes([lsn % 256]) * (lsn * 7 % 50)]


def lsns(found: LogScan) -> list[int]:
    """The lsns found, after their contents were compared."""
    for batch in found.batches:
        assert bytes(batch.payload) == b"".join(payload_of(batch.lsn))
        assert batch.time_ns == 1000 + batch.lsn
    return [batch.lsn for batch in found.batches]


class CountingDisk(PassingDisk):
    """Knows the files that are open."""

    def __init__(self) -> None:
        super().__init__(LocalDisk())
        self.open_files: list[Path] = []

    def create(self, path: Path) -> File:
        return CountedFile(self, self.inner.create(path), path)

    def open(self, path: Path) -> File:
        return CountedFile(self, self.inner.open(path), path)


class CountedFile:
    def __init__(self, disk: CountingDisk, inner: File, path: Path) -> None:
        self.disk, self.inner, self.path = disk, inner, path
        disk.open_files.append(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def close(self) -> None:
        self.inner.close()
        self.disk.open_files.remove(self.path)
