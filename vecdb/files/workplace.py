"""Making a directory or a file so that it is there whole, or not at all: beside it, then renamed into place.

The work lies in `<target>.tmp`, a directory under a lock, so that what a killed process left can be told from what
another process is working on, and is removed by the next attempt. The lock names the target: a database that somebody
keeps under such a name is never taken for a leftover.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

from vecdb.errors import AlreadyExists, InvalidInput, Locked, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk, Kind, give_name, is_directory, remove_tree
from vecdb.files.lock import WriterLock, making

DATA = "DATA"  # the file, where the target is one
_OURS = {
    DATA,
    names.LOCK,
    names.SUPERBLOCK,
    names.SUPERBLOCK + names.TEMPORARY,
    names.MANIFEST,
    names.WAL_DIRECTORY,
    names.SEGMENT_DIRECTORY,
}


class Workplace:
    """A context: enter, fill `path`, then `place()` or `place_file()`. Leaving it without removes the work."""

    def __init__(self, disk: Disk, target: Path) -> None:
        self.disk, self.target = disk, target
        self.path = target.with_name(target.name + names.TEMPORARY)

    def __enter__(self) -> Workplace:
        check_free(self.disk, self.target)
        if not is_directory(self.disk, self.target.parent):
            raise InvalidInput(f"{self.target.parent} does not exist; create it first")
        kind = self.disk.kind(self.path)
        if kind is not None:
            self._check_ours(kind)
            self.lock = self._lock()
            try:
                self._clear()
            except BaseException:
                self.lock.release()
                raise
        else:
            self.disk.make_directory(self.path)
            self.lock = self._lock()
        return self

    def _lock(self) -> WriterLock:
        try:
            return WriterLock(self.path / names.LOCK, self.target.name)
        except Locked as error:
            raise Locked(f"{self.target} is being made by another process; wait for it, or choose another") from error

    def _check_ours(self, kind: Kind) -> None:
        if kind != "directory" or not self._is_left():
            raise InvalidInput(
                f"{self.path} is needed to make {self.target.name}, and holds something else; move it away"
            )

    def _is_left(self) -> bool:
        return is_left(self.disk, self.path, making(self.path / names.LOCK))

    def _clear(self) -> None:
        for name in self.disk.list(self.path):
            if name != names.LOCK:
                remove_tree(self.disk, self.path / name)

    def place(self) -> None:
        """The directory gets its name. Every file in it is synced, and so are the directories below it."""
        self.disk.sync_directory(self.path)
        check_free(self.disk, self.target)
        give_name(self.disk, self.path, self.target)

    def place_file(self) -> None:
        """The synced file DATA gets the name of the target; the workplace goes."""
        check_free(self.disk, self.target)
        give_name(self.disk, self.path / DATA, self.target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(StorageFailed):  # whoever next makes this target clears it
                if self.disk.kind(self.path) == "directory":
                    self._clear()
                    self.disk.remove(self.path / names.LOCK)
                    self.disk.remove_directory(self.path)
        finally:
            self.lock.release()


def check_free(disk: Disk, target: Path) -> None:
    """AlreadyExists if there is anything at `target`, be it a broken link."""
    if disk.kind(target) is not None:
        raise AlreadyExists(f"{target} exists, and nothing is ever written over it; choose a new name")


def _is_ours(name: str) -> bool:
    return name in _OURS or names.catalog_generation(name.removesuffix(names.TEMPORARY)) is not None


def is_left(disk: Disk, path: Path, made: str) -> bool:
    """Whether the directory `path` is a workplace; `made` is what its lock says is made there."""
    known = disk.list(path)
    return all(map(_is_ours, known)) and (names.SUPERBLOCK not in known or made + names.TEMPORARY == path.name)


def abandoned(disk: Disk, path: Path) -> bool:
    """Whether `path`, whose name nobody else would give, is a workplace that no process holds."""
    if path.suffix != names.TEMPORARY or disk.kind(path) != "directory":
        return False
    if not all(map(_is_ours, disk.list(path))):
        return False
    try:
        WriterLock(path / names.LOCK, making(path / names.LOCK)).release()
    except Locked:
        return False
    return True
