"""A database in manual steps, with a hook at every named point of the protocols."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb.engine import maintain, registry
from vecdb.files.disk import Disk

DIM = 8


class Hooked:
    """A Disk that runs a callback, once, when a point is reached; everything else goes to the disk it wraps."""

    def __init__(self, inner: Disk) -> None:
        self.inner, self.hooks = inner, dict[str, Callable[[], Any]]()
        self.reached: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def reach(self, point: str, lsn: int = 0) -> None:
        self.inner.reach(point, lsn)
        self.reached.append(point)
        hook = self.hooks.pop(point, None)
        if hook is not None:
            hook()


class Stepped:
    """A collection "docs" of 8 dimensions whose maintenance happens when `step` is called."""

    def __init__(self, path: Path, disk: Hooked) -> None:
        self.path, self.disk = path, disk
        self.db = vecdb.open(path, maintenance="manual")
        self.docs = self.db.get_or_create_collection("docs", dim=DIM)

    @property
    def engine(self) -> Any:
        return self.db._engine

    def step(self) -> str | None:
        """One maintenance step, as if the database had been idle for long."""
        return maintain.run_step(self.engine, force=True)

    def write(self, first: int, last: int, version: int = 0) -> None:
        ids = list(range(first, last))
        self.docs.upsert(ids, vectors_of(ids, version), [{"id": i, "version": version} for i in ids])

    def sealed_rows(self) -> int:
        return sum(segment.rows for segment in self.docs.stats().segments)

    def check(self, expected: dict[int, int]) -> None:
        """The collection holds exactly these ids with these versions, by every way of reading."""
        check(self.docs, expected)

    def check_copy(self, expected: dict[int, int], target: Path) -> None:
        """So does a copy of the files as they are now, opened as after a crash."""
        shutil.copytree(self.path, target)
        with vecdb.open(target, maintenance="manual") as db:
            check(db.get_collection("docs"), expected)


def vectors_of(ids: list[int], version: int) -> np.ndarray:
    made = [np.random.default_rng([i, version]).standard_normal(DIM) for i in ids]
    return np.array(made, np.float32).reshape(len(ids), DIM)


def check(docs: vecdb.Collection, expected: dict[int, int]) -> None:
    assert docs.count() == len(expected)
    records = {r.id: r for r in docs.get(include=("payloads", "vectors"))}
    assert set(records) == set(expected)
    assert {i: r.payload["version"] for i, r in records.items()} == expected
    for i, record in records.items():
        np.testing.assert_array_equal(record.vector, vectors_of([i], expected[i])[0])
    assert [r.id for r in docs.get(sorted(expected))] == sorted(expected)
    for version in set(expected.values()):
        assert docs.count({"version": version}) == sum(v == version for v in expected.values())
    hits = docs.search(np.ones(DIM), k=len(expected) + 5, exact=True)
    assert sorted(hits.ids.tolist()) == sorted(expected)
    assert [p["id"] for p in hits.payloads] == hits.ids.tolist()


@contextmanager
def stepped(path: Path) -> Iterator[Stepped]:
    """A stepped database on the disk that the suite uses."""
    usual = registry.DEFAULT_SEAMS
    disk = Hooked(usual.disk)
    registry.DEFAULT_SEAMS = type(usual)(disk, usual.clock, usual.random)
    try:
        made = Stepped(path, disk)
        yield made
        made.db.close()
    finally:
        registry.DEFAULT_SEAMS = usual
