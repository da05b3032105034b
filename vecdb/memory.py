"""Memory for large arrays that are read in no order: whole cache lines, and pages of 2 MiB where the system has them.

A walk jumps from row to row, and each jump to another page costs a look into the page tables: on a virtual machine,
whose tables lie in those of its host, a tenth of a search.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np

from vecdb.types import AnyArray

LINE = 64
LARGE_PAGE = 2 * 1024 * 1024
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone knows it
_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def aligned(shape: tuple[int, ...], dtype: Any, value: int = 0) -> AnyArray:
    """An array that starts on a cache line, filled with `value`; zeros take no memory until they are written."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    unit = LARGE_PAGE if size >= LARGE_PAGE else LINE
    raw = _fresh(size + unit) if size >= LARGE_PAGE else np.zeros(size + unit, np.uint8)
    start = -raw.ctypes.data % unit
    array: AnyArray = raw[start : start + size].view(dtype).reshape(shape)
    want_large_pages(array)
    if value:
        array[...] = value
    return array


def _fresh(size: int) -> AnyArray:
    """Bytes that nobody has touched: what an allocator hands out again has its small pages already."""
    try:
        return np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes for an index cannot be had: {error}") from error


def want_large_pages(array: AnyArray) -> None:
    """Asks for large pages, also for an array mapped from a file, before it is read. It is advice: nothing fails."""
    if _ADVICE is not None and array.nbytes >= LARGE_PAGE:
        advise(array.ctypes.data, array.nbytes, _ADVICE)


def advise(start: int, size: int, advice: int) -> None:
    """madvise of the pages that hold `size` bytes from an address; what the system does not take changes nothing."""
    first = start - start % mmap.PAGESIZE
    _libc.madvise(first, start + size - first, advice)
