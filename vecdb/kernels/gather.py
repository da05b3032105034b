"""Search among given rows by the records of a graph: coarse codes of all of them, finer ones of the best, then float32.

A record is one or two cache lines where a float32 row of 384 dimensions is 24.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import rescore
from vecdb.kernels.intrinsics import lowest_bit, prefetch_row
from vecdb.kernels.jit import allocating, inlined, kernel
from vecdb.kernels.level_dots import level_dots
from vecdb.kernels.quantize import centre_query
from vecdb.kernels.row_codes import LINE, encode_query, query_bytes, query_halves, refine_keys, row_estimate
from vecdb.kernels.scan import push
from vecdb.kernels.topk import NO_KEY, keep_smallest, pack_key
from vecdb.types import AnyArray

TOGETHER = 8  # records that are scored while as many are on their way


@allocating
def gather_records(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    rows: AnyArray,
    query: AnyArray,
    unit: np.float32,
    shift: np.float32,
    keys: AnyArray,
    pool: int,
) -> int:
    """keys[:count] = the best of `rows` by their records, in no order; returns count, at most `pool`.

    rows  int32 (m,), within the records;  keys  int64, longer than pool
    """
    halves, asked = query_halves(bits, query), np.intp(records.shape[1] // LINE)
    count, worst, total = 0, NO_KEY, rows.shape[0]
    dots = np.empty(TOGETHER, np.int64)
    for first in range(0, total, TOGETHER):
        here, ahead = min(TOGETHER, total - first), first + TOGETHER if first > 0 else 0
        for j in range(ahead, min(first + 2 * TOGETHER, total)):
            prefetch_row(records, np.intp(rows[j]), asked)
        level_dots(bits, records, rows, first, here, query, halves, dots)
        for j in range(here):
            row = rows[first + j]
            key = pack_key(row_estimate(factors, row, dots[j], unit, shift), row)
            count, worst = push(keys, count, key, worst, pool)
    if count > pool:
        keep_smallest(keys, count, pool)
        count = pool
    return count


@inlined
def decide_exactly(
    metric: int, vectors: AnyArray, queries: AnyArray, i: int, fine_bits: int, fine: AnyArray, fine_factors: AnyArray,
    bits: int, levels: AnyArray, unit: np.float32, shift: np.float32, fine_query: AnyArray, keys: AnyArray, count: int,
    k: int, scored: int, out_rows: AnyArray, out_distances: AnyArray,
) -> int:  # fmt: skip
    """Write the k nearest of keys[:count], of which finer codes, if there are any, leave `scored`; returns how many
    were scored exactly."""
    if count > scored and fine.shape[0] > 0:
        refine_keys(fine_bits, fine, fine_factors, bits, levels, unit, shift, fine_query, keys, count, scored)
        count = scored
    rescore(metric, vectors, queries, i, keys, count, k, out_rows, out_distances)
    return count


@kernel
def list_rows(allow: AnyArray, out: AnyArray) -> None:
    """out int32 (count,) = the rows of a bitset that has `count` bits set, ascending."""
    at, end = 0, out.shape[0]
    for word in range(allow.shape[0]):
        mask = allow[word]
        while mask != np.uint64(0) and at < end:
            out[at] = np.int32(64 * word + lowest_bit(mask))
            mask &= mask - np.uint64(1)
            at += 1


@allocating
def search_rows(
    metric: int,
    vectors: AnyArray,
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    fine_bits: int,
    fine: AnyArray,
    fine_factors: AnyArray,
    centre: AnyArray,
    rows: AnyArray,
    queries: AnyArray,
    k: int,
    pool: int,
    scored: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> None:
    """The k nearest of `rows`: the best `pool` by records, of these `scored` by finer ones, which are scored exactly.

    Shapes as in vecdb.kernels.graph_search; rows int32 (m,), within the records; pool >= scored >= k
    """
    dim, pool = queries.shape[1], max(k, min(pool, rows.shape[0]))
    keys = np.empty(2 * pool + LINE, np.int64)
    moved, levels = np.empty(dim, np.float32), np.empty(dim, np.int8)
    query, fine_query = np.zeros(query_bytes(bits, dim), np.int8), np.zeros(query_bytes(fine_bits, dim), np.int8)
    for i in range(queries.shape[0]):
        centre_query(metric, queries, i, centre, moved)
        unit, shift = encode_query(bits, moved, levels, query)
        count = gather_records(bits, records, factors, rows, query, unit, shift, keys, pool)
        counters[1] += rows.shape[0]
        counters[2] += decide_exactly(
            metric, vectors, queries, i, fine_bits, fine, fine_factors, bits, levels, unit, shift, fine_query, keys,
            count, k, scored, out_rows, out_distances,
        )  # fmt: skip
