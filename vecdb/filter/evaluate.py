"""Which rows of a segment match a filter, from its columns. Plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.filter.expression import And, Leaf, Node, Not, Or
from vecdb.kernels import bitset
from vecdb.types import I32, ROWS_DENSITY, SORT_DENSITY, CountSource, Estimate, FieldSource, RowSet


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


def estimate(node: Node, source: CountSource) -> Estimate:
    """Bounds on the number of matching rows from the counts of single probes, without finding the rows."""
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
    """Smallest first, until nothing is left. Once the rows are few, the other parts are only asked about those."""
    parts = sorted(node.nodes, key=lambda part: estimate(part, source).high) if len(node.nodes) > 1 else node.nodes
    found: RowSet | None = None
    for part in parts:
        if found is None:
            found = evaluate(part, source)
        elif found.rows is not None:
            found = bitset.set_of_rows(found.rows[_holds(part, found.rows, source)])
        elif isinstance(part, Not):
            found = _settle(_subtract(found, evaluate(part.node, source), source.rows), source.rows)
        else:
            found = _settle(_intersect(found, evaluate(part, source), source.rows), source.rows)
        if not found.count:
            return found
    return _everything(source.rows) if found is None else found


def _holds(node: Node, rows: I32, source: FieldSource) -> NDArray[np.bool_]:
    """For each of some ascending rows, whether it matches."""
    match node:
        case Leaf():
            return source.among(node.probe, rows)
        case Not():
            return ~_holds(node.node, rows, source)
        case And() | Or():
            if not node.nodes:
                return np.full(len(rows), isinstance(node, And))
            join = np.logical_and if isinstance(node, And) else np.logical_or
            return np.asarray(join.reduce([_holds(part, rows, source) for part in node.nodes]))
        case _:
            raise TypeError(f"not a filter node: {node!r}")


def _any_of(node: Or, source: FieldSource) -> RowSet:
    total = source.rows
    sets: list[RowSet] = []
    for part in node.nodes:
        found = evaluate(part, source)
        if found.count == total:
            return found
        sets.append(found)
    sparse = [found.rows for found in sets if found.rows is not None and found.count]
    dense = [found.bits for found in sets if found.bits is not None]
    if not dense and len(sparse) < 2:
        return bitset.set_of_rows(sparse[0] if sparse else np.empty(0, np.int32))
    if not dense and sum(map(len, sparse)) * SORT_DENSITY <= total:
        return bitset.set_of_rows(np.unique(np.concatenate(sparse)))
    mask = np.zeros(total, np.bool_)
    for rows in sparse:
        mask[rows.astype(np.intp)] = True  # NumPy's own conversion of int32 indexes is twice as slow
    if not dense and np.count_nonzero(mask) * ROWS_DENSITY <= total:
        return bitset.set_of_rows(np.flatnonzero(mask).astype(np.int32))
    bits = bitset.from_mask(mask)
    for other in dense:
        bits |= other
    return bitset.set_of_bits(bits)


def _intersect(left: RowSet, right: RowSet, total: int) -> RowSet:
    if left.rows is None and right.rows is None:
        return bitset.set_of_bits(bitset.bits_of(left, total) & bitset.bits_of(right, total))
    if left.rows is None:
        left, right = right, left
    rows = bitset.rows_of(left, total)
    return bitset.set_of_rows(rows[right.holds(rows)])


def _subtract(left: RowSet, right: RowSet, total: int) -> RowSet:
    return bitset.set_of_bits(bitset.bits_of(left, total) & ~bitset.bits_of(right, total))


def _complement(found: RowSet, total: int) -> RowSet:
    return RowSet(total - found.count, bits=bitset.full(total) & ~bitset.bits_of(found, total))


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
