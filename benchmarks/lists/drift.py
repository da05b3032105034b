"""Lists that were trained on some topics meet the others: recall before and after they are trained again.

Whole sections of the package descriptions are drawn until half of the rows are there. Lists are trained on those, then
the other rows come, as a merge brings them: `carried` assigns them to the nearest lists, measures the drift, and
trains again where that is due. Beside it stand the same lists when they are never trained again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from benchmarks import dataset
from benchmarks.graphs import F64, Rows
from benchmarks.graphs.costs import BUILD_THREADS
from benchmarks.graphs.curves import batch_seconds
from benchmarks.graphs.vector_sets import VectorSet, nearest_distances, recall
from benchmarks.lists.vecdb_lists import VecdbLists, matrix_of
from vecdb.index import drift
from vecdb.index.ivf import IvfIndex
from vecdb.index.two_levels import list_count

K, BITS = 10, 2
RECALL = 0.95  # the fixed effort is what reaches it where the lists fit
SEED = 7
BOUNDS = ("ERROR_MAX", "LARGEST_MAX", "LISTS_OFF")  # of vecdb.index.drift


def halves(sections: Sequence[str]) -> tuple[Rows, Rows]:
    """Rows of whole sections, drawn in a fixed order until they are half of all; and the others."""
    names = sorted(set(sections))
    numbers = np.searchsorted(np.array(names), np.array(sections))
    order = np.random.default_rng(SEED).permutation(len(names))
    sizes = np.bincount(numbers, minlength=len(names))[order]
    taken = order[: int(np.searchsorted(np.cumsum(sizes), len(sections) / 2)) + 1]
    old = np.isin(numbers, taken)
    return np.flatnonzero(old), np.flatnonzero(~old)


@contextlib.contextmanager
def never_trained_again() -> Iterator[None]:
    """Bounds of drift that nothing reaches."""
    before = {name: getattr(drift, name) for name in BOUNDS}
    try:
        for name in BOUNDS:
            setattr(drift, name, float("inf"))
        yield
    finally:
        for name, value in before.items():
            setattr(drift, name, value)


def measure(folder: Path, rows: int | None, nlist: int, rounds: int) -> dict[str, Any]:
    data = dataset.load(folder, rows)
    old, new = halves([payload["section"] for payload in data.payloads])
    vectors = np.ascontiguousarray(data.vectors[np.concatenate([old, new])])
    ordered = VectorSet("sections", "cosine", vectors, data.queries)
    options = vecdb.IVF(nlist=nlist or list_count(len(vectors), 0), bits=BITS)
    half, whole = matrix_of(vectors[: len(old)], "cosine"), matrix_of(vectors, "cosine")
    trained = IvfIndex.build(half, options, threads=BUILD_THREADS)
    places = np.arange(len(old), dtype=np.int32)
    with never_trained_again():
        kept = trained.carried(whole, places, threads=BUILD_THREADS)
    carried = trained.carried(whole, places, threads=BUILD_THREADS)
    anew = IvfIndex.build(whole, options, threads=BUILD_THREADS)
    nprobe = anew.effort(K, RECALL)
    nearest = nearest_distances(ordered, K)
    about_new = nearest_is_new(ordered, len(old), nearest)
    indexes = {"trained on half, kept": kept, "carried": carried, "trained on all": anew}
    found = {
        name: state(index, options, ordered, nprobe, nearest, about_new, rounds) for name, index in indexes.items()
    }
    return {"rows": [len(old), len(new)], "nprobe": nprobe, "lists": options.nlist, "queries_about_new":
            int(about_new.sum()), "states": found, "retrained": carried.parameters()["retrained"]}  # fmt: skip


def nearest_is_new(data: VectorSet, old: int, nearest: F64) -> NDArray[np.bool_]:
    """bool (queries,): whether none of the first `old` rows is as near as the nearest of all."""
    among_old = nearest_distances(data.part(old), 1)[:, 0]
    return np.asarray(among_old > nearest[:, 0] + 1e-6 * np.abs(nearest[:, 0]))


def state(
    index: IvfIndex,
    options: vecdb.IVF,
    data: VectorSet,
    nprobe: int,
    nearest: F64,
    about_new: NDArray[np.bool_],
    rounds: int,
) -> dict[str, Any]:
    engine = VecdbLists("cosine", options, "lists")
    engine.index = index
    rows = engine.search(data.queries, K, nprobe)
    part = VectorSet(data.name, data.metric, data.vectors, data.queries[about_new])
    seconds = [batch_seconds(engine, data.queries, K, nprobe) for _ in range(max(3, rounds))]
    return {
        "recall": round(recall(data, rows, nearest), 5),
        "recall_new": round(recall(part, rows[about_new], nearest[about_new]), 5) if about_new.any() else None,
        "qps": round(1 / float(np.median(seconds)), 1),
        "error": index.fit.error,
        "largest": index.fit.largest,
    }
