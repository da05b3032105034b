"""Goal: a copy of the catalog has all that is read; when the disk refuses a step of compaction, nothing changes.

Method: a disk that fails at one call, once or more often, and a limit on the size of files.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb
import pytest

from tests.faults import Call, FaultyDisk, bad_sync
from tests.storage.logs import CountingDisk
from tests.storage.test_catalog import put, rows
from tests.storage.test_lmdb_catalog import UUID, Failing, file_size_limit, fill, opened
from vecdb.errors import Poisoned, StorageFailed
from vecdb.files.disk import LocalDisk
from vecdb.files.seams import Seams
from vecdb.storage.catalog import copy_catalog, create_catalog
from vecdb.storage.snapshot import LmdbReader, Table


@pytest.fixture
def place(tmp_path: Path) -> Path:
    create_catalog(Seams(), tmp_path, UUID)
    return tmp_path


def listing(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


@pytest.mark.parametrize("name", ["make_directory", "rename", "sync", "sync_directory"])
def test_a_compaction_that_fails_changes_nothing(place: Path, name: str) -> None:
    failing = Failing(name)
    catalog = opened(place, disk=failing.disk)
    put(catalog, a="1")
    failing.arm()
    with pytest.raises(StorageFailed):
        catalog.compact()
    assert failing.times == 0
    assert (listing(place), catalog.generation) == (["catalog-1"], 1)
    put(catalog, a="2")
    catalog.compact()
    assert (listing(place), catalog.generation, rows(catalog.read())) == (["catalog-2"], 2, {"a": "2"})
    catalog.close()


def test_a_copy_that_the_disk_refuses_is_removed(place: Path) -> None:
    catalog = opened(place)
    fill(catalog)
    with file_size_limit(100_000), pytest.raises(StorageFailed, match="cannot copy the catalog"):
        catalog.compact()
    assert listing(place) == ["catalog-1"]
    catalog.compact()
    assert len(list(catalog.read().scan(Table.RECORDS, b""))) == 600
    catalog.close()


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_whose_name_may_be_durable_is_taken_back(place: Path, number: int) -> None:
    """The next open takes the newest catalog, and this process goes on writing to the old one."""
    seen: list[str] = []

    def fault(call: Call) -> None:
        if call.name == "sync_directory" and call.path == place and armed:
            seen.append(call.name)
            if len(seen) <= number:
                raise bad_sync(call.path)

    armed = False
    catalog = opened(place, disk=FaultyDisk(LocalDisk(), fault))
    put(catalog, a="1")
    armed = True
    with pytest.raises(StorageFailed if number == 1 else Poisoned):
        catalog.compact()
    assert listing(place) == ["catalog-1", "catalog-2.tmp"][:number]  # what is left then, the next open sweeps
    assert (catalog.generation, rows(catalog.read())) == (1, {"a": "1"})
    catalog.close()


def test_what_a_killed_compaction_left_is_no_obstacle(place: Path) -> None:
    (place / "catalog-2.tmp").mkdir()
    (place / "catalog-2.tmp" / "data.mdb").write_bytes(b"half a copy")
    catalog = opened(place)
    put(catalog, a="1")
    catalog.compact()
    assert (listing(place), rows(catalog.read())) == (["catalog-2"], {"a": "1"})
    catalog.close()


def test_compaction_gives_back_what_was_free(place: Path) -> None:
    catalog = opened(place)
    fill(catalog)
    with catalog.write() as writer:
        for number in range(500):
            writer.delete(Table.RECORDS, b"%08d" % number)
    used = catalog.size() - catalog.free_bytes()
    catalog.compact()
    assert (catalog.size(), catalog.free_bytes()) == (used, 0)
    catalog.close()


def test_no_file_stays_open(place: Path) -> None:
    disk = CountingDisk()
    catalog = opened(place, disk=disk)
    catalog.compact()
    assert disk.open_files == []
    catalog.close()


# ---- copies elsewhere -----------------------------------------------------------------------------------------------
def test_copied_pages_are_a_catalog(place: Path, tmp_path: Path) -> None:
    catalog = opened(place)
    put(catalog, a="1", b="2")
    pieces: list[bytes] = []
    copy_catalog(catalog.read(), pieces.append)
    (tmp_path / "copy" / "catalog-1").mkdir(parents=True)
    (tmp_path / "copy" / "catalog-1" / "data.mdb").write_bytes(b"".join(pieces))
    copied = opened(tmp_path / "copy", writable=False)
    assert rows(copied.read()) == {"a": "1", "b": "2"}
    copied.close()
    catalog.close()


class Unreadable(LmdbReader):
    """LMDB meets a bad sector in the middle of a copy."""

    def copy_pages(self, descriptor: int) -> None:
        os.write(descriptor, b"half")
        raise lmdb.Error("mdb_env_copyfd3: Input/output error")


def test_pages_that_cannot_be_copied_say_why(place: Path) -> None:
    catalog = opened(place)
    with pytest.raises(StorageFailed, match=r"cannot copy the catalog: .*device failed") as caught:
        copy_catalog(Unreadable(catalog.current), print)
    assert caught.value.errno == errno.EIO
    catalog.close()
