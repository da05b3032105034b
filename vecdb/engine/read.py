"""Reading without vectors: records by id or filter, in order; counts, distinct values, ranges, fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vecdb.engine.allow import FilterCache, allowed_rows, estimated
from vecdb.engine.view import Segment, View
from vecdb.filter.expression import Node
from vecdb.kernels import bitset
from vecdb.results import Record, Records
from vecdb.storage.columns import MISSING, Order, joined
from vecdb.types import I32, ColumnInfo, Present, RowSet, Scalar

TYPE_ORDER = ("number", "int", "float", "timestamp", "string", "bool", "bytes")


def matching_rows(view: View, cache: FilterCache, node: Node | None) -> tuple[I32, I32]:
    """(segment, row) of every live record that matches, in order of sequence."""
    at, rows = [], []
    for number, segment in enumerate(view.segments):
        found = _rows(segment, allowed_rows(cache, segment, node))
        rows.append(found)
        at.append(np.full(len(found), number, np.int32))
    if not rows:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    return np.concatenate(at), np.concatenate(rows)


def _rows(segment: Segment, allowed: RowSet | None) -> I32:
    if allowed is None:
        return np.arange(segment.rows, dtype=np.int32)
    return bitset.rows_of(allowed, segment.rows)


def rows_of_keys(view: View, keys: Sequence[bytes]) -> tuple[I32, I32]:
    """(segment, row) of the ids that exist, in the order given."""
    sequences = np.array(view.sequences_of_keys(keys), np.int64)
    return view.locate(sequences[sequences >= 0])


def ordered(view: View, at: I32, rows: I32, path: str, descending: bool, end: int | None = None) -> tuple[I32, I32]:
    """By the value at `path`, ties by sequence; records without it come last either way. At least the first `end`."""
    numbers = np.flatnonzero(np.bincount(at)).tolist()
    chosen = [np.flatnonzero(at == number) for number in numbers]
    orders = [
        _order_of(view.segments[number], path, rows[places]) for number, places in zip(numbers, chosen, strict=True)
    ]
    codes = np.full(len(rows), MISSING, np.int64)
    for places, found in zip(chosen, joined(orders) if orders else [], strict=True):
        codes[places] = found
    present = np.flatnonzero(codes != MISSING)
    keys = -codes[present] if descending else codes[present]
    if end is not None and end < len(present):
        nearest = np.flatnonzero(keys <= np.partition(keys, end)[end])
        present, keys = present[nearest], keys[nearest]
    order = np.concatenate([present[np.argsort(keys, kind="stable")], np.flatnonzero(codes == MISSING)])
    return at[order], rows[order]


def _order_of(segment: Segment, path: str, rows: I32) -> Order:
    """The places of `rows`, which may repeat: ids may be asked for twice."""
    if bool((rows[1:] > rows[:-1]).all()):
        return segment.columns().order(path, rows)
    unique, inverse = np.unique(rows, return_inverse=True)
    order = segment.columns().order(path, unique)
    return Order(order.codes[inverse], order.keys)


def records(view: View, field: int | None, at: I32, rows: I32, payloads: bool, vectors: bool) -> Records:
    return Records(view, at, rows, field, payloads, vectors)


def pages(
    view: View, at: I32, rows: I32, field: int | None, batch_size: int, payloads: bool, vectors: bool
) -> Iterator[Record]:
    """The given records of one view one by one, read in pages."""
    for start in range(0, len(rows), batch_size):
        page = slice(start, start + batch_size)
        yield from records(view, field, at[page], rows[page], payloads, vectors)


def count(view: View, cache: FilterCache, node: Node | None) -> int:
    """The number of matching records: from the order of columns where that tells it, else by finding them."""
    if node is None:
        return view.records
    total = 0
    for segment in view.segments:
        bounds = estimated(cache, segment, node)
        allowed = None if bounds.exact else allowed_rows(cache, segment, node)
        total += bounds.low if allowed is None else allowed.count
    return total


def distinct(view: View, cache: FilterCache, path: str, node: Node | None) -> list[tuple[Scalar, int]]:
    """(value, records that have it), most frequent first, then by value within its type."""
    totals: dict[tuple[str, Scalar], int] = {}
    for segment in view.segments:
        counts = segment.columns().value_counts(path, allowed_rows(cache, segment, node))
        for key, number in counts.items():
            totals[key] = totals.get(key, 0) + number
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0][0], item[0][1]))
    return [(value, number) for (_, value), number in ranked]


def min_max(view: View, cache: FilterCache, path: str, node: Node | None) -> tuple[Scalar, Scalar] | None:
    """The smallest and largest value of the first comparable type there is: numbers, timestamps, strings, ..."""
    found: dict[str, tuple[Any, Any]] = {}
    for segment in view.segments:
        for kind, (low, high) in segment.columns().min_max(path, allowed_rows(cache, segment, node)).items():
            old = found.get(kind, (low, high))
            found[kind] = (min(old[0], low), max(old[1], high))
    kinds = sorted(found, key=lambda kind: TYPE_ORDER.index(kind) if kind in TYPE_ORDER else len(TYPE_ORDER))
    return found[kinds[0]] if kinds else None


def fields(view: View, cache: FilterCache) -> dict[str, ColumnInfo]:
    """Every payload path with the number of live records that have it and the types seen."""
    totals: dict[str, tuple[int, set[str]]] = {}
    for segment in view.segments:
        columns = segment.columns()
        live = segment.live_bits() if segment.deleted_count else None
        for path, info in columns.paths().items():
            rows = info.rows
            if live is not None:
                rows = bitset.count(bitset.bits_of(columns.select(Present(path)), segment.rows) & live)
            known, types = totals.setdefault(path, (0, set()))
            totals[path] = (known + rows, types | set(info.types))
    return {path: ColumnInfo(rows, tuple(sorted(types))) for path, (rows, types) in sorted(totals.items()) if rows}
