"""Arrays as .npy files (format 1.0) that any NumPy can open, written once and then only mapped.

    write_array     blocks -> a new synced file and its ArrayEntry
    open_array      entry -> a read-only view on the map; size and header bytes must be what the entry implies
    verify_open     every byte of an open array against the checksums of the entry
    digest_of       its digest as it is now

dtype, shape, size and checksums stand in the catalog, so no word of a file is trusted: nothing is allocated from a
header, and nothing is unpickled. Data starts at a multiple of 64 bytes.
"""

from __future__ import annotations

import errno
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.errors import Corrupted, StorageFailed
from vecdb.files.disk import Disk
from vecdb.types import AnyArray

CHECKSUM_BLOCK = 64 * 1024  # bytes covered by one CRC
DIGEST_SIZE = 32  # bytes of blake2b
HEADER_ALIGN = 64
WRITE_BLOCK = 4 * 1024 * 1024
MAGIC = b"\x93NUMPY\x01\x00"


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """What the catalog knows of an array file.

    crcs    little-endian uint32, CRC-32 of each 64 KiB of the file, header included
    digest  blake2b-256 of the whole file
    """

    dtype: str
    shape: tuple[int, ...]
    size: int
    digest: bytes
    crcs: bytes

    def to_list(self) -> list[Any]:
        return [self.dtype, list(self.shape), self.size, self.digest, self.crcs]

    @staticmethod
    def from_list(values: list[Any]) -> ArrayEntry:
        dtype, shape, size, digest, crcs = values
        return ArrayEntry(dtype, tuple(shape), size, digest, crcs)


def header_bytes(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header that NumPy would write for a C-contiguous array, padded to a multiple of 64 bytes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}".encode("ascii")
    padding = -(len(MAGIC) + 2 + len(text) + 1) % HEADER_ALIGN
    text += b" " * padding + b"\n"
    return MAGIC + len(text).to_bytes(2, "little") + text


def file_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of the file, in Python integers: no product can overflow."""
    count = 1
    for length in shape:
        count *= length
    return len(header_bytes(dtype, shape)) + count * np.dtype(dtype).itemsize


class _Checksums:
    """CRC per block and digest of a stream of bytes."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
        self.crcs: list[int] = []
        self.size, self.filled, self.crc = 0, 0, 0

    def add(self, data: memoryview) -> None:
        self.digest.update(data)
        self.size += len(data)
        while data:
            part = data[: CHECKSUM_BLOCK - self.filled]
            self.crc = zlib.crc32(part, self.crc)
            self.filled += len(part)
            data = data[len(part) :]
            if self.filled == CHECKSUM_BLOCK:
                self.crcs.append(self.crc)
                self.filled, self.crc = 0, 0

    def finish(self) -> tuple[bytes, bytes]:
        crcs = [*self.crcs, self.crc] if self.filled else self.crcs
        return self.digest.digest(), np.array(crcs, "<u4").tobytes()


def little_endian(dtype: np.dtype[Any]) -> str:
    """The dtype as it is written: little-endian, no objects."""
    if dtype.hasobject:
        raise TypeError("arrays of objects are never written")
    return dtype.newbyteorder("<").str


def write_array(disk: Disk, path: Path, array: AnyArray) -> ArrayEntry:
    return write_blocks(disk, path, little_endian(array.dtype), array.shape, [array])


def write_blocks(disk: Disk, path: Path, dtype: str, shape: tuple[int, ...], blocks: Iterable[AnyArray]) -> ArrayEntry:
    """Writes consecutive blocks of rows as one array of `shape`, synced. The directory is the caller's to sync."""
    file, sums = disk.create(path), _Checksums()
    try:
        _put(file, sums, memoryview(header_bytes(dtype, shape)))
        for block in blocks:
            data = memoryview(np.ascontiguousarray(block, dtype=dtype)).cast("B") if block.size else memoryview(b"")
            while (
                data
            ):  # pieces end at multiples of their size in the file, so that the system caches it in large pages
                size = WRITE_BLOCK - sums.size % WRITE_BLOCK
                _put(file, sums, data[:size])
                data = data[size:]
        if sums.size != file_size(dtype, shape):
            raise AssertionError(f"{path}: {sums.size} bytes were written for shape {shape}")
        file.sync()
    finally:
        file.close()
    return ArrayEntry(dtype, tuple(int(n) for n in shape), sums.size, *sums.finish())


def _put(file: Any, sums: _Checksums, data: memoryview) -> None:
    file.write_at(data, sums.size)
    sums.add(data)


def open_array(disk: Disk, path: Path, entry: ArrayEntry) -> AnyArray:
    """A read-only array on the mapped file. Corrupted if size or header are not what the entry implies."""
    header = header_bytes(entry.dtype, entry.shape)
    try:
        found = disk.size(path)
    except StorageFailed as error:
        if error.errno != errno.EINVAL:
            raise
        raise Corrupted(path, 0, "a link, a directory or a pipe stands in the place of the file") from error
    if found is None:
        raise Corrupted(path, 0, "the file is missing")
    if found != entry.size or entry.size != file_size(entry.dtype, entry.shape):
        raise Corrupted(path, 0, f"the file has {found} bytes, the catalog says {entry.size}")
    try:
        data = disk.map(path, entry.size)
    except StorageFailed as error:
        if disk.size(path) == entry.size:
            raise
        raise Corrupted(path, 0, "the file changed its size while it was opened") from error
    if bytes(data[: len(header)]) != header:
        raise Corrupted(path, 0, "the header does not describe the array that the catalog names")
    count = (entry.size - len(header)) // np.dtype(entry.dtype).itemsize
    return np.frombuffer(data, entry.dtype, count, len(header)).reshape(entry.shape)


def verify_open(path: Path, array: AnyArray, entry: ArrayEntry) -> None:
    """Every byte against the block checksums; Corrupted names the first bad block. Looks through the map that
    `open_array` returned, which has checked the header: the file may have lost its name since."""
    for block in damaged_blocks(array, entry):
        raise Corrupted(path, block * CHECKSUM_BLOCK, "the checksum of a block does not match")


def damaged_blocks(array: AnyArray, entry: ArrayEntry) -> Iterator[int]:
    """The numbers of the blocks of an open array whose checksums do not match, ascending, as they are found."""
    data = _contents(array)
    header = header_bytes(entry.dtype, entry.shape)
    start, crc = 0, zlib.crc32(header)
    end = CHECKSUM_BLOCK - len(header)
    for i, expected in enumerate(np.frombuffer(entry.crcs, "<u4").tolist()):
        if zlib.crc32(data[start:end], crc) != expected:
            yield i
        start, end, crc = end, end + CHECKSUM_BLOCK, 0


def digest_of(array: AnyArray, entry: ArrayEntry) -> bytes:
    """The digest that the file of an open array has now, to be compared with that of its entry."""
    digest, data = hashlib.blake2b(header_bytes(entry.dtype, entry.shape), digest_size=DIGEST_SIZE), _contents(array)
    for start in range(0, len(data), WRITE_BLOCK):
        digest.update(data[start : start + WRITE_BLOCK])
    return digest.digest()


def _contents(array: AnyArray) -> memoryview:
    return memoryview(array.reshape(-1)).cast("B") if array.size else memoryview(b"")
