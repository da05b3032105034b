"""Goal: with sync="interval" a write is on disk within the interval, whatever maintenance does meanwhile.

Method: the points that the protocols reach are watched, with maintenance by hand and inside a step that takes long.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.engine.stepping import DIM, Hooked
from vecdb.engine import maintain, registry


def synced_after(disk: Hooked, docs: vecdb.Collection, ids: list[int]) -> bool:
    """Whether the log is synced soon after a write, without anybody asking for it."""
    docs.upsert(ids, np.ones((len(ids), DIM)))
    synced = threading.Event()
    disk.hooks["log:synced"] = synced.set
    return synced.wait(20)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Hooked:
    usual = registry.DEFAULT_SEAMS
    hooked = Hooked(usual.disk)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", type(usual)(hooked, usual.clock, usual.random))
    return hooked


def test_with_maintenance_by_hand(tmp_path: Path, disk: Hooked) -> None:
    with vecdb.open(tmp_path / "db", sync="interval", interval_ms=20, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=DIM)
        assert synced_after(disk, docs, [1, 2])
        assert docs.count() == 2


def test_while_a_step_takes_long(tmp_path: Path, disk: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def run() -> None:
        entered.set()
        assert go_on.wait(60)

    steps = iter([maintain.Step("long", run)])
    monkeypatch.setattr(maintain, "next_step", lambda engine, force=False: next(steps, None))
    with vecdb.open(tmp_path / "db", sync="interval", interval_ms=20) as db:
        docs = db.create_collection("docs", dim=DIM)
        assert entered.wait(20)
        assert synced_after(disk, docs, [1, 2])
        go_on.set()
