"""Whether compiled kernels are at hand. Until then NumPy answers, so that a cold process answers at once."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.index.warm import warm_up
from vecdb.threads import check_ending, start

if TYPE_CHECKING:
    from vecdb.types import Matrix

log = logging.getLogger("vecdb")
PATIENCE_BYTES = 256 * 1024 * 1024  # vectors that NumPy may scan for a query rather than wait for the kernels
QUERIES_FIRST = 1  # queries answered before kernels are loaded in the background


class Kernels:
    """Loads numba and the kernels for a dtype of vectors once, on threads of its own: those that search, and later,
    when indexes are to be built, the others. Loading holds the interpreter, and queries beside it are slow.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.lock = threading.Lock()
        self.searching: dict[str, threading.Thread] = {}
        self.building: dict[str, threading.Thread] = {}
        self.failures: dict[str, BaseException] = {}
        self.queries = 0
        self.warm: set[np.dtype[Any]] = set()  # whose searches need no more loading

    def ready(self, dtype: str) -> bool:
        return np.dtype(dtype) in self.warm

    def start(self, dtype: str) -> None:
        """Begins to load those that search; returns at once."""
        with self.lock:
            if dtype not in self.searching:
                self.searching[dtype] = start("vecdb-kernels", lambda: self._load(dtype, builds=False))

    def start_all(self, dtype: str) -> None:
        """Begins to load those that build indexes too; returns at once."""
        self.start(dtype)
        with self.lock:
            if dtype not in self.building:
                self.building[dtype] = start("vecdb-kernels", lambda: self._load_rest(dtype))

    def _load_rest(self, dtype: str) -> None:
        self.searching[dtype].join()
        if dtype not in self.failures:
            self._load(dtype, builds=True)

    def _load(self, dtype: str, *, builds: bool) -> None:
        try:
            warm_up(check_ending, dtype=dtype, builds=builds)
            self.warm.add(np.dtype(dtype))
        except BaseException as error:
            self.failures[dtype] = error
            check_ending()  # the compiler may have wrapped what stopped it
            without = "no index is built" if self.ready(dtype) else "NumPy goes on answering, more slowly"
            log.warning("the kernels cannot be loaded; %s: %s", without, error, exc_info=True)

    def wait(self, dtype: str) -> None:
        """Returns when the kernels that search are loaded. Raises what stopped them."""
        self.start(dtype)
        self.searching[dtype].join()
        check_ending()
        if not self.ready(dtype):
            raise self.failures[dtype]

    def wait_for_all(self, dtype: str) -> None:
        """Returns when those that build indexes are loaded too. Raises what stopped them."""
        self.start_all(dtype)
        self.building[dtype].join()
        check_ending()
        if dtype in self.failures:
            raise self.failures[dtype]

    def usable(self, matrix: Matrix) -> bool:
        """Whether to search with kernels now: loads them in the background from the second query on."""
        if matrix.vectors.dtype in self.warm:
            return True
        dtype = matrix.vectors.dtype.name
        self.queries += 1
        if matrix.vectors.nbytes > PATIENCE_BYTES:
            self.wait(dtype)
            return True
        if self.queries > QUERIES_FIRST:
            self.start(dtype)
        return False
