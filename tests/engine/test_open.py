"""Goal: opening refuses what it must, clears away what nothing names and nothing else, and a reader follows the files.

Method: small databases as a killed process leaves them, with things put beside, taken away, or moved on under a reader.
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import vecdb
from tests.crash.test_sweep import step_until_idle
from tests.engine import damage
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.errors import Corrupted, NotFound, ReadOnly, StorageFailed
from vecdb.files import names
from vecdb.files.record import BATCH, COMMIT, FileHeader, decode_file_header, encode_record
from vecdb.storage.schema import STATE_KEY
from vecdb.storage.snapshot import Table
from vecdb.storage.wal_scan import in_order

MODES: tuple[Any, ...] = ("rw", "r")


def engine_of(db: vecdb.Database) -> Any:
    return db._engine


def write(path: Path, *ids: int, name: str = "docs", steps: bool = False, archive: Path | None = None) -> None:
    """One batch, in a process of its own that ends well. `steps`: all of the log goes into segments and indexes."""
    with vecdb.open(path, maintenance="manual", wal_archive=archive) as db:
        docs = db.get_or_create_collection(name, dim=4, index=vecdb.Flat(bits=8))
        docs.upsert(list(ids), np.ones((len(ids), 4)), [{"n": number} for number in ids])
        if steps:
            step_until_idle(db)


def ids_of(path: Path, mode: Any = "r") -> dict[str, list[int]]:
    with vecdb.open(path, mode=mode) as db:
        return {name: [record.id for record in db.get_collection(name).get()] for name in db.list_collections()}


def header_of(file: Path) -> FileHeader:
    header = decode_file_header(file.read_bytes())
    assert isinstance(header, FileHeader)
    return header


def newest_log(path: Path) -> Path:
    return in_order([(file, header_of(file)) for file in (path / "wal").glob("*.wal")])[-1][0]


def tree(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Batch 1 in a segment with an index, batch 2 in the log."""
    write(tmp_path / "db", 1, 2, 3, steps=True)
    write(tmp_path / "db", 4)
    return tmp_path / "db"


# ---- refused --------------------------------------------------------------------------------------------------------
def test_a_snapshot_is_only_read(path: Path, tmp_path: Path) -> None:
    with vecdb.open(path) as db:
        db.snapshot(tmp_path / "snapshot")
    before = tree(tmp_path / "snapshot")
    with pytest.raises(ReadOnly, match=r"is a snapshot; .*vecdb\.restore"):
        vecdb.open(tmp_path / "snapshot")
    assert ids_of(tmp_path / "snapshot") == {"docs": [1, 2, 3, 4]}
    assert tree(tmp_path / "snapshot") == before  # nobody writes, so nobody needs to be told who reads


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_who_opens_a_database_announces_it(path: Path, mode: Any) -> None:
    """Else a writer takes the pages that others read."""
    lock = path / "catalog-1" / "lock.mdb"
    lock.unlink()
    assert ids_of(path, mode) == {"docs": [1, 2, 3, 4]}
    assert lock.exists()


def test_a_reader_has_no_way_to_write(path: Path) -> None:
    with vecdb.open(path, mode="r") as db, pytest.raises(StorageFailed), engine_of(db).catalog.write():
        pass


@pytest.mark.parametrize("there", [False, True])
def test_a_reader_makes_no_database(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "db").mkdir()
    with pytest.raises(NotFound, match="there is no database at"):
        vecdb.open(tmp_path / "db", mode="r")
    assert tree(tmp_path) == ["db"] * there


@pytest.mark.parametrize("mode", ["rw", "r"])
@pytest.mark.parametrize("what", ["the catalog is of another database", "the state of the database is missing", "gone"])
def test_a_catalog_that_does_not_fit_is_refused(path: Path, tmp_path: Path, mode: Any, what: str) -> None:
    """Without its state nobody knows which batches are in segments. A database without collections has none."""
    if "state" in what:
        damage.drop(path, Table.DATABASE, STATE_KEY)
    else:
        shutil.rmtree(path / "catalog-1")
    if "another" in what:
        write(tmp_path / "other", 1, steps=True)
        shutil.copytree(tmp_path / "other" / "catalog-1", path / "catalog-1")
    with pytest.raises(Corrupted, match="the catalog is missing" if what == "gone" else what) as caught:
        vecdb.open(path, mode=mode)
    assert (caught.value.path, caught.value.offset) == (str(path if what == "gone" else path / "catalog-1"), 0)


