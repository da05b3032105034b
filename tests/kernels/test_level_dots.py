"""Sums of level * query byte over records, however long they are and whichever rows are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.kernels.jit import kernel
from vecdb.kernels.level_dots import STRAIGHT, few_level_dots, level_dots

LINE = 64


@kernel
def dots_of(bits, records, rows, first, count, query, halves, out):
    level_dots(bits, records, rows, first, count, query, halves, out)


@kernel
def few_dots_of(bits, records, rows, count, query, halves, out):
    few_level_dots(bits, records, rows, count, query, halves, out)


def expected(bits, records, rows, query, halves):
    """Level s of byte b of line l meets query byte (l * slots + s) * 64 + b, or 32 apart in a last half line."""
    slots, size = 8 // bits, halves * 32
    found = np.zeros(len(rows), np.int64)
    for i, row in enumerate(rows):
        for start in range(0, size, LINE):
            codes = records[row, start : min(start + LINE, size)].astype(int)
            for slot in range(slots):
                part = query[start * slots + slot * len(codes) :][: len(codes)].astype(int)
                found[i] += int(((codes >> (bits * slot) & ((1 << bits) - 1)) * part).sum())
    return found


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("halves", range(1, 16))  # with and without a loop over lines
def test_every_row_that_was_chosen_has_its_dot(bits, halves):
    assert not {5, 7, 9, 11, 13, 14, 15} & set(STRAIGHT)
    random = np.random.default_rng(halves)
    records = random.integers(0, 256, (40, halves * 32 + LINE), dtype=np.uint8)
    rows = random.integers(0, 40, 50).astype(np.int32)
    query = random.integers(-127, 128, halves * 32 * 8 // bits).astype(np.int8)
    out = np.full(50, -1, np.int64)
    dots_of(bits, records, rows, 3, 20, query, halves, out)
    assert out[:20].tolist() == expected(bits, records, rows[3:23], query, halves).tolist()
    assert set(out[20:].tolist()) == {-1}
    few = np.full(50, -1, np.int64)
    few_dots_of(bits, records, rows[3:], 20, query, halves, few)
    assert few.tolist() == out.tolist()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("halves", [3, 12, 18])
def test_the_largest_values_do_not_overflow(bits, halves):
    records = np.full((2, halves * 32), 255, np.uint8)
    for value in (-127, 127):
        query, out = np.full(halves * 32 * 8 // bits, value, np.int8), np.empty(2, np.int64)
        dots_of(bits, records, np.array([1, 0], np.int32), 0, 2, query, halves, out)
        assert out.tolist() == [halves * 32 * (8 // bits) * ((1 << bits) - 1) * value] * 2


def test_no_rows_are_no_dots():
    out = np.array([5], np.int64)
    dots_of(2, np.zeros((1, LINE), np.uint8), np.zeros(1, np.int32), 1, 0, np.zeros(4 * LINE, np.int8), 2, out)
    assert out.tolist() == [5]
