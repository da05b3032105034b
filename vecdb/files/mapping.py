"""Read-only maps of files that keep no descriptor: `mmap.mmap` duplicates one for every map, and a segment has a
dozen files or hundreds, while a process may often hold no more than 256 or 1,024 descriptors.

Invariant: a map lives as long as something refers to its bytes; at the end of the process the system takes it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
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
