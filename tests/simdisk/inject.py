"""A disk that fails where it is told to: at one site, in one way, once or from then on."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import PassingDisk
from tests.simdisk.sites import DISK_METHODS, FILE_METHODS, Site, calling_site
from vecdb.files.disk import Bytes, Disk, File, failing

GROWING = {"create", "make_directory", "write_at", "rename", "link", "sync", "sync_directory"}
WAITING = {"open", "create", "read_at", "write_at", "truncate", "sync", "sync_directory"}

# What each method may fail with. A short write is one that took half of the bytes; then the disk is full.
WAYS: dict[str, tuple[str, ...]] = {
    method: (
        "EIO",
        *(("ENOSPC",) if method in GROWING else ()),
        *(("EINTR",) if method in WAITING else ()),
        *(("short",) if method == "write_at" else ()),
        *(("EXDEV",) if method == "link" else ()),
    )
    for method in sorted(DISK_METHODS | FILE_METHODS)
}


@dataclass(frozen=True)
class Fault:
    """The `number`-th call of `site` fails in the way `way`; if `lasting`, so does every call of it after that."""

    site: Site
    way: str
    lasting: bool = False
    number: int = 1

    def __str__(self) -> str:
        return f"{self.site} {self.way} {'for ever' if self.lasting else 'once'} at call {self.number}"


class InjectingFile:
    def __init__(self, disk: InjectingDisk, inner: File, path: Path) -> None:
        self.disk, self.inner, self.path = disk, inner, path

    def read_at(self, size: int, offset: int) -> bytes:
        with self.disk.call("read_at", self.path):
            return self.inner.read_at(size, offset)

    def write_at(self, data: Bytes, offset: int) -> None:
        with self.disk.call("write_at", self.path, (self.inner, data, offset)):
            self.inner.write_at(data, offset)

    def truncate(self, size: int) -> None:
        with self.disk.call("truncate", self.path):
            self.inner.truncate(size)

    def sync(self) -> None:
        with self.disk.call("sync", self.path):
            self.inner.sync()

    def close(self) -> None:
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class InjectingDisk(PassingDisk):
    """Counts the calls of every site, and fails those that `faults` name."""

    def __init__(self, inner: Disk, *faults: Fault) -> None:
        super().__init__(inner)
        self.faults: list[Fault] = list(faults)
        self.calls: Counter[Site] = Counter()
        self.failed: list[tuple[Fault, Path]] = []
        self.at: dict[str, Callable[[], None]] = {}  # what happens at a named point

    def clear(self) -> None:
        """From now on nothing fails."""
        self.faults = []

    @contextmanager
    def call(self, method: str, path: Path, write: tuple[File, Bytes, int] | None = None) -> Iterator[None]:
        site = calling_site(method)
        if site is not None:
            self.calls[site] += 1
            for fault in self.faults:
                if fault.site == site and (
                    self.calls[site] == fault.number or (fault.lasting and self.calls[site] > fault.number)
                ):
                    self._fail(fault, path, write)
        yield

    def _fail(self, fault: Fault, path: Path, write: tuple[File, Bytes, int] | None) -> None:
        self.failed.append((fault, path))
        if fault.way == "short" and write is not None:
            file, data, offset = write
            view = memoryview(data).cast("B")
            file.write_at(view[: len(view) // 2], offset)
        code = errno.ENOSPC if fault.way == "short" else getattr(errno, fault.way)
        with failing(fault.site.method.replace("_", " "), path):
            raise OSError(code, os.strerror(code))

    def reach(self, point: str, lsn: int = 0) -> None:
        self.inner.reach(point, lsn)
        if point in self.at:
            self.at[point]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in DISK_METHODS:
            return found

        def called(path: Path, *arguments: Any) -> Any:
            with self.call(name, path):
                made = found(path, *arguments)
            return InjectingFile(self, made, path) if name in ("create", "open") else made

        return called
