"""Disks for tests: one that checks the order of every operation, one that fails, one that looks between two calls.

`OrderingDisk` is under every database of the suite (see conftest.py). It asserts:

    O1  no acknowledgement of sync="full" before an fdatasync that covers the batch
    O2  the log is durable up to L before the catalog commits L
    O3  every file of a new segment or index is synced, and its directories are, before a commit names it
    O4  a log file goes only when the catalog holds its batches, or a newer epoch replaced it
    O5  no byte of a synced file is written again or cut off; a log file grows
    O6  no name is used twice once a commit named it, nor within one opening
    O7  LMDB is opened with durable commits and without a writable map
    O8  nothing is written after a sync failed, until the database is opened again
    O9  every file has mode 0600, every directory 0700
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.disk import Bytes, Disk, File
from vecdb.files.record import FILE_HEADER_SIZE, decode_file_header


def root_of(path: Path) -> Path | None:
    """The database directory that a path belongs to."""
    parts = path.parts
    for at in range(len(parts) - 1, 0, -1):
        name = parts[at]
        if name in (names.WAL_DIRECTORY, names.SEGMENT_DIRECTORY) or name.startswith((names.SUPERBLOCK, "catalog-")):
            return _joined(parts[:at])
    return None


@lru_cache(256)
def _joined(parts: tuple[str, ...]) -> Path:
    return Path(*parts)


class PassingDisk:
    """A disk that hands every call to the one it wraps; the others override what they care for."""

    def __init__(self, inner: Disk) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


# ---- order ----------------------------------------------------------------------------------------------------------
@dataclass
class Made:
    """A file that was created through the disk. `entry`: its directory knows it durably."""

    path: Path
    end: int = 0
    synced_end: int = -1
    open: bool = True
    entry: bool = False

    @property
    def is_log(self) -> bool:
        return self.path.parent.name == names.WAL_DIRECTORY


@dataclass
class Root:
    """One database directory, since it was opened."""

    appended: dict[int, tuple[Made, int]] = field(default_factory=dict)  # lsn -> (log file, end of the batch)
    applied: int = 0
    poisoned: bool = False
    used: set[Path] = field(default_factory=set)
    committed: set[Path] = field(default_factory=set)


class OrderedFile:
    def __init__(self, disk: OrderingDisk, inner: File, made: Made) -> None:
        self.disk, self.inner, self.made = disk, inner, made

    def read_at(self, size: int, offset: int) -> bytes:
        return self.inner.read_at(size, offset)

    def write_at(self, data: Bytes, offset: int) -> None:
        made, size = self.made, len(memoryview(data).cast("B"))
        self.disk.writing(made.path)
        self.disk.expect(offset >= made.synced_end, f"O5: {made.path} is written at {offset}, before its synced end")
        self.disk.expect(made.is_log or made.synced_end < 0, f"O5: {made.path} is written after it was synced")
        self.inner.write_at(data, offset)
        made.end = max(made.end, offset + size)
        if made.is_log:
            self.disk.local.append = (made, made.end)

    def truncate(self, size: int) -> None:
        self.disk.writing(self.made.path)
        self.disk.expect(size >= self.made.synced_end, f"O5: synced bytes of {self.made.path} are cut off")
        with self.disk.poisoning(self.made):
            self.inner.truncate(size)
        self.made.end = size

    def sync(self) -> None:
        self.disk.writing(self.made.path)
        end = self.made.end
        with self.disk.poisoning(self.made):
            self.inner.sync()
        self.made.synced_end = max(self.made.synced_end, end)

    def close(self) -> None:
        self.made.open = False
        self.inner.close()


class _Poisoning:
    def __init__(self, disk: OrderingDisk, path: Path) -> None:
        self.disk, self.path = disk, path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        root = root_of(self.path)
        inside = self.path.name == names.WAL_DIRECTORY or self.path.parent.name == names.WAL_DIRECTORY
        if isinstance(error, StorageFailed) and root is not None and inside and self.path.suffix != names.TEMPORARY:
            self.disk.roots[root].poisoned = True


class OrderingDisk(PassingDisk):
    """Asserts O1-O6, O8 and O9 on every call. Violations are raised, and kept for the end of the test."""

    def __init__(self, inner: Disk) -> None:
        super().__init__(inner)
        self.violations: list[str] = []
        self.made: dict[Path, Made] = {}
        self.unsynced: dict[Path, list[Made]] = defaultdict(list)  # by directory: entries that are not durable
        self.loose: dict[Path, list[Path]] = defaultdict(list)  # the same of directories
        self.unnamed: dict[Path, list[Made]] = defaultdict(list)  # by segment directory: files that no commit names
        self.roots: dict[Path, Root] = defaultdict(Root)
        self.local = threading.local()

    # ---- telling --------------------------------------------------------------------------------------------------
    def expect(self, holds: bool, message: str) -> None:
        if not holds:
            self.violations.append(message)
            raise AssertionError(message)

    def _here(self, path: Path) -> Root | None:
        root = root_of(path)
        if root is None:
            return None
        self.local.root = root
        return self.roots[root]

    def writing(self, path: Path) -> None:
        root = self._here(path)
        self.expect(root is None or not root.poisoned, f"O8: {path} is written after a failed sync")

    def poisoning(self, made: Made) -> _Poisoning:
        return _Poisoning(self, made.path)

    @contextmanager
    def _new_name(self, path: Path) -> Iterator[None]:
        root = self._here(path)
        if root is None or path.suffix == names.TEMPORARY:
            yield
            return
        self.expect(path not in root.used, f"O6: the name {path} is used again")
        yield
        root.used.add(path)

    def _check_mode(self, path: Path) -> None:
        wanted = 0o700 if self.inner.kind(path) == "directory" else 0o600
        found = mode_of(self.inner, path)
        self.expect(found == wanted, f"O9: {path} has mode {found:o}")

    # ---- operations -----------------------------------------------------------------------------------------------
    def make_directory(self, path: Path) -> None:
        if path.name == names.catalog(1) and self.inner.kind(path.parent / names.SUPERBLOCK) is None:
            self.roots[path.parent] = Root()  # the making of a database begins, perhaps once more
        if root_of(path) is not None:
            self.writing(path)
        with self._new_name(path):
            self.inner.make_directory(path)
        self.loose[path.parent].append(path)
        self._check_mode(path)

    def create(self, path: Path) -> File:
        if path.name == names.SUPERBLOCK + names.TEMPORARY:
            self.roots[path.parent] = Root()  # a new database
        self.writing(path)
        with self._new_name(path):
            inner = self.inner.create(path)
        self._check_mode(path)
        made = self.made[path] = Made(path)
        self.unsynced[path.parent].append(made)
        segment = _segment(path)
        if segment is not None:
            self.unnamed[segment].append(made)
        return OrderedFile(self, inner, made)

    def open(self, path: Path) -> File:
        if path.name == names.SUPERBLOCK:
            root = self.roots[path.parent]
            root.poisoned = False
            root.used = set(root.committed)
            root.appended = {}
        self._here(path)
        return self.inner.open(path)

    def sync_directory(self, path: Path) -> None:
        root = self._here(path)
        self.expect(root is None or not root.poisoned, f"O8: {path} is synced after a failed sync")
        with _Poisoning(self, path):
            self.inner.sync_directory(path)
        for made in self.unsynced.pop(path, ()):
            made.entry = True
        self.loose.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        self.writing(target)
        made = self.made.get(source)
        self.expect(made is None or made.synced_end == made.end, f"O3: {source} is renamed before it was synced")
        with self._new_name(target):
            self.inner.rename(source, target)
        root = self._here(target)
        if root is not None and target.suffix == names.TEMPORARY:
            root.used.discard(source)  # a name that is taken back before anything was built on it
        self._check_mode(target)
        if made is not None:
            self.made[target] = self.made.pop(source)
            made.path, made.entry = target, False
            self.unsynced[target.parent].append(made)

    def remove(self, path: Path) -> None:
        if names.wal_start(path.name) is not None:
            self._check_retired(path)
        self.inner.remove(path)
        made = self.made.pop(path, None)
        segment = _segment(path)
        if made is not None and segment is not None and made in self.unnamed[segment]:
            self.unnamed[segment].remove(made)

    def remove_directory(self, path: Path) -> None:
        self.inner.remove_directory(path)
        if path in self.loose[path.parent]:
            self.loose[path.parent].remove(path)

    def _check_retired(self, path: Path) -> None:
        root = self._here(path)
        if root is None or self.inner.kind(path.parent.parent / names.SUPERBLOCK) is None:
            return
        start, mine = names.wal_start(path.name), self._epoch(path)
        assert start is not None
        there = [path.parent / name for name in self.inner.list(path.parent)]
        others = [other for other in there if names.wal_start(other.name) is not None and other != path]
        if any(self._epoch(other) > mine for other in others):
            return
        later = [names.wal_start(other.name) or 0 for other in others if (names.wal_start(other.name) or 0) >= start]
        self.expect(bool(later), f"O4: the newest log file {path} is removed")
        self.expect(min(later) - 1 <= root.applied, f"O4: {path} is removed, the catalog is at {root.applied}")

    def _epoch(self, path: Path) -> int:
        file = self.inner.open(path)
        try:
            header = decode_file_header(file.read_at(FILE_HEADER_SIZE, 0))
        finally:
            file.close()
        return header.epoch if header is not None and not isinstance(header, int) else -1

    # ---- points of the protocols ----------------------------------------------------------------------------------
    def _take_the_only_one(self) -> None:
        """A thread that has not touched a disk yet can only mean the database that there is."""
        if not hasattr(self.local, "root") and len(self.roots) == 1:
            (self.local.root,) = self.roots

    def reach(self, point: str, lsn: int = 0) -> None:
        self._take_the_only_one()
        root = self.roots[self.local.root] if hasattr(self.local, "root") else None
        if point == "log:appended" and root is not None:
            root.appended[lsn] = self.local.append
        elif point == "log:acknowledged":
            made, end = self.local.append
            self.expect(made.synced_end >= end, f"O1: batch {lsn} is acknowledged, and {made.path} is not synced")
        elif point == "open:recovered" and root is not None:
            root.applied = lsn
        elif point == "snapshot:written" and getattr(self.local, "root", Path()).suffix != names.TEMPORARY:
            pass  # one file: the thread last touched the database, in which others are in the middle of their work
        elif point.endswith(":written") and root is not None:
            self._check_named(self.local.root)
            if point == "checkpoint:written":
                self._check_log(root, lsn)
        elif point.endswith(":committed") and root is not None:
            if point == "checkpoint:committed":
                root.applied = lsn
            root.committed |= root.used
            self._check_catalog_modes(self.local.root)
        self.inner.reach(point, lsn)

    def _check_log(self, root: Root, lsn: int) -> None:
        for number in [number for number in root.appended if number <= lsn]:
            made, end = root.appended.pop(number)
            self.expect(made.synced_end >= end, f"O2: the catalog goes to {lsn}, batch {number} is not synced")

    def _check_named(self, root: Path) -> None:
        for segment in [segment for segment in self.unnamed if segment.parent.parent == root]:
            if any(made.open for made in self.unnamed[segment]):
                continue  # a merge that a checkpoint interrupts
            for made in self.unnamed.pop(segment):
                self.expect(made.synced_end == made.end, f"O3: {made.path} is named by a commit and not synced")
                self.expect(made.entry, f"O3: the directory of {made.path} is not synced")
                inside = made.path.parent
                while inside != segment.parent:
                    self.expect(inside not in self.loose[inside.parent], f"O3: the entry of {inside} is not synced")
                    inside = inside.parent

    def _check_catalog_modes(self, root: Path) -> None:
        for name in self.inner.list(root):
            if names.catalog_generation(name) is not None:
                self._check_mode(root / name)
                for inside in self.inner.list(root / name):
                    self._check_mode(root / name / inside)
            elif name == names.LOCK:
                self._check_mode(root / name)


def _segment(path: Path) -> Path | None:
    """The segment directory that a path lies in."""
    parts = path.parts
    if names.SEGMENT_DIRECTORY not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index(names.SEGMENT_DIRECTORY)
    return Path(*parts[: at + 2]) if len(parts) > at + 2 else None


def mode_of(disk: Disk, path: Path) -> int:
    """Permission bits, of a simulated disk or of the real one."""
    simulated = getattr(disk, "mode", None)
    return simulated(path) if simulated is not None else stat.S_IMODE(path.lstat().st_mode)


DURABLE = {"writemap": False, "sync": True, "metasync": True, "map_async": False}


def checked_lmdb_open(original: Callable[..., Any]) -> Callable[..., Any]:
    """O7: lmdb.open that refuses flags which weaken a commit."""

    def opened(path: str, **options: Any) -> Any:
        weak = {name: options[name] for name, wanted in DURABLE.items() if options.get(name, wanted) != wanted}
        assert not weak, f"O7: LMDB is opened with {weak}"
        return original(path, **options)

    return opened


# ---- failure --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """One call of a disk or of one of its files, before it happens. `number` counts calls that change something."""

    name: str
    path: Path
    number: int


class FaultyFile:
    def __init__(self, disk: FaultyDisk, inner: File, path: Path) -> None:
        self.disk, self.inner, self.path = disk, inner, path

    def read_at(self, size: int, offset: int) -> bytes:
        return self.inner.read_at(size, offset)

    def write_at(self, data: Bytes, offset: int) -> None:
        try:
            self.disk.call("write", self.path)
        except StorageFailed:
            half = memoryview(data).cast("B")
            self.inner.write_at(half[: len(half) // 2], offset)  # a full disk takes a part
            raise
        self.inner.write_at(data, offset)

    def truncate(self, size: int) -> None:
        self.disk.call("truncate", self.path)
        self.inner.truncate(size)

    def sync(self) -> None:
        self.disk.call("sync", self.path)
        self.inner.sync()

    def close(self) -> None:
        self.inner.close()


class FaultyDisk(PassingDisk):
    """Asks `fault` before every call that changes something; it raises to make the call fail."""

    def __init__(self, inner: Disk, fault: Callable[[Call], None]) -> None:
        super().__init__(inner)
        self.fault, self.calls = fault, 0
        self.lock = threading.Lock()

    def call(self, name: str, path: Path) -> None:
        with self.lock:
            self.calls += 1
            made = Call(name, path, self.calls)
        self.fault(made)

    def create(self, path: Path) -> File:
        self.call("create", path)
        return FaultyFile(self, self.inner.create(path), path)

    def open(self, path: Path) -> File:
        return FaultyFile(self, self.inner.open(path), path)

    def make_directory(self, path: Path) -> None:
        self.call("make_directory", path)
        self.inner.make_directory(path)

    def sync_directory(self, path: Path) -> None:
        self.call("sync_directory", path)
        self.inner.sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self.call("rename", target)
        self.inner.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self.call("link", target)
        self.inner.link(source, target)

    def remove(self, path: Path) -> None:
        self.call("remove", path)
        self.inner.remove(path)

    def remove_directory(self, path: Path) -> None:
        self.call("remove_directory", path)
        self.inner.remove_directory(path)


def no_space(path: Path) -> StorageFailed:
    """What LocalDisk raises on a full disk."""
    return StorageFailed(errno.ENOSPC, f"cannot write {path}: {os.strerror(errno.ENOSPC)}")


def bad_sync(path: Path) -> StorageFailed:
    return StorageFailed(errno.EIO, f"cannot sync {path}: {os.strerror(errno.EIO)}")


class PointDisk(PassingDisk):
    """Runs a callback at every named point."""

    def __init__(self, inner: Disk, at: Callable[[str, int], None]) -> None:
        super().__init__(inner)
        self.at = at

    def reach(self, point: str, lsn: int = 0) -> None:
        self.inner.reach(point, lsn)
        self.at(point, lsn)
