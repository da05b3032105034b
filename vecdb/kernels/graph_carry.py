"""The links of an old graph under new row numbers, past the rows that are gone.

A node that lost neighbours gets the neighbours of those as candidates, and of them the diverse ones in the free places
of its list (the consolidation of FreshDiskANN; Singh et al., 2021). What is left of a list stays: it holds links that
others made to the node, which a new choice of the whole list would drop. Ids and lists are bounded here, so that a
damaged graph gives bad links, never a bad address.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.graph import node_row
from vecdb.kernels.graph_links import length_key, link_length, signed_row
from vecdb.kernels.intrinsics import atomic_add, prefetch_row
from vecdb.kernels.jit import Integer, allocating, kernel
from vecdb.kernels.topk import sort_keys
from vecdb.types import AnyArray

PASSED_MAX = 512  # lost rows whose neighbours become candidates of one list
CANDIDATES_MAX = 256
CANDIDATES_ENOUGH = 128  # from then on only the lost neighbours themselves are passed, not those behind them


@kernel
def list_of(first_upper: AnyArray, row: Integer, level: int) -> np.int64:
    return np.int64(row) if level == 0 else np.int64(first_upper[row] + level - 1)


@kernel
def keep_links(
    old: AnyArray,
    at: Integer,
    old_levels: AnyArray,
    level: int,
    new_rows: AnyArray,
    stamps: AnyArray,
    stamp: np.int32,
    kept: AnyArray,
    passed: AnyArray,
) -> tuple[int, int]:
    """kept = the new rows of the neighbours in old[at], passed = the old rows of those that are gone; how many each."""
    size, gone = 0, 0
    for j in range(old.shape[1]):
        row = old[at, j]
        if row < 0 or row >= new_rows.shape[0]:
            break
        if stamps[row] == stamp or old_levels[row] < level:
            continue
        stamps[row] = stamp
        if new_rows[row] >= 0:
            kept[size] = new_rows[row]
            size += 1
        else:
            passed[gone] = row
            gone += 1
    return size, gone


@kernel
def collect_past(
    old: AnyArray,
    first_upper: AnyArray,
    old_levels: AnyArray,
    level: int,
    new_rows: AnyArray,
    stamps: AnyArray,
    stamp: np.int32,
    passed: AnyArray,
    gone: int,
    found: AnyArray,
) -> int:
    """found = the new rows of neighbours of the lost rows passed[:gone], and of what is lost behind them; how many."""
    count, at, direct = 0, 0, gone
    while at < gone and (at < direct or count < CANDIDATES_ENOUGH):
        line = list_of(first_upper, passed[at], level)
        at += 1
        for j in range(old.shape[1]):
            row = old[line, j]
            if row < 0 or row >= new_rows.shape[0]:
                break
            if stamps[row] == stamp or old_levels[row] < level:
                continue
            stamps[row] = stamp
            if new_rows[row] >= 0:
                if count == found.shape[0]:
                    return count
                found[count] = new_rows[row]
                count += 1
            elif gone < passed.shape[0]:
                passed[gone] = row
                gone += 1
    return count


@kernel
def fill_diverse(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    row: Integer,
    found: AnyArray,
    count: int,
    kept: AnyArray,
    size: int,
    limit: int,
    keys: AnyArray,
    signed: AnyArray,
) -> int:
    """Append to kept[:size] each of the found rows that is nearer to `row` than to all kept before; the new size."""
    lines = codes.shape[1] // 64
    for j in range(count):
        prefetch_row(codes, np.intp(found[j]), np.intp(lines))
    signed_row(codes, row, signed)
    for j in range(count):
        keys[j] = length_key(link_length(codes, bias, extra, offsets, row, signed, found[j], lines), found[j])
    sort_keys(keys, count)
    for j in range(count):
        if size >= limit:
            break
        near, length = np.int32(node_row(keys[j])), np.int32(keys[j] >> np.int64(32))
        signed_row(codes, near, signed)
        good = True
        for b in range(size):
            between = link_length(codes, bias, extra, offsets, near, signed, kept[b], lines)
            if between < length or between <= 0:
                good = False
                break
        if good:
            kept[size] = near
            size += 1
    return size


@allocating
def carry_links(
    old_links: AnyArray,
    old_upper: AnyArray,
    old_first_upper: AnyArray,
    old_levels: AnyArray,
    new_rows: AnyArray,
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    links: AnyArray,
    upper: AnyArray,
    first_upper: AnyArray,
    weak: AnyArray,
    counter: AnyArray,
    limit: int,
    stamps: AnyArray,
    epoch: int,
) -> int:
    """Carry the lists of old rows counter..limit-1 together with other threads; returns the last epoch of `stamps`.

    old_*       the old graph, over n rows;  new_rows int32 (n,): the new row of each, -1 for one that is gone
    codes...    of the new rows, as kernels.graph_build takes them;  links, upper: written, under the new row numbers
    weak        uint8 (new rows,): set to 1 for a row that lost more of its neighbours on level 0 than it keeps
    stamps      int32 (n,) of this thread alone
    """
    width = max(links.shape[1], old_links.shape[1])
    kept, passed = np.empty(width, np.int32), np.empty(max(width, PASSED_MAX), np.int32)
    found, keys = np.empty(CANDIDATES_MAX, np.int32), np.empty(CANDIDATES_MAX, np.int64)
    signed = np.empty(codes.shape[1], np.int8)
    while True:
        row = atomic_add(counter, np.intp(0), np.int64(1))
        if row >= limit:
            return epoch
        target = np.int64(new_rows[row])
        if target < 0:
            continue
        for level in range(np.int64(old_levels[row]) + 1):
            old, new = (old_links, links) if level == 0 else (old_upper, upper)
            epoch += 1
            stamp = np.int32(epoch)
            stamps[row] = stamp
            size, gone = keep_links(
                old, list_of(old_first_upper, row, level), old_levels, level, new_rows, stamps, stamp, kept, passed
            )
            if level == 0 and gone > size:
                weak[target] = 1
            if gone > 0:
                count = collect_past(
                    old, old_first_upper, old_levels, level, new_rows, stamps, stamp, passed, gone, found
                )
                size = fill_diverse(
                    codes, bias, extra, offsets, target, found, count, kept, size, new.shape[1], keys, signed
                )
            at = list_of(first_upper, target, level)
            for j in range(size):
                new[at, j] = kept[j]
