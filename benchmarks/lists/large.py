"""Ten million rows, of which only the codes are in memory: bytes, build time, and microseconds a query at a recall.

The vectors are a mapped file of float16, of which a search reads a few rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.graphs import F32, F64, Rows
from benchmarks.graphs.costs import BUILD_THREADS
from benchmarks.graphs.curves import seconds_at
from benchmarks.graphs.vector_sets import SPARE, TIE, least
from benchmarks.lists import TARGETS, probes
from benchmarks.lists.vecdb_lists import VecdbLists, lists
from vecdb.index.two_levels import list_count
from vecdb.types import Matrix, Metric

QUERIES = 300
BITS, K = 2, 10
BLOCK = 65_536  # rows read at once


def measure(file: Path, nlist: int, rounds: int, work: Path | None, say: Callable[[str], object]) -> dict[str, Any]:
    """`file` has the descriptors of benchmarks/data/photo_descriptors.py --dense; its first rows are the queries."""
    stored = np.load(file, mmap_mode="r", allow_pickle=False)
    queries, rows = stored[:QUERIES].astype(np.float32), stored[QUERIES:]
    nearest = nearest_distances(rows, queries)
    say(f"{len(rows):,} rows: neighbours known")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        engine = lists("l2", nlist or list_count(len(rows), 0), BITS)
        vectors = mapped(rows, Path(folder) / "vectors")
        seconds = engine.build_over(Matrix(vectors, None, Metric.L2), BUILD_THREADS)
        say(f"{engine.name}: {seconds:.1f} s")
        found = costs(engine, rows, queries, nearest, rounds)
        sizes = {"bytes": engine.bytes_per_vector(), "vector_bytes": 2 * rows.shape[1]}
    return {"rows": len(rows), "nlist": engine.nlist, "build_seconds": seconds, **sizes, **found}


def mapped(rows: Any, file: Path) -> Any:
    """The rows as float16, which holds 0 to 255 exactly, in a mapped file."""
    with file.open("wb") as out:
        for first in range(0, len(rows), BLOCK):
            out.write(rows[first : first + BLOCK].astype(np.float16).tobytes())
    return np.memmap(file, np.float16, "r", shape=rows.shape)


def nearest_distances(rows: Any, queries: F32) -> F64:
    """float64 (queries, K), ascending: exact, for values are whole numbers."""
    ids = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK].astype(np.float32)
        score = np.einsum("ij,ij->i", block, block) - 2.0 * (queries @ block.T)
        here = np.broadcast_to(np.arange(first, first + len(block)), score.shape)
        scores, ids = least(np.hstack([scores, score]), np.hstack([ids, here]), K + SPARE)
    return np.sort(np.stack([distances(rows, query, near) for query, near in zip(queries, ids, strict=True)]))[:, :K]


def distances(rows: Any, query: F32, near: Rows) -> F64:
    return np.asarray(((rows[near].astype(np.float64) - query.astype(np.float64)) ** 2).sum(1))


def recall(rows: Any, queries: F32, found: Rows, nearest: F64) -> float:
    hits = sum(
        int(np.count_nonzero(distances(rows, query, ids[ids >= 0]) <= bound * (1 + TIE)))
        for query, ids, bound in zip(queries, found, nearest[:, -1], strict=True)
    )
    return hits / found.size


def costs(engine: VecdbLists, rows: Any, queries: F32, nearest: F64, rounds: int) -> dict[str, Any]:
    """The curve, and microseconds a query at TARGETS, one query a call."""
    efforts, recalls = probes(engine.nlist), []
    for nprobe in efforts:
        recalls.append(recall(rows, queries, engine.search(queries, K, nprobe), nearest))
        if recalls[-1] > TARGETS[-1]:
            break
    seconds: list[list[float]] = []
    for _ in range(rounds):
        seconds.append([alone(engine, queries, nprobe) for nprobe in efforts[: len(recalls)]])
    at = {wanted: seconds_at(recalls, seconds, wanted) for wanted in TARGETS}
    us = {str(wanted): 1e6 * float(np.median(found[0])) for wanted, found in at.items() if found}
    return {"nprobe": efforts[: len(recalls)], "recall": recalls, "us": us}


def alone(engine: VecdbLists, queries: F32, nprobe: int) -> float:
    """Seconds a query."""
    begin = time.perf_counter()
    for i in range(len(queries)):
        engine.search(queries[i : i + 1], K, nprobe)
    return (time.perf_counter() - begin) / len(queries)
