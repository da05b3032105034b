"""Distances of float32 queries to stored vectors: quick estimates for many rows, the final ones of those returned.

Stored vectors are float32, or the bits of float16 as uint16 (see `intrinsics.widen`).

Every path of a search ends in `exact_distance`, so all plans return the same distance for the same row.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.exact import SNAP
from vecdb.kernels.exact_sums import LANES, products, squares
from vecdb.kernels.intrinsics import prefetch_row, widen
from vecdb.kernels.jit import Integer, kernel
from vecdb.kernels.topk import keep_smallest, key_distance, key_row, pack_key, sort_keys
from vecdb.types import AnyArray

COSINE, DOT, L2 = 0, 1, 2  # vecdb.types.Metric, as the constants that kernels compare with
AHEAD = 4  # rows prefetched ahead of the one being scored


@kernel
def squared_norm(vectors: AnyArray, row: Integer) -> float:
    """float64 sum of squares of vectors[row]."""
    total = 0.0
    for j in range(vectors.shape[1]):
        value = np.float64(widen(vectors[row, j]))
        total += value * value
    return total


@kernel
def estimate(
    metric: int, vectors: AnyArray, inverse_norms: AnyArray, row: Integer, queries: AnyArray, i: int, scale: np.float32
) -> np.float32:
    """A float32 number that orders rows like their distance: -cos, -dot, or the squared distance.

    scale  1 / |query| under cosine; unused otherwise
    """
    total = np.float32(0.0)
    if metric == L2:
        for j in range(vectors.shape[1]):
            step = queries[i, j] - widen(vectors[row, j])
            total += step * step
        return total
    for j in range(vectors.shape[1]):
        total += queries[i, j] * widen(vectors[row, j])
    if metric == COSINE:
        total *= inverse_norms[row] * scale
    return np.float32(-total)


@kernel
def exact_distance(
    metric: int, vectors: AnyArray, row: Integer, queries: AnyArray, i: int, query_norm: float, soon: Integer
) -> np.float32:
    """The distance of queries[i] to vectors[row], summed in float64; vectors[soon] is asked for meanwhile.

    query_norm  squared_norm(queries, i) under cosine; unused otherwise
    """
    whole = vectors.shape[1] // LANES * LANES
    if metric == L2:
        total, norm = squares(vectors, np.intp(row), queries, np.intp(i), np.intp(soon))
        for j in range(whole, vectors.shape[1]):
            step = np.float64(queries[i, j]) - np.float64(widen(vectors[row, j]))
            total += step * step
        return np.float32(total)
    total, norm = products(vectors, np.intp(row), queries, np.intp(i), np.intp(soon))
    for j in range(whole, vectors.shape[1]):
        value = np.float64(widen(vectors[row, j]))
        total += np.float64(queries[i, j]) * value
        norm += value * value
    if metric == DOT:
        return np.float32(1.0 - total)
    scale = np.sqrt(norm * query_norm)
    distance = 1.0 - total / scale if scale > 0.0 else 1.0
    return np.float32(distance) if distance >= SNAP else np.float32(0.0)


@kernel
def score_rows(metric: int, vectors: AnyArray, queries: AnyArray, i: int, keys: AnyArray, count: int) -> None:
    """keys[:count] = the exact distances of the rows in keys[:count], with the rows."""
    lines = (vectors.itemsize * vectors.shape[1] + 63) // 64
    norm = squared_norm(queries, i) if metric == COSINE else 0.0
    for j in range(min(AHEAD, count)):
        prefetch_row(vectors, np.intp(key_row(keys[j])), np.intp(lines))
    for j in range(count):
        row, soon = key_row(keys[j]), key_row(keys[min(j + AHEAD, count - 1)])
        keys[j] = pack_key(exact_distance(metric, vectors, row, queries, i, norm, soon), row)


@kernel
def rescore(
    metric: int,
    vectors: AnyArray,
    queries: AnyArray,
    i: int,
    keys: AnyArray,
    count: int,
    k: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
) -> None:
    """Score the rows of keys[:count] exactly and write the k best of them to row i of the results, -1 and inf after."""
    score_rows(metric, vectors, queries, i, keys, count)
    if count > k:
        keep_smallest(keys, count, k)
    found = min(count, k)
    sort_keys(keys, found)
    write_results(keys, found, i, k, out_rows, out_distances)


@kernel
def write_results(keys: AnyArray, found: int, i: int, k: int, out_rows: AnyArray, out_distances: AnyArray) -> None:
    for j in range(k):
        if j < found:
            out_rows[i, j], out_distances[i, j] = key_row(keys[j]), key_distance(keys[j])
        else:
            out_rows[i, j], out_distances[i, j] = -1, np.inf
