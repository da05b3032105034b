"""Any thread may use a handle: what is written is found, and closing ends every call with Closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vecdb

ROWS, DIM = 1_500, 16
VECTORS = np.random.default_rng(3).standard_normal((ROWS, DIM)).astype(np.float32)
CALLS: dict[str, Callable[[vecdb.Collection, vecdb.Database], object]] = {
    "batch": lambda docs, db: docs.search(VECTORS[:40], 10),
    "filtered": lambda docs, db: docs.search(VECTORS[0], 10, {"n": {"$lt": 700}}).payloads,
    "scroll": lambda docs, db: list(docs.scroll(batch_size=100)),
    "upsert": lambda docs, db: docs.upsert([1], VECTORS[1:2], [{"n": 1}]),
    "patch": lambda docs, db: docs.update([2], payloads=[{"n": 2}]),
    "stats": lambda docs, db: db.stats(),
    "distinct": lambda docs, db: docs.distinct("n"),
}


@pytest.mark.parametrize("sealed", [False, True])
def test_closing_ends_what_other_threads_do_with_closed(path: Path, sealed: bool) -> None:
    db = vecdb.open(path, sync="none", threads=2)
    docs = db.create_collection("docs", dim=DIM)
    docs.upsert(range(ROWS), VECTORS, [{"n": i} for i in range(ROWS)])
    if sealed:
        db.optimize()
    started = threading.Barrier(len(CALLS) + 1)
    ends: dict[str, BaseException] = {}

    def work(name: str) -> None:
        CALLS[name](docs, db)
        started.wait(60)
        try:
            while True:
                CALLS[name](docs, db)
        except BaseException as error:  # noqa: BLE001  every end is looked at below
            ends[name] = error

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in CALLS]
    for thread in threads:
        thread.start()
    started.wait(60)
    db.close()
    for thread in threads:
        thread.join(60)
    assert {name: type(error) for name, error in ends.items()} == dict.fromkeys(CALLS, vecdb.Closed)
    with vecdb.open(path, mode="r") as db:
        assert sorted(db.get_collection("docs").get().ids.tolist()) == list(range(ROWS))


def test_one_id_added_by_many_threads_is_added_once(docs: vecdb.Collection) -> None:
    threads, rounds = 4, 20
    start, added = threading.Barrier(threads), []

    def work(thread: int) -> None:
        for at in range(rounds):
            start.wait(60)
            try:
                docs.add([at], [[thread, at, 0]], [{"by": thread}])
                added.append((at, thread))
            except vecdb.AlreadyExists:
                continue

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(at for at, _ in added) == list(range(rounds))
    assert {record.id: record.payload["by"] for record in docs.scroll()} == dict(added)


def test_a_write_is_found_by_every_thread_once_it_returned(docs: vecdb.Collection) -> None:
    done: list[int] = []
    stop = threading.Event()
    wrong: list[str] = []

    def look() -> None:
        while not stop.is_set():
            known = len(done)
            found = docs.search([0, 0, 0], 10_000, include=()).ids.tolist()
            if len(found) < known or len(found) % 5 or len(set(found)) != len(found):
                wrong.append(f"{len(found)} of at least {known}")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(0, 500, 5):
        docs.upsert(range(at, at + 5), np.ones((5, 3)))
        done.extend(range(at, at + 5))
    stop.set()
    for reader in readers:
        reader.join(60)
    assert wrong == []
    assert docs.search([1, 1, 1], 10_000).ids.tolist() == list(range(500))
