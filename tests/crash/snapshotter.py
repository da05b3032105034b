"""A process that writes, takes snapshots and restores them until it is killed. Run by test_snapshot_kill.py:

    python -m tests.crash.snapshotter PATH FIRST

One line "ack n" a batch; "snap NAME n" for a snapshot that returned, after n batches; "back NAME n"
for its restore. With VECDB_KILL="point count" the process kills itself at a named point.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import vecdb
from tests.crash.ledger import DIM, make_batch, write
from tests.crash.writer import die_at, shrink
from vecdb.engine import registry


def snapshots(db: vecdb.Database, root: Path, acknowledged: list[int]) -> None:
    """Takes and restores snapshots of both local forms, each the base of the next; keeps some."""
    last: dict[str, Path] = {}
    for number in itertools.count():
        suffix = ("", ".vecdb")[number % 2]
        place = root / f"snap-{os.getpid()}-{number}{suffix}"
        before = acknowledged[0]
        db.snapshot(place, base=last.get(suffix))
        os.write(1, b"snap %s %d\n" % (place.name.encode(), before))
        back = root / f"back-{os.getpid()}-{number}"
        vecdb.restore(place, back)
        os.write(1, b"back %s %d\n" % (back.name.encode(), before))
        if number % 2 == 0 and number >= 4:
            shutil.rmtree(root / f"snap-{os.getpid()}-{number - 4}")
            shutil.rmtree(root / f"back-{os.getpid()}-{number - 4}")
        last[suffix] = place


def main() -> None:
    path, first = Path(sys.argv[1]), int(sys.argv[2])
    point, _, count = os.environ.get("VECDB_KILL", "never 0").partition(" ")
    shrink(codes=False)
    disk = die_at(point, int(count))
    registry.DEFAULT_SEAMS = replace(registry.DEFAULT_SEAMS, disk=disk)
    with vecdb.open(path) as db:
        docs = db.get_or_create_collection("docs", dim=DIM)
        acknowledged = [first]
        thread = threading.Thread(target=snapshots, args=(db, path.parent, acknowledged), daemon=True)
        thread.start()
        for number in itertools.count(first):
            write(docs, make_batch(number))
            acknowledged[0] = number + 1
            os.write(1, b"ack %d\n" % number)
            time.sleep(0.01)
            if not thread.is_alive():
                raise SystemExit("the thread of snapshots ended")


if __name__ == "__main__":
    main()
