"""Loops over records let other threads in: not at every step, and not only when the interpreter makes them."""

from __future__ import annotations

import threading
import time

import pytest

from vecdb.files import pacing


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps that are made; the clock stands still unless a test moves it."""
    sleeps: list[float] = []
    monkeypatch.setattr(pacing.time, "sleep", sleeps.append)
    monkeypatch.setattr(pacing, "_turns", threading.local())
    return sleeps


def at(monkeypatch: pytest.MonkeyPatch, nanoseconds: int) -> None:
    monkeypatch.setattr(pacing.time, "perf_counter_ns", lambda: nanoseconds)


def test_a_turn_ends_after_its_time(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.perf_counter_ns()
    at(monkeypatch, start)
    pacing.give_way()
    assert slept == [0]  # what ran before has no known beginning
    at(monkeypatch, start + pacing.TURN_NS - 1)
    pacing.give_way()
    assert slept == [0]
    at(monkeypatch, start + pacing.TURN_NS)
    pacing.give_way()
    assert slept == [0, 0]


def test_every_thread_has_turns_of_its_own(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, time.perf_counter_ns())
    for _ in range(3):
        pacing.give_way()
    other = threading.Thread(target=pacing.give_way)
    other.start()
    other.join()
    assert slept == [0, 0]
