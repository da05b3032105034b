"""Which rows of a segment match a filter, from its columns. Plain NumPy."""

from __future__ import annotations

import numpy as np

from vecdb.filter.expression import And, Leaf, Node, Not, Or
from vecdb.kernels import bitset
from vecdb.types import I32, Estimate, FieldSource, RowSet

ROWS_DENSITY = 16  # below rows / 16 a set is kept as rows, above as bits


def evaluate(node: Node, source: FieldSource) -> RowSet:
    """The rows that match, deleted ones included: as rows when sparse, as bits beyond a sixteenth of all rows."""
    match node:
        case Leaf():
            found = source.select(node.probe)
        case And():
            found = _all_of(node, source)
        case Or():
            found = _any_of(node, source)
        case Not():
            found = _complement(evaluate(node.node, source), source.rows)
        case _:
            raise TypeError(f"not a filter node: {node!r}")
    return _settle(found, source.rows)


def estimate(node: Node, source: FieldSource) -> Estimate:
    """Bounds on the number of matching rows, without evaluating more than single probes; exact for one probe."""
    rows = source.rows
    match node:
        case Leaf():
            return source.count(node.probe)
        case And():
            parts = [estimate(part, source) for part in node.nodes]
            low = sum(part.low for part in parts) - rows * (len(parts) - 1)
            return Estimate(max(0, low), min((part.high for part in parts), default=rows))
        case Or():
            parts = [estimate(part, source) for part in node.nodes]
            high = sum(part.high for part in parts)
            return Estimate(max((part.low for part in parts), default=0), min(rows, high))
        case Not():
            inner = estimate(node.node, source)
            return Estimate(rows - inner.high, rows - inner.low)
        case _:
            raise TypeError(f"not a filter node: {node!r}")


def _all_of(node: And, source: FieldSource) -> RowSet:
    """Smallest first, negations last (they only remove), until nothing is left."""
    positive = [part for part in node.nodes if not isinstance(part, Not)]
    positive.sort(key=lambda part: estimate(part, source).high)
    found: RowSet | None = None
    for part in positive:
        selected = evaluate(part, source)
        found = selected if found is None else _settle(_intersect(found, selected, source.rows), source.rows)
        if not found.count:
            return found
    for part in node.nodes:
        if isinstance(part, Not):
            removed = evaluate(part.node, source)
            if found is None:
                found = _everything(source.rows)
            found = _settle(_subtract(found, removed, source.rows), source.rows)
            if not found.count:
                return found
    return _everything(source.rows) if found is None else found


def _any_of(node: Or, source: FieldSource) -> RowSet:
    found = _rows(np.empty(0, np.int32))
    for part in node.nodes:
        found = _unite(found, evaluate(part, source), source.rows)
        if found.count == source.rows:
            return found
    return found


def _intersect(left: RowSet, right: RowSet, total: int) -> RowSet:
    if left.rows is None and right.rows is None:
        return bitset.set_of_bits(bitset.bits_of(left, total) & bitset.bits_of(right, total))
    if left.rows is None or (right.rows is not None and right.count < left.count):
        left, right = right, left
    rows = bitset.rows_of(left, total)
    return _rows(rows[_contains(right, rows)])


def _subtract(left: RowSet, right: RowSet, total: int) -> RowSet:
    if left.rows is not None:
        return _rows(left.rows[~_contains(right, left.rows)])
    return bitset.set_of_bits(bitset.bits_of(left, total) & ~bitset.bits_of(right, total))


def _unite(left: RowSet, right: RowSet, total: int) -> RowSet:
    if not left.count or not right.count:
        return left if left.count else right
    if left.rows is not None and right.rows is not None and left.count + right.count <= total // ROWS_DENSITY:
        return _rows(np.union1d(left.rows, right.rows))
    return bitset.set_of_bits(bitset.bits_of(left, total) | bitset.bits_of(right, total))


def _complement(found: RowSet, total: int) -> RowSet:
    return bitset.set_of_bits(bitset.full(total) & ~bitset.bits_of(found, total))


def _contains(selected: RowSet, rows: I32) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each of `rows`, whether the set has it."""
    if selected.bits is not None:
        words = selected.bits[rows >> 6] >> (rows & 63).astype(np.uint64)
        return np.asarray(words & np.uint64(1), np.bool_)
    assert selected.rows is not None
    if not selected.count:
        return np.zeros(len(rows), np.bool_)
    places = np.minimum(np.searchsorted(selected.rows, rows), selected.count - 1)
    return np.asarray(selected.rows[places] == rows)


def _settle(found: RowSet, total: int) -> RowSet:
    """The form that suits the density."""
    dense = found.count > total // ROWS_DENSITY
    if dense and found.bits is None:
        return RowSet(found.count, bits=bitset.bits_of(found, total))
    if not dense and found.rows is None:
        return RowSet(found.count, rows=bitset.rows_of(found, total))
    return found


def _everything(total: int) -> RowSet:
    return RowSet(total, bits=bitset.full(total))


def _rows(rows: I32) -> RowSet:
    return bitset.set_of_rows(rows)
