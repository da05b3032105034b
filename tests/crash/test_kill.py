"""Goal: a writer killed with SIGKILL, at any moment, has lost nothing that it acknowledged, and left no half batch.

Method: a process writes batches made from a seed, one after the other, and tells each acknowledged one. It is killed at
random moments, and kills itself at named points of the protocols, while two processes read. After every kill the
database is opened and compared with the batches, byte for byte and by every way of reading; then the next process
recovers it and goes on. VECDB_KILLS=200 is the full size.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vecdb
from tests.crash.forking import Child, Forker
from tests.crash.ledger import DIM, State, after, check_prefix, make_batch

pytestmark = pytest.mark.crash
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("VECDB_KILLS", "14"))
POINTS = [
    "log:appended",
    "checkpoint:frozen",
    "checkpoint:written",
    "merge:written",
    "catalog:copied",
    "checkpoint:committed",
    "index:written",
    "merge:committed",
    "log:retire",
    "catalog:renamed",
    "log:synced",
    "index:committed",
    "log:rewritten",
    "merge:removed",
    "checkpoint:retired",
    "log:acknowledged",
]
DEADLINE = 20.0  # seconds for one process to reach what it shall


def start_reader(path: Path) -> subprocess.Popen[bytes]:
    """It has the database open when this returns."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.crash.reader", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reader = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"open\n"
    return reader


def end_reader(reader: subprocess.Popen[bytes], written: int) -> None:
    """It saw some of the batches, and never anything but a state after some number of them."""
    out, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors.decode()
    seen, looks = map(int, out.split())
    assert 0 < seen <= written
    assert looks > 1


class Story:
    """The batches so far: `number` are there for sure, and `state` is what they make."""

    def __init__(self, path: Path, seed: int, forker: Forker) -> None:
        self.path, self.random, self.forker = path, random.Random(seed), forker
        self.number, self.state = 0, State()
        with vecdb.open(path) as db:
            db.create_collection("docs", dim=DIM)

    def kill_once(self, point: str | None) -> None:
        count = 1 if point == "log:rewritten" else self.random.randint(1, 3)  # that one happens once a process
        kill = f"{point} {count}" if point else ""
        writer = self.forker.start("writer", str(self.path), str(self.number), kill=kill)
        acknowledged = self._run(writer, point)
        self.compare(acknowledged)

    def _run(self, writer: Child, point: str | None) -> int:
        timer_end = time.monotonic() + DEADLINE
        limit = self.random.randint(1, 30)  # batches after which a random kill comes
        acknowledged = self.number
        for line in writer.stdout:
            if line.startswith(b"ack"):
                acknowledged = int(line.split()[1]) + 1
            if time.monotonic() > timer_end:
                writer.kill()
                raise AssertionError(f"the point {point!r} was not reached in {DEADLINE} s")
            if point is None and acknowledged - self.number >= limit:
                time.sleep(self.random.random() * 0.01)
                writer.send_signal(signal.SIGKILL)
                break
        for line in writer.stdout:  # what it told before it died
            if line.startswith(b"ack"):
                acknowledged = int(line.split()[1]) + 1
        assert writer.wait() == -signal.SIGKILL, writer.errors()
        writer.close()
        return acknowledged

    def compare(self, acknowledged: int) -> None:
        """The directory as the kill left it, through a reader; now and then a copy of it through a writer."""
        states = [self.state]
        for number in range(self.number, acknowledged + 1):
            states.append(after(states[-1], make_batch(number)))
        with vecdb.open(self.path, mode="r") as db:
            there = check_prefix(db.get_collection("docs"), states, acknowledged - self.number)
        if self.random.random() < 0.3:
            copy = self.path.with_name("copy")
            shutil.copytree(self.path, copy)
            with vecdb.open(copy, maintenance="manual") as db:
                assert check_prefix(db.get_collection("docs"), states, acknowledged - self.number) == there
            shutil.rmtree(copy)
        self.number, self.state = self.number + there, states[there]


@pytest.fixture
def story(place: Path, forker: Forker) -> Story:
    return Story(place / "db", 20_240, forker)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_killed_writers_lose_nothing(story: Story) -> None:
    readers = [start_reader(story.path) for _ in range(2)]
    try:
        for number in range(KILLS):
            point = POINTS[(number // 2) % len(POINTS)] if number % 2 else None
            story.kill_once(point)
        for reader in readers:
            end_reader(reader, story.number)
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    with vecdb.open(story.path) as db:
        check_prefix(db.get_collection("docs"), [story.state], 0)
        db.optimize()
        check_prefix(db.get_collection("docs"), [story.state], 0)


@pytest.mark.parametrize("point", POINTS if KILLS >= 50 else POINTS[1:13:3])
def test_kill_at_a_named_point_of_a_young_database(story: Story, point: str) -> None:
    if point == "log:rewritten":
        story.kill_once(None)
    story.kill_once(point)
    story.kill_once(None)
