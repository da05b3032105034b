"""Product quantisation (Jégou, Douze and Schmid, 2011): codebooks of sub-spaces, codes, and the tables of a query.

Sub-quantiser s holds the dimensions bounds[s] .. bounds[s + 1] - 1 of a residual, as the number of the nearest of 16 or
256 words. books float32 (dim, entries) is all codebooks, one word a column: a query times its rows of books is the
table of a sub-quantiser, and of what a decoded row r is, <q, r> is the sum of an entry of each.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.distance import COSINE
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.kernels.list_codes import write_list_factors
from vecdb.kernels.lookups import GROUP, ROWS, SUM_MAX, TOP_4, TOP_8, place_4
from vecdb.kernels.quantize import residual
from vecdb.kernels.words import nearest_word, word_products, write_levels
from vecdb.types import AnyArray

FAR = np.float32(np.inf)
PRODUCT = 16  # added to the bits of product codes, where other codes are known by their bits alone


def product_bytes(bits: int, m: int) -> int:
    """Bytes of a block of 32 rows of m sub-quantisers: whole groups."""
    return -(-m * bits * ROWS // (8 * GROUP)) * GROUP


def table_bytes(bits: int, stride: int) -> int:
    """Bytes of the tables of a query, for blocks of `stride` bytes."""
    return stride // ROWS * (64 if bits == 4 else 256)


@allocating
def train_books(
    rows: AnyArray, bounds: AnyArray, first: int, last: int, order: AnyArray, warm: bool, iterations: int,
    books: AnyArray,
) -> None:  # fmt: skip
    """k-means (Lloyd, 1982) of sub-spaces first..last-1: their rows of books float32 (dim, entries).

    rows   float32 (n, dim), n at least 1;  order  int (n,): rows in random order, the first are the first words
    warm   books hold the first words already

    A word without rows becomes the row that is farthest from its own.
    """
    count, entries = rows.shape[0], books.shape[1]
    sizes, far = np.empty(entries, np.int64), np.empty(count, np.float32)
    sums = np.empty(books.shape, np.float64)
    for at in range(first, last):
        begin, end = bounds[at], bounds[at + 1]
        if not warm:
            for word in range(entries):
                for j in range(begin, end):
                    books[j, word] = rows[order[word % count], j]
        for _ in range(iterations):
            sizes[:], sums[begin:end] = 0, 0.0
            for row in range(count):
                word = nearest_word(rows[row], np.intp(begin), np.intp(end), books, far[row:])
                sizes[word] += 1
                for j in range(begin, end):
                    sums[j, word] += np.float64(rows[row, j])
            for word in range(entries):
                if sizes[word] > 0:
                    for j in range(begin, end):
                        books[j, word] = np.float32(sums[j, word] / sizes[word])
                    continue
                farthest = np.argmax(far)
                far[farthest] = np.float32(0.0)
                for j in range(begin, end):
                    books[j, word] = rows[farthest, j]


@allocating
def decode_rows(rows: AnyArray, bounds: AnyArray, books: AnyArray, out: AnyArray) -> None:
    """out float32 (n, dim) = the words that rows float32 (n, dim) are coded by."""
    distance = np.empty(1, np.float32)
    for row in range(rows.shape[0]):
        for at in range(bounds.shape[0] - 1):
            word = nearest_word(rows[row], np.intp(bounds[at]), np.intp(bounds[at + 1]), books, distance)
            for j in range(bounds[at], bounds[at + 1]):
                out[row, j] = books[j, word]


@inlined
def turn_into(values: AnyArray, turn: AnyArray, out: AnyArray) -> None:
    """out = values @ turn, float32 (dim, dim); as they are if it has no rows."""
    for j in range(out.shape[0]):
        out[j] = np.float32(0.0) if turn.shape[0] > 0 else values[j]
    for i in range(turn.shape[0]):
        value, axes = values[i], turn[i]
        for j in range(out.shape[0]):
            out[j] += value * axes[j]


@kernel
def take_codes(
    rest: AnyArray, centroid: AnyArray, bounds: AnyArray, books: AnyArray, distance: AnyArray, codes: AnyArray
) -> tuple[np.float32, np.float32]:
    """codes[:m] of a residual; returns (<rest, words>, <centroid, words>)."""
    along, cross = np.float32(0.0), np.float32(0.0)
    for at in range(bounds.shape[0] - 1):
        word = nearest_word(rest, np.intp(bounds[at]), np.intp(bounds[at + 1]), books, distance)
        codes[at] = np.uint8(word)
        for j in range(bounds[at], bounds[at + 1]):
            along += rest[j] * books[j, word]
            cross += centroid[j] * books[j, word]
    return along, cross


@inlined
def pack_codes(bits: int, codes: AnyArray, m: int, blocks: AnyArray, slot: Integer) -> None:
    """Write one row's codes into its lane of its block, where zeros stand; no other lane is touched."""
    block, lane = slot // ROWS, slot % ROWS
    for at in range(m):
        if bits == 8:
            blocks[block, at * ROWS + lane] = codes[at]
        else:
            blocks[block, (at >> 1) * ROWS + lane] |= np.uint8(codes[at] << (4 * (at & 1)))


