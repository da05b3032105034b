"""`vecdb warmup`: compiles every kernel ahead of time."""

from __future__ import annotations

import time

import vecdb
from vecdb.cli import terminal


def warmup(dtype: str) -> None:
    begin = time.perf_counter()
    with terminal.Bar("compiling") as bar:
        cache = vecdb.warm_up(bar, dtype=dtype, lists=True)
    kept = "in memory only, so every process compiles again" if cache is None else f"kept in {cache}"
    terminal.fact("compiled", kept, time.perf_counter() - begin)
