"""The ids of a sealed segment: as they were given, whatever was asked for before."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from vecdb.storage.ids import KNOWN_AT_ONCE, KNOWN_MAX, IdColumn
from vecdb.storage.keys import encode_key

IDS = [f"text-{n}" if n % 3 else uuid.UUID(int=n) if n % 2 else n for n in range(KNOWN_MAX + 500)]
KEYS = [encode_key(value) for value in IDS]


@pytest.fixture
def column() -> IdColumn:
    return IdColumn.from_keys(KEYS, np.arange(len(KEYS), dtype=np.int32))


@pytest.mark.parametrize("size", [1, 10, KNOWN_AT_ONCE, KNOWN_AT_ONCE + 1])
def test_ids_are_those_of_the_rows_asked_for(column: IdColumn, size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(3):
        rows = rng.integers(0, len(IDS), size).astype(np.int32)
        for _ in range(2):  # the second time they may be known
            assert column.take(rows).tolist() == [IDS[row] for row in rows.tolist()]


def test_what_is_known_is_bounded(column: IdColumn) -> None:
    for start in range(0, len(IDS), 100):
        rows = np.arange(start, min(start + 100, len(IDS)), dtype=np.int32)
        assert column.take(rows).tolist() == IDS[start : start + 100]
        assert len(column._known) <= KNOWN_MAX
    column._known = {}
    column.take(np.arange(KNOWN_AT_ONCE + 1, dtype=np.int32))
    assert not column._known  # who lists a collection does not push out what is hit


def test_integers_alone_are_an_array_of_integers() -> None:
    column = IdColumn.from_keys([encode_key(n - 5) for n in range(10)], np.arange(10, dtype=np.int32))
    found = column.take(np.array([9, 0, 4], np.int32))
    assert found.dtype == np.int64
    assert found.tolist() == [4, -5, -1]
