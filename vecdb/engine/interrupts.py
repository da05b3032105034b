"""Moments that must not be torn: Ctrl-C waits, and what was committed but not taken over poisons the handle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from vecdb.errors import Poisoned
from vecdb.files.disk import remove_tree

if TYPE_CHECKING:
    from vecdb.engine.state import Engine

Interrupts = list[tuple[int, FrameType | None]]


@contextmanager
def held_interrupts() -> Iterator[Interrupts]:
    """On the main thread, Ctrl-C waits for the end of the block. The list tells whether one came."""
    previous: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield []
        return
    caught: Interrupts = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, previous)
        if caught:
            previous(*caught[0])


@contextmanager
def poisoning(engine: Engine) -> Iterator[None]:
    """Around changes of the catalog: a commit of unknown outcome ends writing, for every thread."""
    try:
        yield
    except Poisoned as error:
        engine.poison(error.cause)
        raise


@contextmanager
def naming(engine: Engine, directories: Sequence[Path]) -> Iterator[None]:
    """Around the commit that names new directories: when it fails, and nothing of it happened, they go."""
    try:
        yield
    except BaseException:
        if not engine.poisoned:
            for directory in directories:
                remove_tree(engine.seams.disk, directory)
        raise


@contextmanager
def taking_over(engine: Engine) -> Iterator[None]:
    """The catalog has moved on, and memory follows here. If it cannot, the two disagree: no write after that."""
    try:
        yield
    except Poisoned:
        raise
    except BaseException as error:
        engine.poison(f"a commit to the catalog could not be taken over ({error!r})")
        raise
