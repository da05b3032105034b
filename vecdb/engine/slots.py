"""A stored index between its files and its first search: mapped at open, checked and attached when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from vecdb.errors import Corrupted
from vecdb.files import names
from vecdb.files.arrays import verify_open
from vecdb.index.base import Index, load_kind
from vecdb.memory import want_large_pages
from vecdb.options import index_from_dict
from vecdb.storage.schema import IndexEntry
from vecdb.storage.sealed import Files
from vecdb.threads import check_ending, start
from vecdb.types import AnyArray, Matrix

CHECKED_AT_ONCE = 64 * 1024 * 1024  # bytes of an index whose checksums the first search waits for


class IndexSlot:
    """One index of one field of one segment.

    `get` attaches it: checksums, shapes and every value are looked at first (beyond 64 MiB on another thread, while
    the kernels' own bound checks keep memory safe). Damage is told to `set_aside` once, and None is returned.
    """

    def __init__(
        self,
        entry: IndexEntry,
        matrix: Matrix,
        arrays: Mapping[str, AnyArray],
        set_aside: Callable[[Exception], None],
        check_files: Callable[[], None] | None,
    ) -> None:
        self.entry, self.matrix, self.arrays = entry, matrix, arrays
        self.set_aside, self.check_files = set_aside, check_files
        self.lock = threading.Lock()
        self.index: Index | None = None
        self.damaged = False

    @property
    def kind(self) -> str:
        return self.entry.kind

    def get(self) -> Index | None:
        if self.index is not None or self.damaged:
            return self.index
        with self.lock:
            if self.index is None and not self.damaged:
                self._attach()
        return self.index

    def get_checked(self) -> Index | None:
        """As `get`, with every byte looked at by now, for an index whose links others take over."""
        index = self.get()
        if index is not None and self.check_files is not None and self._size() > CHECKED_AT_ONCE:
            try:
                self._check(index)
            except (Corrupted, ValueError) as error:
                self._reject(error)
                return None
        return index

    def _size(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def _attach(self) -> None:
        size = self._size()
        for array in self.arrays.values():
            want_large_pages(array)
        try:
            options = index_from_dict({"kind": self.entry.kind, **self.entry.options})
            index = load_kind(self.kind).from_arrays(self.matrix, options, self.arrays, self.entry.parameters)
            if self.check_files is not None and size <= CHECKED_AT_ONCE:
                self._check(index)
        except (Corrupted, ValueError, KeyError, TypeError) as error:
            self._reject(error)
            return
        self.index = index
        if self.check_files is not None and size > CHECKED_AT_ONCE:
            start("vecdb-check", lambda: self._check_later(index))

    def _check(self, index: Index) -> None:
        assert self.check_files is not None
        self.check_files()
        index.check()

    def _check_later(self, index: Index) -> None:
        try:
            self._check(index)
        except (Corrupted, ValueError, OSError) as error:
            self._reject(error)

    def _reject(self, error: Exception) -> None:
        self.index, self.damaged = None, True
        self.set_aside(error)


def check_index_arrays(directory: Path, field: int, index: int, files: Files, arrays: Mapping[str, AnyArray]) -> None:
    """Every byte of an index's mapped files against the catalog. Corrupted names the block."""
    place = names.index_directory(field, index).as_posix() + "/"
    for path, entry in files.items():
        if path.startswith(place):
            check_ending()
            verify_open(directory / path, arrays[path[len(place) : -len(".npy")]], entry)
