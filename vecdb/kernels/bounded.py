"""The rows of a pool that may be among the k nearest, scored exactly, and no others.

How far estimates lie from distances is measured on the query's own nearest rows: the mean of the errors, and their
deviation in units of a row's scale, to which the errors of RaBitQ codes are proportional (Gao and Long, 2024); at the
least that of levels rounded evenly, 1/sqrt(12) of the query's length, which is what text embeddings show (.30). A row
whose estimate lies SURE deviations above the k-th distance found so far is not looked up.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import rescore, score_rows, write_results
from vecdb.kernels.jit import allocating, kernel
from vecdb.kernels.topk import keep_smallest, key_distance, key_row, sort_keys
from vecdb.types import AnyArray

FIRST = 48  # rows that tell the errors, and at least twice k
DISTINCT = 16  # of their estimates, or they are copies of too few rows to tell anything
SURE = np.float32(6.0)  # deviations; with 5 none of 5,000 neighbours was lost
ROUNDING = np.float32(12.0**-0.5)


@kernel
def rescore_pool(
    metric: int, vectors: AnyArray, scale: AnyArray, coded: int, queries: AnyArray, i: int, length: np.float32,
    keys: AnyArray, count: int, k: int, pool: int, bounded: int, out_rows: AnyArray, out_distances: AnyArray,
) -> int:  # fmt: skip
    """Writes the k nearest of the best `pool` of keys[:count] to row i of the results; returns how many were scored.

    bounded  0 to score all of the pool;  others as in rescore_within
    """
    kept = min(count, pool)
    if count > pool:
        keep_smallest(keys, count, pool)
    if bounded:
        return rescore_within(metric, vectors, scale, coded, queries, i, length, keys, kept, k, out_rows, out_distances)
    rescore(metric, vectors, queries, i, keys, kept, k, out_rows, out_distances)
    return kept


@allocating
def rescore_within(
    metric: int, vectors: AnyArray, scale: AnyArray, coded: int, queries: AnyArray, i: int, length: np.float32,
    keys: AnyArray, count: int, k: int, out_rows: AnyArray, out_distances: AnyArray,
) -> int:  # fmt: skip
    """Writes the k nearest of keys[:count] to row i of the results, -1 and inf after; returns how many were scored.

    scale    float32, of each row below `coded`; the keys of the others hold distances and no estimates
    length   of the query that was compared with codes
    """
    scored = min(count, max(FIRST, 2 * k))
    if count > scored:
        keep_smallest(keys, count, scored)
    sort_keys(keys, scored)
    estimates, distinct = np.empty(scored, np.float32), 1
    for j in range(scored):
        estimates[j] = key_distance(keys[j])
        distinct += j > 0 and estimates[j] != estimates[j - 1]
    score_rows(metric, vectors, queries, i, keys[:scored], scored)
    if count > scored:
        mean, deviation = errors_of(keys, estimates, scale, coded)
        deviation = max(deviation, ROUNDING * length) if distinct >= DISTINCT else np.float32(np.inf)
        limit = key_distance(keep_smallest(keys, scored, k)) - mean
        first = scored
        for j in range(first, count):
            row = key_row(keys[j])
            far = SURE * deviation * abs(scale[row]) if row < coded else np.float32(np.inf)
            if not key_distance(keys[j]) - far > limit:  # so written, what is no number is looked up
                keys[scored] = keys[j]
                scored += 1
        score_rows(metric, vectors, queries, i, keys[first:], scored - first)
    if scored > k:
        keep_smallest(keys, scored, k)
    found = min(scored, k)
    sort_keys(keys, found)
    write_results(keys, found, i, k, out_rows, out_distances)
    return scored


@kernel
def errors_of(keys: AnyArray, estimates: AnyArray, scale: AnyArray, coded: int) -> tuple[np.float32, np.float32]:
    """(mean of distance - estimate, its deviation in units of a row's scale); keys hold the distances."""
    mean, squares, number = 0.0, 0.0, estimates.shape[0]
    for j in range(number):
        mean += np.float64(key_distance(keys[j]) - estimates[j])
    mean /= number
    for j in range(number):
        row = key_row(keys[j])
        unit = np.float64(scale[row]) if row < coded else 0.0
        if unit != 0.0:
            error = (np.float64(key_distance(keys[j]) - estimates[j]) - mean) / unit
            squares += error * error
    return np.float32(mean), np.float32(np.sqrt(squares / number))


@kernel
def length_of(values: AnyArray) -> np.float32:
    """The Euclidean length."""
    squares = np.float32(0.0)
    for value in values:
        squares += value * value
    return np.float32(np.sqrt(squares))
