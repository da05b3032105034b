"""Which postings of a sealed column a probe means: binary searches for ranges of values, without a look at the rows."""

from __future__ import annotations

import numpy as np

from vecdb.storage.column_values import NUMERIC, interval, points, size_bounds, texts
from vecdb.storage.ranks import Spans
from vecdb.storage.sealed_column import SealedColumn
from vecdb.storage.string_table import StringTable
from vecdb.types import I32, I64, AnyArray, Equal, Prefix, Probe, Search, Sized, Within


def spans_of(column: SealedColumn, probe: Probe) -> dict[str, Spans]:
    """Stored type -> the postings that match a probe of values."""
    found: dict[str, Spans] = {}
    for stored, (values, rows) in column.numeric.items():
        spans = _numeric_spans(stored, values, rows, probe)
        if spans is not None:
            found[stored] = spans
    for stored, (_, _, starts, rows) in column.text.items():
        ends = _code_ranges(stored, column.tables[stored], probe)
        if len(ends):
            found[stored] = Spans(rows, starts[ends[:, 0]], starts[ends[:, 1]])
    return found


def spans_of_sizes(column: SealedColumn, probe: Sized) -> Spans:
    values, rows = column.sizes
    return _closed_spans(values, rows, np.array(size_bounds(probe), np.int32))


def _numeric_spans(stored: str, values: AnyArray, rows: I32, probe: Probe) -> Spans | None:
    if isinstance(probe, Equal):
        wanted = points(stored, probe.values)
        if not len(wanted):
            return None
        return Spans(rows, np.searchsorted(values, wanted), np.searchsorted(values, wanted, "right"))
    bounds = interval(stored, probe) if isinstance(probe, Within) else None
    if bounds is None:
        return None
    return _closed_spans(values, rows, np.array(bounds, NUMERIC[stored]))


def _closed_spans(values: AnyArray, rows: I32, bounds: AnyArray) -> Spans:
    """The one span of values from bounds[0] to bounds[1], both included."""
    first, last = np.searchsorted(values, bounds[:1]), np.searchsorted(values, bounds[1:], "right")
    return Spans(rows, first, np.maximum(first, last))


def _code_ranges(stored: str, table: StringTable, probe: Probe) -> I64:
    """(first, past the last) numbers of the words that match, int64 (ranges, 2)."""
    if stored == "string" and isinstance(probe, Search):
        return table.searched(probe)
    return np.array(_bisected(stored, table, probe), np.int64).reshape(-1, 2)


def _bisected(stored: str, table: StringTable, probe: Probe) -> list[tuple[int, int]]:
    if isinstance(probe, Equal):
        wanted = [value.encode() if stored == "string" else value for value in texts(stored, probe.values)]
        return [(code, code + 1) for code in table.find_all(wanted)]
    if stored != "string":
        return []
    if isinstance(probe, Prefix):
        return [table.prefixed(probe.text.encode())]
    if not isinstance(probe, Within) or not isinstance(probe.low if probe.low is not None else probe.high, str):
        return []
    first, last = 0, len(table)
    if isinstance(probe.low, str):
        first = (table.upper if probe.low_open else table.lower)(probe.low.encode())
    if isinstance(probe.high, str):
        last = (table.lower if probe.high_open else table.upper)(probe.high.encode())
    return [(first, last)] if first < last else []
