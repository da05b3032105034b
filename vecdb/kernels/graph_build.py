"""Insertion of rows into a graph by several threads, each running one worker without the GIL.

A worker takes the next row by an atomic counter, searches its neighbourhood, keeps diverse neighbours and writes the
links both ways. A last pass makes every row reachable.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.graph import NO_LIMIT, beam, descend, node_key, node_row
from vecdb.kernels.graph_links import add_link, lock_row, select_diverse, signed_row, unlock_row
from vecdb.kernels.intrinsics import atomic_add
from vecdb.kernels.jit import Integer, kernel
from vecdb.types import AnyArray


@kernel
def connect(
    codes: AnyArray,
    bias: AnyArray,
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
    for j in range(2 * count):
        # First all links of the row itself, then those back to it.
        near = np.int64(chosen[j % count])
        owner, neighbour = (np.int64(row), near) if j < count else (near, np.int64(row))
        at = owner if level == 0 else first_upper[owner] + level - 1
        length = chosen_lengths[j % count]
        lock_row(locks, owner)
        add_link(
            codes, bias, offsets, links, lengths, at, np.int32(neighbour), length, keys, other, other_lengths, signed,
            lines,
        )  # fmt: skip
        unlock_row(locks, owner)


@kernel
def insert_rows(
    codes: AnyArray,
    bias: AnyArray,
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
    stamps: AnyArray,
    epoch: int,
) -> int:
    """Insert rows order[counter:limit] together with other threads; returns the last epoch used of `stamps`.

    links, lengths int32 (n, 2m) and upper, upper_lengths int32 (u, m) are written; links_seen and upper_seen are
    read-only views of them. locks int32 (n,); counter int64 (1,); stamps int32 (n,) of this thread alone.
    """
    lines, width = codes.shape[1] // 64, links.shape[1]
    pool, keys = np.empty(ef + 1, np.int64), np.empty(width + 1, np.int64)
    fresh, found = np.empty(width + 1, np.int32), np.empty(0, np.int64)
    own, own_lengths = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    other, other_lengths = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    query, signed = np.empty(codes.shape[1], np.int8), np.empty(codes.shape[1], np.int8)
    while True:
        turn = atomic_add(counter, np.intp(0), np.int64(1))
        if turn >= limit:
            return epoch
        row = np.int64(order[turn])
        if row == entry:
            continue
        signed_row(codes, row, query)
        shift = np.int64(bias[row]) + np.int64(offsets[row])
        bottom = top if levels[row] > top else int(levels[row])
        best = descend(codes, bias, upper_seen, first_upper, entry, top, bottom, query, lines)
        for level in range(bottom, -1, -1):
            epoch += 1
            stamp = np.int32(epoch)
            pool[0] = best & ~np.int64(1)
            stamps[node_row(best)] = stamp
            stamps[row] = stamp  # others may link to it already; it is not its own neighbour
            seen = links_seen if level == 0 else upper_seen
            size, _, _, _ = beam(
                codes, bias, seen, first_upper, level, query, ef, no_bits, NO_LIMIT, stamps, stamp, pool, fresh,
                found, lines,
            )  # fmt: skip
            best = pool[0]
            for j in range(size):
                pool[j] = node_key((pool[j] >> np.int64(32)) + shift, node_row(pool[j]))
            kept = select_diverse(codes, bias, offsets, pool, size, m, own, own_lengths, signed, lines)
            target, target_lengths = (links, lengths) if level == 0 else (upper, upper_lengths)
            connect(
                codes, bias, offsets, target, target_lengths, first_upper, level, row, own, own_lengths, kept, locks,
                keys, other, other_lengths, signed, lines,
            )  # fmt: skip


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
def reach_rows(links: AnyArray, entry: int) -> int:
    """Make every row reachable from `entry`, by a link from a reached neighbour, or from one of its; returns new links.

    A row that finds no free place takes that of the farthest link of its nearest neighbour, whose target has other
    links into it, or is found unreached by the next round.
    """
    rows, added = links.shape[0], 0
    reached, stack = np.zeros(rows, np.uint8), np.empty(rows, np.int32)
    mark_reached(links, entry, reached, stack)
    for row in range(rows):
        if reached[row]:
            continue
        done = False
        for j in range(links.shape[1]):
            near = links[row, j]
            if near < 0 or done:
                break
            if not reached[near]:
                continue
            done = link_from(links, near, row)
            for h in range(links.shape[1]):
                if done or links[near, h] < 0:
                    break
                done = link_from(links, links[near, h], row)
        if not done:
            near = links[row, 0] if links[row, 0] >= 0 and reached[links[row, 0]] else np.int32(entry)
            if not link_from(links, near, row):
                links[near, links.shape[1] - 1] = np.int32(row)
        added += 1
        mark_reached(links, row, reached, stack)
    return added
