"""What a bad day costs: taking snapshots, what writers notice of it, restoring one, and recovery after a crash.

    python -m benchmarks.snapshots DATA [--records N] [--rounds N] [--work DIR] [--dry]

Every form is taken and restored in turns, with the files in the page cache; medians, and the processor time of all
threads, which a busy machine changes less. "unsynced" leaves out every sync that vecdb makes, through the disk that its
tests replace too. Writers are measured while a snapshot a second is taken beside them, and while none is. Recovery is
that of a copy of the directory whose second half of the records is in the log only, in a new process each time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from benchmarks.dataset import Dataset
from benchmarks.dataset import load as load_data
from benchmarks.history import append, line_of
from benchmarks.report import table
from vecdb.engine import registry
from vecdb.files.disk import File, LocalDisk, LocalFile

BATCH = 1000
ROUNDS = 5
WRITER_SECONDS = 4.0  # of each rate
RECOVER = """
import sys, time
import numpy as np
import vecdb
began = time.perf_counter()
with vecdb.open(sys.argv[1]) as db:
    opened = time.perf_counter() - began
    docs = db.get_collection("docs")
    assert docs.count() == int(sys.argv[2])
    docs.search(np.ones(int(sys.argv[3]), np.float32), k=10)
    print(opened, time.perf_counter() - began)
"""


class UnsyncedFile(LocalFile):
    def sync(self) -> None: ...


class UnsyncedDisk(LocalDisk):
    """Leaves syncing to the operating system."""

    def create(self, path: Path) -> File:
        made = super().create(path)
        assert isinstance(made, LocalFile)
        return UnsyncedFile(made.path, made.descriptor)

    def sync_directory(self, path: Path) -> None: ...


def build(path: Path, crashed: Path, found: Dataset) -> vecdb.Database:
    """The database with everything merged; `crashed` is a copy of its files from before the second half was."""
    db = vecdb.open(path)
    docs = db.create_collection("docs", dim=found.vectors.shape[1], index=vecdb.HNSW(m=16, ef_construction=200))
    half = len(found.ids) // 2
    upsert(docs, found, 0, half)
    db.optimize()
    upsert(docs, found, half, len(found.ids))
    shutil.copytree(path, crashed)
    db.optimize()
    return db


def upsert(docs: vecdb.Collection, found: Dataset, begin: int, end: int) -> None:
    for first in range(begin, end, BATCH):
        part = slice(first, min(first + BATCH, end))
        docs.upsert(found.ids[part], found.vectors[part], found.payloads[part])


def timed(call: Callable[..., Any], *given: Any, **options: Any) -> tuple[float, float]:
    """Seconds on the clock, and of the processors."""
    began, busy = time.perf_counter(), time.process_time()
    call(*given, **options)
    return time.perf_counter() - began, time.process_time() - busy


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def measure_form(db: vecdb.Database, root: Path, name: str, rounds: int) -> dict[str, list[float]]:
    """Medians of (clock, processors): a snapshot, one on a base, verification, and the restore with its checks."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        first, second, back = root / f"first{name}", root / f"second{name}", root / "back"
        seconds.setdefault("snapshot", []).append(timed(db.snapshot, first))
        seconds.setdefault("on a base", []).append(timed(db.snapshot, second, base=first))
        seconds.setdefault("verify", []).append(timed(vecdb.verify_snapshot, first))
        seconds.setdefault("restore", []).append(timed(vecdb.restore, first, back))
        for path in (first, second, back):
            remove(path)
    return {
        step: [round(statistics.median(one), 4) for one in zip(*took, strict=True)] for step, took in seconds.items()
    }


def unsynced(db: vecdb.Database, root: Path, name: str, rounds: int) -> dict[str, list[float]]:
    usual, engine = registry.DEFAULT_SEAMS, db._engine
    assert engine is not None
    registry.DEFAULT_SEAMS = engine.seams = replace(usual, disk=UnsyncedDisk())
    try:
        return measure_form(db, root, name, rounds)
    finally:
        registry.DEFAULT_SEAMS = engine.seams = usual


