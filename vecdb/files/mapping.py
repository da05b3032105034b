"""Read-only maps of files that keep no descriptor: `mmap.mmap` duplicates one for every map, and a segment has a
dozen files or hundreds, while a process may often hold no more than 256 or 1,024 descriptors.

Invariant: a map lives as long as something refers to its bytes; at the end of the process the system takes it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from typing import Any

import numpy as np

from vecdb.memory import advise
from vecdb.types import I32, AnyArray

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_RANDOM, _WILL_NEED = 1, 3  # MADV_RANDOM and MADV_WILLNEED, everywhere the same
# Faults of one thread where the system counts them, else of the process.
_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
_FAILED = ctypes.c_void_p(-1).value


class _Map:
    """Owns one map. Arrays made of it refer to it."""

    __slots__ = ("__array_interface__", "_address", "_size")

    def __init__(self, descriptor: int, size: int) -> None:
        self._address = None
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address, self._size = address, size
        self.__array_interface__: dict[str, Any] = {
            "data": (address, True),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self, unmap: Any = _libc.munmap) -> None:
        if self._address is not None:
            unmap(self._address, self._size)


def map_file(descriptor: int, size: int) -> memoryview:
    """The first `size` bytes of an open file, size > 0, read-only. The descriptor may be closed at once."""
    return memoryview(np.asarray(_Map(descriptor, size)))


class MappedPages:
    """`vecdb.types.Pages` of a mapped 2-D array."""

    __slots__ = ("_address", "_row_bytes", "_vectors")

    def __init__(self, vectors: AnyArray) -> None:
        self._vectors = vectors  # keeps the map
        self._address, self._row_bytes = vectors.ctypes.data, vectors.strides[0]

    def faults(self) -> int:
        return resource.getrusage(_WHO).ru_majflt

    def scatter(self) -> None:
        advise(self._address, self._vectors.nbytes, _RANDOM)

    def ask(self, rows: I32) -> None:
        for start in (self._address + rows.astype(np.int64) * self._row_bytes).tolist():
            advise(start, self._row_bytes, _WILL_NEED)
