"""Scans of one segment: all rows by codes or by float32, or the rows of a filter.

A scan of codes keeps the best `pool` rows by estimate and scores those exactly. Under a bitset each block of 32 rows
is masked, and blocks without an allowed row are skipped. Several queries share a tile of blocks while it is in cache,
and four at a time their products.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.block_fours import FOUR, dot_four
from vecdb.kernels.blocks import BLOCK, WHOLE_BLOCK, dot_block, score_block
from vecdb.kernels.bounded import length_of, rescore_pool
from vecdb.kernels.distance import COSINE, estimate, exact_distance, squared_norm, write_results
from vecdb.kernels.intrinsics import lowest_bit, prefetch_at
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.kernels.quantize import centre_query, quantise
from vecdb.kernels.topk import NO_KEY, keep_smallest, key_distance, pack_key, sort_keys
from vecdb.types import AnyArray

TILE_BYTES = 65_536  # codes that all queries of a batch score before the next are read
GROUP = 64  # queries that share tiles; bounds the scratch of a batch
GATHER_AHEAD = 4  # rows of a filter prefetched ahead of the one being scored


@inlined
def allowed_rows(allow: AnyArray, block: int, rows: int) -> np.uint64:
    """The 32 bits of a block: rows that exist and, unless `allow` is empty, are allowed."""
    mask = WHOLE_BLOCK
    if allow.shape[0] > 0:
        mask = (allow[block >> 1] >> np.uint64(32 * (block & 1))) & WHOLE_BLOCK
    left = rows - block * BLOCK
    if left < BLOCK:
        mask &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
    return mask


@inlined
def push(keys: AnyArray, count: int, key: np.int64, worst: np.int64, pool: int) -> tuple[int, np.int64]:
    """Append a key below `worst`; thin a full buffer to `pool` keys. Returns (count, worst)."""
    if key >= worst:
        return count, worst
    keys[count] = key
    count += 1
    if count == keys.shape[0]:
        worst = keep_smallest(keys, count, pool)
        count = pool
    return count, worst


@kernel
def scan_blocks(
    bits: int,
    codes: AnyArray,
    add: AnyArray,
    scale: AnyArray,
    first: int,
    last: int,
    rows: int,
    allow: AnyArray,
    query: AnyArray,
    unit: np.float32,
    total: Integer,
    base: np.float32,
    keys: AnyArray,
    count: int,
    worst: np.int64,
    pool: int,
    step: int,
    dots: AnyArray,
    estimates: AnyArray,
) -> tuple[int, np.int64]:
    """Blocks first..last-1 against one query; returns (count, worst) of its buffer.

    step   from the products of a block to those of the next in `dots`, which `dot_tile` has made; 0: they are made here
    """
    stride = codes.shape[1]
    groups = stride // 128
    offset = np.float32(-0.5) * np.float32((1 << bits) - 1) * np.float32(total)
    threshold = key_distance(worst)
    for block in range(first, last):
        mask = allowed_rows(allow, block, rows)
        if mask == np.uint64(0):
            continue
        prefetch_at(add, np.intp((block + 1) * BLOCK * 4), np.intp(2))
        prefetch_at(scale, np.intp((block + 1) * BLOCK * 4), np.intp(2))
        at = (block - first) * step
        if step == 0:
            dot_block(bits, codes, block * stride, query, groups, dots, (block + 1) * stride)
        below = score_block(
            dots,
            np.intp(at),
            add,
            scale,
            np.intp(block * BLOCK),
            offset,
            unit,
            base,
            np.float32(1.0),
            np.float32(threshold),
            estimates,
        )
        # While the buffer has never been full every row is taken, so that overflowed estimates are not lost.
        if worst != NO_KEY:
            mask &= below
        while mask != np.uint64(0):
            lane = lowest_bit(mask)
            mask &= mask - np.uint64(1)
            keys[count] = pack_key(estimates[lane], block * BLOCK + lane)
            count += 1
        if count > keys.shape[0] - BLOCK:
            worst = keep_smallest(keys, count, pool)
            threshold, count = key_distance(worst), pool
    return count, worst


@kernel
def scan_tile(
    bits: int, codes: AnyArray, add: AnyArray, scale: AnyArray, first: int, last: int, rows: int, allow: AnyArray,
    here: int, asked: AnyArray, units: AnyArray, totals: AnyArray, bases: AnyArray, keys: AnyArray, counts: AnyArray,
    worsts: AnyArray, pool: int, ready: AnyArray, dots: AnyArray, estimates: AnyArray,
) -> None:  # fmt: skip
    """Blocks first..last-1 against each of `here` queries. Arrays that `scan_blocks` takes one of have one per query.

    ready  int32, products of four queries: of block b and query i from ((b - first) * 4 + i) * 32 on
    """
    stride = codes.shape[1]
    for i in range(here):
        together = i < here // FOUR * FOUR
        if together and i % FOUR == 0:
            for block in range(first, last):
                if allowed_rows(allow, block, rows) != np.uint64(0):
                    at = (block - first) * FOUR * BLOCK
                    dot_four(bits, codes, block * stride, asked, i, stride // 128, ready, at)
        counts[i], worsts[i] = scan_blocks(
            bits, codes, add, scale, first, last, rows, allow, asked[i], units[i], totals[i], bases[i], keys[i],
            counts[i], worsts[i], pool, FOUR * BLOCK if together else 0,
            ready[i % FOUR * BLOCK :] if together else dots, estimates,
        )  # fmt: skip


@allocating
def scan_codes(
    bits: int, metric: int, vectors: AnyArray, inverse_norms: AnyArray, codes: AnyArray, add: AnyArray,
    scale: AnyArray, centre: AnyArray, coded: int, allow: AnyArray, queries: AnyArray, k: int, pool: int, bounded: int,
    out_rows: AnyArray, out_distances: AnyArray, counters: AnyArray,
) -> None:  # fmt: skip
    """The k nearest allowed rows: rows below `coded` by codes, the others by float32, the best `pool` exactly.

    vectors        float32 (n, dim), or the bits of float16 as uint16
    inverse_norms  float32 (n,), empty unless the metric is cosine
    codes          uint8 (blocks, block_bytes); add, scale float32 (blocks * 32,); centre float32 (dim,)
    allow          uint64 bitset, empty to allow all;  queries float32 (q, dim)
    bounded        1: rows of the pool that cannot be among the k are not scored, see `bounded.py`; 0: all are
    pool           at least k; out_rows int32 (q, k), out_distances float32 (q, k); counters int64 (4,)
    """
    dim, stride, rows = queries.shape[1], codes.shape[1], vectors.shape[0]
    blocks, tile, size = (coded + BLOCK - 1) // BLOCK, max(1, TILE_BYTES // stride), min(GROUP, queries.shape[0])
    moved, dots, estimates = np.empty(dim, np.float32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32)
    asked, keys = np.zeros((size, stride // 128 * (32 // bits)), np.int8), np.empty((size, 2 * pool + 64), np.int64)
    units, bases, totals = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.int64)
    counts, worsts, inverses = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
    lengths, ready = np.empty(size, np.float32), np.empty(tile * FOUR * BLOCK if size >= FOUR else 0, np.int32)
    for start in range(0, queries.shape[0], GROUP):
        here = min(GROUP, queries.shape[0] - start)
        for i in range(here):
            bases[i], inverses[i] = centre_query(metric, queries, start + i, centre, moved)
            units[i], totals[i] = quantise(moved, dim, asked[i])
            lengths[i], counts[i], worsts[i] = length_of(moved), 0, NO_KEY
        for first in range(0, blocks, tile):
            last = min(first + tile, blocks)
            scan_tile(
                bits, codes, add, scale, first, last, coded, allow, here, asked, units, totals, bases, keys, counts,
                worsts, pool, ready, dots, estimates,
            )  # fmt: skip
        for i in range(here):
            for row in range(coded, rows):
                if is_allowed(allow, row):
                    guess = estimate(metric, vectors, inverse_norms, row, queries, start + i, inverses[i])
                    counts[i], worsts[i] = push(keys[i], counts[i], pack_key(guess, row), worsts[i], pool)
            counters[2] += rescore_pool(
                metric, vectors, scale, coded, queries, start + i, lengths[i], keys[i], counts[i], k, pool, bounded,
                out_rows, out_distances,
            )  # fmt: skip
        counters[1] += here * rows


@inlined
def is_allowed(allow: AnyArray, row: Integer) -> bool:
    """Whether the bit of `row` is set; an empty `allow` allows all."""
    if allow.shape[0] == 0:
        return True
    return bool((allow[row >> 6] >> np.uint64(row & 63)) & np.uint64(1))


@allocating
def scan_exact(
    metric: int,
    vectors: AnyArray,
    gather: int,
    rows: AnyArray,
    allow: AnyArray,
    queries: AnyArray,
    k: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> None:
    """The k nearest rows: of `rows` if `gather` is 1, else of all. Sums are float64, which costs less than the memory.

    Shapes as in scan_codes; rows int32 (m,), ascending and within the vectors.
    """
    total = rows.shape[0] if gather else vectors.shape[0]
    keys = np.empty(2 * min(k, total) + BLOCK, np.int64)
    pool = max(1, min(k, total))
    for i in range(queries.shape[0]):
        norm = squared_norm(queries, i) if metric == COSINE else 0.0
        count, worst = 0, NO_KEY
        for at in range(total):
            row, ahead = np.int64(at), min(at + GATHER_AHEAD, total - 1)
            soon = np.int64(ahead)
            if gather:
                row, soon = np.int64(rows[at]), np.int64(rows[ahead])
            if is_allowed(allow, row):
                key = pack_key(exact_distance(metric, vectors, row, queries, i, norm, soon), row)
                count, worst = push(keys, count, key, worst, pool)
        found = min(count, pool)
        if count > pool:
            keep_smallest(keys, count, pool)
        sort_keys(keys, found)
        write_results(keys, found, i, k, out_rows, out_distances)
        counters[1] += total
        counters[2] += total
