"""Goal: any number of threads write and search one collection; none sees half a batch, none loses a write.

Method: writers and readers run freely on two processors while maintenance seals and merges; every picture that a reader
gets is checked against what the writers promise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.faults import PointDisk
from vecdb.engine import maintain, policy, registry, wanted

ROWS, BATCH, DIM = 20_000, 250, 16


class Crew:
    """Threads whose first error ends the test."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def run(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  told to the test
                self.errors.append(error)

        thread = threading.Thread(target=guarded)
        self.threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


@pytest.fixture
def busy_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LOG_TRIGGER", 200_000)
    monkeypatch.setattr(policy, "SMALL_ROWS", 8000)


def vectors_of(first: int, count: int) -> np.ndarray:
    return np.random.default_rng(first).standard_normal((count, DIM)).astype(np.float32)


def test_searches_beside_a_writer(tmp_path: Path, busy_maintenance: None) -> None:
    """Each batch of 250 has its number as payload: a picture holds all of it or nothing."""
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", dim=DIM, index="flat")
        done = threading.Event()
        acknowledged = [0]
        crew = Crew()

        def write() -> None:
            try:
                for first in range(0, ROWS, BATCH):
                    vectors = vectors_of(first, BATCH)
                    payloads = [{"batch": first, "row": i} for i in range(BATCH)]
                    docs.upsert(list(range(first, first + BATCH)), vectors, payloads)
                    acknowledged[0] = first + BATCH
                    hits = docs.search(vectors[7], k=1, include=())
                    assert hits.ids[0] == first + 7  # found as soon as the write has returned
            finally:
                done.set()

        def read(seed: int) -> None:
            random = np.random.default_rng(seed)
            looks = 0
            while not done.is_set() or looks < 5:
                before = acknowledged[0]
                counts = docs.distinct("batch")
                assert all(number == BATCH for _, number in counts)
                assert len(counts) * BATCH >= before
                asked = int(random.integers(0, ROWS))
                found = docs.get([asked])
                assert len(found) == 1 or asked >= before
                assert all(r.id == asked and r.payload["row"] == asked % BATCH for r in found)
                hits = docs.search(
                    random.standard_normal(DIM), k=10, where={"batch": {"$lt": before}} if before else None
                )
                assert len(hits) >= min(10, before)
                assert all(hit.payload["batch"] + hit.payload["row"] == hit.id for hit in hits)
                looks += 1

        crew.run(write)
        for seed in range(4):
            crew.run(lambda seed=seed: read(seed))  # type: ignore[misc]
        crew.join()
        assert docs.count() == ROWS
    with vecdb.open(tmp_path / "db", mode="r") as db:
        assert db.get_collection("docs").count() == ROWS


def test_many_writers_in_one_group_lose_no_update(tmp_path: Path, busy_maintenance: None) -> None:
    """Eight threads write ids of their own and shared ones. What a thread wrote last to its own ids is there; a shared
    id has, whole, the last version of some thread, and both halves of a batch come from the same one."""
    rounds, threads, own = 40, 8, 20
    shared = [f"shared-{i}" for i in range(6)]
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs")  # the first writes race for the dimension
        crew = Crew()

        def work(thread: int) -> None:
            for number in range(rounds):
                mine = [f"{thread}-{i}" for i in range(own)]
                ids = mine + shared
                value = np.full((len(ids), DIM), thread * 1000 + number + 1, np.float32)
                docs.upsert(ids, value, [{"thread": thread, "round": number} for _ in ids])
                assert docs.get([mine[0]])[0].payload["round"] == number
                if number % 10 == 5:
                    assert docs.delete(mine[:5]) == 5
                    assert docs.count({"thread": thread, "round": number}) >= own - 5

        for thread in range(threads):
            crew.run(lambda thread=thread: work(thread))  # type: ignore[misc]
        crew.join()
        check_final(docs, threads, rounds, own, shared)
        db.optimize()
        check_final(docs, threads, rounds, own, shared)
    with vecdb.open(tmp_path / "db") as db:
        check_final(db.get_collection("docs"), threads, rounds, own, shared)


