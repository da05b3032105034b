"""Measures one engine in one process: `python -m benchmarks.measure PHASE --engine NAME --data DIR --path DIR`.

Phases, each a process of its own, so that none inherits another's caches or memory:
  build   ingest in batches of 1,000, optimize, close; bytes on disk
  start   from the start of the process (imports included) to the first correct result
  search  recall, latency and throughput of every filter, cold and cached; memory
  mixed   search latency while records arrive and are indexed

Prints one JSON object on the last line of stdout.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import FILTERS, QUERIES, Dataset, K, load
from benchmarks.engines import Engine, make

BATCH = 1000
WANTED_RECALL = 0.99
TUNING = 200  # queries that choose the effort
WARM = 50
BUDGET_S = 10.0  # of one row of the table; a slow engine answers fewer queries in it, at least LEAST
LEAST = 50
WRITE_S = 60.0  # of the phase `mixed`: then no more batches are sent


def build(engine: Engine, data: Dataset, path: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    engine.create(path, data.vectors.shape[1])
    for at in range(0, len(data.ids), BATCH):
        part = slice(at, at + BATCH)
        engine.upsert(data.ids[part], data.vectors[part], data.payloads[part])
    ingested = time.perf_counter()
    engine.optimize()
    optimized = time.perf_counter()
    engine.close()
    return {
        "records": len(data.ids),
        "ingest_s": ingested - begin,
        "optimize_s": optimized - ingested,
        "disk_bytes": disk_bytes(path),
    }


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def memory() -> dict[str, int]:
    """Resident bytes of this process: anonymous, and mapped from files."""
    pages = {"anonymous_bytes": 0, "mapped_bytes": 0}
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            pages["anonymous_bytes"] = int(line.split()[1]) * 1024
        elif line.startswith(("RssFile:", "RssShmem:")):
            pages["mapped_bytes"] += int(line.split()[1]) * 1024
    return pages


def percentiles(seconds: list[float]) -> dict[str, float]:
    milliseconds = np.array(seconds) * 1e3
    return {
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "qps": float(1e3 / milliseconds.mean()),
    }


def ask_all(
    engine: Engine, queries: Any, where: Any, ef: int | None, warm: int = WARM
) -> tuple[list[list[str]], list[float]]:
    """The ids that each query found and its seconds, after `warm` searches that do not count.

    Queries stop, after LEAST of them, when BUDGET_S is used up.
    """
    for query in queries[:warm]:
        engine.search(query, K, where, ef)
    results: list[list[str]] = []
    seconds: list[float] = []
    first = time.perf_counter()
    for query in queries:
        begin = time.perf_counter()
        ids, _ = engine.search(query, K, where, ef)
        end = time.perf_counter()
        seconds.append(end - begin)
        results.append(ids)
        if len(seconds) >= LEAST and end - first > BUDGET_S:
            break
    return results, seconds


def tune(engine: Engine, data: Dataset, where: Any, kth: Any, k: int) -> int | None:
    """The least effort that reaches the wanted recall on the first queries, or the greatest there is."""
    for ef in engine.efs:
        found, _ = ask_all(engine, data.queries[:TUNING], where, ef, warm=0)
        if data.recall(found, kth[:TUNING], k) >= WANTED_RECALL:
            break
    return ef


def search(engine: Engine, data: Dataset, path: Path) -> dict[str, Any]:
    filters = {}
    engine.open(path)
    for name, conditions in FILTERS.items():
        where, kth, matching = engine.filter(conditions), data.kth_distance(conditions), data.matching(conditions)
        k = min(K, int(matching.sum()))
        _, (cold,) = ask_all(engine, data.queries[:1], where, engine.efs[0], warm=0)
        ef = tune(engine, data, where, kth, k)
        results, seconds = ask_all(engine, data.queries, where, ef)
        filters[name] = {
            "share": float(matching.mean()),
            "recall": data.recall(results, kth, k),
            **percentiles(seconds),
            "queries": len(seconds),
            "cold_ms": cold * 1e3,
            "ef": ef,
            "plan": engine.plan(data.queries[0], K, where, ef),
        }
    engine.close()
    return {"filters": filters}


def expect(data: Dataset, file: Path) -> None:
    """Writes the queries, and every id that is a correct answer to the first, for processes that load nothing else."""
    bound = data.kth_distance(())[0] + 1e-6
    right = np.flatnonzero(1.0 - data.vectors @ data.queries[0] <= bound)
    np.savez(file, queries=data.queries, right=np.array([data.ids[row] for row in right]))


def start(name: str, file: Path, path: Path, began: float) -> dict[str, Any]:
    """Seconds since `began`: CLOCK_MONOTONIC, read by the parent just before it started this process.

    The arguments stay in a file of a few megabytes; its reading (some ms) is part of the figure for every engine.
    """
    with np.load(file, allow_pickle=False) as stored:
        queries, right = stored["queries"], set(stored["right"].tolist())
    bare = memory()
    engine = make(name)
    engine.open(path)
    ids, _ = engine.search(queries[0], K, None, engine.efs[-1])
    first = time.monotonic() - began
    if len(ids) != K or not set(ids) <= right:
        raise RuntimeError(f"{name}: the first result is not correct: {ids}")
    indexed = engine.first_indexed(queries[0], K)
    indexed_s = time.monotonic() - began if indexed else first
    ask_all(engine, queries, None, engine.efs[0])
    full = memory()
    engine.close()
    return {"first_s": first, "indexed_s": indexed_s, **{key: full[key] - bare[key] for key in full}}


def mixed(engine: Engine, data: Dataset, path: Path) -> dict[str, Any]:
    """Half of the records are indexed and searched; then the other half arrives while the same searches go on."""
    half = len(data.ids) // 2 // BATCH * BATCH
    engine.create(path, data.vectors.shape[1])
    for at in range(0, half, BATCH):
        engine.upsert(data.ids[at : at + BATCH], data.vectors[at : at + BATCH], data.payloads[at : at + BATCH])
    engine.optimize()
    done = threading.Event()
    ef = engine.efs[min(2, len(engine.efs) - 1)]

    written = half

    def write() -> None:
        nonlocal written
        until = time.monotonic() + WRITE_S
        try:
            while written < len(data.ids) and time.monotonic() < until:
                part = slice(written, written + BATCH)
                engine.upsert(data.ids[part], data.vectors[part], data.payloads[part])
                written += BATCH
            engine.optimize()
        finally:
            done.set()

    _, idle = ask_all(engine, data.queries, None, ef)
    writer = threading.Thread(target=write)
    writer.start()
    busy: list[float] = []
    while not done.is_set():
        at = len(busy) % len(data.queries)
        busy += ask_all(engine, data.queries[at : at + 1], None, ef, warm=0)[1]
    writer.join()
    engine.close()
    return {
        "idle": percentiles(idle),
        "busy": percentiles(busy),
        "searches_while_busy": len(busy),
        "written": written - half,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("expect", "build", "start", "search", "mixed"))
    parser.add_argument("--engine", default="vecdb")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--path", type=Path, help="where the database is, or is made")
    parser.add_argument("--expected", type=Path, help="the file that the phase `expect` wrote")
    parser.add_argument("--records", type=int, help="a part of the data only")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--began", type=float, default=0.0)
    given = parser.parse_args()
    if given.phase == "start":
        print(json.dumps(start(given.engine, given.expected, given.path, given.began)))
        return
    data = load(given.data, given.records, given.queries)
    if given.phase == "expect":
        expect(data, given.expected)
        return
    phase = {"build": build, "search": search, "mixed": mixed}[given.phase]
    print(json.dumps(phase(make(given.engine), data, given.path)))


if __name__ == "__main__":
    main()
