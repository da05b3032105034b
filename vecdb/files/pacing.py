"""Loops over records give way now and then: searches in other threads need the interpreter."""

from __future__ import annotations

import threading
import time

TURN_NS = 400_000

_turns = threading.local()


def give_way() -> None:
    """Lets other threads in when this one has had its turn of 0.4 ms; costs a fifth of a microsecond before that.

    CPython takes its lock from a busy thread only after the switch interval, 5 ms unless the user changed it. Giving
    it up for an instant is not enough either, for who waits must wake up first; time.sleep(0) takes about 60
    microseconds on Linux, by the timer slack of threads, so it is not done for every slice of a loop.
    """
    if time.perf_counter_ns() >= getattr(_turns, "end", 0):
        time.sleep(0)
        _turns.end = time.perf_counter_ns() + TURN_NS
