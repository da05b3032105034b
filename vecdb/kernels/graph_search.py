"""A search of a graph: code the query, descend, walk, sort the candidates by finer codes, score the best exactly."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import score_rows, write_results
from vecdb.kernels.graph import NO_LIMIT, NO_NODE, POOL_BLOCK, descend, next_epoch, node_row, pool_blocks, walk
from vecdb.kernels.jit import allocating, inlined, kernel
from vecdb.kernels.quantize import centre_query
from vecdb.kernels.row_codes import encode_query, query_bytes, refine_keys
from vecdb.kernels.scan import is_allowed
from vecdb.kernels.topk import key_distance, key_row, pack_key, sort_keys
from vecdb.kernels.twins import next_twin
from vecdb.types import AnyArray

EXPECTED = 2.0  # of k: allowed nodes that the last ball of a filtered walk is taken to hold
HOPELESS = 2.2  # standard deviations below what is expected at which a walk gives up


@inlined
def expand_twins(twins: AnyArray, allow: AnyArray, keys: AnyArray, count: int, k: int, members: AnyArray) -> int:
    """members = the allowed rows of the nodes keys[:count], sorted by distance, and of their twins; at most k."""
    size = 0
    for j in range(count):
        node, distance = np.int64(key_row(keys[j])), key_distance(keys[j])
        row = node
        while row >= 0 and size < k:
            if allow.shape[0] == 0 or is_allowed(allow, row):
                members[size] = pack_key(distance, row)
                size += 1
            row = next_twin(twins, node, row)
    return size


@kernel
def widen(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    no_extra: AnyArray,
    links: AnyArray,
    first_upper: AnyArray,
    query: AnyArray,
    unit: np.float32,
    shift: np.float32,
    k: int,
    ef: int,
    balls: AnyArray,
    kept: int,
    allow: AnyArray,
    twins: AnyArray,
    limit: np.int64,
    stamps: AnyArray,
    epoch: np.uint8,
    pool: AnyArray,
    found: AnyArray,
    fresh: AnyArray,
    keys: AnyArray,
) -> tuple[int, int, bool]:
    """Walk until `k` allowed nodes are among the nearest met; returns (hops, distances, whether they are).

    ef      nodes that are expanded where there are no `balls`: then all that counts is the `limit`
    balls   int64 (steps, 2), both rising: at each step the walk expands balls[i, 1] nodes, enough to know the
            balls[i, 0] nearest of all. When k allowed ones are among these, they are the k nearest allowed. Of the
            last ball EXPECTED times k are expected to be allowed; a walk that is far behind that gives up

    An allowed node is one that stands for an allowed row.
    """
    hops, distances, ground, steps = 0, 0, np.int64(0), balls.shape[0]
    for i in range(max(1, steps)):
        width = int(balls[i, 1]) if steps > 0 else ef
        more, scored = walk(
            bits, records, factors, no_extra, np.float32(0.0), links, first_upper, ground, query, unit, shift, width,
            kept, ground, NO_LIMIT, allow, twins, np.int64(limit - distances), stamps, epoch, pool, found, fresh, keys,
        )  # fmt: skip
        hops += more
        distances += scored
        if steps == 0:
            return hops, distances, bool(distances < limit)
        inside, edge = 0, pool[min(balls[i, 0], kept) - 1]
        while inside < k and found[inside] <= edge and found[inside] != NO_NODE:
            inside += 1
        if inside == k:
            return hops, distances, True
        expected = EXPECTED * k * balls[i, 0] / balls[steps - 1, 0]
        if distances >= limit or inside + HOPELESS * np.sqrt(expected) < expected:
            break
    return hops, distances, False


@allocating
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
    twins: AnyArray,
    centre: AnyArray,
    entry: int,
    top: int,
    allow: AnyArray,
    queries: AnyArray,
    k: int,
    ef: int,
    kept: int,
    rescored: int,
    balls: AnyArray,
    collected: int,
    limit: np.int64,
    stamps: AnyArray,
    epoch: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> int:
    """The k nearest allowed rows met by a walk that expands `ef` nodes, the best `rescored` of `kept` scored exactly.

    Under a filter `collected` nodes are kept of those that stand for an allowed row; with `balls` the walk ends by
    these, not by `ef` (see widen). A walk that gives up, or makes `limit` distances, finds nothing.

    vectors float32 (n, dim); records, fine uint8 (n, stride), fine of no rows when there is none; factors,
    fine_factors float32, the same memory; no_extra float32 (0,); links int32 (n, 2m); upper int32 (u, m); first_upper
    int64 (n,); twins; stamps uint8 (n,), with `epoch` as the last walk left them. Returns the last epoch.
    """
    dim, width, filtered = queries.shape[1], links.shape[1], allow.shape[0] > 0
    pool, found = np.empty(POOL_BLOCK * pool_blocks(kept), np.int64), np.empty(0, np.int64)
    if filtered:
        found = np.empty(POOL_BLOCK * pool_blocks(collected), np.int64)
    fresh, keys = np.empty(2 * width + 2, np.int32), np.empty(max(kept, collected, width) + 1, np.int64)
    moved, levels, members = np.empty(dim, np.float32), np.empty(dim, np.int8), np.empty(k, np.int64)
    query, fine_query = np.zeros(query_bytes(bits, dim), np.int8), np.zeros(query_bytes(fine_bits, dim), np.int8)
    ground = np.int64(0)  # a bare 0 would be a type of its own, and compile the walk once more
    for i in range(queries.shape[0]):
        centre_query(metric, queries, i, centre, moved)
        unit, shift = encode_query(bits, moved, levels, query)
        epoch = next_epoch(stamps, epoch)
        pool[:] = NO_NODE
        found[:] = NO_NODE
        pool[0] = descend(
            bits, records, factors, no_extra, np.float32(0.0), upper, first_upper, entry, top, ground, query, unit,
            shift, fresh, keys,
        )  # fmt: skip
        stamps[node_row(pool[0])] = np.uint8(epoch)
        hops, distances, known = widen(
            bits, records, factors, no_extra, links, first_upper, query, unit, shift, k, ef, balls, kept, allow, twins,
            limit, stamps, np.uint8(epoch), pool, found, fresh, keys,
        )  # fmt: skip
        best, most, count = (found, collected, 0) if filtered else (pool, kept, 0)
        while count < most and best[count] != NO_NODE:
            count += 1
        scored = min(count, rescored) if known else 0
        for j in range(count):
            keys[j] = node_row(best[j])
        if count > scored and fine.shape[0] > 0:
            refine_keys(
                fine_bits, fine, fine_factors, bits, levels, unit, shift, fine_query, keys, count, scored
            )  # fmt: skip
        score_rows(metric, vectors, queries, i, keys, scored)
        sort_keys(keys, scored)
        count = expand_twins(twins, allow, keys, scored, k, members)
        sort_keys(members, count)
        write_results(members, count, i, k, out_rows, out_distances)
        counters[0] += hops
        counters[1] += distances
        counters[2] += scored
        counters[3] += 0 if known else 1
    return epoch
