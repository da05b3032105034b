"""Recall while records come, go and change, beside a graph that is built anew over the live ones.

    python -m benchmarks.streaming DATA [--live 100000] [--turnovers 10] [--ef 64]
    python -m benchmarks.streaming DATA --patch

The runbook has the shape of the streaming track of the Big ANN challenge (Simhadri et al., 2024): of nine steps four
insert, four delete and one searches. Records arrive in order of topic and the oldest go, so that what is live drifts; a
cycle of nine steps exchanges an eighth of it. Each search step is measured as maintenance left things, and again after
optimize(). `--patch` changes the payload of every record instead. Appends one line to the history of results.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from benchmarks.dataset import Dataset, K, load
from benchmarks.history import append, line_of
from benchmarks.report import table
from vecdb.index.hnsw import HnswIndex
from vecdb.types import Matrix, Metric

BATCH = 1000
STEPS = 4  # of inserting and as many of deleting in a cycle
CYCLES = 8  # in a turnover of all live records
TOPICS = 128
LAP_SHARE = 0.3  # of another record in a vector that comes around again
QUERIES_MAX = 500
TIE = 1e-6

F32 = NDArray[np.float32]
Row = dict[str, Any]


def unit(vectors: F32) -> F32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def order_of_topics(vectors: F32, queries: F32, topics: int = TOPICS, seed: int = 0) -> tuple[F32, F32]:
    """Both by topic: the nearest of some records, which form a chain of neighbours. Topics overlap at their ends."""
    rng = np.random.default_rng(seed)
    centres = vectors[rng.choice(len(vectors), min(topics, len(vectors)), replace=False)]
    chain, left = [0], set(range(1, len(centres)))
    while left:
        near = max(left, key=lambda topic: float(centres[chain[-1]] @ centres[topic]))
        chain.append(near)
        left.remove(near)
    place = np.argsort(chain)

    def ordered(rows: F32) -> F32:
        return rows[np.argsort(place[(rows @ centres.T).argmax(1)] + 0.5 * rng.standard_normal(len(rows)))]

    return ordered(vectors), ordered(queries)


@dataclass(frozen=True)
class Drift:
    """An endless series of unit vectors: `ordered` again and again, each lap mixed with other records than before."""

    ordered: F32
    queries: F32

    def vectors(self, first: int, last: int) -> F32:
        count = len(self.ordered)
        lap, at = np.divmod(np.arange(first, last), count)
        other = self.ordered[(at * 7 + lap * 1009) % count]
        return unit(self.ordered[at] + np.where(lap > 0, LAP_SHARE, 0)[:, None].astype(np.float32) * other)

    def asked(self, first: int, last: int) -> F32:
        """Queries from the part of the order that is live."""
        count = len(self.queries)
        low, high = (edge * count // len(self.ordered) for edge in (first, last))
        places = np.unique(np.arange(low, max(high, low + 1)) % count)
        return self.queries[np.random.default_rng(first).permutation(places)[:QUERIES_MAX]]


def kth_distances(live: F32, queries: F32) -> F32:
    """The exact cosine distance of the K-th nearest live vector of each query."""
    return np.partition(1.0 - queries @ live.T, K - 1, axis=1)[:, K - 1]


class Stream:
    """A collection of which records first..last-1 of a drift are live; the runbook's steps on it."""

    def __init__(self, db: vecdb.Database, drift: Drift, options: vecdb.HNSW, ef: int) -> None:
        self.db, self.drift, self.options, self.ef = db, drift, options, ef
        self.docs = db.create_collection("stream", dim=drift.ordered.shape[1], index=options)
        self.first = self.last = 0
        self.seconds: list[float] = []  # of each search

    def insert(self, count: int) -> None:
        for first in range(self.last, self.last + count, BATCH):
            last = min(first + BATCH, self.last + count)
            ids = list(range(first, last))
            self.docs.upsert(ids, self.drift.vectors(first, last), [{"number": i} for i in ids])
        self.last += count

    def delete(self, count: int) -> None:
        for first in range(self.first, self.first + count, BATCH):
            self.docs.delete(list(range(first, min(first + BATCH, self.first + count))))
        self.first += count

    def exact(self) -> tuple[F32, F32, F32]:
        """(live vectors, queries near them, their exact K-th distances)"""
        live, queries = self.drift.vectors(self.first, self.last), self.drift.asked(self.first, self.last)
        return live, queries, kth_distances(live, queries)

    def search(self, queries: F32, kth: F32) -> float:
        """recall@K; a hit counts when it is as near as the exact K-th."""
        found = 0
        for query, bound in zip(queries, kth, strict=True):
            begin = time.perf_counter()
            hits = self.docs.search(query, k=K, ef=self.ef, include=())
            self.seconds.append(time.perf_counter() - begin)
            found += int((hits.distances <= bound + TIE).sum())
        return found / (K * len(queries))

    def fresh(self, live: F32, queries: F32, kth: F32) -> float:
        """The same of a graph built anew."""
        norms = np.asarray(1 / np.linalg.norm(live, axis=1), np.float32)
        index = HnswIndex.build(Matrix(live, norms, Metric.COSINE), self.options, threads=os.cpu_count() or 1)
        distances = index.search(np.ascontiguousarray(queries), K, ef=self.ef)[1]
        return float((distances <= kth[:, None] + TIE).sum() / distances.size)


