"""A process that writes batches until it is killed. Run by test_kill.py:

    python -m tests.crash.writer PATH FIRST

Batch n is made from seed n. One line "ack n" is written for each batch when it is acknowledged. With VECDB_KILL="point
count" the process kills itself when the named point is reached for the count-th time. Limits are so small that
checkpoints, merges, index changes, compactions of the catalog and retired log files happen all the time.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from dataclasses import replace

import vecdb
from tests.crash.ledger import DIM, make_batch, write
from tests.faults import OrderingDisk, PointDisk
from vecdb.engine import maintain, policy, registry, wanted

LIMITS = {
    "LOG_TRIGGER": 12_000,  # bytes, about five batches
    "SMALL_ROWS": 300,
    "FREE_BYTES_MIN": 20_000,
    "FREE_SHARE": 0.1,
    "CLOSE_CHANGES": 1,
}


def shrink(codes: bool) -> None:
    for name, value in LIMITS.items():
        assert hasattr(policy, name), name
        setattr(policy, name, value)
    maintain.TICK_SECONDS = 0.002
    if codes:  # needs the kernels, which take a moment to load
        wanted.CODED_ROWS_MIN = 16


def die_at(point: str, count: int) -> PointDisk:
    reached = itertools.count(1)

    def at(name: str, lsn: int) -> None:
        if name == point and next(reached) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    return PointDisk(OrderingDisk(registry.DEFAULT_SEAMS.disk), at)


def reach_soon(db: vecdb.Database, docs: vecdb.Collection, point: str, number: int) -> None:
    """Does what leads to `point`, because writes without a pause keep maintenance from its last duties."""
    if point.startswith("index"):
        docs.set_index(vecdb.Flat(bits=8 if number % 20 else 2))
    if point.startswith("catalog"):
        engine = db._engine
        assert engine is not None
        with engine.maintenance_lock:
            maintain.compact_catalog(engine)
    elif point != "never":
        db.optimize()


def main() -> None:
    path, first = sys.argv[1], int(sys.argv[2])
    point, _, count = os.environ.get("VECDB_KILL", "never 0").partition(" ")
    codes = point.startswith("index")
    shrink(codes)
    disk = die_at(point, int(count))
    registry.DEFAULT_SEAMS = replace(registry.DEFAULT_SEAMS, disk=disk)
    with vecdb.open(path) as db:
        docs = db.get_or_create_collection("docs", dim=DIM)
        os.write(1, b"open\n")
        for number in itertools.count(first):
            write(docs, make_batch(number))
            os.write(1, b"ack %d\n" % number)
            if number % 8 == 0:
                time.sleep(0.02)  # maintenance gets to its last duties
            if number % 10 == 0:
                reach_soon(db, docs, point, number)
            if disk.inner.violations:  # type: ignore[attr-defined]
                raise SystemExit(f"order: {disk.inner.violations}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
