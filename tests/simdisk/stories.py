"""What runs while the disk fails: together these reach every site. Real files, real LMDB.

Each story starts from a directory made without faults. What it does is told to a `Teller`, which meets an error as a
user would: looks at what it says, looks at the data, tries again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.simdisk.inject import Fault, InjectingDisk
from tests.simdisk.session import COMPILED, Model, Session, abandon, check_reads, open_on, read_model
from tests.simdisk.workloads import some
from vecdb.engine import recover as recover_module
from vecdb.engine import registry
from vecdb.errors import Corrupted, InvalidInput, Poisoned, StorageFailed, VecdbError
from vecdb.files.disk import LocalDisk
from vecdb.files.workplace import abandoned
from vecdb.storage import schema

POISONS = (
    "the log could not be synced",
    "the log could not be cut back",
    "the directory of the log could not be synced",
    "a commit to the catalog could not be taken over",
    "a copy of the catalog could neither be opened nor removed",
)
ATTEMPTS = 4


class Arrived(Exception):
    """What failed had happened after all."""


class Teller(Session):
    """A session whose disk may fail. Every error is checked, then the operation is tried again."""

    injecting: InjectingDisk
    told: list[VecdbError]

    def _do(self, act: Callable[[], Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return act()
            except VecdbError as error:
                self.told.append(error)
                check_told(error)
                if attempt > 0 or not any(fault.lasting for fault in self.injecting.faults):
                    self.injecting.clear()
                try:
                    self._look(attempt)
                except Arrived:
                    return None
        raise AssertionError(f"it goes on failing without a fault: {self.told}")

    def _look(self, attempt: int) -> None:
        """Nothing changed; or writing has stopped, and opening again tells what happened."""
        engine = getattr(getattr(self, "db", None), "_engine", None)
        if engine is None or engine.closed:
            return
        in_flight = [self.models[-1]] if self.high > self.acknowledged else []
        before = self.models[self.acknowledged]
        if engine.poisoned:
            self.injecting.clear()
            assert engine.wal.poison.startswith(POISONS), engine.wal.poison
            assert read_model(self.db) in (before, *in_flight)
            self._check_stopped()
            self.db.close()
            self.open()
            found = read_model(self.db)
            assert found in (before, *in_flight)
            if found in in_flight:
                raise Arrived
        elif not self.injecting.faults:
            assert read_model(self.db) == before

    def _check_stopped(self) -> None:
        for attempt in (lambda: self.db.create_collection("forbidden", dim=2), self.db.flush, self.db.optimize):
            try:
                attempt()
            except Poisoned as error:
                check_told(error)
            else:
                raise AssertionError("a poisoned database wrote")


def check_told(error: VecdbError) -> None:
    """The type is one that a user can act on, and the text says what failed and what to do."""
    text = str(error)
    assert isinstance(error, StorageFailed | Poisoned), repr(error)
    assert "delete" not in text, text
    if isinstance(error, Poisoned):
        assert "open it again" in text, text
    else:
        assert any(hint in text for hint in ("try again", "open the database again", "system log")), text


@dataclass(frozen=True)
class Story:
    name: str
    run: Callable[[Teller], None]
    template: str = "young"


# ---- directories to start from --------------------------------------------------------------------------------------
def make_templates(place: Path) -> dict[str, Model]:
    """young: a collection with a sealed segment, an index, a log; killed: the same with a doubtful log and leftovers
    of every kind; damaged: a sealed file with wrong bytes; cut: a catalog that lost its end; dropped: a collection to
    purge; unfinished: a database whose making never ended."""
    models: dict[str, Model] = {"empty": {}, "unfinished": {}}
    (place / "empty").mkdir()
    for name in ("wal", "segments", "catalog-1"):
        (place / "unfinished" / name).mkdir(parents=True)
    for name in ("young", "killed", "damaged", "cut", "dropped"):
        (place / name).mkdir()
        models[name] = _make(place / name, name)
    return models


def _make(path: Path, name: str) -> Model:
    session = Session(LocalDisk(), path, kernels=COMPILED, recording=False)  # type: ignore[arg-type]
    session.create("docs")
    session.create("more")
    session.set_index("docs", vecdb.Flat(bits=8))
    session.upsert("docs", some(0, 20))
    session.upsert("more", some(0, 3))
    session.steps()
    session.upsert("docs", some(18, 4))
    session.delete("docs", some(1, 2))
    if name == "dropped":
        session.drop("more")
    if name == "killed":
        shutil.copytree(path, path.with_name("copy"))
        session.db.close()
        shutil.rmtree(path)
        path.with_name("copy").rename(path)
        (path / "segments" / "1-77").mkdir()
        (path / "segments" / "1-77" / "sequences.npy").touch()
        (path / "wal" / f"{1:020d}-{'0' * 32}.tmp").touch()
        (path / "catalog-0").mkdir()
        return session.model
    session.db.close()
    if name == "damaged":
        _damage(next(path.glob("segments/1-*/field-1/vectors.npy")))
    if name == "cut":
        data = next(path.glob("catalog-*/data.mdb"))
        os.truncate(data, data.stat().st_size // 4096 // 2 * 4096)
    return session.model


def _damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF
    file.write_bytes(data)


# ---- what is done ---------------------------------------------------------------------------------------------------
def birth(teller: Teller) -> None:
    teller.create("docs")
    teller.upsert("docs", some(0, 4))
    teller.steps()


def life(teller: Teller) -> None:
    teller.upsert("docs", some(20, 4))
    teller.patch("docs", some(3, 2))
    teller.steps()
    teller.upsert("docs", some(2, 3))
    teller.flush()
    teller.compact()
    teller.upsert("docs", some(30, 2))
    teller.delete("docs", some(4, 2))
    teller.steps()


def indexes(teller: Teller) -> None:
    teller.set_index("docs", vecdb.HNSW(m=4, ef_construction=8))
    teller.steps()
    teller.set_index("docs", "flat")
    teller.steps()


def openings(teller: Teller) -> None:
    for number in range(3):
        teller.upsert("docs", some(number, 2))
        teller.reopen()
    teller.upsert("docs", some(9, 1))


def purge(teller: Teller) -> None:
    teller.steps()
    teller.drop("docs")
    teller.steps()


def reading(teller: Teller) -> None:
    teller.close()
    db = teller._do(lambda: open_on(teller.ordering, teller.place, mode="r", kernels=COMPILED))
    teller._do(db.refresh)
    found = teller._do(lambda: read_model(db))
    teller._do(db.stats)
    db.close()
    assert found == teller.model
    teller.open()


def _tool(teller: Teller, act: Callable[[Path], Any], target: Path) -> Any:
    """A call that makes `target`, or leaves nothing there."""

    def attempt() -> Any:
        try:
            return act(target)
        except VecdbError:
            assert not target.exists(), f"{target} is there after an error"
            raise

    return teller._do(attempt)


def snapshots(teller: Teller, suffix: str) -> None:
    place = teller.place.parent
    LocalDisk().make_directory(place / "restored.tmp")  # what a killed restore left
    LocalDisk().make_directory(place / "restored.tmp" / "segments")
    assert teller._do(lambda: abandoned(teller.ordering, place / "restored.tmp"))  # type: ignore[arg-type]
    teller.injecting.at["snapshot:cut"] = lambda: _leave_behind(place)
    first, second, restored = place / f"first{suffix}", place / f"second{suffix}", place / "restored"
    _tool(teller, lambda path: teller.db.snapshot(path), first)
    expected = teller.model
    teller.upsert("docs", some(50, 2))
    _tool(teller, lambda path: teller.db.snapshot(path, base=first), second)
    teller._do(lambda: vecdb.verify_snapshot(second))
    _tool(teller, lambda path: vecdb.restore(first, path), restored)
    teller.injecting.clear()
    db = vecdb.open(restored)
    assert read_model(db) == expected
    db.close()


def _leave_behind(place: Path) -> None:
    """As an attempt does that is taken anew: a file of a segment that has been merged away meanwhile."""
    for segment in place.glob("*.tmp/segments/*"):
        (segment / "left.npy").touch()


def verifying(teller: Teller) -> None:
    teller._do(lambda: teller.db.verify(deep=True))
    teller.close()
    teller._do(lambda: vecdb.verify(teller.place, deep=True))
    teller.open()


def repairing(teller: Teller) -> None:
    """Whatever was lost, what is left can be opened."""
    new = teller.place.parent / "repaired"
    _tool(teller, lambda path: _repair(teller, path), new)
    teller.injecting.clear()
    db = vecdb.open(new)
    for name in db.list_collections():
        found = {record.id for record in db.get_collection(name).get()}
        assert found <= set(some(0, 22)), "a lost log brings older versions back, and nothing else"
    db.close()


def _repair(teller: Teller, new: Path) -> None:
    """What an attempt could not remove is never taken for rubbish: the user is asked to move it away, and does."""
    left = new.with_name("repaired.tmp")
    if left.exists():
        with pytest.raises(InvalidInput, match="left of a repair that did not end"):
            vecdb.repair(teller.place, new)
        shutil.rmtree(left)
    vecdb.repair(teller.place, new)


def hopeless(teller: Teller) -> None:
    """Half of the catalog is gone: it is told so, and nothing is left behind."""
    new = teller.place.parent / "repaired"

    def attempt() -> None:
        with pytest.raises(Corrupted, match="restore a snapshot"):
            vecdb.repair(teller.place, new)

    teller._do(attempt)
    teller.injecting.clear()
    assert sorted(path.name for path in teller.place.parent.iterdir()) == ["db"]


def generations(teller: Teller) -> None:
    home = teller.place.parent / "home"
    for number in range(3):
        teller.upsert("docs", some(60 + number, 1))
        teller._do(lambda: teller.db.snapshot_generation(home))
    LocalDisk().make_directory(home / "20200101T000000Z-1.tmp")  # what a killed snapshot left
    teller._do(lambda: vecdb.prune_snapshots(home, hourly=1, daily=0))
    kept = teller._do(lambda: vecdb.list_snapshots(home))
    teller.injecting.clear()
    assert len(kept) == 1
    db = vecdb.open(kept[0].path, mode="r")
    assert read_model(db) == teller.model
    db.close()


def archive(teller: Teller) -> None:
    """The log is kept outside; restoring from a snapshot and the archive reaches the last batch."""
    place = teller.place.parent
    teller.close()
    teller.wal_archive = str(place / "archive")
    teller.open()
    _tool(teller, lambda path: teller.db.snapshot(path), place / "first")
    teller.injecting.at["checkpoint:committed"] = lambda: _leave_copies(teller.place, place / "archive")
    teller.upsert("docs", some(50, 2))
    teller.steps()
    teller.create("third")
    teller.upsert("docs", some(52, 2))
    teller.steps()
    kept = [place / "archive", teller.place / "wal"]
    _tool(teller, lambda path: vecdb.restore(place / "first", path, wal_archive=kept), place / "restored")
    teller.injecting.clear()
    db = vecdb.open(place / "restored")
    assert read_model(db) == teller.model
    db.close()
    teller.close()
    teller.wal_archive = None
    teller.open()


def _leave_copies(place: Path, target: Path) -> None:
    """As a copy leaves that was cut short: it is made anew."""
    for file in (place / "wal").glob("*.wal"):
        (target / file.name).with_suffix(".tmp").touch()


def upgrade(teller: Teller) -> None:
    """A later release opens a database of this format."""
    older = teller.place.parent / "older"
    teller.close()
    shutil.copytree(teller.place, older)
    with pytest.MonkeyPatch.context() as patch:
        for module in (recover_module, schema):
            patch.setattr(module, "FORMAT_VERSION", 2)
        db = teller._do(lambda: open_on(teller.ordering, older, kernels=COMPILED))
        assert teller._do(lambda: db.stats()).format == 2
        teller.injecting.clear()
        assert read_model(db) == teller.model
        db.close()
    teller.open()


def refusal(teller: Teller) -> None:
    def attempt() -> None:
        with pytest.raises(Corrupted):
            open_on(teller.ordering, teller.place, kernels=COMPILED)

    teller._do(attempt)


STORIES = (
    Story("birth", birth, "empty"),
    Story("birth in what an earlier one left", birth, "unfinished"),
    Story("life", life),
    Story("life after a kill", life, "killed"),
    Story("indexes", indexes),
    Story("openings", openings),
    Story("purge", purge, "dropped"),
    Story("reading", reading),
    Story("snapshot in a directory", lambda teller: snapshots(teller, "")),
    Story("snapshot in a file", lambda teller: snapshots(teller, ".vecdb")),
    Story("generations of snapshots", generations),
    Story("archive of the log", archive),
    Story("upgrade", upgrade),
    Story("verify", verifying, "killed"),
    Story("repair", repairing, "damaged"),
    Story("repair of a cut catalog", hopeless, "cut"),
    Story("opening a cut catalog", refusal, "cut"),
)


def tell(story: Story, place: Path, models: dict[str, Model], *faults: Fault) -> tuple[InjectingDisk, list[VecdbError]]:
    """Runs one story in a directory of its own, with these faults. Returns the disk and the errors that a user met."""
    home = place / "run"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    shutil.copytree(place / "templates" / story.template, home / "db")
    injecting = InjectingDisk(LocalDisk(), *faults)
    before = registry.DEFAULT_SEAMS
    teller = Teller.closed(injecting, home / "db", kernels=COMPILED)  # type: ignore[arg-type]
    teller.injecting, teller.told, teller.recording = injecting, [], False
    teller.models, teller.seed = [models[story.template]], 77
    ordering = teller.ordering
    registry.DEFAULT_SEAMS = replace(before, disk=ordering)
    try:
        _live(teller, story)
    finally:
        registry.DEFAULT_SEAMS = before
        for engine in list(registry._open.values()):
            abandon(vecdb.Database(engine))
    assert not ordering.violations, ordering.violations
    return injecting, teller.told


def _live(teller: Teller, story: Story) -> None:
    if story.run in (repairing, hopeless, refusal):
        story.run(teller)
        return
    teller.open()
    story.run(teller)
    teller.close()
    teller.injecting.clear()
    db = open_on(LocalDisk(), teller.place, kernels=COMPILED)
    assert read_model(db) == teller.model
    check_reads(db, teller.model)
    db.close()
