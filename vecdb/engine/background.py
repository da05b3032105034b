"""Threads that end before the interpreter does.

Python stops a daemon thread where it next asks for the GIL. Inside the compiler or a kernel that unwinds frames of C++
and takes the whole process down (SIGABRT), after everything was done right. So each looks at `ending` now and then,
and the exit waits for it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from vecdb.errors import Closed

ending = threading.Event()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Ending(Closed):
    """The interpreter is shutting down; what was asked for is not begun."""


def start(name: str, work: Callable[[], None]) -> threading.Thread:
    """A thread that runs `work`, which calls `check_ending` at least once a second or so and lets it raise."""

    def run() -> None:
        try:
            work()
        except Ending:
            return

    thread = threading.Thread(target=run, name=name, daemon=True)
    _threads.add(thread)
    thread.start()
    return thread


def check_ending(*_: object) -> None:
    """Raises Ending once the interpreter shuts down. Takes what a progress function is given."""
    if ending.is_set():
        raise Ending("the interpreter is shutting down")


def end() -> None:
    """At exit: returns when every thread has ended."""
    ending.set()
    for thread in list(_threads):
        thread.join()