def run(stream: Stream, live: int, turnovers: int) -> Iterator[Row]:
    """A row of figures for each turnover; the collection is filled first."""
    stream.insert(live)
    stream.db.optimize()
    step = live // (CYCLES * STEPS)
    for turnover in range(1, turnovers + 1):
        busy, settled, optimizing, writing = [], [], 0.0, 0.0
        stream.seconds.clear()
        for _ in range(CYCLES):
            begin = time.perf_counter()
            for _ in range(STEPS):
                stream.insert(step)
                stream.delete(step)
            writing += time.perf_counter() - begin
            now = stream.exact()
            busy.append(stream.search(*now[1:]))
            begin = time.perf_counter()
            stream.db.optimize()
            optimizing += time.perf_counter() - begin
            settled.append(stream.search(*now[1:]))
        fresh = stream.fresh(*now)
        print(f"  turnover {turnover}: {settled[-1]:.4f}, fresh {fresh:.4f}", file=sys.stderr, flush=True)
        yield {
            "turnover": turnover,
            "live": stream.docs.count(),
            "arm": stream.docs.explain(now[1][0], k=K, ef=stream.ef).segments[0].plan.arm.name.lower(),
            "busy": min(busy),
            "settled": min(settled),
            "last": settled[-1],
            "fresh": fresh,
            "difference": settled[-1] - fresh,
            "p50_ms": 1e3 * float(np.percentile(stream.seconds, 50)),
            "p99_ms": 1e3 * float(np.percentile(stream.seconds, 99)),
            "changes_per_s": 2 * CYCLES * STEPS * step / writing,
            "optimize_s": optimizing / CYCLES,
        }


HEADING = ["turnover", "live", "by", "busy", "settled", "last", "fresh", "points", "p50 ms", "p99 ms", "changes/s", "s"]


def cells(row: Row) -> list[str]:
    return [
        f"{row['turnover']}",
        f"{row['live']:,}",
        row["arm"],
        *(f"{row[name]:.4f}" for name in ("busy", "settled", "last", "fresh")),
        f"{100 * row['difference']:+.2f}",
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        f"{row['changes_per_s']:,.0f}",
        f"{row['optimize_s']:.2f}",
    ]


def patch(db: vecdb.Database, data: Dataset, ef: int) -> Row:
    """Changes one key in the payload of every record; seconds, and recall before and after."""
    docs = db.create_collection("patched", dim=data.vectors.shape[1], index=vecdb.HNSW())
    parts = [slice(at, at + BATCH) for at in range(0, len(data.ids), BATCH)]
    for part in parts:
        docs.upsert(data.ids[part], data.vectors[part], data.payloads[part])
    db.optimize()
    kth = data.kth_distance(())

    def recall() -> float:
        found = [docs.search(query, k=K, ef=ef, include=()).ids.tolist() for query in data.queries]
        return data.recall(found, kth, K)

    before, begin = recall(), time.perf_counter()
    for part in parts:
        docs.update(data.ids[part], payloads=[{"patched": True}] * len(data.ids[part]))
    patched = time.perf_counter()
    db.optimize()
    settled = time.perf_counter()
    if docs.count({"patched": True}) != len(data.ids):
        raise RuntimeError("not every record was patched")
    return {
        "records": len(data.ids),
        "patch_s": patched - begin,
        "optimize_s": settled - patched,
        "before": before,
        "after": recall(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with debian-packages.parquet and debian-minilm-384.npy")
    parser.add_argument("--live", type=int, default=100_000, help="records that are there at any time")
    parser.add_argument("--turnovers", type=int, default=10, help="how often all of them are exchanged")
    parser.add_argument("--ef", type=int, default=64, help="candidates of every search")
    parser.add_argument("--patch", action="store_true", help="change the payload of every record instead")
    parser.add_argument("--records", type=int, help="with --patch: a part of the data")
    parser.add_argument("--work", type=Path, help="where the database is made (default: the temporary directory)")
    parser.add_argument("--dry", action="store_true", help="do not append to the history")
    given = parser.parse_args()
    data = load(given.data, given.records if given.patch else None)
    vecdb.warm_up()  # no figure holds the compilation of kernels
    line = line_of("patch" if given.patch else "streaming", {"ef": given.ef})
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=given.work) as folder:
        with vecdb.open(Path(folder) / "db") as db:
            if given.patch:
                figures = patch(db, data, given.ef)
                print(table([list(figures), [f"{value:,.4g}" for value in figures.values()]]))
            else:
                drift = Drift(*order_of_topics(data.vectors, data.queries))
                figures = {
                    "turnovers": list(run(Stream(db, drift, vecdb.HNSW(), given.ef), given.live, given.turnovers))
                }
                print(table([HEADING, *map(cells, figures["turnovers"])]))
    if not given.dry:
        append(line | figures)


if __name__ == "__main__":
    main()
