"""Search among chosen rows by the codes that a graph keeps of each row: no walk, and nothing missed by chance."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vecdb.index.base import frozen, result_arrays
from vecdb.kernels.gather import list_rows, search_rows
from vecdb.types import F32, I32, I64, U64

if TYPE_CHECKING:
    from vecdb.index.graph_builder import Graph
    from vecdb.index.hnsw import WalkInputs

FEW_DIMS = 32  # a vector is two cache lines at most
# By bits: rows kept by these codes, at least so many and so many times k; then, of these, rows scored exactly beyond k,
# at least so many and at least this share of k. Two bits are looked at with finer codes in between, the others are not.
POOLED = {2: (100, 4.0), 4: (50, 2.0), 8: (30, 1.5)}
SCORED = {2: (20, 0.5), 4: (40, 1.0), 8: (20, 0.5)}


def can_gather(graph: Graph, dim: int) -> bool:
    """Whether codes tell enough, and cost less than the rows."""
    return graph.codes.sure and dim >= FEW_DIMS


def gather(
    inputs: WalkInputs, queries: F32, k: int, rows: I32, rescore: int | None, counters: I64 | None
) -> tuple[I32, F32]:
    """The k nearest of `rows`; see HnswIndex.gather.

    inputs   as search_graph takes them first
    """
    metric, vectors, bits, records, factors, fine_bits, fine, fine_factors, _, _, _, _, _, centre, _, _ = inputs
    scored, pool = sizes(bits, k, rescore)
    found, distances = result_arrays(queries, k)
    search_rows(
        metric,
        vectors,
        bits,
        records,
        factors,
        fine_bits,
        fine,
        fine_factors,
        centre,
        frozen(rows),
        frozen(queries),
        k,
        pool,
        scored,
        found,
        distances,
        np.zeros(4, np.int64) if counters is None else counters,
    )
    return found, distances


@lru_cache(maxsize=1024)
def sizes(bits: int, k: int, rescore: int | None) -> tuple[int, int]:
    """(rows scored exactly, rows kept by codes)"""
    more, share = SCORED[bits]
    least, times = POOLED[bits]
    scored = max(rescore or k + max(more, int(share * k)), k)
    return scored, max(scored, least, int(times * k))


def rows_in(allow: U64, count: int) -> I32:
    """The ascending rows of a bitset with `count` bits set."""
    rows = np.empty(count, np.int32)
    list_rows(frozen(allow), rows)
    return rows