def rate(docs: vecdb.Collection, seconds: float) -> float:
    """Records a second, written in batches of a hundred for so long, one thread."""
    vectors, ids = np.random.default_rng(0).standard_normal((100, 384), np.float32), list(range(100))
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        docs.upsert(ids, vectors)
        count += len(ids)
    return count / seconds


def measure_writers(db: vecdb.Database, root: Path, rounds: int) -> dict[str, float]:
    """Records a second alone, and with a snapshot a second beside; rounds alternate."""
    other = db.create_collection("written", dim=384)
    rate(other, 1.0)
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(rate(other, WRITER_SECONDS))
        stop = threading.Event()

        def snapshots(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                db.snapshot(root / "beside")
                remove(root / "beside")
                stop.wait(1.0)

        thread = threading.Thread(target=snapshots)
        thread.start()
        beside.append(rate(other, WRITER_SECONDS))
        stop.set()
        thread.join()
    return {"alone": round(statistics.median(alone)), "beside a snapshot a second": round(statistics.median(beside))}


def measure_recovery(crashed: Path, root: Path, rounds: int, found: Dataset) -> dict[str, float]:
    """Seconds until a new process has opened the files that a crash left, and until it has searched them."""
    log = sum(path.stat().st_size for path in (crashed / "wal").iterdir())
    took = []
    for _ in range(rounds):
        shutil.copytree(crashed, root / "recovered")
        command = [sys.executable, "-c", RECOVER, str(root / "recovered"), *map(str, found.vectors.shape)]
        took.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split())
        remove(root / "recovered")
    opened, answered = (round(statistics.median(map(float, one)), 3) for one in zip(*took, strict=True))
    return {"log bytes": log, "opened": opened, "answered": answered}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    found = load_data(given.data, given.records)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=given.work) as folder:
        root = Path(folder)
        with build(root / "db", root / "crashed", found) as db:
            figures: dict[str, Any] = {"records": db.get_collection("docs").count()}
            figures["recovery"] = measure_recovery(root / "crashed", root, given.rounds, found)
            info = db.snapshot(root / "sizes")
            figures["bytes"], figures["written"] = info.bytes, info.new_bytes
            remove(root / "sizes")
            for form, name in (("directory", ""), ("one file", ".vecdb")):
                figures[form] = measure_form(db, root, name, given.rounds)
                figures[f"{form}, unsynced"] = unsynced(db, root, name, given.rounds)
            figures["writers"] = measure_writers(db, root, given.rounds)
    return figures


def report(figures: dict[str, Any]) -> str:
    forms = [form for form in figures if form.startswith(("directory", "one file"))]
    head = ["seconds (of processors)", *figures[forms[0]]]
    rows = [[form, *(f"{clock:.3f} ({busy:.3f})" for clock, busy in figures[form].values())] for form in forms]
    writers = figures["writers"]
    lost = 1 - writers["beside a snapshot a second"] / writers["alone"]
    told = (
        f"{figures['records']:,} records, {figures['bytes'] / 1e6:.0f} MB, {figures['written'] / 1e6:.0f} MB not linked"
    )
    recovery = figures["recovery"]
    log = f"{recovery['log bytes'] / 1e6:.0f} MB in the log"
    back = f"recovery, {log}: opened in {recovery['opened']} s, answered in {recovery['answered']} s"
    return f"{told}\n{table([head, *rows])}\nwriters: {writers}, {lost:.1%} slower\n{back}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with debian-packages.parquet and debian-minilm-384.npy")
    parser.add_argument("--records", type=int, help="measure on a part of the data")
    parser.add_argument("--work", type=Path, help="where the databases are made (default: the temporary directory)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of every measurement (default: {ROUNDS})")
    parser.add_argument("--dry", action="store_true", help="do not append to the history")
    given = parser.parse_args()
    load_average = os.getloadavg()[0]
    if load_average > (os.cpu_count() or 1):
        print("this machine is busy: figures will be worse than it can do", file=sys.stderr)
    figures = {"load": round(load_average, 1), **measure(given)}
    print(report(figures))
    if not given.dry:
        append(line_of("snapshots", figures))


if __name__ == "__main__":
    main()
