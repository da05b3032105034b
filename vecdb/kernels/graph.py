"""Walks of a navigable small-world graph (HNSW; Malkov and Yashunin, 2018) over RaBitQ records.

Memory is what a walk waits for: a distance reads one record of one or two cache lines, all records of a hop are
prefetched while the hop before it is scored, and the links of the next candidates are prefetched too. What branches
would mispredict is computed instead: which neighbours are new, which are near enough, where they go in the pool.

The pool is sorted int64 keys = order-preserving bits of the estimate << 32 | row << 1 | expanded, filled up with
NO_NODE. Rows of `links` end at the first -1. An id outside the rows ends a row too: a damaged graph gives bad
answers, never a bad address.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.intrinsics import insert_sorted, prefetch_row
from vecdb.kernels.jit import Integer, inlined, kernel
from vecdb.kernels.level_dots import few_level_dots, level_dots
from vecdb.kernels.row_codes import LINE, query_halves, row_estimate
from vecdb.kernels.scan import is_allowed
from vecdb.kernels.twins import next_twin
from vecdb.types import AnyArray

LINKS_AHEAD = 3  # pool entries whose links are prefetched
POOL_BLOCK = 8  # keys that are inserted at once; pools are whole blocks
NO_NODE = np.int64(0x7FFFFFFFFFFFFFFF)  # the place of a node that is not there: the largest key, and expanded
EXPANDED = np.int64(1)
NO_LIMIT = np.int64(0x7FFFFFFFFFFFFFFF)
LAST_EPOCH = 255  # of stamps of one byte: they fit a nearer cache than wider ones, and are cleared now and then


@inlined
def node_key(estimate: np.float32, row: Integer) -> np.int64:
    bits = np.int32(np.float32(estimate).view(np.int32))
    bits ^= (bits >> np.int32(31)) & np.int32(0x7FFFFFFF)  # negative floats order backwards by their bits
    return np.int64((np.int64(bits) << np.int64(32)) | (np.int64(row) << np.int64(1)))


@inlined
def node_row(key: np.int64) -> np.int64:
    return np.int64((key & np.int64(0xFFFFFFFF)) >> np.int64(1))


@inlined
def pool_blocks(keys: int) -> int:
    return (keys + POOL_BLOCK - 1) // POOL_BLOCK


@inlined
def next_epoch(stamps: AnyArray, epoch: int) -> int:
    """The epoch of another walk, which no stamp has yet."""
    if epoch < LAST_EPOCH:
        return epoch + 1
    stamps[:] = np.uint8(0)
    return 1


@inlined
def collect_fresh(
    links: AnyArray, at: Integer, records: AnyArray, stamps: AnyArray, epoch: np.uint8, fresh: AnyArray, first: int
) -> int:
    """fresh[first:end] = the neighbours in links[at] that this walk has not met, now marked, and their records asked
    for; returns the end.
    """
    end, last, asked = np.uintp(first), np.uint32(records.shape[0]), np.intp(records.shape[1] // LINE)
    for j in range(np.uintp(links.shape[1])):
        row = np.uint32(links[at, j])
        if row >= last:
            break
        fresh[end] = np.int32(row)
        end += np.uintp(stamps[np.uintp(row)] != epoch)
        stamps[np.uintp(row)] = epoch
    for j in range(np.uintp(first), end):
        prefetch_row(records, np.intp(fresh[j]), asked)
    return int(np.int64(end))  # else Numba mixes signs, and counts in float64


@inlined
def score_fresh(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    extra: AnyArray,
    weight: np.float32,
    query: AnyArray,
    halves: int,
    unit: np.float32,
    shift: np.float32,
    fresh: AnyArray,
    first: int,
    end: int,
    worst: np.int64,
    lowest: np.int64,
    keys: AnyArray,
    links: AnyArray,
) -> tuple[int, np.int64]:
    """keys[:count] = those of fresh[first:end] below `worst`; returns (count, the smallest of them and `lowest`).

    The links of each that goes below `lowest`, the next candidate till then, are prefetched.
    """
    count, asked = np.uintp(0), np.intp((4 * links.shape[1] + LINE - 1) // LINE)
    level_dots(bits, records, fresh, first, end - first, query, halves, keys)  # each is replaced when it has been read
    start = np.uintp(first)
    for j in range(np.uintp(end - first)):
        row = np.uintp(fresh[start + j])
        estimate = row_estimate(factors, row, keys[j], unit, shift)
        if extra.shape[0] > 0:
            estimate -= weight * extra[row]
        key = node_key(estimate, row)
        keys[count] = key
        count += np.uintp(key < worst)
        if key < lowest:
            lowest = key
            prefetch_row(links, np.intp(row), asked)
    return int(count), lowest


@inlined
def nearest_of(
    bits: int, records: AnyArray, factors: AnyArray, extra: AnyArray, weight: np.float32, query: AnyArray, halves: int,
    unit: np.float32, shift: np.float32, fresh: AnyArray, count: int, keys: AnyArray,
) -> np.int64:  # fmt: skip
    """The smallest key of the nodes fresh[:count]; NO_NODE of none. keys[:count] is scratch."""
    few_level_dots(bits, records, fresh, count, query, halves, keys)
    lowest = NO_NODE
    for j in range(count):
        row = np.uintp(fresh[j])
        estimate = row_estimate(factors, row, keys[j], unit, shift)
        if extra.shape[0] > 0:
            estimate -= weight * extra[row]
        lowest = min(lowest, node_key(estimate, row))
    return lowest


@inlined
def stands_for_allowed(allow: AnyArray, twins: AnyArray, node: np.int64) -> bool:
    """Whether a node, or a row with the same vector, may be returned."""
    row = node
    while row >= 0:
        if is_allowed(allow, row):
            return True
        row = next_twin(twins, node, row)
    return False


@inlined
def collect_found(allow: AnyArray, twins: AnyArray, keys: AnyArray, count: int, found: AnyArray) -> None:
    """Put the nodes of keys[:count] that stand for an allowed row into the sorted pool `found`."""
    for j in range(count):
        if keys[j] < found[found.shape[0] - 1] and stands_for_allowed(allow, twins, node_row(keys[j])):
            insert_sorted(found, np.intp(pool_blocks(found.shape[0])), keys[j])


@inlined
def insert_all(pool: AnyArray, kept: int, keys: AnyArray, count: int) -> None:
    for j in range(count):
        if keys[j] < pool[kept - 1]:
            insert_sorted(pool, np.intp(pool_blocks(kept)), keys[j])


@inlined
def prefetch_links(links: AnyArray, pool: AnyArray, cursor: int, ef: int) -> None:
    ahead, lines = cursor, np.intp((4 * links.shape[1] + LINE - 1) // LINE)
    for _ in range(LINKS_AHEAD):
        while ahead < ef and pool[ahead] & EXPANDED:
            ahead += 1
        if ahead < ef:
            prefetch_row(links, np.intp(node_row(pool[ahead])), lines)
            ahead += 1


@kernel
def walk(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    extra: AnyArray,
    weight: np.float32,
    links: AnyArray,
    first_upper: AnyArray,
    level: Integer,
    query: AnyArray,
    unit: np.float32,
    shift: np.float32,
    ef: int,
    kept: int,
    watched: Integer,
    patience: Integer,
    allow: AnyArray,
    twins: AnyArray,
    limit: np.int64,
    stamps: AnyArray,
    epoch: np.uint8,
    pool: AnyArray,
    found: AnyArray,
    fresh: AnyArray,
    keys: AnyArray,
) -> tuple[int, int]:
    """Best-first search from pool[0]: the nodes in the first `ef` places are expanded; returns (hops, distances).

    A hop is scored after the next one has been chosen and its records asked for. Called again with the same arrays and
    a larger `ef` the walk goes on.

    kept    places of the pool, at least ef: coarse estimates put some of the best beyond the first k
    watched, patience   the walk ends after more than `patience` hops that brought nothing before place `watched`
    extra   float32 (n,), or empty: weight * extra[row] comes off the estimate of a row
    links   of `level`: row r of level 0 is node r; of a higher level, first_upper[node] + level - 1
    pool    int64, whole blocks, NO_NODE from place 1 on;  found  whole blocks of NO_NODE that receive the nearest
            nodes met that stand for an allowed row, by themselves or by their twins; empty when `allow` is empty
    limit   distances after which the walk stops
    stamps  uint8 (n,): a row was met if its stamp is the epoch
    fresh   int32 (2 * links a row + 2,);  keys  int64 (links a row + 1,)
    """
    halves, filtered = query_halves(bits, query), allow.shape[0] > 0
    if filtered and stands_for_allowed(allow, twins, node_row(pool[0])):
        found[0] = pool[0] & ~EXPANDED  # where it is already, when the walk goes on
    cursor, hops, distances, idle = 0, 0, 1, 0
    first, end, half = 0, 0, links.shape[1] + 1
    while True:
        while cursor < ef and pool[cursor] & EXPANDED:
            cursor += 1
        next_first = half - first  # the halves of `fresh` take turns
        next_end = next_first
        if cursor < ef and distances < limit and idle <= patience:
            at = node_row(pool[cursor])
            pool[cursor] |= EXPANDED
            cursor += 1
            hops += 1
            if level > 0:
                at = first_upper[at] + level - 1
            if at < links.shape[0]:
                next_end = collect_fresh(links, at, records, stamps, epoch, fresh, next_first)
        elif end == first:
            return hops, distances
        worst, next_key = pool[kept - 1], NO_NODE
        if cursor < ef:
            next_key = pool[cursor]
        if filtered:
            worst = max(worst, found[found.shape[0] - 1])
        count, lowest = score_fresh(
            bits, records, factors, extra, weight, query, halves, unit, shift, fresh, first, end, worst, next_key,
            keys, links,
        )  # fmt: skip
        distances += end - first
        if filtered:
            collect_found(allow, twins, keys, count, found)
        idle = 0 if lowest < pool[watched] else idle + 1
        insert_all(pool, kept, keys, count)
        while cursor > 0 and pool[cursor - 1] >= lowest:
            cursor -= 1
        prefetch_links(links, pool, cursor, ef)
        first, end = next_first, next_end


@kernel
def descend(
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    extra: AnyArray,
    weight: np.float32,
    upper: AnyArray,
    first_upper: AnyArray,
    entry: int,
    top: int,
    bottom: Integer,
    query: AnyArray,
    unit: np.float32,
    shift: np.float32,
    fresh: AnyArray,
    keys: AnyArray,
) -> np.int64:
    """Walk greedily from `entry` at level `top` down to above `bottom`; returns the key of the nearest node met."""
    rows, halves, asked = records.shape[0], query_halves(bits, query), np.intp(records.shape[1] // LINE)
    level, count, best = top, 1, NO_NODE
    fresh[0] = entry
    while True:
        lowest = nearest_of(bits, records, factors, extra, weight, query, halves, unit, shift, fresh, count, keys)
        if lowest >= best:
            level -= 1
        best = min(best, lowest)
        if level <= bottom:
            return best
        at, count = first_upper[node_row(best)] + level - 1, 0
        while at < upper.shape[0] and count < upper.shape[1] and 0 <= upper[at, count] < rows:
            fresh[count] = upper[at, count]
            prefetch_row(records, np.intp(fresh[count]), asked)
            count += 1
