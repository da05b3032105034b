"""Time and chance as seams, next to the disk: whoever replaces them gets the same run twice."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from typing import Protocol

from vecdb.files.disk import Disk, LocalDisk


class Clock(Protocol):
    """Wall time is advisory (record times); monotonic time decides when maintenance is due."""

    def time_ns(self) -> int: ...
    def monotonic(self) -> float: ...


class SystemClock:
    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class Random(Protocol):
    def bytes(self, count: int) -> bytes: ...


class SystemRandom:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


@dataclass(frozen=True, slots=True)
class Seams:
    """Every side effect of an engine, replaceable in tests."""

    disk: Disk = field(default_factory=LocalDisk)
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)


def uuid7(seams: Seams) -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits; later ids sort later."""
    milliseconds = seams.clock.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(seams.random.bytes(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def uuid7_batch(seams: Seams, count: int) -> list[str]:
    """`count` ids that sort in the order of the list: the first random bits count up within the call."""
    if count == 0:
        return []
    base = uuid7(seams).int & ~((0xFFF << 64) | (2**62 - 1))
    first = int.from_bytes(seams.random.bytes(4), "big") & 0x3FFFFFFF
    noise = seams.random.bytes(4 * count)
    ids = []
    for i in range(count):
        step = first + i  # 42 bits of counter: 12 above the variant, 30 below
        value = base | ((step >> 30) & 0xFFF) << 64 | (step & 0x3FFFFFFF) << 32
        ids.append(str(uuid.UUID(int=value | int.from_bytes(noise[4 * i : 4 * i + 4], "big"))))
    return ids
