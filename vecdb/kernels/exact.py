"""Exact search in plain NumPy: the answer before kernels are loaded, and the oracle of every other path.

Matrix products give float32 estimates; every row that the rounding error could bring among the k nearest is scored
again with float64, so the result is that of a float64 search and bit-equal to what the compiled kernels return.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels import bitset
from vecdb.types import F32, I32, U64, AnyArray, Matrix, Metric

BLOCK_BYTES = 16 << 20  # scratch of one row block: estimates, or gathered vectors
GATHER_SHARE = 8  # a filter that keeps less than 1 / 8 of the rows is gathered, not masked
SNAP = 1e-14  # a cosine distance below the rounding error of float64 sums is 0


def exact_search(
    matrix: Matrix, queries: F32, k: int, allow: U64 | None = None, rows: I32 | None = None
) -> tuple[I32, F32]:
    """The k nearest rows of each query, by (distance, row).

    queries  float32 (q, dim)
    allow    bitset of the rows that may be returned; None allows all
    rows     ascending rows to look at instead of all; `allow` applies to them as well

    Returns rows int32 (q, k) and distances float32 (q, k); missing results are row -1, distance inf.
    """
    found = np.full((len(queries), k), -1, np.int32)
    distances = np.full((len(queries), k), np.inf, np.float32)
    rows, mask = _plan(matrix, allow, rows)
    candidates = _candidates(matrix, queries, k, rows, mask)
    for i, picked in enumerate(candidates):
        scored = exact_distances(matrix, queries[i], picked)
        best = np.lexsort((picked, scored))[:k]
        found[i, : len(best)], distances[i, : len(best)] = picked[best], scored[best]
    return found, distances


def exact_distances(matrix: Matrix, query: F32, rows: I32) -> F32:
    """Distances float32 (n,) of `query` to `rows`, from float64 sums of the stored values."""
    out = np.empty(len(rows), np.float32)
    step = max(1, BLOCK_BYTES // (16 * matrix.dim))
    wide = query.astype(np.float64)
    for first in range(0, len(rows), step):
        part = matrix.vectors[rows[first : first + step]].astype(np.float64)
        with np.errstate(over="ignore"):  # beyond float32 a distance is inf, as documented
            out[first : first + step] = _float64_distances(matrix.metric, part, wide)
    return out


def _float64_distances(metric: Metric, part: AnyArray, query: AnyArray) -> AnyArray:
    if metric == Metric.L2:
        part -= query
        return np.asarray(np.einsum("ij,ij->i", part, part))
    products = np.einsum("ij,j->i", part, query)
    if metric == Metric.DOT:
        return np.asarray(1.0 - products)
    scale = np.sqrt(np.einsum("ij,ij->i", part, part) * np.einsum("j,j->", query, query))
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    distances = np.asarray(1.0 - cosines)
    distances[distances < SNAP] = 0.0
    return distances


def _plan(matrix: Matrix, allow: U64 | None, rows: I32 | None) -> tuple[I32 | None, AnyArray | None]:
    """(rows to gather or None for all, bool mask over all rows or None)."""
    if rows is not None:
        return (rows if allow is None else rows[bitset.to_mask(allow, matrix.rows)[rows]]), None
    if allow is None:
        return None, None
    if bitset.count(allow) * GATHER_SHARE < matrix.rows:
        return bitset.to_rows(allow, matrix.rows), None
    return None, bitset.to_mask(allow, matrix.rows)


def _candidates(matrix: Matrix, queries: F32, k: int, rows: I32 | None, mask: AnyArray | None) -> list[I32]:
    """Per query, ascending rows that hold the k nearest for certain."""
    total = matrix.rows if rows is None else len(rows)
    pools = [_Pool(k) for _ in range(len(queries))]
    step = max(256, BLOCK_BYTES // (4 * max(len(queries), matrix.dim)))
    for first in range(0, total, step):
        last = min(total, first + step)
        block = np.arange(first, last, dtype=np.int32) if rows is None else rows[first:last]
        chosen: slice | I32 = slice(first, last) if rows is None else block
        estimates, error = _estimates(matrix, queries, chosen)
        for i, pool in enumerate(pools):
            values, kept = estimates[i], block
            if mask is not None:
                allowed = mask[first:last]
                values, kept = values[allowed], block[allowed]
            pool.add(values, kept, float(error[i]))
    return [pool.rows() for pool in pools]


def _estimates(matrix: Matrix, queries: F32, chosen: slice | I32) -> tuple[F32, AnyArray]:
    """Estimates float32 (q, rows) that order like the distances, and per query the largest error they may have."""
    part = np.asarray(matrix.vectors[chosen], np.float32)
    unit = np.finfo(np.float32).eps * (8 + matrix.dim / 4)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
        products = queries @ part.T
        if matrix.metric == Metric.COSINE:
            assert matrix.inverse_norms is not None
            products *= -matrix.inverse_norms[chosen]
            return products, unit * lengths
        norms = np.einsum("ij,ij->i", part, part)
        longest = float(norms.max(initial=0.0))
        if matrix.metric == Metric.DOT:
            return -products, unit * lengths * np.sqrt(longest)
        products *= -2
        products += norms
        return products, 2 * unit * (longest + lengths**2)


class _Pool:
    """The candidates of one query: all rows whose estimate is within the error of the k-th smallest so far."""

    def __init__(self, k: int) -> None:
        self._k, self._error = k, 0.0
        self._values, self._rows = np.empty(0, np.float32), np.empty(0, np.int32)

    def add(self, values: F32, rows: I32, error: float) -> None:
        self._error = max(self._error, error) if np.isfinite(error) else np.inf
        values = np.where(np.isfinite(values), values, np.float32(-np.inf))  # overflowed: let float64 decide
        if len(self._values):
            near = values <= self._limit(self._values)
            values, rows = values[near], rows[near]
            values, rows = np.concatenate([self._values, values]), np.concatenate([self._rows, rows])
        near = values <= self._limit(values)
        self._values, self._rows = values[near], rows[near]

    def _limit(self, values: F32) -> float:
        if self._k == 0:
            return -np.inf
        if len(values) <= self._k or self._error == np.inf:
            return np.inf
        return float(np.partition(values, self._k - 1)[self._k - 1]) + 2 * self._error

    def rows(self) -> I32:
        return self._rows
