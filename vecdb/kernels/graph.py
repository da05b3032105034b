"""Walks of a navigable small-world graph (HNSW; Malkov and Yashunin, 2018) over int8 codes.

One sorted int64 pool holds the walk: key = distance << 32 | row << 1 | expanded. All distances are integers; every
line of every fresh neighbour is prefetched when it is met, and scored after the others were met. The pool is kept
sorted by insertion from the back, which beats heaps up to several hundred candidates. Rows of `links` end at the
first -1. An id outside the rows ends a row too: a damaged graph gives bad answers, never a bad address.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import DOT, rescore
from vecdb.kernels.intrinsics import prefetch_row, row_dot
from vecdb.kernels.jit import Integer, inlined, kernel
from vecdb.kernels.quantize import centre_query, quantise, quantise_with
from vecdb.kernels.scan import NO_KEY, is_allowed
from vecdb.types import AnyArray

LINKS_AHEAD = 2  # pool entries whose links are prefetched
NO_LIMIT = np.int64(0x7FFFFFFFFFFFFFFF)


@inlined
def code_distance(
    codes: AnyArray, bias: AnyArray, extra: AnyArray, factor: np.int64, row: Integer, query: AnyArray, lines: int
) -> np.int64:
    """Half the squared distance of the codes, or -dot, up to a constant of the query.

    extra  int32 (n,): one more value of each row, and `factor` that of the query; empty if there is none
    """
    distance = np.int64(bias[row]) - np.int64(row_dot(codes, np.intp(row), query, np.intp(lines)))
    if extra.shape[0] > 0:
        distance -= factor * np.int64(extra[row])
    return distance


@inlined
def node_key(distance: np.int64, row: Integer) -> np.int64:
    return np.int64((distance << np.int64(32)) | (np.int64(row) << np.int64(1)))


@inlined
def node_row(key: np.int64) -> np.int64:
    return np.int64((key & np.int64(0xFFFFFFFF)) >> np.int64(1))


@inlined
def insert_sorted(pool: AnyArray, size: int, capacity: int, key: np.int64) -> int:
    """Insert into the sorted pool, dropping the last key of a full one; returns the position."""
    at = size if size < capacity else size - 1
    while at > 0 and pool[at - 1] > key:
        pool[at] = pool[at - 1]
        at -= 1
    pool[at] = key
    return at


@inlined
def collect_fresh(
    codes: AnyArray, links: AnyArray, at: Integer, stamps: AnyArray, epoch: np.int32, fresh: AnyArray, lines: int
) -> int:
    """fresh[:count] = the neighbours in links[at] that this walk has not met, now marked and prefetched."""
    rows, count = codes.shape[0], 0
    for j in range(links.shape[1]):
        row = links[at, j]
        if row < 0 or row >= rows:
            break
        if stamps[row] != epoch:
            stamps[row] = epoch
            fresh[count] = row
            count += 1
            prefetch_row(codes, np.intp(row), np.intp(lines))
    return count


@inlined
def walk(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    factor: np.int64,
    links: AnyArray,
    first_upper: AnyArray,
    level: int,
    query: AnyArray,
    ef: int,
    allow: AnyArray,
    limit: np.int64,
    stamps: AnyArray,
    epoch: np.int32,
    pool: AnyArray,
    fresh: AnyArray,
    found: AnyArray,
    lines: int,
) -> tuple[int, int, int, int]:
    """Best-first search from pool[0] with a pool of `ef`; returns (pool size, found size, hops, distances).

    links   of `level`: row r of level 0 is node r; of a higher level, first_upper[node] + level - 1
    found   with a non-empty `allow`: the nearest allowed rows met, a sorted pool of its own length
    limit   distances after which the walk stops
    """
    filtered = allow.shape[0] > 0
    size, cursor, hops, distances, kept = 1, 0, 0, 1, 0
    if filtered and is_allowed(allow, node_row(pool[0])):
        found[0], kept = pool[0], 1
    worst = NO_KEY if ef > 1 else pool[0]
    while cursor < size and distances < limit:
        entry = pool[cursor]
        if entry & np.int64(1):
            cursor += 1
            continue
        pool[cursor] = entry | np.int64(1)
        at = node_row(entry)
        if level > 0:
            at = first_upper[at] + level - 1
            if at >= links.shape[0]:
                continue
        count = collect_fresh(codes, links, at, stamps, epoch, fresh, lines)
        hops += 1
        distances += count
        best = size
        for j in range(count):
            row = fresh[j]
            key = node_key(code_distance(codes, bias, extra, factor, row, query, lines), row)
            if key < worst:
                position = insert_sorted(pool, size, ef, key)
                if size < ef:
                    size += 1
                if size == ef:
                    worst = pool[size - 1]
                best = min(best, position)
            if filtered and (kept < found.shape[0] or key < found[kept - 1]) and is_allowed(allow, row):
                insert_sorted(found, kept, found.shape[0], key)
                kept = min(kept + 1, found.shape[0])
        cursor = best if best <= cursor else cursor + 1
        if level == 0:
            for ahead in range(cursor, min(cursor + LINKS_AHEAD, size)):
                prefetch_row(links, np.intp(node_row(pool[ahead])), np.intp((4 * links.shape[1] + 63) // 64))
    return size, kept, hops, distances


@kernel
def beam(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    factor: np.int64,
    links: AnyArray,
    first_upper: AnyArray,
    level: int,
    query: AnyArray,
    ef: int,
    allow: AnyArray,
    limit: np.int64,
    stamps: AnyArray,
    epoch: np.int32,
    pool: AnyArray,
    fresh: AnyArray,
    found: AnyArray,
    lines: int,
) -> tuple[int, int, int, int]:
    """See walk; the code lengths of 384 and 768 dimensions get loops of a length known to the compiler."""
    # fmt: off
    if lines == 6:
        return walk(
            codes, bias, extra, factor, links, first_upper, level, query, ef, allow, limit, stamps, epoch, pool,
            fresh, found, 6,
        )
    if lines == 12:
        return walk(
            codes, bias, extra, factor, links, first_upper, level, query, ef, allow, limit, stamps, epoch, pool,
            fresh, found, 12,
        )
    return walk(
        codes, bias, extra, factor, links, first_upper, level, query, ef, allow, limit, stamps, epoch, pool,
        fresh, found, lines,
    )
    # fmt: on


@kernel
def descend(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    factor: np.int64,
    upper: AnyArray,
    first_upper: AnyArray,
    entry: int,
    top: int,
    bottom: int,
    query: AnyArray,
    lines: int,
) -> np.int64:
    """Walk greedily from `entry` at level `top` down to above `bottom`; returns the key of the nearest node met."""
    rows = codes.shape[0]
    best = node_key(code_distance(codes, bias, extra, factor, entry, query, lines), entry)
    for level in range(top, bottom, -1):
        moved = True
        while moved:
            moved = False
            at = first_upper[node_row(best)] + level - 1
            if at >= upper.shape[0]:
                break
            for j in range(upper.shape[1]):
                row = upper[at, j]
                if row < 0 or row >= rows:
                    break
                key = node_key(code_distance(codes, bias, extra, factor, row, query, lines), row)
                if key < best:
                    best, moved = key, True
    return best


@kernel
def code_query(
    metric: int, queries: AnyArray, i: int, centre: AnyArray, scale: np.float32, moved: AnyArray, out: AnyArray
) -> None:
    """out[:dim] int8 = the code of queries[i]; under dot in a scale of its own, which cannot change the order."""
    centre_query(metric, queries, i, centre, moved)
    if metric == DOT:
        quantise(moved, queries.shape[1], out)
    else:
        quantise_with(scale, moved, queries.shape[1], out)


@kernel
def search_graph(
    metric: int,
    vectors: AnyArray,
    codes: AnyArray,
    bias: AnyArray,
    no_extra: AnyArray,
    links: AnyArray,
    upper: AnyArray,
    first_upper: AnyArray,
    centre: AnyArray,
    scale: np.float32,
    entry: int,
    top: int,
    allow: AnyArray,
    queries: AnyArray,
    k: int,
    ef: int,
    pool_rows: int,
    limit: np.int64,
    stamps: AnyArray,
    epoch: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> int:
    """The k nearest allowed rows met by a walk with `ef` candidates, the best `pool_rows` of them scored exactly.

    vectors float32 (n, dim); codes uint8 (n, stride); bias int32 (n,); no_extra int32 (0,); links int32 (n, 2m);
    upper int32 (u, m); first_upper int64 (n,); stamps int32 (n,), below `epoch` everywhere. Returns the last epoch.
    """
    dim, lines = queries.shape[1], codes.shape[1] // 64
    pool, found = np.empty(ef + 1, np.int64), np.empty(pool_rows, np.int64)
    fresh, keys = np.empty(links.shape[1] + 1, np.int32), np.empty(pool_rows, np.int64)
    moved, query = np.empty(dim, np.float32), np.zeros(codes.shape[1], np.int8)
    for i in range(queries.shape[0]):
        code_query(metric, queries, i, centre, scale, moved, query)
        epoch += 1
        stamp = np.int32(epoch)
        pool[0] = descend(codes, bias, no_extra, np.int64(0), upper, first_upper, entry, top, 0, query, lines)
        stamps[node_row(pool[0])] = stamp
        size, kept, hops, distances = beam(
            codes,
            bias,
            no_extra,
            np.int64(0),
            links,
            first_upper,
            0,
            query,
            ef,
            allow,
            limit,
            stamps,
            stamp,
            pool,
            fresh,
            found,
            lines,
        )
        count = min(kept if allow.shape[0] > 0 else size, pool_rows)
        for j in range(count):
            keys[j] = node_row(found[j] if allow.shape[0] > 0 else pool[j])
        rescore(metric, vectors, queries, i, keys, count, k, out_rows, out_distances)
        counters[0] += hops
        counters[1] += distances
        counters[2] += count
        counters[3] += 1 if distances >= limit else 0
    return epoch
