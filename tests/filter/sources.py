"""The same payloads as growing, sealed and merged columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vecdb.storage.columns import GrowingColumns, SealedColumns, merge_sealed
from vecdb.storage.payload import prepare
from vecdb.types import I32, AnyArray


def growing(payloads: Sequence[dict[str, Any]]) -> GrowingColumns:
    columns = GrowingColumns()
    columns.append(0, [prepare(payload)[1] for payload in payloads])
    return columns


def frozen(arrays: dict[str, dict[str, AnyArray]]) -> dict[str, dict[str, AnyArray]]:
    """As after writing and mapping: read-only, little-endian, one-dimensional."""
    for named in arrays.values():
        for array in named.values():
            assert array.ndim == 1
            assert array.dtype.str in ("|u1", "<i4", "<i8", "<f8")
            array.flags.writeable = False
    return arrays


def sealed(payloads: Sequence[dict[str, Any]], keep: I32 | None = None) -> SealedColumns:
    rows = len(payloads) if keep is None else len(keep)
    return SealedColumns(rows, frozen(growing(payloads).sealed(keep)))


def all_forms(payloads: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(name, source) where every source has the payloads as its rows, in their order."""
    count = len(payloads)
    more = [*payloads, {"a": "later"}, {"later": 1}]
    yield "growing", growing(more).at(count)
    yield "sealed", sealed(payloads)
    yield "sealed, some dropped", sealed(more, np.arange(count, dtype=np.int32))
    # Even rows in one part and odd rows in another, each with a row that the merge drops.
    parts = []
    for first in (0, 1):
        rows = list(range(first, count, 2))
        part = sealed([{"a": "dropped", "dropped": 1}, *(payloads[row] for row in rows)])
        parts.append((part, np.array([-1, *rows], np.int32)))
    yield "merged", SealedColumns(count, frozen(merge_sealed(parts, count)))
