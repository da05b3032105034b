"""Goal: the catalog in LMDB keeps what was committed, whatever the disk refuses, and leaves nothing open or half made.

Method: a disk that fails at one call, a limit on the size of files, directories in the place of files, and another
process that is killed while it reads.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest

from tests.faults import Call, FaultyDisk, bad_sync, no_space
from tests.storage.test_catalog import put, rows
from vecdb.errors import Closed, Corrupted, Poisoned, StorageFailed
from vecdb.files.disk import Disk, LocalDisk
from vecdb.files.seams import Seams
from vecdb.storage.catalog import LmdbCatalog, MapFull, copy_catalog, create_catalog, reader_beside
from vecdb.storage.memory_catalog import MemoryCatalog
from vecdb.storage.schema import UUID_KEY, unseal
from vecdb.storage.snapshot import Table

UUID = bytes(range(16))
SIZE_MIN = 1 << 30


def opened(path: Path, *, disk: Disk | None = None, writable: bool = True, locked: bool = True) -> LmdbCatalog:
    """Its structure is looked at: the values of these tests have no checksums."""
    seams = Seams(disk=disk or LocalDisk())
    return LmdbCatalog(seams, path, 1, writable=writable, locked=locked, look="pages")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    create_catalog(Seams(), tmp_path, UUID)
    return tmp_path


class Failing:
    """Makes a call fail as often as `times` says."""

    def __init__(self, name: str, times: int = 1, inner: Disk | None = None) -> None:
        self.name, self.times = name, 0
        self.disk = FaultyDisk(inner or LocalDisk(), self._fault)
        self.arm = lambda: setattr(self, "times", times)

    def _fault(self, call: Call) -> None:
        if call.name == self.name and self.times > 0:
            self.times -= 1
            raise bad_sync(call.path) if call.name.startswith("sync") else no_space(call.path)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(catalog: LmdbCatalog, count: int = 600) -> None:
    with catalog.write() as writer:
        writer.put_many(Table.RECORDS, [(b"%08d" % number, bytes(1000)) for number in range(count)])


def listing(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


# ---- making and opening ---------------------------------------------------------------------------------------------
def test_a_new_catalog_names_its_database(tmp_path: Path) -> None:
    for name, uuid in (("named", UUID), ("unnamed", None)):
        (tmp_path / name).mkdir()
        create_catalog(Seams(), tmp_path / name, uuid)
        catalog = opened(tmp_path / name)
        stored = catalog.read().get(Table.DATABASE, UUID_KEY)
        assert (None if stored is None else unseal(UUID_KEY, stored)) == uuid
        catalog.close()


def test_a_new_catalog_is_made_durable(tmp_path: Path) -> None:
    """LMDB syncs what it writes into its file, not the name of the file."""
    failing = Failing("sync_directory")
    failing.arm()
    with pytest.raises(StorageFailed, match="cannot sync"):
        create_catalog(Seams(disk=failing.disk), tmp_path, UUID)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_a_catalog(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_catalog(Seams(), tmp_path, UUID)
        catalog = opened(tmp_path)
        for generation in (1, 2):
            path = tmp_path / f"catalog-{generation}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
            catalog.compact()
        catalog.close()
    finally:
        os.umask(before)


def test_a_damaged_catalog_is_refused_before_it_is_opened(place: Path) -> None:
    data = place / "catalog-1" / "data.mdb"
    os.truncate(data, 3 * 4096)
    with pytest.raises(Corrupted, match=r"data\.mdb"):
        opened(place)
    assert listing(place / "catalog-1") == ["data.mdb", "lock.mdb"]


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"cannot open the catalog .*catalog-7: .*No such file") as caught:
        LmdbCatalog(Seams(), tmp_path, 7, writable=True, look="nothing")
    assert caught.value.errno == 0  # nothing that a remedy is known for
    (tmp_path / "catalog-7" / "lock.mdb").mkdir(parents=True)
    with pytest.raises(StorageFailed, match=r"cannot open the catalog .*not a regular file") as caught:
        LmdbCatalog(Seams(), tmp_path, 7, writable=True, look="nothing")
    assert caught.value.errno == errno.EISDIR


def test_maps_leave_room_to_grow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map takes address space only. A reader's is larger than what a writer fills before it compacts."""

    def map_size(*, writable: bool = True) -> int:
        catalog = opened(place, writable=writable)
        size = catalog.current.environment.info()["map_size"]
        catalog.close()
        return int(size)

    assert (map_size(), map_size(writable=False)) == (SIZE_MIN, 16 * SIZE_MIN)
    monkeypatch.setattr("vecdb.storage.catalog.MAP_MIN", 300_000)
    catalog = opened(place)
    fill(catalog, 100)
    size = catalog.size()
    catalog.close()
    assert size == (place / "catalog-1" / "data.mdb").stat().st_size
    assert (map_size(), map_size(writable=False)) == (4 * size, 64 * size)


def test_readers_announce_themselves_unless_nobody_writes(place: Path) -> None:
    lock = place / "catalog-1" / "lock.mdb"
    lock.unlink()
    opened(place, writable=False, locked=False).close()
    assert not lock.exists()
    LmdbCatalog(Seams(), place, 1, writable=True).close()
    assert lock.exists()


