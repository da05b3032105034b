"""What runs on the simulated disk. Each workload is short: every one of its calls is a place to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import vecdb
from tests.simdisk.session import Ids, Session, Sync
from vecdb.engine import maintain, policy, rewrite, wanted
from vecdb.files import record
from vecdb.storage import wal


def some(first: int, count: int) -> Ids:
    """Ids of both kinds."""
    return [number if number % 3 else f"text-{number}" for number in range(first, first + count)]


def batches(session: Session) -> None:
    session.create("docs")
    session.upsert("docs", some(0, 6))
    session.upsert("docs", some(4, 5))
    session.patch("docs", some(2, 4))
    session.delete("docs", some(5, 2))
    session.move("docs", some(0, 3))
    session.delete_where("docs", "t1")
    session.upsert("docs", some(0, 1))


def checkpoint(session: Session) -> None:
    session.create("docs")
    session.upsert("docs", some(0, 6))
    session.delete("docs", some(0, 2))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("docs", some(4, 4))
    session.patch("docs", some(3, 2))
    session.delete("docs", some(2, 1))


def merge(session: Session) -> None:
    session.create("docs")
    session.upsert("docs", some(0, 5))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("docs", some(3, 5))
    session.delete("docs", some(1, 1))
    assert session.steps(2) == ["checkpoint", "merge"]
    session.delete("docs", some(0, 8))
    assert session.steps()[-1] == "merge"  # into nothing
    session.upsert("docs", some(2, 2))


def indexes(session: Session) -> None:
    session.create("docs")
    session.set_index("docs", vecdb.Flat(bits=8))
    session.upsert("docs", some(0, 20))
    assert session.steps() == ["checkpoint"]
    session.set_index("docs", vecdb.HNSW(m=4, ef_construction=8))
    assert "index" in session.steps()
    session.upsert("docs", some(15, 10))
    assert session.steps()[-1] == "merge"
    session.delete("docs", some(3, 2))
    session.set_index("docs", "flat")
    session.steps()


def compaction(session: Session) -> None:
    session.create("docs")
    session.upsert("docs", some(0, 4))
    session.steps()
    session.upsert("docs", some(2, 4))
    session.compact()
    session.delete("docs", some(0, 2))
    session.steps(1)
    session.compact()
    session.upsert("docs", some(9, 2))
    session.reopen()
    session.upsert("docs", some(1, 2))


def schema(session: Session) -> None:
    session.create("docs")
    session.create("more")
    session.upsert("docs", some(0, 4))
    session.upsert("more", some(2, 4))
    session.rename("docs", "papers")
    session.upsert("papers", some(3, 2))
    session.steps(1)
    session.upsert("more", some(0, 1))
    session.drop("papers")
    session.create("docs")
    session.upsert("docs", some(7, 2))
    assert "purge" in session.steps()
    session.drop("more")
    session.reopen()
    session.steps()


def collections(session: Session) -> None:
    for name in ("a", "b", "c"):
        session.create(name)
        session.upsert(name, some(0, 3))
    session.delete("b", some(0, 3))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("a", some(1, 2))
    session.upsert("c", some(1, 2))
    session.delete("a", some(0, 1))
    assert session.steps(2) == ["checkpoint", "merge"]
    session.upsert("b", some(1, 2))


def openings(session: Session) -> None:
    """Every opening that writes starts a file of the log; beyond three of them they are written as one."""
    session.create("docs")
    for number in range(4):
        session.upsert("docs", some(number, 2))
        session.reopen()
    session.upsert("docs", some(1, 2))
    session.reopen()
    session.flush()
    session.reopen()
    session.upsert("docs", some(0, 1))
    session.close()
    session.open()
    session.delete("docs", some(0, 2))


def retirement(session: Session) -> None:
    """One checkpoint covers the files of the log of several openings, too few to be written as one."""
    session.create("docs")
    for number in range(2):
        session.upsert("docs", some(number, 2))
        session.reopen()
    session.upsert("docs", some(2, 2))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("docs", some(1, 1))


def group_commit(session: Session) -> None:
    """Two threads append while a third syncs: the second sync covers both, and one of them acknowledges for both."""
    session.create("docs")
    session.upsert("docs", some(0, 3))
    for first in (2, 4, 6):
        _write_together(session, "docs", first)


def _write_together(session: Session, name: str, first: int) -> None:
    calls: list[Callable[[], object]] = []
    for number in range(3):
        held, act = session.prepare_upsert(name, some(first + number, 2))
        session.models.append({**session.model, name: held})
        calls.append(act)
    base, appended = session.high, threading.Semaphore(0)
    session.high += 1
    followers = [threading.Thread(target=call) for call in calls[1:]]
    before = session.disk.on_call
    waiting = True

    def hold(call: str, path: Any) -> None:
        nonlocal waiting
        if call == "sync" and waiting:
            waiting = False
            for follower in followers:
                session.high += 1
                follower.start()
                appended.acquire()

    session.disk.on_call, session.disk.on_point = hold, lambda point, _: _released(point, waiting, appended)
    try:
        calls[0]()
        session._acknowledge(max(session.acknowledged, base + 1), durable=True)
        for follower in followers:
            follower.join()
    finally:
        session.disk.on_call, session.disk.on_point = before, None
    session._acknowledge(session.high, durable=True)


def _released(point: str, waiting: bool, appended: threading.Semaphore) -> None:
    if point == "log:appended" and not waiting:
        appended.release()


def weak(session: Session) -> None:
    session.create("docs")
    for number in range(4):
        session.upsert("docs", some(2 * number, 3))
    session.flush()
    session.upsert("docs", some(1, 2))
    session.delete("docs", some(4, 2))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("docs", some(0, 3))
    session.patch("docs", some(0, 2))
    session.reopen()
    session.upsert("docs", some(3, 3))
    session.delete("docs", some(1, 1))


def snapshots(session: Session) -> None:
    """In directories beside the database: files of segments get a second name there."""
    session.create("docs")
    session.upsert("docs", some(0, 4))
    assert session.steps(1) == ["checkpoint"]
    session.upsert("docs", some(2, 3))
    session.snapshot("one")
    session.delete("docs", some(0, 2))
    assert session.steps()[-1] == "merge"  # the database lets go of files that the snapshot has
    session.upsert("docs", some(5, 2))
    session.snapshot("two", base="one")
    session.upsert("docs", some(1, 1))


@contextlib.contextmanager
def small_limits() -> Iterator[None]:
    """Limits so small that few records reach them: codes and graphs, batches of many frames, a rewritten log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "FILES_MAX", 3)
        patch.setattr(policy, "CLOSE_CHANGES", 40)
        yield


