"""Reading an array file of which parts are damaged: row by row, by the checksums of its blocks.

The header is not read: the catalog's entry implies it. So a damaged or overwritten header loses nothing.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import StorageFailed
from vecdb.files.arrays import CHECKSUM_BLOCK, ArrayEntry, file_size, header_bytes
from vecdb.files.disk import Disk, File
from vecdb.types import AnyArray


class DamagedArray:
    """One array file, open for reading. `good` bool (rows,): every byte of the row is what was written."""

    def __init__(self, disk: Disk, path: Path, entry: ArrayEntry) -> None:
        self.entry = entry
        self.header = header_bytes(entry.dtype, entry.shape)
        self.rows = entry.shape[0] if entry.shape else 0
        self.row_bytes = (entry.size - len(self.header)) // self.rows if self.rows else 0
        self.file: File | None = None
        self.good: NDArray[np.bool_] = np.zeros(self.rows, np.bool_)
        if entry.size != file_size(entry.dtype, entry.shape):
            return
        try:
            self.file = disk.open(path)
        except StorageFailed:  # missing, or something else stands in its place: no row is good
            return
        self.good[:] = True
        for block, expected in enumerate(np.frombuffer(entry.crcs, "<u4").tolist()):
            if zlib.crc32(self._block(block)) != expected:
                self._lose(block)

    def _bytes(self, size: int, offset: int) -> bytes:
        """What can be read; a sector that cannot is as good as zeros."""
        assert self.file is not None
        try:
            return self.file.read_at(size, offset).ljust(size, b"\0")
        except StorageFailed:
            return bytes(size)

    def _block(self, block: int) -> bytes:
        start = block * CHECKSUM_BLOCK
        data = self._bytes(min(CHECKSUM_BLOCK, self.entry.size - start), start)
        return self.header + data[len(self.header) :] if block == 0 else data

    def _lose(self, block: int) -> None:
        if self.row_bytes:
            first = max(0, block * CHECKSUM_BLOCK - len(self.header)) // self.row_bytes
            last = ((block + 1) * CHECKSUM_BLOCK - len(self.header) - 1) // self.row_bytes
            self.good[first : last + 1] = False

    def read(self, first: int, last: int) -> AnyArray:
        """Rows first..last; those that are not good hold anything."""
        shape = (last - first, *self.entry.shape[1:])
        if self.file is None:
            return np.zeros(shape, self.entry.dtype)
        data = self._bytes((last - first) * self.row_bytes, len(self.header) + first * self.row_bytes)
        return np.frombuffer(data, self.entry.dtype).reshape(shape)

    def whole(self) -> AnyArray | None:
        """The array, if all of it is good."""
        return self.read(0, self.rows) if self.good.all() else None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
