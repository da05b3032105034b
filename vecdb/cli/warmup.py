"""`vecdb warmup`: compiles every kernel ahead of time."""

from __future__ import annotations

import time

import vecdb
from vecdb.cli import terminal


def warmup() -> None:
    begin = time.perf_counter()
    with terminal.Bar("compiling") as bar:
        cache = vecdb.warm_up(bar)
    terminal.fact("compiled", f"kept in {cache}", time.perf_counter() - begin)