def test_an_opening_that_failed_holds_nothing(path: Path) -> None:
    """As long as its error is kept, a traceback keeps all that it made."""
    log = newest_log(path)
    good = log.read_bytes()
    log.write_bytes(b"\1" + good[1:])
    kept = []
    for mode in (*MODES, *MODES):
        with pytest.raises(Corrupted) as caught:
            vecdb.open(path, mode=mode)
        kept.append(caught.value)
    log.write_bytes(good)
    assert ids_of(path) == ids_of(path, "rw") == {"docs": [1, 2, 3, 4]}


def test_a_batch_that_makes_no_sense_names_its_log_file(path: Path) -> None:
    """Its checksum is right, so whoever wrote it was wrong."""
    log = newest_log(path)
    header = header_of(log)
    record = b"".join(encode_record(header.salt, BATCH, COMMIT, header.start_lsn, 0, 0, b"\xff" * 40))
    log.write_bytes(header.encode() + record)
    for mode in MODES:
        with pytest.raises(Corrupted, match=f"batch {header.start_lsn}") as caught:
            vecdb.open(path, mode=mode)
        assert caught.value.path == str(log)


# ---- cleared away ---------------------------------------------------------------------------------------------------
def test_what_nothing_names_goes_and_nothing_else(path: Path) -> None:
    start = names.wal(1, bytes(16))
    rubbish = ("catalog-0/data.mdb", "catalog-9.tmp/data.mdb", "VECDB.tmp", "segments/1-77/ids.npy",
               "segments/77-1/field-1/vectors.npy", "segments/1-1/field-1/index-99/codes.npy",
               f"wal/{Path(start).stem}.tmp", f"wal/{start}")  # fmt: skip
    others = ("notes.txt", "catalog-x/data.mdb", "wal/notes.txt", "segments/notes/ids.npy",
              "segments/1-1/field-1/notes/x.txt", "segments/1-1/mine/index-99/codes.npy")  # fmt: skip
    before = tree(path)
    header = replace(header_of(newest_log(path)), epoch=0)
    for name in (*rubbish, *others):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(header.encode() if name.endswith(".wal") else b"x")
    full = tree(path)
    assert ids_of(path) == {"docs": [1, 2, 3, 4]}
    assert tree(path) == full  # a reader changes nothing
    with vecdb.open(path, maintenance="manual") as db:
        assert db.get_collection("docs").count() == 4
        found = tree(path)
    kept = {str(part) for name in others for part in (Path(name), *Path(name).parents) if str(part) != "."}
    assert set(found) - {"LOCK"} == (set(before) | kept) - {"LOCK"}
    report = vecdb.verify(path, deep=True)
    assert report.ok, str(report)


