"""The smallest of many (distance, row) pairs, packed into one int64 each so that ties go to the lower row.

key = order-preserving bits of the float32 distance << 32 | row. Pools are unsorted buffers thinned by quickselect
when full: above about 64 kept rows a sorted pool costs more.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import Integer, inlined, kernel
from vecdb.types import AnyArray

NO_KEY = np.int64(0x7FFFFFFFFFFFFFFF)  # above every other


@inlined
def pack_key(distance: np.float32, row: Integer) -> np.int64:
    bits = np.int64(np.float32(distance).view(np.int32))
    if bits < 0:  # negative floats order backwards by their bits
        bits ^= np.int64(0x7FFFFFFF)
    return np.int64((bits << 32) | np.int64(row))


@inlined
def key_row(key: np.int64) -> np.int32:
    return np.int32(key & np.int64(0x7FFFFFFF))


@inlined
def key_distance(key: np.int64) -> np.float32:
    bits = key >> np.int64(32)
    if bits < 0:
        bits ^= np.int64(0x7FFFFFFF)
    return np.float32(np.int32(bits).view(np.float32))


@kernel
def keep_smallest(keys: AnyArray, count: int, kept: int) -> np.int64:
    """Quickselect (Hoare, 1961): the `kept` smallest of keys[:count] come first; returns the largest of them."""
    low, high, target = 0, count - 1, kept - 1
    while low < high:
        pivot, i, j = keys[(low + high) >> 1], low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return np.int64(keys[target])


@kernel
def sort_keys(keys: AnyArray, count: int) -> None:
    """Shell sort of keys[:count], in place: an insertion sort for few keys, and no worse than n^1.5 for many."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            key, j = keys[i], i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 3