@contextlib.contextmanager
def small_frames() -> Iterator[None]:
    with small_limits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(wal, "FRAME_MAX", 300)
        patch.setattr(record, "FRAME_MAX", 300)
        yield


@contextlib.contextmanager
def small_codes() -> Iterator[None]:
    with small_limits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(wanted, "CODED_ROWS_MIN", 8)
        patch.setattr(maintain, "KERNEL_ROWS", 8)
        yield


@dataclass(frozen=True)
class Workload:
    name: str
    run: Callable[[Session], None]
    sync: Sync = "full"
    limits: Callable[[], contextlib.AbstractContextManager[None]] = small_limits
    compiled: bool = False  # needs the kernels
    beside: bool = False  # something lies beside the directory of the database


WORKLOADS = (
    Workload("batches", batches),
    Workload("batches of many frames", batches, limits=small_frames),
    Workload("checkpoint", checkpoint),
    Workload("merge", merge),
    Workload("indexes", indexes, limits=small_codes, compiled=True),
    Workload("compaction of the catalog", compaction),
    Workload("schema", schema),
    Workload("several collections", collections),
    Workload("openings", openings),
    Workload("retirement", retirement),
    Workload("group commit", group_commit),
    Workload("sync=interval", weak, sync="interval"),
    Workload("sync=none", weak, sync="none"),
    Workload("snapshots", snapshots, beside=True),
)
