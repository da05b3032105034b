"""Goal: a process that is killed while it takes or restores a snapshot leaves a sound database, and no half snapshot.

Method: a process writes while one of its threads takes snapshots and restores them. It is killed at random and at
named points. Then the database has every acknowledged batch; every snapshot and every restored database that has its
name is whole and holds a prefix with all that was acknowledged before the call; and the next attempt is not hindered.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

import vecdb
from tests.crash.forking import Forker
from tests.crash.ledger import DIM, check_consistent, check_prefix, found_state, make_batch, states_of
from tests.faults import FaultyDisk, bad_sync, no_space
from vecdb.engine import registry

pytestmark = pytest.mark.crash
KILLS = int(os.environ.get("VECDB_KILLS", "14"))
POINTS = [
    "snapshot:begun",
    "snapshot:cut",
    "snapshot:written",
    "snapshot:placed",
    "restore:written",
    "restore:checked",
    "restore:placed",
]
DEADLINE = 30.0


class Trial:
    def __init__(self, root: Path, seed: int, forker: Forker) -> None:
        self.root, self.random, self.number, self.forker = root, random.Random(seed), 0, forker
        self.path = root / "db"
        with vecdb.open(self.path) as db:
            db.create_collection("docs", dim=DIM)

    def run(self, point: str | None) -> list[bytes]:
        """Lines of a process that killed itself at the point, or was killed after some lines."""
        kill = f"{point} {self.random.randint(1, 3)}" if point else ""
        process = self.forker.start("snapshotter", str(self.path), str(self.number), kill=kill)
        limit, deadline, lines = self.random.randint(5, 60), time.monotonic() + DEADLINE, []
        for line in process.stdout:
            lines.append(line)
            if point is None and len(lines) >= limit:
                time.sleep(self.random.random() * 0.02)
                process.send_signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"the point {point!r} was not reached in {DEADLINE} s")
        assert process.wait() == -signal.SIGKILL, process.errors()
        process.close()
        return lines

    def check(self, lines: list[bytes]) -> None:
        words = [line.split() for line in lines]
        acknowledged = max([self.number, *(int(w[1]) + 1 for w in words if w[0] == b"ack")])
        states = states_of([make_batch(number) for number in range(acknowledged + 1)])
        with vecdb.open(self.path, mode="r") as db:
            self.number = check_prefix(db.get_collection("docs"), states, acknowledged)
        known = {w[1].decode(): int(w[2]) for w in words if w[0] in (b"snap", b"back")}
        for place in sorted(self.root.iterdir()):
            if place.suffix == ".tmp" or not place.name.startswith(("snap", "back")):
                continue
            self.check_place(place, known.get(place.name, 0), states)
        for name in known:
            assert (self.root / name).exists() or name.endswith(tuple(f"-{n}" for n in range(0, 400, 2)))
        for place in self.root.glob("*.tmp"):
            self.try_again(place)
        for place in [*self.root.glob("snap-*"), *self.root.glob("back-*")]:
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    def check_place(self, place: Path, least: int, states: list[dict[int | str, int]]) -> None:
        """A snapshot, or a restored database, that has its name."""
        target = place
        if place.name.startswith("snap"):
            if place.is_dir() and not (place / "SNAPSHOT").exists():
                return  # the process was removing it, with no care
            vecdb.verify_snapshot(place)
            target = self.root / "checked"
            vecdb.restore(place, target)
        elif not (place / "VECDB").exists():
            return
        with vecdb.open(target, maintenance="manual") as db:
            docs = db.get_collection("docs")
            state = found_state(docs)
            assert state in states[least:], f"{place.name} holds no prefix of at least {least} batches"
            check_consistent(docs, state)
        if target != place:
            shutil.rmtree(target)

    def try_again(self, left: Path) -> None:
        """A workplace that the dead process left does not hinder the next attempt of the same name."""
        target = left.with_suffix("")
        if target.exists():
            return  # a snapshot in one file has its name before its workplace goes
        with vecdb.open(self.path, mode="r") as db:
            info = db.snapshot(target)
        assert vecdb.verify_snapshot(target) == info
        assert not left.exists()


@pytest.fixture
def trial(place: Path, forker: Forker) -> Trial:
    return Trial(place, 7, forker)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_killed_at_any_moment(trial: Trial) -> None:
    for _ in range(max(2, KILLS // 3) if KILLS >= 50 else 2):
        trial.check(trial.run(None))


@pytest.mark.parametrize("point", POINTS if KILLS >= 50 else POINTS[1::2])
def test_killed_at_a_named_point(trial: Trial, point: str) -> None:
    trial.check(trial.run(point))


# ---- every call of the disk fails once ------------------------------------------------------------------------------
class Once:
    """Fails the n-th call that changes something outside of the database."""

    def __init__(self, root: Path, n: int) -> None:
        self.root, self.left, self.failed = root, n, ""

    def __call__(self, call: object) -> None:
        path, name = Path(call.path), str(call.name)  # type: ignore[attr-defined]
        if path.is_relative_to(self.root / "db"):
            return
        self.left -= 1
        if self.left == 0:
            self.failed = f"{name} {path.name}"
            raise bad_sync(path) if "sync" in name else no_space(path)


@pytest.mark.parametrize("form", ["snap", "snap.vecdb"])
def test_every_failing_call_is_told_and_leaves_nothing(place: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a snapshot and of a restore: StorageFailed, nothing half made, and the same call succeeds afterwards."""
    with vecdb.open(place / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=8)
        docs.upsert(list(range(30)), [[float(n % 7), 1, 2, 3, 4, 5, 6, 7] for n in range(30)])
        db.optimize()
        docs.upsert([99], [[1] * 8])
        engine, usual = db._engine, registry.DEFAULT_SEAMS
        assert engine is not None
        seen: list[str] = []
        for target, call in (
            (place / form, lambda: db.snapshot(place / form)),
            (place / "back", lambda: vecdb.restore(place / form, place / "back")),
        ):
            for n in range(1, 1000):
                fault = Once(place, n)
                failing = type(usual)(FaultyDisk(usual.disk, fault), usual.clock, usual.random)
                monkeypatch.setattr(registry, "DEFAULT_SEAMS", failing)
                monkeypatch.setattr(engine, "seams", failing)
                try:
                    call()
                    done = True
                except vecdb.StorageFailed:
                    done = False
                monkeypatch.setattr(registry, "DEFAULT_SEAMS", usual)
                monkeypatch.setattr(engine, "seams", usual)
                if done and not fault.failed:
                    break
                seen.append(fault.failed)
                left = {path.name for path in place.iterdir()} - {"db", form}
                whole = fault.failed.startswith("sync_directory") and target.exists()
                assert whole or left <= {target.name + ".tmp"}, f"{fault.failed}: {left}"
                if target.exists():
                    shutil.rmtree(target) if target.is_dir() else target.unlink()
            else:
                raise AssertionError("it never came to an end")
        assert {"write", "sync", "create", "rename", "sync_directory"} <= {one.split()[0] for one in seen}
        assert vecdb.restore(place / form, place / "again").records == 31
        assert docs.count() == 31
