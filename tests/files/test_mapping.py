"""Maps of files: their bytes, what they keep and when they go."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from vecdb.errors import StorageFailed
from vecdb.files import mapping
from vecdb.files.disk import LocalDisk, write_file

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
