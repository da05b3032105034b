"""How values are kept in columns: the stored types, and operands of probes turned into them.

Postings of a path are kept apart by stored type. int and float are one comparable kind, "number", and compare exactly:
a bound that is no int64, or no float64, is moved to the nearest one on the right side.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from vecdb.storage.payload import microseconds
from vecdb.storage.payload_types import INT_MAX, INT_MIN
from vecdb.types import AnyArray, Scalar, Sized, Within

# Stored type -> dtype, for types whose values are fixed in size.
NUMERIC: dict[str, str] = {"bool": "<u1", "int": "<i8", "float": "<f8", "timestamp": "<i8"}
SIZE = "size"  # postings of lists by their number of elements; no value of a path is one
DTYPES = {**NUMERIC, SIZE: "<i4"}
TEXT = ("string", "bytes")
STORED = (*NUMERIC, *TEXT)
# Comparable kind -> stored types, in the order that values of different kinds sort.
KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "number": ("int", "float"),
    "timestamp": ("timestamp",),
    "string": ("string",),
    "bytes": ("bytes",),
}
RANKS = {kind: rank for rank, kind in enumerate(KINDS)}
KIND_OF = {stored: kind for kind, types in KINDS.items() for stored in types}
ORDERED_KINDS = ("number", "timestamp", "string")  # kinds that have ranges

_SIZE_MAX = 2**31 - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TYPES: dict[type, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    bytes: "bytes",
    dt.datetime: "timestamp",
    dt.date: "timestamp",
}


def stored_type(kind: type) -> str:
    """The stored type for a Python type, "" for one that is not indexed."""
    return _TYPES.get(kind) or ("timestamp" if issubclass(kind, dt.date) else "")


def encode(stored: str, values: Iterable[Any]) -> AnyArray:
    """Values of one numeric stored type as an array."""
    if stored == "timestamp":
        values = [microseconds(value) for value in values]
    return np.array(values, NUMERIC[stored])


def decode(stored: str, value: Any) -> Scalar:
    """A stored value as Python's; timestamps come back as aware datetimes in UTC."""
    if stored == "bool":
        return bool(value)
    if stored == "timestamp":
        return _EPOCH + dt.timedelta(microseconds=int(value))
    return value  # type: ignore[no-any-return]


def points(stored: str, values: Iterable[Scalar]) -> AnyArray:
    """The operands of an equality that can equal a stored value, ascending and unique, in the stored dtype."""
    values = list(values)
    if stored == "int" and set(map(type, values)) == {int}:
        return np.unique(np.array(values, NUMERIC[stored]))
    found: set[Any] = set()
    for value in values:
        if stored_type(type(value)) == stored:
            found.add(microseconds(value) if isinstance(value, dt.date) else value)
        elif stored == "int" and isinstance(value, float):
            if value.is_integer() and INT_MIN <= value <= INT_MAX:
                found.add(int(value))
        elif stored == "float" and type(value) is int and int(float(value)) == value:
            found.add(float(value))
    return np.array(sorted(found), NUMERIC[stored])


def texts(stored: str, values: Iterable[Scalar]) -> list[Any]:
    """The operands of an equality of a text type, without duplicates."""
    return list(dict.fromkeys(value for value in values if stored_type(type(value)) == stored))


def interval(stored: str, probe: Within) -> tuple[Any, Any] | None:
    """The closed interval of stored values that the bounds of `probe` leave, or None when it is empty."""
    kinds = {KIND_OF[stored_type(type(bound))] for bound in (probe.low, probe.high) if bound is not None}
    if kinds != {KIND_OF[stored]} or KIND_OF[stored] not in ORDERED_KINDS:
        return None
    low: Any
    high: Any
    low, high = (microseconds(bound) if isinstance(bound, dt.date) else bound for bound in (probe.low, probe.high))
    edge = _float_edge if stored == "float" else _integer_edge
    lowest, highest = (-math.inf, math.inf) if stored == "float" else (INT_MIN, INT_MAX)
    first = lowest if low is None else max(edge(low, probe.low_open), lowest)
    # The greatest value below a bound is the mirror image of the least value above it.
    last = highest if high is None else min(-edge(-high, probe.high_open), highest)
    # NaN, which stands for "no such float", stays the first of max() and min(), and fails every comparison.
    return (first, last) if first <= last else None


def size_bounds(probe: Sized) -> tuple[int, int]:
    """The least and the greatest size that the probe allows, as int32 holds them."""
    return min(probe.low, _SIZE_MAX), _SIZE_MAX if probe.high is None else probe.high


def _integer_edge(bound: int | float, is_open: bool) -> int | float:
    """The least integer >= bound (> bound when open); an infinity is its own edge."""
    if isinstance(bound, float) and math.isinf(bound):
        return bound
    value = math.ceil(bound)
    return value + 1 if is_open and value == bound else value


def _float_edge(bound: int | float, is_open: bool) -> float:
    """The least float >= bound (> bound when open); NaN when there is none."""
    value = float(bound)
    if value < bound or (is_open and value == bound):
        return math.nan if value == math.inf else math.nextafter(value, math.inf)
    return value
