"""Threads of the library's own, which end before the interpreter does, and not earlier.

Python stops a daemon thread where it next asks for the GIL. Inside the compiler or a kernel that unwinds frames of C++
and takes the whole process down (SIGABRT), after everything was done right. Threads that are no daemons it waits for
before anybody has told them to stop; and executors of `concurrent.futures` take nothing more once the main thread has
returned, although other threads of the program may go on for hours. So all are daemons, and the exit, when nobody
else runs any more, tells them (`ending`) and waits for them.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Self, TypeVar

from vecdb.errors import Closed

P = ParamSpec("P")
T = TypeVar("T")
Job = Callable[[], None]

ending = threading.Event()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


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
    for pool in list(_pools):
        pool.shutdown(cancel_futures=True)
    for thread in list(_threads):
        thread.join()


def _in_child() -> None:
    """After a fork: the threads are the parent's, and so are the locks that they held."""
    _threads.clear()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Pool(Executor):
    """`threads` workers that take jobs in the order of their submission. Leave it, or call shutdown, when done."""

    def __init__(self, threads: int, name: str, initializer: Job | None = None) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Job] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._names, self._initializer = [f"{name}-{number}" for number in range(max(1, threads))], initializer
        self._workers: list[threading.Thread] = []
        _pools.add(self)

    def __enter__(self) -> Self:
        return self

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """RuntimeError after shutdown."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool was shut down")
            self._jobs.put((future, lambda: future.set_result(fn(*args, **kwargs))))
            if len(self._workers) < len(self._names):
                self._workers.append(start(self._names[len(self._workers)], self._work))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in self._workers:
                self._jobs.put(None)
        for worker in self._workers if wait else ():
            if worker is not threading.current_thread():
                worker.join()

    def _cancel(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job[0].cancel()

    def _work(self) -> None:
        if self._initializer is not None:
            self._initializer()
        while (job := self._jobs.get()) is not None:
            future, run = job
            if future.set_running_or_notify_cancel():
                try:
                    run()
                except BaseException as error:  # noqa: BLE001  whoever waits for the result is told
                    future.set_exception(error)
            del job, future, run  # what a job holds is not held until the next
