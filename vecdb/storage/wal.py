"""The write-ahead log: what is acknowledged and not yet in the catalog.

    append   W2: one batch at the known end of the newest file; on an error the file is cut back, nothing happened
    sync     W3: fdatasync; the group of batches before it is durable
    rotate   C1: the next file, synced with its directory before anything is written to it
    retire   C7: files whose batches the catalog holds
    rewrite  R8: a tail that was only seen in the page cache is written anew before anything is acknowledged

`wal_scan.py` reads it. Callers hold the append lock, except for `sync`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vecdb.errors import Poisoned, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Bytes, File
from vecdb.files.record import (
    BATCH,
    CLOSE,
    COMMIT,
    FILE_HEADER_SIZE,
    FRAME_MAX,
    MARK,
    FileHeader,
    encode_record,
)
from vecdb.files.seams import Seams

BATCH_MAX = 1 << 30  # bytes of one encoded batch


@dataclass(slots=True)
class LogFile:
    """One file of the log as the writer knows it. `end` is its valid length in bytes."""

    path: Path
    header: FileHeader
    last_lsn: int
    end: int


class Wal:
    """The writing end. `files` are in order of lsn; the last is the one that grows, once `handle` is open."""

    def __init__(
        self,
        seams: Seams,
        directory: Path,
        uuid: bytes,
        files: list[LogFile],
        epoch: int,
        archive: Callable[[Sequence[Path]], None] = lambda paths: None,
    ) -> None:
        self.seams, self.directory, self.uuid = seams, directory, uuid
        self.files, self.epoch = files, epoch
        self.archive = archive  # called with files that are about to be removed; returns when they are kept
        self.handle: File | None = None
        self.synced_upto = 0  # bytes of the newest file
        self.marked_upto = 0
        self.poison: str | None = None

    @property
    def size(self) -> int:
        return sum(file.end for file in self.files)

    # ---- writing ------------------------------------------------------------------------------------------------
    def append(self, lsn: int, time_ns: int, payload: Sequence[Bytes]) -> None:
        """Writes one batch, in as many frames as it needs. On StorageFailed the log is as it was."""
        file, buffers = self.files[-1], list[Bytes]()
        frames = list(_frames(payload))
        for i, frame in enumerate(frames):
            flags = COMMIT if i == len(frames) - 1 else 0
            buffers += encode_record(file.header.salt, BATCH, flags, lsn, self.synced_upto, time_ns, frame)
        self._write(buffers)
        file.last_lsn = lsn

    def _write(self, buffers: Sequence[Bytes]) -> None:
        self.check()
        assert self.handle is not None
        file = self.files[-1]
        data = b"".join(buffers)
        try:
            self.handle.write_at(data, file.end)
        except BaseException as error:
            self._cut_back(file, error)
            raise
        file.end += len(data)

    def _cut_back(self, file: LogFile, error: BaseException) -> None:
        assert self.handle is not None
        try:
            self.handle.truncate(file.end)
        except StorageFailed as second:
            self.poison = f"the log could not be cut back after a failed write ({error}; {second})"

    def sync(self) -> None:
        """Everything appended before is on disk when this returns. A failure is final: the handle is poisoned."""
        self.check()
        if self.handle is None:
            return
        file, handle = self.files[-1], self.handle
        end = file.end
        try:
            handle.sync()
        except StorageFailed as error:
            self.poison = f"the log could not be synced ({error})"
            raise Poisoned(self.poison) from error
        if file is self.files[-1]:
            self.synced_upto = max(self.synced_upto, end)

    def mark(self) -> None:
        """An idle log says how much of it is durable, so that a later scan can tell rot from a torn tail."""
        if self.handle is not None and self.synced_upto > max(self.marked_upto, FILE_HEADER_SIZE):
            self._control(MARK)
            self.marked_upto = self.files[-1].end

    def _control(self, kind: int) -> None:
        file = self.files[-1]
        time_ns = self.seams.clock.time_ns()
        self._write(encode_record(file.header.salt, kind, 0, file.last_lsn, self.synced_upto, time_ns, b""))

    def check(self) -> None:
        if self.poison is not None:
            raise Poisoned(self.poison)

    # ---- files --------------------------------------------------------------------------------------------------
    def rotate(self) -> None:
        """The next batch goes to a new file. The one before must be synced."""
        self.check()
        last = self.files[-1] if self.files else None
        start = last.last_lsn + 1 if last else 1
        self._start(start, last.header.checksum if last else 0, last.end if last else 0, [])

    def start(self, start_lsn: int) -> None:
        """The first file of an epoch: nothing before it counts any more."""
        self._start(start_lsn, 0, 0, [])

    def rewrite(self, start_lsn: int, batches: Iterable[tuple[int, int, Sequence[Bytes]]]) -> None:
        """A new epoch that begins with a copy of the surviving batches; then the old files go."""
        old, self.files = self.files, []
        self.epoch += 1
        try:
            self._start(start_lsn, 0, 0, batches)
        except BaseException:
            self.files, self.epoch = old, self.epoch - 1
            raise
        self.seams.disk.reach("log:rewritten")
        self.archive([file.path for file in old])
        for file in old:
            self.seams.disk.remove(file.path)
        self._sync_directory()

    def _start(
        self, start_lsn: int, previous: int, length: int, batches: Iterable[tuple[int, int, Sequence[Bytes]]]
    ) -> None:
        disk, random = self.seams.disk, self.seams.random
        salt = int.from_bytes(random.bytes(8), "little")
        header = FileHeader(self.uuid, self.epoch, start_lsn, salt, previous, length)
        path = self.directory / names.wal(start_lsn, random.bytes(16))
        temporary = path.with_suffix(names.TEMPORARY)
        handle = disk.create(temporary)
        file = LogFile(path, header, start_lsn - 1, FILE_HEADER_SIZE)
        try:
            handle.write_at(header.encode(), 0)
            for lsn, time_ns, payload in batches:
                self._copy(handle, file, lsn, time_ns, payload)
            handle.sync()
            disk.rename(temporary, path)
        except BaseException:
            handle.close()
            with contextlib.suppress(StorageFailed):  # the next open sweeps it
                disk.remove(temporary)
            raise
        self._sync_directory()
        if self.handle is not None:
            self.handle.close()
        self.files = [*self.files, file]  # before the handle: whoever sees the handle finds its file
        self.handle, self.synced_upto, self.marked_upto = handle, file.end, file.end

    @staticmethod
    def _copy(handle: File, file: LogFile, lsn: int, time_ns: int, payload: Sequence[Bytes]) -> None:
        for buffer in _records(file.header.salt, lsn, time_ns, payload):
            handle.write_at(buffer, file.end)
            file.end += len(buffer)
        file.last_lsn = lsn

    def _sync_directory(self) -> None:
        try:
            self.seams.disk.sync_directory(self.directory)
        except StorageFailed as error:
            self.poison = f"the directory of the log could not be synced ({error})"
            raise Poisoned(self.poison) from error

    def retire(self, applied_lsn: int) -> None:
        """Removes files whose batches the catalog holds; never the newest.

        Each is gone durably before the next goes: a file system may lose removals in any order, and a log that lacks a
        file between two others is damaged.
        """
        gone = [file for file in self.files[:-1] if file.last_lsn <= applied_lsn]
        self.archive([file.path for file in gone])
        for file in gone:
            self.seams.disk.reach("log:retire", file.last_lsn)
            self.seams.disk.remove(file.path)
            self.files = [kept for kept in self.files if kept is not file]
            self._sync_directory()

    def close(self, clean: bool) -> None:
        """`clean` writes the record that tells the next open that the tail is durable."""
        if self.handle is None:
            return
        try:
            if clean and self.poison is None:
                self.sync()
                with contextlib.suppress(StorageFailed):  # on a full disk the next open doubts the tail, no more
                    self._control(CLOSE)
                    self.sync()
        finally:
            self.handle.close()
            self.handle = None


def sealed_log(header: FileHeader, time_ns: int, batches: Iterable[tuple[int, int, Bytes]]) -> Iterator[Bytes]:
    """The bytes of a whole log file that holds `batches` (lsn, time_ns, payload) and was closed. No file is touched."""
    yield header.encode()
    end, last = FILE_HEADER_SIZE, header.start_lsn - 1
    for lsn, batch_time_ns, payload in batches:
        for piece in _records(header.salt, lsn, batch_time_ns, [payload]):
            yield piece
            end += len(piece)
        last = lsn
    yield b"".join(encode_record(header.salt, CLOSE, 0, last, end, time_ns, b""))


def _frames(payload: Sequence[Bytes]) -> Iterable[memoryview]:
    joined = memoryview(b"".join(payload))
    for start in range(0, max(len(joined), 1), FRAME_MAX):
        yield joined[start : start + FRAME_MAX]


def _records(salt: int, lsn: int, time_ns: int, payload: Sequence[Bytes]) -> Iterable[Bytes]:
    frames = list(_frames(payload))
    for i, frame in enumerate(frames):
        yield from encode_record(salt, BATCH, COMMIT if i == len(frames) - 1 else 0, lsn, 0, time_ns, frame)
