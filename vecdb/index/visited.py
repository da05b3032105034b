"""The marks by which a walk knows the rows that it has met; kept from one search to the next."""

from __future__ import annotations

import numpy as np


class Visited:
    """Reusable marks of one walk at a time: a row was met if its stamp is the epoch. Walks count epochs on.

    counters   of searches that nobody counts; each walk has its own, or threads would wait for one cache line
    """

    __slots__ = ("counters", "epoch", "stamps")

    def __init__(self, rows: int) -> None:
        self.stamps = np.zeros(rows, np.uint8)
        self.epoch = 0
        self.counters = np.zeros(4, np.int64)
