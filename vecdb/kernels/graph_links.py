"""The links of one node: how long they are, which to keep, and how to write them while others read.

The lists end at the first -1, and a spin lock guards a list while it changes. Readers take no lock: they may meet a
list half rewritten, whose ids are valid all the same. Links keep their length beside them while a graph is built.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.graph import node_row
from vecdb.kernels.intrinsics import compare_and_swap, prefetch_row, row_dot, store_release
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.types import AnyArray


@kernel
def lock_row(locks: AnyArray, row: Integer) -> None:
    while not compare_and_swap(locks, np.intp(row), np.int32(0), np.int32(1)):
        pass


@kernel
def unlock_row(locks: AnyArray, row: Integer) -> None:
    store_release(locks, np.intp(row), np.int32(0))


@inlined
def length_key(length: Integer, row: Integer) -> np.int64:
    """Orders rows by their distance from a node, an integer; node_row reads the row."""
    return np.int64((np.int64(length) << np.int64(32)) | (np.int64(row) << np.int64(1)))


@inlined
def signed_row(codes: AnyArray, row: Integer, out: AnyArray) -> None:
    """out int8 = codes[row] - 128, the row as a query."""
    for j in range(codes.shape[1]):
        out[j] = np.int8(np.int32(codes[row, j]) - np.int32(128))


@inlined
def link_length(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    row: Integer,
    signed: AnyArray,
    other: Integer,
    lines: int,
) -> np.int32:
    """The distance between two rows; `signed` is `row` as a query, offsets[row] what the + 128 adds to its dots."""
    dot = row_dot(codes, np.intp(other), signed, np.intp(lines)) - offsets[row]
    if extra.shape[0] > 0:
        return np.int32(bias[row] + bias[other] - dot - extra[row] * extra[other])
    return np.int32(bias[row] + bias[other] - dot)


@kernel
def select_diverse(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    keys: AnyArray,
    count: int,
    limit: int,
    chosen: AnyArray,
    lengths: AnyArray,
    signed: AnyArray,
    lines: int,
) -> int:
    """Of the sorted candidates keep each that is nearer to the node than to all kept before; returns how many.

    Of rows with one code the first is kept and the others are not: duplicates would fill the links of a node and cut
    it off. Otherwise equal lengths do not count as nearer: beside one duplicate of the node every candidate would fall
    away. `reach_rows` links what this leaves without an incoming link.
    """
    kept = 0
    for a in range(count):
        if kept >= limit:
            break
        row, length = np.int32(node_row(keys[a])), np.int32(keys[a] >> np.int64(32))
        good = True
        if kept > 0:
            signed_row(codes, row, signed)
            for b in range(kept):
                between = link_length(codes, bias, extra, offsets, row, signed, chosen[b], lines)
                if between < length or between <= 0:
                    good = False
                    break
        if good:
            chosen[kept], lengths[kept] = row, length
            kept += 1
    return kept


@kernel
def add_link(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    links: AnyArray,
    lengths: AnyArray,
    at: Integer,
    row: Integer,
    length: Integer,
    keys: AnyArray,
    chosen: AnyArray,
    chosen_lengths: AnyArray,
    signed: AnyArray,
    lines: int,
) -> None:
    """Append `row` to links[at]; a full row is thinned to diverse links first. The caller holds the lock."""
    width = links.shape[1]
    for j in range(width):
        if links[at, j] == row:
            return
        if links[at, j] < 0:
            lengths[at, j], links[at, j] = length, row
            return
    new = length_key(length, row)
    for j in range(width):
        prefetch_row(codes, np.intp(links[at, j]), np.intp(lines))
    for j in range(width):
        keys[j] = length_key(lengths[at, j], links[at, j])
    keys[width] = new
    for a in range(1, width + 1):
        key, b = keys[a], a
        while b > 0 and keys[b - 1] > key:
            keys[b] = keys[b - 1]
            b -= 1
        keys[b] = key
    kept = select_diverse(codes, bias, extra, offsets, keys, width + 1, width, chosen, chosen_lengths, signed, lines)
    for j in range(width):
        links[at, j] = chosen[j] if j < kept else np.int32(-1)
        lengths[at, j] = chosen_lengths[j] if j < kept else np.int32(0)


@allocating
def measure_links(
    codes: AnyArray,
    bias: AnyArray,
    extra: AnyArray,
    offsets: AnyArray,
    links: AnyArray,
    owners: AnyArray,
    lengths: AnyArray,
) -> None:
    """lengths = the distances along `links`; owners[at] is the node whose links stand in row `at`."""
    lines, signed = codes.shape[1] // 64, np.empty(codes.shape[1], np.int8)
    for at in range(links.shape[0]):
        row = np.int64(owners[at])
        signed_row(codes, row, signed)
        for j in range(links.shape[1]):
            if links[at, j] < 0:
                break
            lengths[at, j] = link_length(codes, bias, extra, offsets, row, signed, links[at, j], lines)
