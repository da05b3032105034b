"""Whether compiled kernels are at hand. Until then NumPy answers, so that a cold process answers at once."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from vecdb.index.warm import warm_up

if TYPE_CHECKING:
    from vecdb.types import Matrix

log = logging.getLogger("vecdb")
PATIENCE_BYTES = 256 * 1024 * 1024  # vectors that NumPy may scan for a query rather than wait for the kernels
QUERIES_FIRST = 1  # queries answered before kernels are loaded in the background


class Kernels:
    """Loads numba and the kernels once, on a thread of its own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.queries = 0
        self.warm = False

    @property
    def ready(self) -> bool:
        return self.warm

    def start(self) -> None:
        """Begins to load them; returns at once."""
        with self.lock:
            if self.thread is None and not self.ready:
                self.thread = threading.Thread(target=self._load, name="vecdb-kernels", daemon=True)
                self.thread.start()

    def _load(self) -> None:
        try:
            warm_up()
            self.warm = True
        except BaseException as error:
            self.failure = error
            log.warning("the kernels cannot be loaded; NumPy goes on answering, more slowly: %s", error, exc_info=True)

    def wait(self) -> None:
        """Returns when kernels are loaded. Raises what stopped them."""
        self.start()
        if self.thread is not None:
            self.thread.join()
        if self.failure is not None:
            raise self.failure

    def usable(self, matrix: Matrix) -> bool:
        """Whether to search with kernels now: loads them in the background from the second query on."""
        if self.ready:
            return True
        self.queries += 1
        if matrix.vectors.nbytes > PATIENCE_BYTES:
            self.wait()
            return True
        if self.queries > QUERIES_FIRST:
            self.start()
        return False
