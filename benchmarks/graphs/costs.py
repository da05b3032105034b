"""What a graph costs beside the walk: builds, bytes, the call itself, and what a second thread brings."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from benchmarks.graphs import EF_CONSTRUCTION, F32, GraphEngine
from benchmarks.graphs.curves import SINGLE, batch_seconds, measure, paired, single_seconds
from benchmarks.graphs.vecdb_graph import VecdbGraph
from benchmarks.graphs.vector_sets import VectorSet, nearest_distances

M = 16
BATCH = 5000  # records of one upsert
BUILD_THREADS = 2
REFERENCE = "hnswlib M16"  # what ingest through the collection is compared with
EF = 64  # of the figures about calls and threads, which are small differences: they get more rounds
MORE_ROUNDS = 5


def quartiles(values: list[float]) -> list[float]:
    """Median, lower and upper quartile."""
    return [float(value) for value in np.quantile(values, (0.5, 0.25, 0.75))]


def prepare(
    engines: list[GraphEngine], data: VectorSet, cache: Path | None, rounds: int, beside: Callable[[], float] | None
) -> tuple[dict[str, list[float]], list[float]]:
    """Every engine over `data`: build seconds of each, and what `beside` returns once in each of the rounds.

    The order turns from round to round. Without rounds an engine is loaded when the cache has it, and built otherwise.
    """
    others = []
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    digest = data.digest() if cache else ""
    for number in range(max(rounds, 1)):
        for turn in range(len(engines)):
            engine = engines[(turn + number) % len(engines)]
            name = "".join(sign if sign.isalnum() else "-" for sign in f"{digest} {engine.name} {engine.version}")
            file = cache / name if cache else None
            if file and file.exists() and not rounds:
                engine.load(file, data.vectors)
                continue
            seconds[engine.name].append(engine.build(data.vectors, BUILD_THREADS))
            print(f"  {data.name} {engine.name}: {seconds[engine.name][-1]:.1f} s", file=sys.stderr, flush=True)
            if file:
                keep(engine, file)
        if rounds and beside:
            others.append(beside())
    return seconds, others


def keep(engine: GraphEngine, file: Path) -> None:
    """Under its name only when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    engine.save(part)
    part.replace(file)


def build_figures(seconds: dict[str, list[float]], ours: str, ingest: list[float]) -> dict[str, Any]:
    """Seconds and our ratios, above 1 where we take less time; `ingest` through the collection against REFERENCE."""
    result: dict[str, Any] = {"threads": BUILD_THREADS, "seconds": {name: quartiles(s) for name, s in seconds.items()}}
    result["ratios"] = {name: paired(seconds[ours], theirs) for name, theirs in seconds.items() if name != ours}
    if ingest:
        result["collection"] = {"seconds": quartiles(ingest)}
        if REFERENCE in seconds:
            result["collection"]["ratio"] = paired(ingest, seconds[REFERENCE])
    return result


def call_overhead(engine: GraphEngine, data: VectorSet, k: int, rounds: int) -> list[float]:
    """Microseconds of a call beside its walk: a query alone minus the same queries in one call."""
    queries = engine.ready(data.queries[:SINGLE])
    ef = max(EF, k)
    pairs = [
        (single_seconds(engine, queries, k, ef), batch_seconds(engine, queries, k, ef))
        for _ in range(MORE_ROUNDS * rounds)
    ]
    return quartiles([(alone - together) * 1e6 for alone, together in pairs])


def thread_scaling(one: Callable[[], object], two: Callable[[], object], rounds: int) -> list[float]:
    """How many times faster two threads are, one after the other in every round."""
    one(), two()
    ratios = []
    for _ in range(MORE_ROUNDS * rounds):
        times = []
        for work in (one, two):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        ratios.append(times[0] / times[1])
    return quartiles(ratios)