READER = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], readonly=True, max_dbs=7)
transaction = environment.begin()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_was_killed_holds_no_pages(place: Path) -> None:
    """Else the file would grow for ever: what the dead one saw could never be written over. Others go on reading."""
    command = [sys.executable, "-c", READER, str(place / "catalog-1")]
    start = partial(subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with start() as living, start() as killed:
        for reader in (living, killed):
            assert reader.stdout.readline() == b"reading\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        catalog = opened(place)
        seen = catalog.current.environment.readers()
        catalog.close()
        living.communicate(b"")
    assert (str(killed.pid) in seen, str(living.pid) in seen) == (False, True)


def test_more_readers_than_there_is_room_for_are_told(place: Path) -> None:
    catalog = opened(place)
    readers = [catalog.read() for _ in range(1024)]
    with pytest.raises(StorageFailed, match="cannot read the catalog"):
        catalog.read()
    readers.pop().close()
    assert catalog.read().get(Table.DATABASE, UUID_KEY) is not None
    catalog.close()


# ---- transactions ---------------------------------------------------------------------------------------------------
def test_a_writer_scans_no_more_than_was_asked_for(place: Path) -> None:
    catalog = opened(place)
    put(catalog, a="1", ab="2", b="3")
    with catalog.write() as writer:
        assert [key for key, _ in writer.scan(Table.IDS, b"a", 1)] == [b"a"]
        assert [key for key, _ in writer.scan(Table.IDS, b"a")] == [b"a", b"ab"]
    catalog.close()


def test_a_write_that_lmdb_refuses_is_aborted(place: Path) -> None:
    catalog = opened(place)
    put(catalog, a="1")
    with pytest.raises(StorageFailed, match="cannot write the catalog"):
        put(catalog, a="2", **{"k" * 600: "a key that is too long"})
    assert rows(catalog.read()) == {"a": "1"}
    put(catalog, a="3")
    assert rows(catalog.read()) == {"a": "3"}
    catalog.close()


def test_a_commit_that_the_disk_refuses_changes_nothing(place: Path) -> None:
    """LMDB says that the old picture is there; so writing goes on."""
    catalog = opened(place)
    put(catalog, a="1")
    with file_size_limit(catalog.size()), pytest.raises(StorageFailed, match="file size limit") as caught:
        fill(catalog)
    assert (type(caught.value), caught.value.errno) == (StorageFailed, errno.EFBIG)
    assert rows(catalog.read()) == {"a": "1"}
    assert list(catalog.read().scan(Table.RECORDS, b"")) == []
    fill(catalog)
    catalog.close()
    catalog = opened(place)
    assert len(list(catalog.read().scan(Table.RECORDS, b""))) == 600
    catalog.close()


def test_a_write_is_there_or_the_map_is_told_to_be_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB may find that out at the commit, when it writes down which pages are free."""
    monkeypatch.setattr("vecdb.storage.catalog.MAP_MIN", 300_000)
    catalog = opened(place)
    there, refused = 0, 0
    for count in range(1, 90):
        try:
            fill(catalog, count)
            there = count
        except MapFull:
            refused += 1
        assert len(list(catalog.read().scan(Table.RECORDS, b""))) == there
    assert there + refused == 89
    assert refused > 0
    catalog.close()


# ---- leaving --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["retire", "close"])
def test_a_catalog_that_was_left_can_be_opened_again(place: Path, way: str) -> None:
    """LMDB opens a directory once per process: retired, it closes with its last snapshot."""
    catalog = opened(place)
    put(catalog, a="1")
    reader = catalog.read()
    getattr(catalog, way)()
    if way == "retire":
        assert rows(reader) == {"a": "1"}
        reader.close()
    with pytest.raises(Closed):
        rows(reader)
    again = opened(place)
    assert rows(again.read()) == {"a": "1"}
    again.close()


def test_a_reader_beside_another_sees_the_newest(place: Path) -> None:
    catalog = opened(place)
    put(catalog, a="1")
    reader = catalog.read()
    put(catalog, a="2")
    beside = reader_beside(reader)
    assert (rows(reader), rows(beside)) == ({"a": "1"}, {"a": "2"})
    catalog.close()
    with pytest.raises(Closed, match="open it again"):
        reader_beside(reader)


def test_a_forked_process_has_no_catalog(place: Path) -> None:
    catalog = opened(place)
    reader = catalog.read()
    environment = catalog.current.environment
    catalog.abandon()
    for attempt in (lambda: rows(reader), lambda: reader_beside(reader)):
        with pytest.raises(Closed, match="open it again"):
            attempt()
    environment.close()


@pytest.mark.parametrize("use", [reader_beside, lambda reader: copy_catalog(reader, print)], ids=["beside", "copy"])
def test_a_reader_of_another_kind_is_refused(use: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="no LMDB environment"):
        use(MemoryCatalog().read())


# ---- a commit of which nobody knows how it ended -------------------------------------------------------------------
class Environment:
    """An environment of LMDB in which one call fails, and from then on every beginning."""

    def __init__(self, inner: Any, fails: str) -> None:
        self.inner, self.fails, self.broken = inner, fails, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def begin(self, **options: Any) -> Any:
        if self.broken or self.fails == "begin":
            raise lmdb.PanicError("MDB_PANIC: Update of meta page failed")
        transaction = self.inner.begin(**options)
        return SimpleNamespace(commit=partial(self._commit, transaction), abort=transaction.abort, inner=transaction)

    def _commit(self, transaction: Any) -> None:
        transaction.abort()
        self.broken = True
        raise lmdb.DiskError("Input/output error")


@pytest.mark.parametrize(("fails", "words"), [("commit", "unknown state"), ("begin", "stopped after a failed write")])
def test_after_a_failed_meta_page_nothing_is_written(
    place: Path, fails: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = opened(place)
    put(catalog, a="1")
    environment = Environment(catalog.current.environment, fails)
    monkeypatch.setattr(catalog.current, "environment", environment)
    for expected in (words, "stopped after a failed write"):
        with pytest.raises(Poisoned, match=expected), catalog.write():
            pass
    monkeypatch.undo()
    assert rows(catalog.read()) == {"a": "1"}
    catalog.close()