def check_final(docs: vecdb.Collection, threads: int, rounds: int, own: int, shared: list[str]) -> None:
    assert docs.count() == threads * own + len(shared)
    for thread in range(threads):
        records = docs.get([f"{thread}-{i}" for i in range(own)], include=("payloads", "vectors"))
        assert [r.payload for r in records] == [{"thread": thread, "round": rounds - 1}] * own
        assert all((r.vector == thread * 1000 + rounds).all() for r in records)
    together = docs.get(shared, include=("payloads", "vectors"))
    winner = together[0].payload
    assert winner["round"] == rounds - 1  # nobody's earlier batch came after its own last one
    assert all(r.payload == winner for r in together)
    assert all((r.vector == winner["thread"] * 1000 + rounds).all() for r in together)


def test_adds_of_one_id_from_many_threads_have_one_winner(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", dim=2)
        crew, won = Crew(), []

        def work(thread: int) -> None:
            for number in range(30):
                try:
                    docs.add([f"id-{number}"], [[1.0, thread]], [{"thread": thread}])
                    won.append((number, thread))
                except vecdb.AlreadyExists:
                    pass

        for thread in range(8):
            crew.run(lambda thread=thread: work(thread))  # type: ignore[misc]
        crew.join()
        assert sorted(number for number, _ in won) == list(range(30))
        assert {r.id: r.payload["thread"] for r in docs.get()} == {f"id-{number}": thread for number, thread in won}


def test_collections_come_and_go_beside_maintenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection dropped while its segments are sealed or merged takes nothing else with it."""
    monkeypatch.setattr(policy, "LOG_TRIGGER", 1000)
    with vecdb.open(tmp_path / "db") as db:
        kept = db.create_collection("kept", dim=2)
        for number in range(25):
            docs = db.create_collection(f"c{number}", dim=2)
            for row in range(number % 7 + 1):
                docs.upsert([row], [[1.0, row]], [{"row": row}])
                kept.upsert([100 * number + row], [[1.0, row]])
            db.delete_collection(f"c{number}")
        total = sum(number % 7 + 1 for number in range(25))
        assert kept.count() == total
        db.optimize()
        assert db.list_collections() == ["kept"]
        assert {p.name.partition("-")[0] for p in (tmp_path / "db" / "segments").iterdir()} == {"1"}
        assert db.stats().trouble is None
    with vecdb.open(tmp_path / "db") as db:
        assert db.get_collection("kept").count() == total


@pytest.mark.parametrize("point", ["checkpoint:written", "merge:written", "index:written"])
def test_a_collection_dropped_inside_a_step(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step ends, the engine goes on, and nothing of the dropped collection stays."""
    monkeypatch.setattr(wanted, "CODED_ROWS_MIN", 8)
    dropped: list[bool] = []

    def at(name: str, lsn: int) -> None:
        if name == point and armed and not dropped:
            dropped.append(True)
            db.delete_collection("gone")

    usual = registry.DEFAULT_SEAMS
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=PointDisk(usual.disk, at)))
    armed = False
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        kept, gone = db.create_collection("kept", dim=2), db.create_collection("gone", dim=2)
        gone.upsert(list(range(30)), np.ones((30, 2)))
        if point != "checkpoint:written":
            assert maintain.run_step(db._engine, force=True) == "checkpoint"  # type: ignore[arg-type]
        gone.upsert(list(range(20, 50)), np.ones((30, 2)))
        kept.upsert(list(range(10)), np.ones((10, 2)))
        if point == "index:written":
            db.optimize()
            gone.set_index(vecdb.Flat(bits=8))
        armed = True
        db.optimize()
        assert dropped
        kept.upsert([99], [[1.0, 2.0]])
        assert kept.count() == 11
        assert {p.name.partition("-")[0] for p in (tmp_path / "db" / "segments").iterdir()} == {"1"}
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        assert db.list_collections() == ["kept"]
        assert db.get_collection("kept").count() == 11


def test_optimize_is_told_that_another_thread_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = vecdb.open(tmp_path / "db")
    entered, outcome = threading.Event(), list[BaseException]()

    def run(engine: Any) -> None:
        entered.set()
        while True:
            maintain.breathe(engine)(0, 1)
            time.sleep(0.01)

    def next_step(engine: Any, *, force: bool = False) -> maintain.Step | None:
        return maintain.Step("long", lambda: run(engine)) if force else None

    def optimize() -> None:
        try:
            db.optimize()
        except vecdb.VecdbError as error:
            outcome.append(error)

    monkeypatch.setattr(maintain, "next_step", next_step)
    thread = threading.Thread(target=optimize, daemon=True)
    thread.start()
    assert entered.wait(20)
    db.close()
    thread.join(20)
    assert len(outcome) == 1
    assert isinstance(outcome[0], vecdb.Closed)
