"""Maps of files: their bytes, what they keep and when they go."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vecdb import memory
from vecdb.errors import StorageFailed
from vecdb.files import mapping
from vecdb.files.disk import LocalDisk, write_file
from vecdb.files.mapping import MappedPages, map_file

DATA = bytes(range(256)) * 64


def test_a_map_holds_the_bytes_and_no_descriptor(tmp_path: Path) -> None:
    disk = LocalDisk()
    write_file(disk, tmp_path / "file", DATA)
    free = os.dup(0)
    os.close(free)
    maps = [disk.map(tmp_path / "file", len(DATA)) for _ in range(100)]
    next_free = os.dup(0)
    os.close(next_free)
    assert next_free == free
    disk.remove(tmp_path / "file")
    assert all(bytes(data) == DATA and data.readonly for data in maps)
    with pytest.raises(TypeError):
        maps[0][0] = 1


def test_a_map_lives_as_long_as_an_array_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[int] = []
    unmap = mapping._libc.munmap
    monkeypatch.setattr(mapping._Map.__del__, "__defaults__", (lambda at, n: (gone.append(n), unmap(at, n)),))
    data = DATA + bytes(7)  # no other map has this size: those of tests before may go at any time
    write_file(LocalDisk(), tmp_path / "file", data)
    part = np.frombuffer(LocalDisk().map(tmp_path / "file", len(data)), np.uint8)[256:512].reshape(16, 16)
    gc.collect()
    assert part.tobytes() == bytes(range(256))
    assert len(data) not in gone
    del part
    gc.collect()
    assert gone.count(len(data)) == 1


def test_what_cannot_be_mapped_says_why(tmp_path: Path) -> None:
    write_file(LocalDisk(), tmp_path / "file", DATA)
    with pytest.raises(StorageFailed, match="has 16384 bytes instead of 5"):
        LocalDisk().map(tmp_path / "file", 5)
    with pytest.raises(OSError, match="Bad file descriptor"):
        mapping.map_file(-1, 4096)


def test_advice_names_whole_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of a row is in what is asked for, and no more than the pages that it touches."""
    page, rows, size = mmap.PAGESIZE, 50, 300
    (tmp_path / "file").write_bytes(bytes(rows * size * 4))
    with (tmp_path / "file").open("rb") as file:
        vectors = np.frombuffer(map_file(file.fileno(), rows * size * 4), np.float32).reshape(rows, size)
    asked: list[tuple[int, int, int]] = []
    libc = SimpleNamespace(madvise=lambda *given: asked.append(given))
    pages = MappedPages(vectors)
    pages.ask(np.array([0, 49], np.int32))  # the system itself takes it
    pages.scatter()
    monkeypatch.setattr(memory, "_libc", libc)
    pages.ask(np.array([0, 7, 49], np.int32))
    pages.scatter()
    base = vectors.ctypes.data
    for (start, length, _), row in zip(asked, (0, 7, 49), strict=False):
        first = base + row * size * 4
        assert start % page == 0
        assert first - page < start <= first
        assert start + length == first + size * 4
    assert [advice for _, _, advice in asked] == [3, 3, 3, 1]
    assert asked[-1][:2] == (base, rows * size * 4)
    assert not vectors.any()
