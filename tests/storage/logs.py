"""A log to write, break and read again."""

from __future__ import annotations

from pathlib import Path

from vecdb.files.disk import Disk, LocalDisk
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


def payload_of(lsn: int) -> list[bytes | bytearray | memoryview]:
    return [b"batch %d " % lsn, bytes([lsn % 256]) * (lsn * 7 % 50)]


def lsns(found: LogScan) -> list[int]:
    """The lsns found, after their contents were compared."""
    for batch in found.batches:
        assert bytes(batch.payload) == b"".join(payload_of(batch.lsn))
        assert batch.time_ns == 1000 + batch.lsn
    return [batch.lsn for batch in found.batches]
