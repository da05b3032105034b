"""Goal: a process that meets a limit of files or of memory is told so, loses nothing, and goes on when there is room.

Method: real limits in a process of its own, on batches made from a seed; the parent opens what is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from tests.crash.ledger import check_prefix, make_batch, states_of

pytestmark = pytest.mark.crash
ROOT = Path(__file__).parents[2]

LIMITED = """
import resource, sys
import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
path, kind, limit = sys.argv[1], getattr(resource, sys.argv[2]), int(sys.argv[3])
db = vecdb.open(path, maintenance="manual")
docs = db.create_collection("docs", dim=DIM)
batches = [make_batch(seed, ids=90, rows=30) for seed in range(100, 160)]
states = states_of(batches)
write(docs, batches[0])
db.optimize()
check_prefix(docs, states, 1)
held = int(open("/proc/self/statm").read().split()[0]) * 4096 if kind == resource.RLIMIT_AS else 0
soft, hard = resource.getrlimit(kind)
resource.setrlimit(kind, (held + limit, hard))
done, met = 1, 0
for batch in batches[1:]:
    for attempt in range(2):
        try:
            write(docs, batch)
            break
        except (vecdb.StorageFailed, vecdb.Poisoned, MemoryError):
            met += 1
            resource.setrlimit(kind, (soft, hard))
            if db._engine.poisoned:  # the log has the batch, memory has not: opening again tells
                db.close()
                db = vecdb.open(path, maintenance="manual")
                docs = db.get_collection("docs")
    done += 1
    if done % 5 == 0:
        try:
            db.optimize()
        except (vecdb.StorageFailed, MemoryError):
            met += 1
            resource.setrlimit(kind, (soft, hard))
            db.optimize()
resource.setrlimit(kind, (soft, hard))
check_prefix(docs, states, done)
db.close()
print(met)
"""


def run_limited(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("RLIMIT_NOFILE", 6), ("RLIMIT_AS", 0), ("RLIMIT_AS", 2 << 20)],
    ids=["few descriptors", "no memory", "little memory"],
)
def test_a_limit_is_told_and_costs_nothing(place: Path, kind: str, limit: int) -> None:
    done = run_limited(LIMITED, str(place / "db"), kind, str(limit))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "the limit was never met"
    batches = [make_batch(seed, ids=90, rows=30) for seed in range(100, 160)]
    with vecdb.open(place / "db") as db:
        check_prefix(db.get_collection("docs"), states_of(batches), len(batches))


RESERVING = """
import errno, resource, sys
from pathlib import Path
import numpy as np
import vecdb
path = Path(sys.argv[1])
db = vecdb.open(path, maintenance="manual")
small, large = db.create_collection("small", dim=2), db.create_collection("large", dim=1024)
small.upsert([1], [[1, 2]])
wide = np.ones((3, 1024), np.float32)
log = sum(file.stat().st_size for file in path.glob("wal/*.wal"))
held = int(open("/proc/self/statm").read().split()[0]) * 4096
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (held + (96 << 20), hard))  # a growing segment takes 256 MiB
for attempt in range(2):
    try:
        large.upsert([1, 2, 3], wide)
        raise SystemExit("there was memory")
    except vecdb.StorageFailed as error:
        assert error.errno == errno.ENOMEM and "try again" in str(error), error
    assert not db._engine.poisoned
    assert large.count() == 0 and not list(large.get([1]))
    assert sum(file.stat().st_size for file in path.glob("wal/*.wal")) == log
small.upsert([2], [[3, 4]])  # what is there already goes on
db.maintain()
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
large.upsert([1, 2, 3], wide)
assert large.count() == 3 and small.count() == 2
db.close()
with vecdb.open(path, mode="r") as db:
    assert db.get_collection("large").count() == 3 and db.get_collection("small").count() == 2
"""


def test_a_batch_that_memory_has_no_room_for_is_refused_before_it_is_logged(place: Path) -> None:
    done = run_limited(RESERVING, str(place / "db"))
    assert done.returncode == 0, done.stderr
