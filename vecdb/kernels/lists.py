"""Search of inverted lists: rank them by their centroids, scan the codes of the nearest, score the best rows exactly.

The codes and the estimate are those of `vecdb.kernels.list_codes`.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK, WHOLE_BLOCK, dot_block, score_block
from vecdb.kernels.distance import COSINE, DOT, squared_norm, write_results
from vecdb.kernels.intrinsics import count_bits, insert_sorted, lowest_bit, prefetch_at, prefetch_row, widen
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.kernels.list_pool import decide, in_order, write_estimates
from vecdb.kernels.list_ranking import centre_bits, rank_lists
from vecdb.kernels.lookups import look_block
from vecdb.kernels.product import PRODUCT, fill_tables, turn_into
from vecdb.kernels.quantize import quantise
from vecdb.kernels.rotation import rotate
from vecdb.kernels.sorted_scan import LANES, SORTED_MAX
from vecdb.kernels.topk import NO_KEY, keep_smallest, key_distance, key_row, pack_key
from vecdb.types import AnyArray

BLOCKS_AHEAD, AHEAD_BYTES = 2, 4096  # larger blocks are left to the hardware's own prefetch
ASKED_LISTS = 5  # near the end of a search: while they are scanned, the best rows of those before are on their way


@inlined
def present_rows(slots: AnyArray, block: Integer, left: Integer, allow: AnyArray) -> np.uint64:
    """The 32 bits of a block: slots that hold a row, `left` at most, which, unless `allow` is empty, is allowed."""
    mask = WHOLE_BLOCK
    if left < BLOCK:
        mask = (np.uint64(1) << np.uint64(left)) - np.uint64(1)
    if allow.shape[0] > 0:
        passed = np.uint64(0)
        for lane in range(BLOCK):
            row = np.uintp(slots[np.uintp(block * BLOCK + lane)])
            bit = (allow[row >> np.uintp(6)] >> np.uint64(row & np.uintp(63))) & np.uint64(1)
            passed |= bit << np.uint64(lane)
        mask &= passed
    return mask


@inlined
def list_base(metric: int, query: AnyArray, centroids: AnyArray, unit: np.float32, at: Integer) -> np.float32:
    """|q - c|^2, or -<q, c> under dot; c = unit * centroids[at], in float16."""
    total = np.float32(0.0)
    if metric == DOT:
        for j in range(query.shape[0]):
            total -= query[j] * widen(centroids[at, j])
        return np.float32(total * unit)
    for j in range(query.shape[0]):
        step = query[j] - unit * widen(centroids[at, j])
        total += step * step
    return np.float32(total)


@inlined
def scan_list(
    code: int,
    codes: AnyArray,
    add: AnyArray,
    scale: AnyArray,
    slots: AnyArray,
    first: Integer,
    last: Integer,
    size: Integer,
    following: Integer,
    allow: AnyArray,
    query: AnyArray,
    unit: np.float32,
    offset: np.float32,
    base: np.float32,
    add_unit: np.float32,
    keys: AnyArray,
    count: int,
    worst: np.int64,
    pool: int,
    dots: AnyArray,
    estimates: AnyArray,
) -> tuple[int, np.int64, np.int64]:
    """Blocks first..last-1, of `size` rows, against one query; returns (count, worst, rows that were allowed).

    keys        the best slots so far by estimate: sorted if there are at most SORTED_MAX, else a buffer
    worst       the key that a slot has to be below;  following: the first block of the next list to scan
    """
    stride = codes.shape[1]
    lines, short = stride // 64, keys.shape[0] <= SORTED_MAX
    threshold, passed = key_distance(worst), np.int64(size) if allow.shape[0] == 0 else np.int64(0)
    for block in range(first, last):
        ahead = block + BLOCKS_AHEAD if block + BLOCKS_AHEAD < last else following + block + BLOCKS_AHEAD - last
        if code >= PRODUCT and stride <= AHEAD_BYTES:
            prefetch_at(codes, np.intp(ahead * stride), np.intp(lines))
        prefetch_at(add, np.intp(ahead * BLOCK * 2), np.intp(1))
        prefetch_at(scale, np.intp(ahead * BLOCK * 2), np.intp(1))
        mask = present_rows(slots, block, size - (block - first) * BLOCK, allow)
        if mask == np.uint64(0):
            continue
        if allow.shape[0] > 0:
            passed += count_bits(mask)
        if code < PRODUCT:
            dot_block(code, codes, block * stride, query, stride // 128, dots, ahead * stride)
        else:
            look_block(code - PRODUCT, codes, block * stride, query, stride // 128, dots)
        below = score_block(
            dots, np.intp(0), add, scale, np.intp(block * BLOCK), offset, unit, base, add_unit, threshold, estimates
        )
        if worst != NO_KEY:  # while the pool has never been full every slot is taken, overflowed estimates too
            mask &= below
        while mask != np.uint64(0):
            lane = lowest_bit(mask)
            mask &= mask - np.uint64(1)
            key = pack_key(estimates[lane], block * BLOCK + lane)
            if short:
                if key < worst:
                    insert_sorted(keys, np.intp(keys.shape[0] // LANES), key)
                    worst = keys[pool - 1]
            else:
                keys[count] = key
                count += 1
        threshold = key_distance(worst)
        if not short and count > keys.shape[0] - BLOCK:
            worst = keep_smallest(keys, count, pool)
            threshold, count = key_distance(worst), pool
    return count, worst, passed


@inlined
def ask_rows(vectors: AnyArray, slots: AnyArray, keys: AnyArray, k: int, turn: int) -> None:
    """Prefetch a part of the `k` best so far, in ASKED_LISTS turns: most of them will be scored exactly."""
    lines = np.intp((vectors.itemsize * vectors.shape[1] + 63) // 64)
    for j in range(turn * k // ASKED_LISTS, (turn + 1) * k // ASKED_LISTS):
        if keys[j] != NO_KEY:
            prefetch_row(vectors, np.intp(slots[np.uintp(key_row(keys[j]))]), lines)


@kernel
def prepare(metric: int, queries: AnyArray, i: int, out: AnyArray) -> np.float32:
    """out[:] = the query as lists are searched; returns its length under dot, else 0."""
    length = np.float32(np.sqrt(squared_norm(queries, i)))
    unit = np.float32(1.0) / length if metric == COSINE and length > np.float32(0.0) else np.float32(1.0)
    for j in range(queries.shape[1]):
        out[j] = queries[i, j] * unit
    return length if metric == DOT else np.float32(0.0)


@allocating
def search_lists(
    metric: int, vectors: AnyArray, code: int, codes: AnyArray, add: AnyArray, scale: AnyArray, slots: AnyArray,
    starts: AnyArray, sizes: AnyArray, centroids: AnyArray, units: AnyArray, centre_codes: AnyArray,
    centre_add: AnyArray, centre_scale: AnyArray, centre_starts: AnyArray, groups: AnyArray, group_codes: AnyArray,
    group_add: AnyArray, group_scale: AnyArray, signs: AnyArray, turn: AnyArray, bounds: AnyArray, books: AnyArray,
    allow: AnyArray, queries: AnyArray, k: int, nprobe: int, wanted: int, patience: int, pool: int, slack: np.float32,
    decided: bool, out_rows: AnyArray, out_distances: AnyArray, counters: AnyArray,
) -> None:  # fmt: skip
    """The k nearest allowed rows of the `nprobe` nearest lists, and of more until `wanted` allowed rows were scored.

    It ends earlier when `patience` allowed rows in turn were no nearer than the k nearest, if the pool is sorted.

    vectors       float32 (n, dim), or the bits of float16 as uint16; lists as in `encode_lists`
    add, scale, centroids  the bits of float16 as uint16, in units[0], units[1], units[2] (float32)
    code          bits of RaBitQ levels, or PRODUCT and those of product codes, which turn, bounds and books belong to:
                  see kernels.product
    centre_*, group*  by which lists are ranked: see kernels.list_ranking
    allow         uint64 bitset, empty to allow all;  queries float32 (q, dim)
    pool          rows scored exactly, at least k; fewer where estimates are more than `slack` too far (see `decide`),
                  for a query at distance 1 from the farthest list that was scanned, or of length 1 under dot
    decided       False: no vector is read, and the results are the best `k` rows by estimate, k = pool
    counters      int64 (4,): lists scanned, estimates and exact distances, rows scored exactly
    """
    dim, count = queries.shape[1], sizes.shape[0]
    bits, short = centre_bits(dim), pool <= SORTED_MAX
    keys = np.empty((pool + LANES - 1) // LANES * LANES if short else 2 * pool + 2 * BLOCK, np.int64)
    best = np.empty((k + LANES - 1) // LANES * LANES, np.int64)
    question, turned = np.empty(dim, np.float32), np.empty(dim, np.float32)
    asked = np.zeros((dim + 31) // 32 * 32, np.int8)  # whole groups, whatever the bits
    values = np.empty((max(0, bounds.shape[0] - 1), books.shape[1]), np.float32)
    tables = np.zeros(codes.shape[1] // BLOCK * (64 if code == PRODUCT + 4 else 256) if code >= PRODUCT else 0, np.int8)
    near, chosen = np.empty(count + LANES, np.int64), np.empty(groups.shape[0] + LANES, np.int64)
    dots, estimates = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32)
    for i in range(queries.shape[0]):
        length = prepare(metric, queries, i, question)
        for j in range(dim):
            turned[j] = question[j]
        rotate(turned, signs)
        unit, total = quantise(turned, dim, asked)
        offset = np.float32(-0.5) * np.float32((1 << code) - 1) * np.float32(total)
        scanned_by, rank_unit = asked, unit
        ranked = 0
        if code >= PRODUCT:
            turn_into(question, turn, turned)
            scanned_by = tables
            unit, offset = fill_tables(code - PRODUCT, turned, bounds, books, values, tables)
        unit *= units[1]
        for j in range(keys.shape[0]):
            keys[j] = NO_KEY
        for j in range(best.shape[0]):
            best[j] = NO_KEY
        held, worst, passed, scanned, size = 0, NO_KEY, np.int64(0), 0, length
        edge, idle, turns = NO_KEY, np.int64(0), 0
        for p in range(count):
            if (p >= nprobe and passed >= wanted) or (short and edge != NO_KEY and idle >= patience):
                break
            if p == ranked:
                ranked = min(nprobe, SORTED_MAX) if p == 0 else nprobe if p < nprobe else count
                rank_lists(
                    bits, centre_codes, centre_add, centre_scale, centre_starts, groups, group_codes, group_add,
                    group_scale, asked, rank_unit, total, ranked, p, near, chosen, dots, estimates,
                )  # fmt: skip
            at = key_row(near[p])
            base = list_base(metric, question, centroids, units[2], at)
            if metric != DOT:
                size = max(size, np.float32(np.sqrt(base)))
            if decided and short and turns < ASKED_LISTS and (p >= nprobe - ASKED_LISTS or 2 * idle >= patience):
                ask_rows(vectors, slots, keys, k, turns)
                turns += 1
            following = key_row(near[p + 1]) if p + 1 < ranked else at
            prefetch_row(centroids, np.intp(following), np.intp(2 * dim // 64))
            held, worst, found = scan_list(
                code, codes, add, scale, slots, starts[at], starts[at + 1], sizes[at], starts[following], allow,
                scanned_by, unit, offset, base, units[0], keys, held, worst, pool, dots, estimates,
            )  # fmt: skip
            passed += found
            idle = idle + found if keys[k - 1] == edge else np.int64(0)
            edge = keys[k - 1]
            scanned += sizes[at]
            counters[0] += 1
        held = in_order(keys, held, pool, short)
        scored = 0
        if decided:
            scored = decide(metric, vectors, slots, queries, i, keys, held, k, slack * size, best)
            write_results(best, min(k, scored), i, k, out_rows, out_distances)
        else:
            write_estimates(slots, keys, held, i, k, out_rows, out_distances)
        counters[1] += scanned + scored
        counters[2] += scored
