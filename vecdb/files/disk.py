"""The disk as a seam: every operation on files that vecdb makes goes through a `Disk`.

`LocalDisk` is the real one. Tests wrap it to fail, to forget what was not synced, to kill the process at a named
point, or to assert the order of operations. Only LMDB's own pages are written past it.

Invariants: files are created exclusively (never overwritten) with mode 0600, directories with 0700; nothing is ever
written through a map; links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

from vecdb.errors import StorageFailed
from vecdb.files.mapping import map_file

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
Bytes = bytes | bytearray | memoryview
Kind = Literal["file", "directory", "other"]


class File(Protocol):
    """An open file. Offsets and sizes are bytes."""

    def read_at(self, size: int, offset: int) -> bytes: ...
    def write_at(self, data: Bytes, offset: int) -> None: ...
    def truncate(self, size: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """What the engine may do to files. Every failure is a StorageFailed that keeps its errno."""

    def make_directory(self, path: Path) -> None: ...
    def list(self, path: Path) -> list[str]: ...
    def kind(self, path: Path) -> Kind | None: ...
    def size(self, path: Path) -> int | None: ...
    def create(self, path: Path) -> File: ...
    def open(self, path: Path) -> File: ...
    def map(self, path: Path, size: int) -> memoryview: ...
    def sync_directory(self, path: Path) -> None: ...
    def rename(self, source: Path, target: Path) -> None: ...
    def link(self, source: Path, target: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def remove_directory(self, path: Path) -> None: ...
    def reach(self, point: str, lsn: int = 0) -> None: ...


NOT_REGULAR = "it is not a regular file, and vecdb follows no links; put the file itself back"
REMEDIES = {
    errno.EIO: "Input/output error; the device failed: look at the system log, and open the database again after that",
    errno.EINTR: "Interrupted system call; try again",
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "the disk quota is used up; free some space and try again",
    errno.EACCES: "permission denied; the user of this process must own the database directory",
    errno.EPERM: "operation not permitted; the user of this process must own the database directory",
    errno.EROFS: 'the file system is read-only; open the database with mode="r"',
    errno.ELOOP: NOT_REGULAR,
    errno.EISDIR: NOT_REGULAR,
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENOMEM: "out of memory, or of maps; raise the limit of them (on Linux sysctl vm.max_map_count)",
    errno.EFBIG: "the file size limit of this process is reached; raise it (ulimit -f)",
}


@contextlib.contextmanager
def failing(action: str, path: Path | str) -> Iterator[None]:
    """Turns an OSError inside into a StorageFailed that says what was tried, on which file, and what to do."""
    try:
        yield
    except StorageFailed:
        raise
    except OSError as error:
        reason = REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise StorageFailed(error.errno, f"cannot {action} {path}: {reason}") from error


class LocalFile:
    """A file of the local file system."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor

    def read_at(self, size: int, offset: int) -> bytes:
        parts: list[bytes] = []
        with failing("read", self.path):
            while size > 0 and (part := os.pread(self.descriptor, size, offset)):
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
        return b"".join(parts)

    def write_at(self, data: Bytes, offset: int) -> None:
        rest = memoryview(data).cast("B")
        with failing("write", self.path):
            while rest:
                count = os.pwrite(self.descriptor, rest, offset)
                rest, offset = rest[count:], offset + count

    def truncate(self, size: int) -> None:
        with failing("truncate", self.path):
            os.ftruncate(self.descriptor, size)

    def sync(self) -> None:
        with failing("sync", self.path):
            os.fdatasync(self.descriptor)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class LocalDisk:
    """The file system of this machine."""

    def make_directory(self, path: Path) -> None:
        with failing("create the directory", path):
            path.mkdir(mode=DIRECTORY_MODE)
            path.chmod(DIRECTORY_MODE)  # whatever the umask

    def list(self, path: Path) -> list[str]:
        with failing("list", path):
            return sorted(os.listdir(path))

    def kind(self, path: Path) -> Kind | None:
        """What has this name; None for nothing. A link is "other", whatever it points to."""
        with failing("examine", path):
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None
            return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"

    def size(self, path: Path) -> int | None:
        """Bytes of a regular file; None if there is none. A link or a directory in its place is refused."""
        with failing("examine", path):
            try:
                status = path.lstat()
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NOT_REGULAR)
            return status.st_size

    def create(self, path: Path) -> File:
        with failing("create", path):
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, FILE_MODE)
            os.fchmod(descriptor, FILE_MODE)
            return LocalFile(path, descriptor)

    def open(self, path: Path) -> File:
        """Read-only. A pipe or device in its place does not block."""
        with failing("open", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, NOT_REGULAR)
            return LocalFile(path, descriptor)

    def map(self, path: Path, size: int) -> memoryview:
        """The first `size` bytes, read-only, size > 0. The file must be at least as long: checked on the open file."""
        file = self.open(path)
        assert isinstance(file, LocalFile)
        try:
            with failing("map", path):
                found = os.fstat(file.descriptor).st_size
                if found != size:
                    raise OSError(errno.EINVAL, f"it has {found} bytes instead of {size}")
                return map_file(file.descriptor, size)
        finally:
            file.close()

    def sync_directory(self, path: Path) -> None:
        with failing("sync the directory", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        with failing("rename", source):
            source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """A second name for a regular file, on the same file system; the target must not exist."""
        with failing("link", source):
            if not stat.S_ISREG(source.lstat().st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file; vecdb follows no links")
            os.link(source, target, follow_symlinks=False)

    def remove(self, path: Path) -> None:
        with failing("remove", path):
            path.unlink()

    def remove_directory(self, path: Path) -> None:
        with failing("remove the directory", path):
            path.rmdir()

    def reach(self, point: str, lsn: int = 0) -> None:
        """A named point of a protocol was reached. Tests kill the process here or check the order of events."""


def read_file(disk: Disk, path: Path, size: int | None = None) -> bytes:
    """The first `size` bytes of a file, fewer if it is shorter; all of it without a size."""
    file = disk.open(path)
    try:
        return file.read_at((disk.size(path) or 0) if size is None else size, 0)
    finally:
        file.close()


def is_directory(disk: Disk, path: Path) -> bool:
    """Whether a path that a user gave leads to a directory, be it by way of links."""
    return disk.kind(path.resolve()) == "directory"


def remove_tree(disk: Disk, path: Path) -> None:
    """Removes a directory made by vecdb, deepest first. What is gone already is skipped, so it can be run again."""
    kind = disk.kind(path)
    if kind != "directory":
        if kind is not None:
            disk.remove(path)
        return
    for name in disk.list(path):
        remove_tree(disk, path / name)
    disk.remove_directory(path)


def give_name(disk: Disk, source: Path, target: Path) -> None:
    """Renames, durably. When it fails, `target` is not there: the old name is given back."""
    disk.rename(source, target)
    try:
        disk.sync_directory(target.parent)
    except BaseException:
        disk.rename(target, source)
        raise


NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOSYS}
COPY_BYTES = 1 << 20


def try_link(disk: Disk, source: Path, target: Path) -> bool:
    """Whether `target` is now a second name of `source`: not on another file system, nor on one without links."""
    try:
        disk.link(source, target)
    except StorageFailed as error:
        if error.errno in NO_LINK:
            return False
        raise
    return True


def copy_file(disk: Disk, source: Path, target: Path) -> None:
    """A new synced file with the same bytes; its directory is not synced."""
    old, new, offset = disk.open(source), disk.create(target), 0
    try:
        while piece := old.read_at(COPY_BYTES, offset):
            new.write_at(piece, offset)
            offset += len(piece)
        new.sync()
    finally:
        old.close()
        new.close()


def write_file(disk: Disk, path: Path, data: Bytes) -> None:
    """A new file, whole and synced; its directory is not."""
    file = disk.create(path)
    try:
        file.write_at(data, 0)
        file.sync()
    finally:
        file.close()


def check_space(path: Path, size: int) -> None:
    """StorageFailed unless the file system of `path` has `size` bytes left for this user."""
    with failing("examine", path):
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
        if free < size:
            raise StorageFailed(
                errno.ENOSPC, f"{path} has {free:,} bytes left and {size:,} are needed; free some space"
            )
