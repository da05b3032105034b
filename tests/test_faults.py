"""Goal: the disk under every test sees each kind of disorder that it is there for.

Method: each of O1 to O9 is broken on purpose, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import vecdb
from tests.faults import FaultyDisk, OrderingDisk, PointDisk, bad_sync
from vecdb.engine import policy, registry
from vecdb.engine.checkpoint import checkpoint
from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.disk import LocalDisk
from vecdb.files.record import FileHeader


class Place:
    """A made-up database directory on a disk of its own."""

    def __init__(self, path: Path) -> None:
        self.failing = False
        self.disk = OrderingDisk(FaultyDisk(LocalDisk(), self._ask))
        self.root = path / "db"
        self.root.mkdir(mode=0o700)
        (self.root / "VECDB").write_bytes(b"x")
        (self.root / "LOCK").touch(mode=0o600)
        for name in ("wal", "segments"):
            self.disk.make_directory(self.root / name)

    def _ask(self, call: Any) -> None:
        if self.failing and call.name == "sync":
            raise bad_sync(call.path)

    def log(self, lsn: int) -> Any:
        file = self.disk.create(self.root / "wal" / names.wal(lsn, bytes([lsn] * 16)))
        file.write_at(FileHeader(bytes(16), 1, lsn, 5).encode(), 0)
        return file

    def segment(self, *, sync: bool = True, entries: bool = True) -> None:
        directory = self.root / "segments" / "1-1"
        self.disk.make_directory(directory)
        file = self.disk.create(directory / "a.npy")
        file.write_at(b"data", 0)
        if sync:
            file.sync()
        file.close()
        self.disk.sync_directory(directory)
        if entries:
            self.disk.sync_directory(directory.parent)


def unsynced_acknowledgement(place: Place) -> None:
    place.log(1).write_at(b"batch", 64)
    place.disk.reach("log:appended", 1)
    place.disk.reach("log:acknowledged", 1)


def commit_before_the_log(place: Place) -> None:
    place.log(1).write_at(b"batch", 64)
    place.disk.reach("log:appended", 1)
    place.disk.reach("checkpoint:written", 1)


def commit_of_an_unsynced_file(place: Place) -> None:
    place.segment(sync=False)
    place.disk.reach("merge:written")


def commit_of_an_unsynced_directory(place: Place) -> None:
    place.segment(entries=False)
    place.disk.reach("checkpoint:written", 0)


def early_retirement(place: Place) -> None:
    place.log(1)
    place.log(5)
    place.disk.reach("checkpoint:committed", 3)
    place.disk.remove(place.root / "wal" / names.wal(1, bytes([1] * 16)))


def removal_of_the_newest_log(place: Place) -> None:
    place.log(1)
    place.disk.reach("checkpoint:committed", 3)
    place.disk.remove(place.root / "wal" / names.wal(1, bytes([1] * 16)))


def a_write_into_synced_bytes(place: Place) -> None:
    file = place.log(1)
    file.sync()
    file.write_at(b"again", 8)


def a_cut_into_synced_bytes(place: Place) -> None:
    file = place.log(1)
    file.sync()
    file.truncate(10)


def a_name_used_twice(place: Place) -> None:
    place.log(1)
    place.disk.reach("checkpoint:committed", 0)
    place.disk.open(place.root / "VECDB").close()
    (place.root / "wal" / names.wal(1, bytes([1] * 16))).unlink()
    place.log(1)


def a_write_after_a_failed_sync(place: Place) -> None:
    file = place.log(1)
    place.failing = True
    with pytest.raises(StorageFailed):
        file.sync()
    place.failing = False
    file.write_at(b"more", 64)


def a_public_file(place: Place) -> None:
    (place.root / "catalog-1").mkdir(mode=0o755)
    (place.root / "catalog-1" / "data.mdb").touch(mode=0o644)
    place.segment()
    place.disk.reach("checkpoint:committed", 0)


CASES = {
    "O1": [unsynced_acknowledgement],
    "O2": [commit_before_the_log],
    "O3": [commit_of_an_unsynced_file, commit_of_an_unsynced_directory],
    "O4": [early_retirement, removal_of_the_newest_log],
    "O5": [a_write_into_synced_bytes, a_cut_into_synced_bytes],
    "O6": [a_name_used_twice],
    "O8": [a_write_after_a_failed_sync],
    "O9": [a_public_file],
}


@pytest.mark.parametrize(
    ("rule", "story"),
    [(rule, story) for rule, stories in CASES.items() for story in stories],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_disorder_is_seen(tmp_path: Path, rule: str, story: Callable[[Place], None]) -> None:
    place = Place(tmp_path)
    with pytest.raises(AssertionError, match=rule):
        story(place)
    assert place.disk.violations


def test_weak_flags_of_lmdb_are_seen(tmp_path: Path) -> None:
    for weak in ({"writemap": True}, {"sync": False}, {"metasync": False}):
        with pytest.raises(AssertionError, match="O7"):
            lmdb.open(str(tmp_path), **weak)


def in_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_checkpoint_that_writes_no_file_is_known_too(
    tmp_path: Path, ordering: OrderingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread has touched no file before the catalog says that the log may go."""
    monkeypatch.setattr(policy, "CLOSE_CHANGES", 1000)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=8)
        docs.upsert(list(range(8)), np.eye(8, dtype=np.float32))
        db.optimize()
        docs.delete([3])

    def write_in_the_middle(point: str, lsn: int) -> None:
        if point == "checkpoint:written":
            in_a_thread(lambda: docs.upsert([9], np.ones((1, 8), np.float32)))

    disk = OrderingDisk(ordering.inner)
    seams = replace(registry.DEFAULT_SEAMS, disk=PointDisk(disk, write_in_the_middle))
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", seams)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs, engine = db.get_collection("docs"), db._engine
        assert engine is not None
        logs = set((tmp_path / "db" / "wal").iterdir())
        in_a_thread(lambda: checkpoint(engine))
        assert not logs & set((tmp_path / "db" / "wal").iterdir())  # retired
    assert disk.violations == []