def index_scaling(engine: GraphEngine, queries: F32, k: int, rounds: int) -> list[float]:
    """Two Python threads that search half of the queries each."""
    halves, ef = np.array_split(queries, 2), max(EF, k)
    with ThreadPoolExecutor(2) as pool:
        return thread_scaling(
            lambda: engine.search(queries, k, ef),
            lambda: list(pool.map(lambda half: engine.search(half, k, ef), halves)),
            rounds,
        )


class Collection:
    """The same vectors through the public API, each batch on disk before the next; a context manager."""

    def __init__(self, metric: str, work: Path | None) -> None:
        self.metric, self.work = metric, work
        self.database: vecdb.Database | None = None

    def __enter__(self) -> Collection:
        self.folder = Path(tempfile.mkdtemp(prefix="vecdb-bench-", dir=self.work))
        return self

    def __exit__(self, *error: object) -> None:
        self._drop()
        shutil.rmtree(self.folder)

    def _drop(self) -> None:
        if self.database is not None:
            self.database.close()
            shutil.rmtree(self.folder / "db")
            self.database = None

    def fill(self, vectors: F32) -> float:
        """A new database; seconds from the first upsert to the return of optimize()."""
        self._drop()
        self.database = vecdb.open(self.folder / "db", sync="full", threads=BUILD_THREADS)
        index = vecdb.HNSW(m=M, ef_construction=EF_CONSTRUCTION)
        dim = vectors.shape[1]
        self.docs = self.database.create_collection("docs", dim=dim, metric=self.metric, index=index)
        self.docs.explain(vectors[0])  # waits for the kernels
        ids = list(range(len(vectors)))
        begin = time.perf_counter()
        for first in range(0, len(ids), BATCH):
            self.docs.upsert(ids=ids[first : first + BATCH], vectors=vectors[first : first + BATCH])
        self.docs.optimize()
        return time.perf_counter() - begin

    def scaling(self, data: VectorSet, k: int, rounds: int) -> list[float]:
        """A batch of queries with threads=2."""
        if self.database is None:
            self.fill(data.vectors)
        queries, ef = data.queries, max(EF, k)
        self.docs.explain(queries[0], k=k)
        return thread_scaling(
            lambda: self.docs.search(queries, k=k, ef=ef, threads=1),
            lambda: self.docs.search(queries, k=k, ef=ef, threads=2),
            rounds,
        )


def own_figures(
    engine: VecdbGraph, data: VectorSet, k: int, rounds: int, parts: list[str], collection: Collection
) -> dict[str, Any]:
    """What is measured of vecdb alone."""
    figures: dict[str, Any] = {"bytes": engine.bytes_per_vector(), "bytes_bound": data.dim + 8 * M + 32}
    if "overhead" in parts:
        figures["overhead_us"] = call_overhead(engine, data, k, rounds)
    if len(os.sched_getaffinity(0)) < 2:
        print("  one processor: the scaling of threads is not measured", file=sys.stderr)
        return figures
    if "scaling" in parts:
        figures["index_scaling"] = index_scaling(engine, data.queries, k, rounds)
    if "collection" in parts:
        figures["collection_scaling"] = collection.scaling(data, k, rounds)
    return figures


def growth(data: VectorSet, sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    """vecdb alone, k = 10, on the first rows of `data`: build seconds, and microseconds a query at the targets."""
    result = []
    for size in (size for size in sizes if size <= len(data.vectors)):
        part, engine = data.part(size), VecdbGraph(data.metric)
        seconds = engine.build(part.vectors, BUILD_THREADS)
        (curve,) = measure([engine], part, 10, nearest_distances(part, 10), rounds, single=False)
        at = {wanted: curve.at(wanted) for wanted in (0.95, 0.99)}
        cost = {str(w): 1e6 * float(np.median(found[0])) if found else None for w, found in at.items()}
        result.append(
            {"rows": size, "build_s": seconds, "us": cost, "at_least": [w for w, f in at.items() if f and f[1]]}
        )
    return result
