"""Commits of the real catalog, cut short: what LMDB's own writes may leave when the power goes in the middle of one.

A workload runs on real files. After every commit the directory is kept, and the file of the catalog is compared with
the one before, page by page. LMDB writes the data pages of a commit, syncs, and then writes one meta page. So a loss of
power leaves

    the old meta page with any part of the new data pages, each torn at a sector, the file grown or not
    all data pages, and of the new meta page the first bytes: none, some or all

Every such state is put in the place of the catalog and opened. It must be the database before the commit or after it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.simdisk.session import COMPILED, NUMPY, Model, Session, check_reads, open_on, read_model, scene
from tests.simdisk.workloads import WORKLOADS, Workload
from vecdb.files.disk import LocalDisk
from vecdb.storage.catalog import DATA, LmdbCatalog

PAGE = 4096
SECTOR = 512
META_PAGES = 2
META_START, META_SIZE = 16, 136  # bytes of a meta page that LMDB writes
EXHAUSTIVE = 5  # data pages whose subsets are all tried
PAGED = ("batches", "checkpoint", "merge", "schema", "several collections", "indexes")


@dataclass
class PageTally:
    commits: int = 0
    states: int = 0
    distinct: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Commit:
    """`root` as it was after the commit, and the bytes of its catalog before and after. Two models are allowed."""

    root: Path
    file: Path
    before: bytes
    after: bytes
    allowed: tuple[Model, ...]


@dataclass
class Recorder(Session):
    """Keeps the directory before and after each commit."""

    commits: list[Commit] = field(default_factory=list)
    keep: Path = Path()

    def record(self, catalog: LmdbCatalog, before: bytes) -> None:
        file = catalog.current.path / DATA
        after = file.read_bytes()
        root = self.keep / str(len(self.commits))
        shutil.copytree(self.place, root)
        models = self.models[self.acknowledged : self.high + 1]
        self.commits.append(Commit(root, file.relative_to(self.place), before, after, tuple(models)))


def commits_of(workload: Workload, place: Path) -> list[Commit]:
    """Runs the workload on real files and keeps every commit."""
    (place / "live").mkdir()
    kernels = COMPILED if workload.compiled else NUMPY
    disk: Any = LocalDisk()
    session = Recorder.closed(disk, place / "live", kernels=kernels)
    session.commits, session.keep, session.recording = [], place / "kept", False
    with pytest.MonkeyPatch.context() as patch:
        _watch(patch, session)
        session.open()
        workload.run(session)
        session.close()
    return session.commits


def _watch(patch: pytest.MonkeyPatch, session: Recorder) -> None:
    original = LmdbCatalog.write

    @contextlib.contextmanager
    def watched(self: LmdbCatalog) -> Iterator[Any]:
        before = (self.current.path / DATA).read_bytes()
        with original(self) as writer:
            yield writer
        session.record(self, before)

    patch.setattr(LmdbCatalog, "write", watched)


# ---- states ---------------------------------------------------------------------------------------------------------
def states_of(commit: Commit, random: Random, count: int) -> Iterator[bytes]:
    """What may be in the file of the catalog if the power goes during the commit."""
    before, after = commit.before, commit.after
    old_meta = before[: META_PAGES * PAGE]
    pages = [
        start
        for start in range(META_PAGES * PAGE, len(after), PAGE)
        if before[start : start + PAGE] != after[start : start + PAGE]
    ]
    yield from _metas(before, after)
    choices: Iterator[tuple[bool, ...]]
    choices = product((False, True), repeat=len(pages)) if len(pages) <= EXHAUSTIVE else iter(())
    for number in range(count):
        chosen = next(choices, None) or tuple(random.random() < 0.5 for _ in pages)
        data = bytearray(before)
        data[: META_PAGES * PAGE] = old_meta
        for start in [start for start, there in zip(pages, chosen, strict=True) if there]:
            if start + PAGE > len(data):
                data.extend(bytes(start + PAGE - len(data)))
            _put(data, after, start, random, whole=number % 2 == 0)
        if random.random() < 0.3:
            data.extend(bytes(max(0, len(after) - len(data))))  # the size got there, the bytes did not
        yield bytes(data)


def _put(data: bytearray, after: bytes, start: int, random: Random, *, whole: bool) -> None:
    for sector in range(start, start + PAGE, SECTOR):
        if whole or random.random() < 0.6:
            data[sector : sector + SECTOR] = after[sector : sector + SECTOR]


def _metas(before: bytes, after: bytes) -> Iterator[bytes]:
    """All data is there; the meta page got its first bytes."""
    for page in range(META_PAGES):
        start = page * PAGE
        if before[start : start + PAGE] == after[start : start + PAGE]:
            continue
        for written in range(0, META_SIZE + 1, 4):
            end = start + META_START + written
            yield before[:start] + after[start:end] + before[end : start + PAGE] + _rest(before, after, start)


def _rest(before: bytes, after: bytes, start: int) -> bytes:
    """What follows the meta page at `start`: the other meta page is old, all data new."""
    other = before[start + PAGE : META_PAGES * PAGE]
    return other + after[META_PAGES * PAGE :]


def check(commit: Commit, data: bytes, place: Path, kernels: Any) -> None:
    """Opens the state as a writer would; what is there is the state before the commit or after it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(commit.root, place)
    (place / commit.file).write_bytes(data)
    db = open_on(LocalDisk(), place, seed=5_000, kernels=kernels)
    try:
        found = read_model(db)
        assert found in commit.allowed, f"{found} is none of {len(commit.allowed)} allowed states"
        check_reads(db, found)
        if not found:
            db.create_collection("new", dim=2)
        else:
            db.get_collection(next(iter(found))).delete(["no such id"])
    finally:
        db.close()


def sweep_pages(workload: Workload, seed: int, count: int) -> PageTally:
    """Every commit of one workload, `count` states of its data pages and all of its meta page."""
    start, tally = time.perf_counter(), PageTally()
    random = Random(f"{seed}/{workload.name}")
    with scene() as place, workload.limits():
        kernels = COMPILED if workload.compiled else NUMPY
        for number, commit in enumerate(commits_of(workload, place)):
            if not (commit.root / "VECDB").exists():
                continue  # a database that is being made
            tally.commits += 1
            seen: set[bytes] = set()
            for data in states_of(commit, random, count):
                tally.states += 1
                if data in seen:
                    continue
                seen.add(data)
                tally.distinct += 1
                try:
                    check(commit, data, place / "state", kernels)
                except Exception as error:
                    raise AssertionError(f"{workload.name}, commit {number}, seed {seed}: {error!r}") from error
    tally.seconds = time.perf_counter() - start
    return tally


def paged_workloads() -> list[Workload]:
    return [workload for workload in WORKLOADS if workload.name in PAGED]
