"""Lists of 2-bit codes and the graph on more and more rows: where one overtakes the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.graphs.costs import BUILD_THREADS, prepare
from benchmarks.graphs.curves import Curve, measure, paired
from benchmarks.graphs.vecdb_graph import VecdbGraph
from benchmarks.graphs.vector_sets import VectorSet, nearest_distances
from benchmarks.lists import TARGETS
from benchmarks.lists import prepare as prepare_lists
from benchmarks.lists.vecdb_lists import lists
from vecdb.index.two_levels import list_count

SIZES = (10_000, 100_000, 1_000_000)
BITS, K = 2, 10


def sizes(rows: int) -> list[int]:
    """SIZES up to `rows`, or these alone."""
    return [size for size in SIZES if size <= rows] or [rows]


def grow(
    data: VectorSet, nlist: int, rounds: int, cache: Path | None, say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Of each size: by engine, microseconds a query and recall at TARGETS; and how much faster the lists are."""
    result = []
    for size in sizes(len(data.vectors)):
        part = data.part(size)
        ours, graph = lists(data.metric, list_count(size, nlist), BITS), VecdbGraph(data.metric)
        prepare_lists([ours], part.vectors, part.digest() if cache else "", cache, BUILD_THREADS, say)
        prepare([graph], part, cache, 0, None)
        curves = measure([ours, graph], part, K, nearest_distances(part, K), rounds, single=True, wanted=TARGETS)
        ratios = {}
        for wanted in TARGETS:
            at = [curve.at(wanted) for curve in curves]
            if at[0] and at[1]:
                ratios[str(wanted)] = paired(at[0][0], at[1][0])
        costs = {name: costs_of(curve) for name, curve in zip(("ivf", "hnsw"), curves, strict=True)}
        result.append({"rows": size, "nlist": ours.nlist, **costs, "lists_to_graph": ratios})
    return result


def costs_of(curve: Curve) -> dict[str, Any]:
    """Microseconds a query at TARGETS, {} where it is not reached, and what is found at most."""
    found: dict[str, Any] = {"recall_most": max(curve.recalls)}
    for wanted in TARGETS:
        for mode in ("batch", "single"):
            at = curve.at(wanted, mode)
            if at is not None:
                here = found.setdefault(str(wanted), {"at_most": at[1]})
                here[mode] = 1e6 * float(np.median(at[0]))
    return found
