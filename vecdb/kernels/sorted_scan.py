"""A scan of blocks that keeps its best in order, where these are few."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK, WHOLE_BLOCK, dot_block, score_block
from vecdb.kernels.intrinsics import insert_sorted, lowest_bit
from vecdb.kernels.jit import Integer, inlined, kernel
from vecdb.kernels.topk import NO_KEY, key_distance, pack_key
from vecdb.types import AnyArray

LANES = 8  # keys of a vector register: sorted pools are as long as a multiple of it
SORTED_MAX = 128  # a longer pool is a buffer that is thinned when it is full


@inlined
def scan_run(
    bits: int, codes: AnyArray, add: AnyArray, scale: AnyArray, first: Integer, last: Integer, number: Integer,
    end: Integer, query: AnyArray, unit: np.float32, offset: np.float32, keys: AnyArray, pool: int, worst: np.int64,
    dots: AnyArray, estimates: AnyArray,
) -> np.int64:  # fmt: skip
    """Blocks first..last-1, which hold number..end-1, into the ascending keys; returns the key to be below of."""
    stride, width = codes.shape[1], np.intp(keys.shape[0] // LANES)
    for block in range(first, last):
        dot_block(bits, codes, block * stride, query, stride // 128, dots, (block + 1) * stride)
        mask = score_block(
            dots, np.intp(0), add, scale, np.intp(block * BLOCK), offset, unit, np.float32(0.0), np.float32(1.0),
            key_distance(worst), estimates,
        )  # fmt: skip
        if worst == NO_KEY:
            mask = WHOLE_BLOCK
        here = number + (block - first) * BLOCK
        if end - here < BLOCK:
            mask &= (np.uint64(1) << np.uint64(end - here)) - np.uint64(1)
        while mask != np.uint64(0):
            lane = lowest_bit(mask)
            mask &= mask - np.uint64(1)
            key = pack_key(estimates[lane], here + lane)
            if key < worst:
                insert_sorted(keys, width, key)
                worst = keys[pool - 1]
    return worst


@kernel
def scan_sorted(
    bits: int, codes: AnyArray, add: AnyArray, scale: AnyArray, rows: int, query: AnyArray, unit: np.float32,
    total: Integer, keys: AnyArray, pool: int, dots: AnyArray, estimates: AnyArray,
) -> int:  # fmt: skip
    """keys[:count] = the best of all rows, at most `pool`, ascending; returns count. Shapes as in scan_blocks.

    keys  int64, as many as `pool` or up to LANES - 1 more, at most SORTED_MAX: as few as that are kept in order faster
          than a buffer is thinned
    """
    offset = np.float32(-0.5) * np.float32((1 << bits) - 1) * np.float32(total)
    keys[:] = NO_KEY
    scan_run(
        bits, codes, add, scale, 0, codes.shape[0], 0, rows, query, unit, offset, keys, pool, NO_KEY, dots, estimates
    )
    return min(pool, rows)
