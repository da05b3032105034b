"""A search of a graph: code the query, descend, walk, sort the candidates by finer codes, score the best exactly."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import rescore
from vecdb.kernels.graph import NO_NODE, POOL_BLOCK, descend, node_row, pool_blocks, walk
from vecdb.kernels.intrinsics import prefetch_row
from vecdb.kernels.jit import inlined, kernel
from vecdb.kernels.quantize import centre_query
from vecdb.kernels.row_codes import LINE, encode_query, query_bytes, row_estimate
from vecdb.kernels.topk import keep_smallest, pack_key
from vecdb.types import AnyArray


@inlined
def refine(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    moved: AnyArray,
    levels: AnyArray,
    query: AnyArray,
    pool: AnyArray,
    count: int,
    kept: int,
    keys: AnyArray,
) -> None:
    """keys[:kept] = the best of the first `count` nodes of the pool by finer codes, in no order."""
    unit, shift = encode_query(bits, moved, levels, query)
    lines, asked = query.shape[0] // (LINE * (8 // bits)), np.intp(records.shape[1] // LINE)
    for j in range(count):
        prefetch_row(records, np.intp(node_row(pool[j])), asked)
    for j in range(count):
        row = node_row(pool[j])
        keys[j] = pack_key(row_estimate(bits, records, factors, row, query, lines, unit, shift), row)
    keep_smallest(keys, count, kept)


@kernel
def search_graph(
    metric: int,
    vectors: AnyArray,
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    fine_bits: int,
    fine: AnyArray,
    fine_factors: AnyArray,
    no_extra: AnyArray,
    links: AnyArray,
    upper: AnyArray,
    first_upper: AnyArray,
    centre: AnyArray,
    entry: int,
    top: int,
    allow: AnyArray,
    queries: AnyArray,
    k: int,
    ef: int,
    rescored: int,
    limit: np.int64,
    stamps: AnyArray,
    epoch: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> int:
    """The k nearest allowed rows met by a walk with `ef` candidates, the best `rescored` of them scored exactly.

    vectors float32 (n, dim); records, fine uint8 (n, stride), fine of no rows when there is none; factors,
    fine_factors float32, the same memory; no_extra float32 (0,); links int32 (n, 2m); upper int32 (u, m); first_upper
    int64 (n,); stamps int32 (n,), below `epoch` everywhere. Returns the last epoch.
    """
    dim, width, filtered = queries.shape[1], links.shape[1], allow.shape[0] > 0
    pool, found = np.empty(POOL_BLOCK * pool_blocks(ef), np.int64), np.empty(0, np.int64)
    if filtered:
        found = np.empty(POOL_BLOCK * pool_blocks(ef), np.int64)
    fresh, keys = np.empty(2 * width + 2, np.int32), np.empty(max(ef, width) + 1, np.int64)
    moved, levels = np.empty(dim, np.float32), np.empty(dim, np.int8)
    query, fine_query = np.zeros(query_bytes(bits, dim), np.int8), np.zeros(query_bytes(fine_bits, dim), np.int8)
    for i in range(queries.shape[0]):
        centre_query(metric, queries, i, centre, moved)
        unit, shift = encode_query(bits, moved, levels, query)
        epoch += 1
        pool[:] = NO_NODE
        found[:] = NO_NODE
        pool[0] = descend(
            bits, records, factors, no_extra, np.float32(0.0), upper, first_upper, entry, top, 0, query, unit, shift,
            fresh, keys,
        )  # fmt: skip
        stamps[node_row(pool[0])] = np.int32(epoch)
        hops, distances = walk(
            bits, records, factors, no_extra, np.float32(0.0), links, first_upper, 0, query, unit, shift, ef, allow,
            limit, stamps, np.int32(epoch), pool, found, fresh, keys,
        )  # fmt: skip
        best, count = found if filtered else pool, 0
        while count < ef and best[count] != NO_NODE:
            count += 1
        kept = min(count, rescored)
        if count > kept and fine.shape[0] > 0:
            refine(fine_bits, fine, fine_factors, moved, levels, fine_query, best, count, kept, keys)
        else:
            for j in range(kept):
                keys[j] = node_row(best[j])
        rescore(metric, vectors, queries, i, keys, kept, k, out_rows, out_distances)
        counters[0] += hops
        counters[1] += distances
        counters[2] += kept
        counters[3] += 1 if distances >= limit else 0
    return epoch
