"""What a path of a sealed segment has as a whole, read off its sorted postings and the ranks of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.storage.column_order import MISSING, Keys, Order
from vecdb.storage.column_values import KIND_OF, NUMERIC, RANKS, decode
from vecdb.storage.ranks import Ranks
from vecdb.storage.sealed_column import SealedColumn
from vecdb.types import I32, I64, AnyArray, Scalar

FIRST_STEP = 256  # postings looked at first for the smallest value of some rows


def order_of(column: SealedColumn, stored: str, rows: I32) -> Order:
    """The places of `rows` of a path whose values are all of one type, without lists."""
    ranks = column.ranks(stored)
    codes = ranks.ranks[rows].astype(np.int64)
    codes[codes == ranks.distinct] = MISSING
    return Order(codes, lambda used: _keys(column, stored, ranks, used))


def distinct_of(column: SealedColumn, stored: str, wanted: NDArray[np.bool_] | None) -> tuple[list[Any], AnyArray]:
    """The values of a type and the rows that have each, within the mask `wanted`; None where there may be lists."""
    counts = np.diff(column.starts(stored))
    if wanted is not None:
        ranks = column.ranks(stored)
        most = 2 * np.count_nonzero(wanted) > len(wanted)
        found = np.bincount(ranks.ranks[~wanted if most else wanted], minlength=len(counts) + 1)[:-1]
        counts = counts - found if most else found
    used = np.flatnonzero(counts)
    return column.values(stored, used), counts[used]


def extremes_of(column: SealedColumn, stored: str, wanted: NDArray[np.bool_] | None) -> list[Scalar]:
    """The smallest and the largest value of a type within the mask `wanted`; nothing if there is none."""
    posted = column.posted(stored)
    first, last = 0, len(posted) - 1
    if wanted is not None:
        first, last = _first_wanted(posted, wanted), last - _first_wanted(posted[::-1], wanted)
        if first == len(posted):
            return []
    return [decode(stored, value) for value in column.values_at(stored, [first, last])]


def _keys(column: SealedColumn, stored: str, ranks: Ranks, used: I64) -> Keys:
    rank = RANKS[KIND_OF[stored]]
    if stored in NUMERIC:
        return Keys(rank, column.numeric[stored][0][ranks.starts[used]])
    return Keys(pairs=[(rank, value) for value in column.values(stored, used)])


def _first_wanted(posted: I32, wanted: NDArray[np.bool_]) -> int:
    """The first position whose row is wanted, or the number of positions: found in growing steps from the start."""
    first, step = 0, FIRST_STEP
    while first < len(posted):
        hits = wanted[posted[first : first + step]]
        if hits.any():
            return first + int(np.argmax(hits))
        first, step = first + step, 4 * step
    return len(posted)
