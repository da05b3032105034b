"""The pool of a search of lists: the best slots by estimate, in order, of which the last decide by exact distance."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import COSINE, DOT, exact_distance, squared_norm, write_results
from vecdb.kernels.intrinsics import insert_sorted, prefetch_row
from vecdb.kernels.jit import inlined, kernel
from vecdb.kernels.sorted_scan import LANES, SORTED_MAX
from vecdb.kernels.topk import NO_KEY, keep_smallest, key_distance, key_row, pack_key, sort_keys
from vecdb.types import AnyArray

ROWS_AHEAD = 6  # rows prefetched ahead of the one being scored


@kernel
def decide(
    metric: int,
    vectors: AnyArray,
    slots: AnyArray,
    queries: AnyArray,
    i: int,
    keys: AnyArray,
    count: int,
    k: int,
    slack: np.float32,
    best: AnyArray,
) -> int:
    """Score the slots of the ascending keys[:count] exactly, the nearest rows into `best`; returns how many it scored.

    It ends at an estimate that is more than `slack` above the k-th exact distance; best int64 (k or a few more,) is
    ascending and ends in NO_KEY where there are fewer.
    """
    lines = (vectors.itemsize * vectors.shape[1] + 63) // 64
    norm = squared_norm(queries, i) if metric == COSINE else 0.0
    if k > SORTED_MAX:
        for j in range(count):
            row, ahead = slots[np.uintp(key_row(keys[j]))], min(j + ROWS_AHEAD, count - 1)
            soon = slots[np.uintp(key_row(keys[ahead]))]
            keys[j] = pack_key(exact_distance(metric, vectors, row, queries, i, norm, soon), row)
        sort_keys(keys, count)
        for j in range(min(k, count)):
            best[j] = keys[j]
        return count
    blocks, limit = np.intp(best.shape[0] // LANES), np.float32(np.inf)
    for j in range(min(ROWS_AHEAD, count)):
        prefetch_row(vectors, np.intp(slots[np.uintp(key_row(keys[j]))]), np.intp(lines))
    for j in range(count):
        if key_distance(keys[j]) > limit:
            return j
        row, ahead = slots[np.uintp(key_row(keys[j]))], min(j + ROWS_AHEAD, count - 1)
        soon = slots[np.uintp(key_row(keys[ahead]))]
        distance = exact_distance(metric, vectors, row, queries, i, norm, soon)
        key = pack_key(distance, row)
        if key < best[best.shape[0] - 1]:
            insert_sorted(best, blocks, key)
            if best[k - 1] != NO_KEY:
                limit = as_estimate(metric, key_distance(best[k - 1])) + slack
    return count


@kernel
def in_order(keys: AnyArray, count: int, pool: int, short: bool) -> int:
    """Sort the best `pool` keys of what scan_list left, and return how many there are."""
    if short:
        count = 0
        while count < pool and keys[count] != NO_KEY:
            count += 1
        return count
    if count > pool:
        keep_smallest(keys, count, pool)
        count = pool
    sort_keys(keys, count)
    return count


@inlined
def write_estimates(
    slots: AnyArray, keys: AnyArray, count: int, i: int, k: int, out_rows: AnyArray, out_distances: AnyArray
) -> None:
    """Write the slots of the ascending keys[:count] as rows, with their estimates as distances."""
    for j in range(count):
        keys[j] = pack_key(key_distance(keys[j]), slots[np.uintp(key_row(keys[j]))])
    write_results(keys, count, i, k, out_rows, out_distances)


@inlined
def as_estimate(metric: int, distance: np.float32) -> np.float32:
    """The estimate that a row of this distance would have if it had no error."""
    if metric == COSINE:
        return np.float32(2.0) * distance
    return distance - np.float32(1.0) if metric == DOT else distance
