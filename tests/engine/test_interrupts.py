"""Goal: Ctrl-C on the way to a new log file leaves a log that later writes and the next open go on with.

Method: the signal comes just after each change of a file's name in the log's directory.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.files.disk import Disk


class AfterChange(PassingDisk):
    """Calls `then` after every rename and removal of a log file."""

    def __init__(self, inner: Disk, then: Callable[[], None]) -> None:
        super().__init__(inner)
        self.then = then

    def rename(self, source: Path, target: Path) -> None:
        self.inner.rename(source, target)
        if target.suffix == ".wal":
            self.then()

    def remove(self, path: Path) -> None:
        self.inner.remove(path)
        if path.suffix == ".wal":
            self.then()


def test_an_interrupted_checkpoint_leaves_a_log_that_goes_on(tmp_path, monkeypatch):
    armed, hits = [], []

    def then() -> None:
        if armed:
            hits.append(armed.pop())
            signal.raise_signal(signal.SIGINT)

    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=AfterChange(usual.disk, then)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        written = storm(tmp_path / "db", armed)
    finally:
        signal.signal(signal.SIGINT, before)
    assert hits == list(range(6))
    with vecdb.open(tmp_path / "db") as db:
        assert sorted(db.get_collection("docs").get(limit=1000).ids) == sorted(written)


def storm(path: Path, armed: list[int]) -> list[str]:
    """Writes, and optimizes with one interruption each; returns the ids that were acknowledged."""
    written: list[str] = []
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=4)
        for step in range(6):
            keys = [f"{step}-{i}" for i in range(5)]
            docs.upsert(keys, np.ones((5, 4), np.float32))
            written += keys
            armed.append(step)
            with pytest.raises(KeyboardInterrupt):
                db.optimize()
            armed.clear()
            docs.upsert([f"{step}-after"], np.ones((1, 4), np.float32))
            written.append(f"{step}-after")
    return written
