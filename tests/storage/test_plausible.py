"""Goal: ids, deletions and batches that nobody writes are refused by the words for what is wrong with them.

Method: values next to those that are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import Closed, Corrupted
from vecdb.files.arrays import ArrayEntry, open_array, write_array
from vecdb.files.disk import LocalDisk
from vecdb.storage import first_use
from vecdb.storage.array_salvage import DamagedArray
from vecdb.storage.batch import FieldBlock, Part
from vecdb.storage.first_use import FirstUseCheck
from vecdb.storage.keys import decode_key, encode_key
from vecdb.storage.memory_catalog import MemoryCatalog
from vecdb.storage.payload import pack
from vecdb.storage.plausible import check_part, decode_deletions
from vecdb.storage.schema import CollectionMeta
from vecdb.storage.snapshot import Table


class Text(str):
    """An id type of somebody's own."""


@pytest.mark.parametrize(
    ("given", "kept"),
    [(Text("a"), "a"), (np.str_("a"), "a"), (np.int64(-7), -7), (np.uint8(7), 7), (type("Number", (int,), {})(7), 7)],
)
def test_relatives_of_ids_are_ids(given: Any, kept: Any) -> None:
    found = decode_key(encode_key(given))
    assert (found, type(found)) == (kept, type(kept))


def test_deletions_are_whole_numbers() -> None:
    assert decode_deletions(np.arange(3).astype("<i8").tobytes()).tolist() == [0, 1, 2]
    with pytest.raises(Corrupted, match="has 23 bytes"):
        decode_deletions(bytes(23))


def test_only_the_first_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "CHECKED_AT_ONCE", 1000)
    check, disk = FirstUseCheck(), LocalDisk()
    for name, seen in (("a.npy", True), ("b.npy", False), ("vectors.npy", True)):
        path = tmp_path / name
        entry = write_array(disk, path, np.zeros(200, np.float32))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        array = open_array(disk, path, entry)
        if seen:
            with pytest.raises(Corrupted):
                check(path, array, entry)
        else:
            check(path, array, entry)


def test_an_array_of_another_size_than_its_shape_has_no_good_row(tmp_path: Path) -> None:
    entry = write_array(LocalDisk(), tmp_path / "a.npy", np.ones((4, 2)))
    wrong = ArrayEntry(entry.dtype, (5, 2), entry.size, entry.digest, entry.crcs)
    array = DamagedArray(LocalDisk(), tmp_path / "a.npy", wrong)
    assert not array.good.any()
    assert array.whole() is None
    assert not array.read(0, 2).any()


def test_a_damaged_array_of_no_rows_is_whole(tmp_path: Path) -> None:
    """Only its header is damaged, which the catalog implies."""
    path = tmp_path / "a.npy"
    entry = write_array(LocalDisk(), path, np.zeros((0, 2)))
    path.write_bytes(bytes(entry.size))
    wrong = ArrayEntry(entry.dtype, entry.shape, entry.size, entry.digest, bytes(4))
    array = DamagedArray(LocalDisk(), path, wrong)
    whole = array.whole()
    array.close()
    assert whole is not None
    assert whole.shape == (0, 2)


def test_the_catalog_in_memory_ends_with_a_fork() -> None:
    catalog = MemoryCatalog()
    with catalog.write() as writer:
        writer.put(Table.IDS, b"a", b"1")
    reader = catalog.read()
    assert reader.get(Table.IDS, b"a") == b"1"
    catalog.abandon()
    with pytest.raises(Closed):
        reader.get(Table.IDS, b"a")


def test_vectors_of_a_field_that_is_not_there_are_refused() -> None:
    meta = CollectionMeta(1, "docs", bytes(16), ())
    part = Part(1, 1, [encode_key("a")], [pack({})], {9: FieldBlock(np.zeros((1, 4), np.float32))})
    with pytest.raises(ValueError, match="there is no field 9"):
        check_part(meta, 1, part)
