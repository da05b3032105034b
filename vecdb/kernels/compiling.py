"""A way out of a long compilation, between one function and the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event


class _Check(event.Listener):  # type: ignore[misc]  # numba has no types
    """Calls `check` before each function that one thread compiles; what is loaded from the cache is not told."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check, self.thread = check, threading.get_ident()

    def on_start(self, _: event.Event) -> None:
        if threading.get_ident() == self.thread:
            self.check()

    def on_end(self, _: event.Event) -> None:
        """The end of a function needs no check: the next one begins with one."""


@contextmanager
def checked(check: Callable[[], None]) -> Iterator[None]:
    """Meanwhile what `check` raises stops what this thread compiles."""
    with event.install_listener("numba:compile", _Check(check)):
        yield
