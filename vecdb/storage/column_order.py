"""Where rows stand in the order of a payload path, within one segment and across several.

Values of different kinds sort bool < number < timestamp < string < bytes; a list stands where its smallest element
does; null, NaN and nothing have no place. Within a segment places are small integers; only the distinct values are
compared across segments, as arrays where they are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.types import I64, AnyArray

MISSING = np.iinfo(np.int64).max  # the code of a row without a value
_FLOAT_EXACT = 2**53  # integers up to it are floats too


@dataclass(frozen=True, slots=True)
class Keys:
    """Distinct values in ascending order that compare across segments: one array of one kind, or pairs of any.

    rank     of the kind of all `values`
    pairs    (rank of the kind, value), where there is no array
    """

    rank: int = 0
    values: AnyArray | None = None
    pairs: Sequence[tuple[int, Any]] = ()

    def listed(self) -> Sequence[tuple[int, Any]]:
        return self.pairs if self.values is None else [(self.rank, value) for value in self.values.tolist()]


@dataclass(frozen=True, slots=True)
class Order:
    """The places of some rows of one segment.

    codes   int64, one a row: smaller means before, equal means equal values; MISSING without a value
    keys    gives the keys of codes (ascending, unique)
    """

    codes: I64
    keys: Callable[[I64], Keys]


def joined(orders: Sequence[Order]) -> list[I64]:
    """The codes of several segments, renumbered so that they compare with each other."""
    if len(orders) == 1:
        return [orders[0].codes]
    used = [np.unique(order.codes[order.codes != MISSING]) for order in orders]
    filled = [number for number, codes in enumerate(used) if len(codes)]
    found = [order.codes for order in orders]
    if len(filled) < 2:
        return found
    places = _places([orders[number].keys(used[number]) for number in filled])
    for number, placed in zip(filled, places, strict=True):
        there = found[number] != MISSING
        renumbered = np.full(len(there), MISSING, np.int64)
        renumbered[there] = placed[np.searchsorted(used[number], found[number][there])]
        found[number] = renumbered
    return found


def _places(keys: Sequence[Keys]) -> list[I64]:
    """For each list of keys, the places of them among all keys."""
    arrays = [found.values for found in keys if found.values is not None]
    one_kind = len(arrays) == len(keys) and len({found.rank for found in keys}) == 1
    numbers = common(arrays) if one_kind else None
    if numbers is not None:
        merged = np.unique(np.concatenate(numbers))
        return [np.searchsorted(merged, array) for array in numbers]
    position = {key: place for place, key in enumerate(sorted({key for found in keys for key in found.listed()}))}
    return [np.array([position[key] for key in found.listed()], np.int64) for found in keys]


def common(arrays: Sequence[AnyArray]) -> list[AnyArray] | None:
    """The arrays as one dtype that holds every value exactly, or None."""
    if len({array.dtype for array in arrays}) == 1:
        return list(arrays)
    for array in arrays:
        if array.dtype.kind == "i" and len(array) and (array.min() < -_FLOAT_EXACT or array.max() > _FLOAT_EXACT):
            return None
    return [array.astype(np.float64) for array in arrays]