def test_log_files_that_the_catalog_covers_go(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for number in range(3):
        write(path, number)
    with vecdb.open(path, maintenance="manual") as db:
        shutil.copytree(path / "wal", tmp_path / "wal")
        step_until_idle(db)
    for file in (tmp_path / "wal").iterdir():  # the power went before they were removed
        shutil.copy(file, path / "wal")
    assert len(list((path / "wal").iterdir())) > 1
    with vecdb.open(path, maintenance="manual") as db:
        assert len(list((path / "wal").iterdir())) == 1
        assert db.get_collection("docs").count() == 3


# ---- the log of a new database, and its archive ---------------------------------------------------------------------
def test_the_log_of_a_new_database_begins_with_batch_1_of_epoch_1(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        db.create_collection("docs", dim=4).upsert([1], np.ones((1, 4)))
        (log,) = (tmp_path / "db" / "wal").iterdir()
        header = header_of(log)
    assert (header.epoch, header.start_lsn, header.previous, header.previous_length) == (1, 1, 0, 0)


def test_an_archive_is_kept_from_the_opening_on(path: Path, tmp_path: Path) -> None:
    """What the collections are, at once; the log, before it is removed."""
    with vecdb.open(path, maintenance="manual", wal_archive=(archive := tmp_path / "archive")) as db:
        assert [file.suffix for file in archive.iterdir()] == [".schema"]
        logs = {file.name: file.read_bytes() for file in (path / "wal").iterdir()}
        step_until_idle(db)
        db.get_collection("docs").upsert([5], np.ones((1, 4)))
        step_until_idle(db)
    kept = {file.name: file.read_bytes() for file in archive.glob("*.wal")}
    assert {name: kept.get(name) for name in logs} == logs


def test_a_log_of_an_older_epoch_is_archived_before_it_goes(path: Path, tmp_path: Path) -> None:
    """It may be there because a process was killed between writing the log anew and archiving the old one."""
    old = path / "wal" / names.wal(1, bytes(16))
    old.write_bytes(replace(header_of(newest_log(path)), epoch=0).encode())
    data = old.read_bytes()
    with vecdb.open(path, maintenance="manual", wal_archive=tmp_path / "archive"):
        assert not old.exists()
    assert (tmp_path / "archive" / old.name).read_bytes() == data


def test_the_log_of_a_dropped_collection_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write(path, 1, 2)
    write(path, 3, name="more")
    write(path, 4)
    with vecdb.open(path, maintenance="manual") as db:
        db.delete_collection("more")
        shutil.copytree(path, tmp_path / "killed")
    assert ids_of(tmp_path / "killed") == ids_of(tmp_path / "killed", "rw") == {"docs": [1, 2, 4]}


# ---- readers follow -------------------------------------------------------------------------------------------------
def replaced(path: Path, newer: Path) -> None:
    """The files of `path` become those of `newer`, as another process would leave them."""
    for file in newer.rglob("*"):
        target = path / file.relative_to(newer)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists() or target.parent.name == "wal":
            shutil.copy(file, target)
    for file in sorted(path.rglob("*"), reverse=True):
        if not (newer / file.relative_to(path)).exists():
            file.rmdir() if file.is_dir() else file.unlink()


def test_a_reader_sees_what_the_log_has_since(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "newer")
    write(tmp_path / "newer", 5, 6)
    with vecdb.open(path, mode="r") as db:
        docs = db.get_collection("docs")
        replaced(path, tmp_path / "newer")
        assert docs.count() == 4
        db.refresh()
        assert [record.id for record in docs.get()] == [1, 2, 3, 4, 5, 6]


def test_a_reader_moves_on_to_a_newer_catalog(path: Path, tmp_path: Path) -> None:
    """Handles of collections go on, those of dropped ones say so, and the old catalog is let go of."""
    write(path, 7, name="dropped")
    shutil.copytree(path, tmp_path / "newer")
    with vecdb.open(tmp_path / "newer", maintenance="manual") as db:
        db.delete_collection("dropped")
        db.create_collection("new", dim=4).upsert([8], np.ones((1, 4)))
        db.get_collection("docs").upsert([5], np.ones((1, 4)))
        step_until_idle(db)
        engine_of(db).catalog.compact()
    with vecdb.open(path, mode="r") as db:
        docs, dropped, old = db.get_collection("docs"), db.get_collection("dropped"), engine_of(db).catalog
        assert (docs.count(), dropped.count()) == (4, 1)
        replaced(path, tmp_path / "newer")
        db.refresh()
        assert [record.id for record in docs.get()] == [1, 2, 3, 4, 5]
        assert db.list_collections() == ["docs", "new"]
        assert db.get_collection("new").count() == 1
        with pytest.raises(NotFound, match="dropped"):
            dropped.count()
        del dropped
        gc.collect()  # the last snapshot of the old one
        with pytest.raises(lmdb.Error):
            old.current.environment.info()


class Busy(PassingDisk):
    """A writer retires what a reader is about to open, so often."""

    def __init__(self, inner: Any, times: int) -> None:
        super().__init__(inner)
        self.times = times

    def list(self, path: Path) -> list[str]:
        if path.name == names.WAL_DIRECTORY and self.times > 0:
            self.times -= 1
            raise StorageFailed(2, "a log file vanished; open the database again")
        entries: list[str] = self.inner.list(path)
        return entries


@pytest.mark.parametrize(("times", "opens"), [(1, True), (19, True), (20, False)])
def test_a_reader_tries_again_while_files_vanish(
    path: Path, monkeypatch: pytest.MonkeyPatch, times: int, opens: bool
) -> None:
    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=Busy(usual.disk, times)))
    if opens:
        assert ids_of(path) == {"docs": [1, 2, 3, 4]}
    else:
        with pytest.raises(StorageFailed, match="vanished"):
            vecdb.open(path, mode="r")
