"""Building the sealed form of a column: arrays by name, written as `<name>.npy`.

    <type>_values, <type>_rows     bool (uint8), int, float, timestamp (int64 microseconds): postings sorted by
                                   (value, row), rows int32; a list posts each distinct element once
    string_bytes, string_offsets   the distinct strings in ascending order, see `string_table`
    string_starts, string_rows     postings of string i: rows[starts[i]:starts[i + 1]], ascending
    bytes_...                      the same for bytes
    present_rows                   rows that have the path; absent when every row has it and something else is there
    size_values, size_rows         lists: postings by number of elements, int32, those that are not indexed included
    null_rows                      rows with null; absent when there are none

NaN is present and posted nowhere. Everything is vectorised, so that searches go on while a segment is sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.files.pacing import give_way
from vecdb.storage import string_table
from vecdb.storage.column_values import DTYPES, TEXT
from vecdb.storage.sealed_columns import SealedColumns
from vecdb.types import I32, I64, U8, AnyArray

_SLICE = 256  # strings handled between two yields of the interpreter lock


def renumber(rows: I32, renumbered: I32 | None, *, drop: bool = True) -> I32:
    """The new numbers of rows (-1 = dropped, left out when `drop`)."""
    if renumbered is None:
        return rows
    found = renumbered[rows]
    return found[found >= 0] if drop else found


def presence(rows: int, present: I32, nulls: I32) -> dict[str, AnyArray]:
    arrays: dict[str, AnyArray] = {"null_rows": np.sort(nulls).astype("<i4")} if len(nulls) else {}
    if len(present) < rows:
        arrays["present_rows"] = np.sort(present).astype("<i4")
    return arrays


def numeric(stored: str, values: AnyArray, rows: I32) -> dict[str, AnyArray]:
    if not len(rows):
        return {}
    order = np.lexsort((rows, values))
    return {
        f"{stored}_values": values[order].astype(DTYPES[stored], copy=False),
        f"{stored}_rows": rows[order].astype("<i4", copy=False),
    }


def from_words(stored: str, words: Sequence[Any], codes: AnyArray, rows: I32) -> dict[str, AnyArray]:
    """Text postings of a growing dictionary."""
    used, compact = np.unique(codes, return_inverse=True)
    encoded: list[bytes] = []
    for first in range(0, len(used), _SLICE):
        part = [words[code] for code in used[first : first + _SLICE].tolist()]
        encoded.extend(part if stored == "bytes" else [word.encode() for word in part])
        give_way()
    data, offsets = string_table.join(encoded)
    return text(stored, data, offsets, compact, rows)


def text(stored: str, data: U8, offsets: I64, codes: NDArray[np.integer], rows: I32) -> dict[str, AnyArray]:
    """Text postings whose codes number strings in any order, duplicates and unused ones included."""
    if not len(rows):
        return {}
    used, compact = np.unique(codes, return_inverse=True)
    if len(used) < len(offsets) - 1:
        data, offsets = string_table.take(data, offsets, used)
    order, rank, distinct = string_table.sort(data, offsets)
    first = np.ones(len(order), np.bool_)
    first[1:] = np.diff(rank[order]) > 0
    data, offsets = string_table.take(data, offsets, order[first])
    ranks = rank[compact]
    by = np.lexsort((rows, ranks))
    return {
        f"{stored}_bytes": data,
        f"{stored}_offsets": offsets.astype("<i8", copy=False),
        f"{stored}_starts": np.searchsorted(ranks[by], np.arange(distinct + 1)).astype("<i8", copy=False),
        f"{stored}_rows": rows[by].astype("<i4", copy=False),
    }


def merge_sealed(parts: Sequence[tuple[SealedColumns, I32]], rows: int) -> dict[str, dict[str, AnyArray]]:
    """The sealed form of several segments in one: path -> name -> array.

    parts   (columns, new row of each old row, -1 = dropped) for every segment
    rows    rows of the new segment
    Raises ValueError when a part is damaged.
    """
    merged = {}
    for path in dict.fromkeys(path for columns, _ in parts for path in columns.path_names):
        found = [(columns, renumbered) for columns, renumbered in parts if path in columns.path_names]
        present, nulls = (
            np.concatenate([renumber(getattr(columns, name)(path), renumbered) for columns, renumbered in found])
            for name in ("present_rows", "null_rows")
        )
        if len(present):
            arrays = presence(rows, present, nulls)
            for stored in DTYPES:
                arrays |= _merge_numeric(path, stored, found)
                give_way()
            for stored in TEXT:
                arrays |= _merge_text(path, stored, found)
                give_way()
            merged[path] = arrays or {"present_rows": present}
    return merged


def _merge_numeric(path: str, stored: str, parts: Sequence[tuple[SealedColumns, I32]]) -> dict[str, AnyArray]:
    values, rows = [np.empty(0, DTYPES[stored])], [np.empty(0, np.int32)]
    for columns, renumbered in parts:
        part_values, part_rows = columns.numeric(path, stored)
        new = renumber(part_rows, renumbered, drop=False)
        values.append(part_values[new >= 0])
        rows.append(new[new >= 0])
    return numeric(stored, np.concatenate(values), np.concatenate(rows))


def _merge_text(path: str, stored: str, parts: Sequence[tuple[SealedColumns, I32]]) -> dict[str, AnyArray]:
    data, offsets, codes, rows = [np.empty(0, np.uint8)], [np.zeros(1, np.int64)], [], []
    strings = size = 0
    for columns, renumbered in parts:
        arrays = columns.text_arrays(path, stored)
        if arrays is not None:
            part_data, part_offsets, starts, part_rows = arrays
            new = renumber(part_rows, renumbered, drop=False)
            part_codes = np.repeat(np.arange(strings, strings + len(starts) - 1), np.diff(starts))
            data.append(part_data)
            offsets.append(part_offsets[1:] + size)
            codes.append(part_codes[new >= 0])
            rows.append(new[new >= 0])
            strings, size = strings + len(starts) - 1, size + len(part_data)
    if not codes:
        return {}
    return text(stored, np.concatenate(data), np.concatenate(offsets), np.concatenate(codes), np.concatenate(rows))
