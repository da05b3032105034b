"""Search of an excerpt: copies of the codes of chosen rows, side by side in blocks, as a scan wants them.

A record's 32-bit words take the place that its lane has in a block, so nothing is coded anew, and the query is laid
out to fit: byte by byte it stands where the record has the dimension. Of a filter's rows in all places of a segment a
gather fetches the lines one by one; their copies are read in order.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.gather import decide_exactly
from vecdb.kernels.intrinsics import prefetch_row
from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.kernels.quantize import centre_query
from vecdb.kernels.row_codes import LINE, code_lines, encode_query, query_bytes, tail_width
from vecdb.kernels.scan import scan_blocks
from vecdb.kernels.sorted_scan import LANES, SORTED_MAX, scan_sorted
from vecdb.kernels.topk import NO_KEY, keep_smallest, key_distance, key_row, pack_key
from vecdb.types import AnyArray

RECORDS_AHEAD = 8  # records that are asked for ahead of the one being copied
LINE_WORDS = LINE // 4


@inlined
def code_words(bits: int, dim: int) -> int:
    """32-bit words of a record that hold levels."""
    return (code_lines(bits, dim) - 1) * LINE_WORDS + (tail_width(bits, dim) + 3) // 4


@kernel
def copy_records(
    records: AnyArray, words: int, rows: AnyArray, codes: AnyArray, add: AnyArray, scale: AnyArray
) -> None:
    """Write the records of `rows` as blocks.

    records  uint32 (n, stride / 4);  words: of these, those with levels;  rows int32 (m,), within the records
    codes    uint32 (blocks, 32 * words);  add, scale  float32 (32 * blocks,), seen as uint32
    """
    total, last = rows.shape[0], records.shape[1] - 1
    lines = np.intp(records.shape[1] // LINE_WORDS)
    for at in range(total):
        if at + RECORDS_AHEAD < total:
            prefetch_row(records, np.intp(rows[at + RECORDS_AHEAD]), lines)
        row, block, lane = rows[at], at // BLOCK, at % BLOCK
        for word in range(words):
            codes[block, word * BLOCK + lane] = records[row, word]
        add[at], scale[at] = records[row, last - 1], records[row, last]


@inlined
def lay_out(query: AnyArray, slots: int, words: Integer, out: AnyArray) -> np.int64:
    """out[:4 * slots * words] = the coded query as blocks want it, word by word and slot by slot; returns its sum."""
    total = np.int64(0)
    for word in range(words):
        line, first = word // LINE_WORDS, 4 * (word % LINE_WORDS)
        wide = min(LINE, query.shape[0] // slots - line * LINE)
        for slot in range(slots):
            for j in range(4):
                level = query[line * slots * LINE + slot * wide + first + j]
                out[(word * slots + slot) * 4 + j] = level
                total += np.int64(level)
    return total


@allocating
def search_excerpt(
    metric: int,
    vectors: AnyArray,
    bits: int,
    codes: AnyArray,
    add: AnyArray,
    scale: AnyArray,
    rows: AnyArray,
    fine_bits: int,
    fine: AnyArray,
    fine_factors: AnyArray,
    centre: AnyArray,
    everything: AnyArray,
    queries: AnyArray,
    k: int,
    pool: int,
    scored: int,
    out_rows: AnyArray,
    out_distances: AnyArray,
    counters: AnyArray,
) -> None:
    """The k nearest of `rows`, whose records were copied: like `gather.search_rows`, which see.

    codes uint8 (blocks, 128 * words);  everything: a bitset of no words
    """
    dim, slots, words, blocks = queries.shape[1], 8 // bits, codes.shape[1] // 128, codes.shape[0]
    pool = max(k, min(pool, rows.shape[0]))
    short = pool <= SORTED_MAX
    keys = np.empty((pool + LANES - 1) // LANES * LANES if short else 2 * pool + 2 * BLOCK, np.int64)
    moved, levels = np.empty(dim, np.float32), np.empty(dim, np.int8)
    query, fine_query = np.zeros(query_bytes(bits, dim), np.int8), np.zeros(query_bytes(fine_bits, dim), np.int8)
    asked = np.zeros(4 * slots * words, np.int8)
    dots, estimates = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32)
    for i in range(queries.shape[0]):
        centre_query(metric, queries, i, centre, moved)
        unit, shift = encode_query(bits, moved, levels, query)
        total = lay_out(query, slots, words, asked)
        if short:
            count = scan_sorted(bits, codes, add, scale, rows.shape[0], asked, unit, total, keys, pool, dots, estimates)
        else:
            count, _ = scan_blocks(
                bits, codes, add, scale, 0, blocks, rows.shape[0], everything, asked, unit, total, np.float32(0.0),
                keys, 0, NO_KEY, pool, 0, dots, estimates,
            )  # fmt: skip
            if count > pool:
                keep_smallest(keys, count, pool)
                count = pool
        for j in range(count):
            keys[j] = pack_key(key_distance(keys[j]), rows[key_row(keys[j])])
        counters[1] += rows.shape[0]
        counters[2] += decide_exactly(
            metric, vectors, queries, i, fine_bits, fine, fine_factors, bits, levels, unit, shift, fine_query, keys,
            count, k, scored, out_rows, out_distances,
        )  # fmt: skip
