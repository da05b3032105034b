"""Insertion of rows into a graph by several threads, each running one worker without the GIL.

A worker takes the next row by an atomic counter, searches its neighbourhood, keeps diverse neighbours and writes the
links both ways. A last pass makes every row reachable.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.graph import (
    EXPANDED,
    NO_LIMIT,
    NO_NODE,
    POOL_BLOCK,
    descend,
    next_epoch,
    node_row,
    pool_blocks,
    walk,
)
from vecdb.kernels.graph_links import (
    add_link,
    length_key,
    link_length,
    lock_row,
    select_diverse,
    signed_row,
    unlock_row,
)
from vecdb.kernels.intrinsics import atomic_add, prefetch_row
from vecdb.kernels.jit import Integer, allocating, kernel
from vecdb.kernels.quantize import residual
from vecdb.kernels.row_codes import encode_query, query_bytes
from vecdb.kernels.topk import sort_keys
from vecdb.types import AnyArray

# A walk that looks for neighbours ends when so many hops brought nothing among the nearest ef / WATCHED: on 62k
# embeddings 22 % less time for a graph that is searched as fast.
WATCHED, PATIENCE_LEAST, PATIENCE_SHARE = 3, 8, 9


@kernel
def connect(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    links: AnyArray,
    lengths: AnyArray,
    first_upper: AnyArray,
    level: int,
    row: Integer,
    chosen: AnyArray,
    chosen_lengths: AnyArray,
    count: int,
    locks: AnyArray,
    keys: AnyArray,
    other: AnyArray,
    other_lengths: AnyArray,
    signed: AnyArray,
    lines: int,
) -> None:
    """Link `row` and the chosen rows both ways; other threads may have linked to `row` already."""
    asked = np.intp((4 * links.shape[1] + 63) // 64)
    for j in range(count):
        near = np.int64(chosen[j]) if level == 0 else first_upper[chosen[j]] + level - 1
        prefetch_row(links, np.intp(near), asked)
        prefetch_row(lengths, np.intp(near), asked)
    for j in range(2 * count):
        # First all links of the row itself, then those back to it.
        near = np.int64(chosen[j % count])
        owner, neighbour = (np.int64(row), near) if j < count else (near, np.int64(row))
        at = owner if level == 0 else first_upper[owner] + level - 1
        length = chosen_lengths[j % count]
        lock_row(locks, owner)
        add_link(
            codes, bias, extra, offsets, links, lengths, at, np.int32(neighbour), length, keys, other, other_lengths,
            signed, lines,
        )  # fmt: skip
        unlock_row(locks, owner)


@kernel
def measure_candidates(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    row: Integer,
    signed: AnyArray,
    pool: AnyArray,
    ef: int,
) -> int:
    """pool[:count] = the nodes of the pool, sorted by their distance from `row` by the finer codes; returns count."""
    lines, count = codes.shape[1] // 64, 0
    signed_row(codes, row, signed)
    while count < ef and pool[count] != NO_NODE:
        prefetch_row(codes, np.intp(node_row(pool[count])), np.intp(lines))
        count += 1
    for j in range(count):
        other = node_row(pool[j])
        pool[j] = length_key(link_length(codes, bias, extra, offsets, row, signed, other, lines), other)
    sort_keys(pool, count)
    return count


@allocating
def insert_rows(
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centre: AnyArray,
    bits: int,
    records: AnyArray,
    factors: AnyArray,
    lift: AnyArray,
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    order: AnyArray,
    levels: AnyArray,
    first_upper: AnyArray,
    links: AnyArray,
    links_seen: AnyArray,
    lengths: AnyArray,
    upper: AnyArray,
    upper_seen: AnyArray,
    upper_lengths: AnyArray,
    locks: AnyArray,
    counter: AnyArray,
    limit: int,
    entry: int,
    top: int,
    m: int,
    ef: int,
    no_bits: AnyArray,
    no_rows: AnyArray,
    stamps: AnyArray,
    epoch: int,
) -> int:
    """Insert rows order[counter:limit] together with other threads; returns the last epoch used of `stamps`.

    Walks read `records`; links are chosen by `codes`, the one-scale codes of kernels.quantize with their bias, extra
    and offsets, of which lift is `extra` as float32, in the unit of the vectors. links, lengths int32 (n, 2m) and
    upper, upper_lengths int32 (u, m) are written; links_seen and upper_seen are read-only views of the same memory.
    locks int32 (n,); counter int64 (1,); stamps uint8 (n,) of this thread alone.
    """
    dim, lines, width = vectors.shape[1], codes.shape[1] // 64, links.shape[1]
    patience = PATIENCE_LEAST + ef // PATIENCE_SHARE
    pool, found = np.empty(POOL_BLOCK * pool_blocks(ef), np.int64), np.empty(0, np.int64)
    fresh, keys = np.empty(2 * width + 2, np.int32), np.empty(width + 1, np.int64)
    own, own_lengths = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    other, other_lengths = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    moved, whole = np.empty(dim, np.float32), np.empty(dim, np.int8)
    query, signed = np.zeros(query_bytes(bits, dim), np.int8), np.empty(codes.shape[1], np.int8)
    while True:
        turn = atomic_add(counter, np.intp(0), np.int64(1))
        if turn >= limit:
            return epoch
        row = np.int64(order[turn])
        if row == entry:
            continue
        residual(metric, vectors, inverse_norms, row, centre, moved)
        unit, shift = encode_query(bits, moved, whole, query)
        weight = lift[row] if lift.shape[0] > 0 else np.float32(0.0)
        bottom = top if levels[row] > top else int(levels[row])
        best = descend(
            bits, records, factors, lift, weight, upper_seen, first_upper, entry, top, bottom, query, unit, shift,
            fresh, keys,
        )  # fmt: skip
        for level in range(bottom, -1, -1):
            epoch = next_epoch(stamps, epoch)
            stamp = np.uint8(epoch)
            pool[:] = NO_NODE
            pool[0] = best & ~EXPANDED
            stamps[node_row(best)] = stamp
            stamps[row] = stamp  # others may link to it already; it is not its own neighbour
            seen = links_seen if level == 0 else upper_seen
            walk(
                bits, records, factors, lift, weight, seen, first_upper, level, query, unit, shift, ef, ef,
                ef // WATCHED, patience, no_bits, no_rows, NO_LIMIT, stamps, stamp, pool, found, fresh, keys,
            )  # fmt: skip
            best = pool[0]
            size = measure_candidates(codes, bias, extra, offsets, row, signed, pool, ef)
            kept = select_diverse(codes, bias, extra, offsets, pool, size, m, own, own_lengths, signed, lines)
            target, target_lengths = (links, lengths) if level == 0 else (upper, upper_lengths)
            connect(
                codes, bias, extra, offsets, target, target_lengths, first_upper, level, row, own, own_lengths, kept,
                locks, keys, other, other_lengths, signed, lines,
            )  # fmt: skip


@allocating
def dot_extras(codes: AnyArray, bias: AnyArray, extra: AnyArray) -> None:
    """Give every row one more value, so that all are equally long, and the bias that goes with it.

    Then the nearest by squared distance of a query whose own further value is 0 is that of the largest dot product
    (Bachrach et al., 2014): links are chosen in this space, where a row is nearest to itself, as no long row lets them.
    """
    rows, longest = codes.shape[0], np.int64(0)
    norms = np.empty(rows, np.int64)
    for row in range(rows):
        norm = np.int64(0)
        for j in range(codes.shape[1]):
            level = np.int32(codes[row, j]) - np.int32(128)
            norm += np.int64(np.int32(level * level))
        norms[row] = norm
        longest = max(longest, norm)
    for row in range(rows):
        extra[row] = np.int32(np.rint(np.sqrt(np.float64(longest - norms[row]))))
        bias[row] = np.int32((norms[row] + np.int64(extra[row]) * np.int64(extra[row])) // 2)


@kernel
def mark_reached(links: AnyArray, start: Integer, reached: AnyArray, stack: AnyArray) -> int:
    """Mark every row that links lead to from `start`; returns how many were new."""
    if reached[start]:
        return 0
    reached[start] = 1
    stack[0], size, count = start, 1, 1
    while size > 0:
        size -= 1
        at = stack[size]
        for j in range(links.shape[1]):
            row = links[at, j]
            if row < 0:
                break
            if not reached[row]:
                reached[row] = 1
                stack[size] = row
                size += 1
                count += 1
    return count


@kernel
def link_from(links: AnyArray, near: Integer, row: Integer) -> bool:
    """Put `row` into a free place of links[near]; False when there is none."""
    for j in range(links.shape[1]):
        if links[near, j] < 0:
            links[near, j] = np.int32(row)
            return True
    return False


@kernel
def link_nearby(links: AnyArray, row: Integer, reached: AnyArray) -> bool:
    """Link to `row` from a reached neighbour of it with a free place, or from a neighbour of one."""
    for j in range(links.shape[1]):
        near = links[row, j]
        if near < 0:
            return False
        if not reached[near]:
            continue
        if link_from(links, near, row):
            return True
        for h in range(links.shape[1]):
            if links[near, h] >= 0 and links[near, h] != row and link_from(links, links[near, h], row):
                return True
    return False


@allocating
def reach_rows(links: AnyArray, entry: int, nodes: AnyArray) -> int:
    """Link to nodes that no path from `entry` reaches; returns how many links were made.

    nodes  uint8 (n,): 1 for the rows that are nodes of the graph, 0 for those that follow a twin

    The link comes from near the row if there is a free place, else from anywhere, else it takes the place of the
    farthest link of the row reached last. That may cut off another row: repeat until nothing is made.
    """
    rows, made, spare, last = links.shape[0], 0, 0, np.int64(entry)
    reached, stack = np.zeros(rows, np.uint8), np.empty(rows, np.int32)
    mark_reached(links, entry, reached, stack)
    for row in range(rows):
        if reached[row] or not nodes[row]:
            continue
        done = link_nearby(links, row, reached)
        while not done and spare < rows:
            done = bool(reached[spare]) and link_from(links, spare, row)
            if not done:
                spare += 1
        if not done:
            links[last, links.shape[1] - 1] = np.int32(row)
        made += 1
        last = np.int64(row)
        mark_reached(links, row, reached, stack)
    return made
