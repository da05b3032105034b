"""The marks by which a walk knows the rows that it has met; kept from one search to the next."""

from __future__ import annotations

import numpy as np

EPOCH_LIMIT = (1 << 31) - 1


class Visited:
    """Reusable marks of one walk at a time: a row was met if its stamp is the epoch."""

    __slots__ = ("epoch", "stamps")

    def __init__(self, rows: int) -> None:
        self.stamps = np.zeros(rows, np.int32)
        self.epoch = 0

    def room_for(self, walks: int) -> None:
        if self.epoch + walks >= EPOCH_LIMIT:
            self.stamps[:] = 0
            self.epoch = 0
