"""Exact search of a bare matrix with compiled kernels: for segments, or rows, that no index covers."""

from __future__ import annotations

from vecdb.types import F32, I32, I64, U64, Matrix


def search_matrix(
    matrix: Matrix, queries: F32, k: int, allow: U64 | None, rows: I32 | None, counters: I64 | None
) -> tuple[I32, F32]:
    """As Index.search, with float32 rows. Loads the compiler on first use."""
    from vecdb.index.flat import search_exact

    return search_exact(matrix, queries, k, allow, rows, counters)
