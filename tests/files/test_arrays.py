"""Goal: array files are what NumPy writes, and no byte of a damaged one is believed.

Method: files of many dtypes and shapes are read with NumPy, cut at every length and flipped at every byte.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults import PassingDisk
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files.arrays import (
    CHECKSUM_BLOCK,
    WRITE_BLOCK,
    ArrayEntry,
    file_size,
    header_bytes,
    open_array,
    verify_open,
    write_array,
    write_blocks,
)
from vecdb.files.disk import LocalDisk

DISK = LocalDisk()
DTYPES = ("<f4", "<f8", "<i4", "<i8", "<u8", "|u1", "|b1", "<u2")
SHAPES = ((0,), (1,), (7,), (1000,), (0, 5), (3, 4), (2, 3, 4), (123_456,), (1, 65_535))


def made(path: Path, dtype: str = "<f4", shape: tuple[int, ...] = (9, 5)) -> tuple[np.ndarray, ArrayEntry]:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    return array, write_array(DISK, path, array)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_what_is_written_and_writes_the_same(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.npy"
    array, entry = made(path, dtype, shape)
    loaded = np.load(path, allow_pickle=False)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)
    np.save(tmp_path / "numpy.npy", array)
    theirs = (tmp_path / "numpy.npy").read_bytes()
    assert path.stat().st_size == entry.size == file_size(dtype, shape)
    assert path.read_bytes()[-array.nbytes or len(theirs) :] == theirs[-array.nbytes or len(theirs) :]
    assert len(header_bytes(dtype, shape)) % 64 == 0
    opened = open_array(DISK, path, entry)
    np.testing.assert_array_equal(opened, array)
    assert not opened.flags.writeable
    verify_open(path, opened, entry)
    assert ArrayEntry.from_list(entry.to_list()) == entry


def test_big_endian_arrays_are_written_little_endian(tmp_path: Path) -> None:
    entry = write_array(DISK, tmp_path / "a.npy", np.arange(5, dtype=">i4"))
    assert entry.dtype == "<i4"
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


def test_objects_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="objects"):
        write_array(DISK, tmp_path / "a.npy", np.array([{}], object))
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    _, entry = made(path)
    data = path.read_bytes()
    for size in [*range(len(data)), len(data) + 1]:
        path.write_bytes((data + b"\0")[:size])
        with pytest.raises(Corrupted, match="bytes"):
            open_array(DISK, path, entry)
    path.unlink()
    with pytest.raises(Corrupted, match="missing"):
        open_array(DISK, path, entry)


def test_every_flip_is_found(tmp_path: Path) -> None:
    """In the header at once, in the data by the checksums."""
    path = tmp_path / "a.npy"
    array, entry = made(path)
    data = path.read_bytes()
    header = len(header_bytes(entry.dtype, entry.shape))
    assert header + array.nbytes == len(data)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        if at < header:
            with pytest.raises(Corrupted, match="header"):
                open_array(DISK, path, entry)
        else:
            with pytest.raises(Corrupted, match="checksum") as caught:
                verify_open(path, open_array(DISK, path, entry), entry)
            assert caught.value.offset == 0


def test_the_damaged_block_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    _, entry = made(path, "<i8", (5 * CHECKSUM_BLOCK // 8,))
    assert len(entry.crcs) == 4 * 6
    data = bytearray(path.read_bytes())
    data[3 * CHECKSUM_BLOCK + 17] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupted) as caught:
        verify_open(path, open_array(DISK, path, entry), entry)
    assert caught.value.offset == 3 * CHECKSUM_BLOCK


@pytest.mark.parametrize(
    "wrong", [{"dtype": "<i4"}, {"shape": (5, 9)}, {"shape": (45,)}, {"size": 300}, {"shape": (2**40, 2**40)}], ids=str
)
def test_an_entry_that_does_not_fit_is_refused_without_allocating(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "a.npy"
    _, entry = made(path)
    with pytest.raises(Corrupted):
        open_array(DISK, path, replace(entry, **wrong))  # type: ignore[arg-type]


def test_links_directories_and_pipes_are_refused(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.npy"
    _, entry = made(path)
    (tmp_path / "link.npy").symlink_to(path)
    (tmp_path / "dir.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("link", "dir", "pipe"):
        with pytest.raises(Corrupted, match="stands in the place"):
            open_array(DISK, tmp_path / f"{name}.npy", entry)


def test_blocks_make_one_array_and_must_fill_its_shape(tmp_path: Path) -> None:
    blocks = [np.full((n, 3), n, np.float32) for n in (4, 0, 2)]
    write_blocks(DISK, tmp_path / "a.npy", "<f4", (6, 3), blocks)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.concatenate(blocks))
    with pytest.raises(AssertionError, match="bytes were written"):
        write_blocks(DISK, tmp_path / "b.npy", "<f4", (7, 3), blocks)


def test_files_are_created_once_and_private(tmp_path: Path) -> None:
    made(tmp_path / "a.npy")
    assert (tmp_path / "a.npy").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageFailed, match="File exists"):
        made(tmp_path / "a.npy")


def test_a_file_that_shrinks_while_it_is_opened_is_damaged(tmp_path: Path) -> None:
    """Its map fails; why, its size tells."""
    _, entry = made(tmp_path / "a.npy")

    class Shrinking(PassingDisk):
        def map(self, path: Path, size: int) -> memoryview:
            os.truncate(path, size - 1)
            raise StorageFailed(errno.EINVAL, "cannot map")

    with pytest.raises(Corrupted, match="changed its size"):
        open_array(Shrinking(LocalDisk()), tmp_path / "a.npy", entry)


def test_pieces_end_at_multiples_of_their_size(tmp_path: Path) -> None:
    """The system caches a file in large pages where a piece covers them whole."""
    written: list[tuple[int, int]] = []

    class Recording(PassingDisk):
        def create(self, path: Path) -> Any:
            file = self.inner.create(path)
            real = file.write_at
            file.write_at = lambda data, offset: written.append((offset, len(data))) or real(data, offset)
            return file

    array = np.random.default_rng(0).integers(0, 256, 3 * WRITE_BLOCK + 5, dtype=np.uint8)
    entry = write_blocks(Recording(DISK), tmp_path / "a", "|u1", array.shape, [array[:1_000], array[1_000:]])
    np.testing.assert_array_equal(open_array(DISK, tmp_path / "a", entry), array)
    assert [offset + size for offset, size in written][-4:-1] == [WRITE_BLOCK, 2 * WRITE_BLOCK, 3 * WRITE_BLOCK]
    assert sum(size for _, size in written) == entry.size
