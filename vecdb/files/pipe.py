"""Bytes of a producer that only writes to descriptors, handed on as they come: LMDB copies itself that way."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable

from vecdb.threads import Pool

PIPE_BYTES = 1 << 20
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux only; elsewhere the pipe keeps its usual size


def relay(produce: Callable[[int], None], take: Callable[[bytes], None]) -> None:
    """Calls `produce` with a descriptor to write to, on a thread, and `take` with every piece of what it writes.

    An error of `take` is raised and ends the producer, which finds a broken pipe; else an error of the producer is.
    """
    source, sink = os.pipe()
    if _SET_SIZE is not None:
        with contextlib.suppress(OSError):  # beyond the limit of this user: slower, no more
            fcntl.fcntl(sink, _SET_SIZE, PIPE_BYTES)

    def run() -> None:
        try:
            produce(sink)
        finally:
            os.close(sink)

    with Pool(1, "vecdb-copy") as pool:
        produced = pool.submit(run)
        try:
            while piece := os.read(source, PIPE_BYTES):
                take(piece)
        finally:
            os.close(source)
    produced.result()
