"""The value of each row as a small number, made from sorted postings when it is first needed.

Postings answer which rows have a value; ranks answer which value a row has. A range of values is a range of ranks, so a
dense condition is one comparison of a narrow array, and a few rows are tested without finding all that match.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.types import I32, I64, AnyArray

FEW_SPANS = 6  # up to which comparing the ranks with each is faster than looking them up in a table


@dataclass(frozen=True, slots=True)
class Spans:
    """Pieces of one array of postings: rows[lows[i]:highs[i]], not overlapping, each of whole values."""

    rows: I32
    lows: I64
    highs: I64

    def count(self) -> int:
        return int((self.highs - self.lows).sum())

    def filled(self) -> int:
        return int(np.count_nonzero(self.highs > self.lows))

    def gather(self) -> list[I32]:
        if len(self.lows) == 1:
            return [self.rows[self.lows[0] : self.highs[0]]]
        filled = np.flatnonzero(self.highs > self.lows)
        if len(filled) <= 16:
            return [self.rows[self.lows[span] : self.highs[span]] for span in filled]
        lengths = (self.highs - self.lows)[filled]
        shifts = np.repeat(self.lows[filled] - np.cumsum(lengths) + lengths, lengths)
        return [self.rows[shifts + np.arange(len(shifts))]]


class Ranks:
    """For each row the rank of its value among the distinct values of one stored type.

    starts   int64 (distinct + 1): the postings of the value of rank r are starts[r]:starts[r + 1]
    ranks    uint8, uint16 or uint32 (rows): `distinct` where the row has no value of this type

    No row may have two values, so a path with lists has none.
    """

    def __init__(self, rows: int, starts: I64, posted: I32) -> None:
        distinct = len(starts) - 1
        kind = np.uint8 if distinct < 2**8 else np.uint16 if distinct < 2**16 else np.uint32
        self.starts, self.distinct = starts, distinct
        self.ranks: AnyArray = np.full(rows, distinct, kind)
        self.ranks[posted.astype(np.intp)] = np.repeat(np.arange(distinct, dtype=kind), np.diff(starts))

    def within(self, spans: Spans, rows: I32 | None = None) -> NDArray[np.bool_]:
        """For each of `rows` (None: all), whether its value lies in one of the spans."""
        ranks = self.ranks if rows is None else self.ranks[rows]
        filled = spans.highs > spans.lows
        lows = np.searchsorted(self.starts, spans.lows[filled])
        highs = np.searchsorted(self.starts, spans.highs[filled])
        if len(lows) <= FEW_SPANS:
            mask = np.zeros(len(ranks), np.bool_)
            kind = ranks.dtype.type
            for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
                # Unsigned, so that a rank below the first is a large number.
                mask |= ranks - kind(low) < kind(high - low)
            return mask
        steps = np.zeros(self.distinct + 2, np.int8)
        steps[lows] += 1
        steps[highs] -= 1
        return np.take(np.cumsum(steps, dtype=np.int8) > 0, ranks)


def starts_of(values: AnyArray) -> I64:
    """Where the postings of each distinct value begin in sorted `values`, and their end."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.array([0, len(values)] if len(values) else [0], np.int64)
    return np.concatenate([ends[:1], changes, ends[1:]])
