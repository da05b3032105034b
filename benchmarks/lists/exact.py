"""Exact search of all rows: vecdb's flat codes with rescoring and its float32 scan, beside FAISS's flat indexes."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

import vecdb
from benchmarks.graphs import F32, F64, Rows
from benchmarks.graphs.costs import BUILD_THREADS
from benchmarks.graphs.curves import paired
from benchmarks.graphs.vector_sets import VectorSet, recall
from benchmarks.lists.vecdb_lists import matrix_of
from vecdb.index.base import load_kind
from vecdb.index.flat import search_exact

BATCH = 100  # queries of a call
SINGLE = 100  # queries that are also asked one at a time
OURS = "vecdb Flat"  # what ratios are of

Search = Callable[[F32], Rows]


def searches(data: VectorSet, k: int) -> dict[str, Search]:
    """By name; ours first."""
    matrix = matrix_of(data.vectors, data.metric)
    flat = load_kind("flat").build(matrix, vecdb.Flat(), threads=BUILD_THREADS)
    found: dict[str, Search] = {
        OURS: lambda queries: flat.search(queries, k)[0],
        "vecdb exact=True": lambda queries: search_exact(matrix, queries, k, None, None, None)[0],
    }
    if find_spec("faiss") is not None:
        import faiss

        faiss.omp_set_num_threads(1)
        metrics = ("L2", "IP") if data.metric == "cosine" else ("L2",)
        for metric in metrics:
            index = getattr(faiss, f"IndexFlat{metric}")(data.dim)
            index.add(data.vectors)
            found[f"faiss IndexFlat{metric}"] = lambda queries, index=index: index.search(queries, k)[1]
    return found


def measure(data: VectorSet, k: int, nearest: F64, rounds: int) -> dict[str, Any]:
    """Of each: recall, microseconds a query alone and in batches, and our ratios in the rounds."""
    found = searches(data, k)
    asked = {"single": (data.queries[:SINGLE], 1), "batch": (data.queries, BATCH)}
    figures: dict[str, Any] = {"k": k, "recall": {}, "us": {}, "ratios": {}}
    for name, search in found.items():  # this also warms them up
        rows = np.concatenate([search(part) for part in parts(*asked["batch"])])
        figures["recall"][name] = round(recall(data, rows, nearest), 5)
    for mode, (queries, size) in asked.items():
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for number in range(rounds):
            names = list(found)[number % len(found) :] + list(found)[: number % len(found)]
            for name in names:
                seconds[name].append(seconds_of(found[name], queries, size))
        figures["us"][mode] = {name: 1e6 * float(np.median(taken)) for name, taken in seconds.items()}
        figures["ratios"][mode] = {
            name: paired(seconds[OURS], taken) for name, taken in seconds.items() if name != OURS
        }
    return figures


def parts(queries: F32, size: int) -> list[F32]:
    return [queries[first : first + size] for first in range(0, len(queries), size)]


def seconds_of(search: Search, queries: F32, size: int) -> float:
    """Seconds a query of calls with `size` queries each."""
    calls = parts(queries, size)
    begin = time.perf_counter()
    for part in calls:
        search(part)
    return (time.perf_counter() - begin) / len(queries)