@allocating
def encode_product(
    bits: int, metric: int, vectors: AnyArray, inverse_norms: AnyArray, centroids: AnyArray, turned: AnyArray,
    turn: AnyArray, bounds: AnyArray, books: AnyArray, starts: AnyArray, sizes: AnyArray, slots: AnyArray, first: int,
    last: int, blocks: AnyArray, add: AnyArray, scale: AnyArray, spreads: AnyArray,
) -> None:  # fmt: skip
    """Write codes and factors of the rows of lists first..last-1, and how wide each is; arrays as in `encode_lists`.

    turned   float32 (nlist, dim), the rotated centroids;  turn as in `turn_into`
    blocks   uint8 (blocks, product_bytes), zeros before
    """
    dim, m = vectors.shape[1], bounds.shape[0] - 1
    rest, moved = np.empty(dim, np.float32), np.empty(dim, np.float32)
    codes, distance = np.empty(m, np.uint8), np.empty(1, np.float32)
    for at in range(first, last):
        begin, spread = starts[at] * ROWS, 0.0
        for slot in range(begin, begin + sizes[at]):
            row = slots[slot]
            norm = residual(metric, vectors, inverse_norms, row, centroids[at], rest)
            turn_into(rest, turn, moved)
            along, cross = take_codes(moved, turned[at], bounds, books, distance, codes)
            zero = metric == COSINE and inverse_norms[row] == np.float32(0.0)
            write_list_factors(metric, slot, norm, along, cross, zero, add, scale)
            pack_codes(bits, codes, m, blocks, slot)
            spread += np.float64(norm)
        spreads[at] = np.float32(spread / max(1, sizes[at]))


@allocating
def fill_tables(
    bits: int, query: AnyArray, bounds: AnyArray, books: AnyArray, values: AnyArray, tables: AnyArray
) -> tuple[np.float32, np.float32]:
    """The tables of a query, as `look_block` reads them; returns (unit, offset): <q, word> = unit * (sum + offset).

    query   float32 (dim,), rotated;  values  float32 (m, entries), overwritten
    tables  int8 (table_bytes,), zeros where padded

    An entry is a byte from 0 on; the step is the same for all, so that sums are of one kind, and no sum overflows.
    """
    m = values.shape[0]
    widest, range_sum, least_sum = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    ends = np.empty((m, 2), np.float32)
    for at in range(m):
        word_products(query, np.intp(bounds[at]), np.intp(bounds[at + 1]), books, values[at], ends[at])
        extent = ends[at, 1] - ends[at, 0]
        widest, range_sum, least_sum = max(widest, extent), range_sum + extent, least_sum + ends[at, 0]
    top = np.float32(TOP_4 if bits == 4 else TOP_8)
    unit = max(widest / top, range_sum / np.float32(SUM_MAX - m))
    if not unit > np.float32(0.0) or not unit < FAR:
        tables[:] = np.int8(0)
        return np.float32(0.0), np.float32(0.0)
    inverse = np.float32(1.0) / unit
    for at in range(m):
        start = place_4(at) if bits == 4 else 256 * at
        write_levels(values[at], ends[at, 0], inverse, tables, np.intp(start))
    return unit, least_sum * inverse
