"""Sums of level * query byte over records, however long they are and whichever rows are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.kernels.jit import kernel
from vecdb.kernels.level_dots import STRAIGHT, level_dots

LINE = 64


@kernel
def dots_of(bits, records, rows, first, count, query, lines, out):
    level_dots(bits, records, rows, first, count, query, lines, out)


def expected(bits, records, rows, query, lines):
    """Level s of byte b of line l meets query byte (l * slots + s) * 64 + b."""
    slots = 8 // bits
    found = np.zeros(len(rows), np.int64)
    for i, row in enumerate(rows):
        for line in range(lines):
            codes = records[row, line * LINE : (line + 1) * LINE].astype(int)
            for slot in range(slots):
                part = query[(line * slots + slot) * LINE :][:LINE].astype(int)
                found[i] += int(((codes >> (bits * slot) & ((1 << bits) - 1)) * part).sum())
    return found


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("lines", range(1, 9))  # with and without a loop over lines
def test_every_row_that_was_chosen_has_its_dot(bits, lines):
    assert STRAIGHT < 8
    random = np.random.default_rng(lines)
    records = random.integers(0, 256, (40, (lines + 1) * LINE), dtype=np.uint8)
    rows = random.integers(0, 40, 50).astype(np.int32)
    query = random.integers(-127, 128, lines * LINE * 8 // bits).astype(np.int8)
    out = np.full(50, -1, np.int64)
    dots_of(bits, records, rows, 3, 20, query, lines, out)
    assert out[:20].tolist() == expected(bits, records, rows[3:23], query, lines).tolist()
    assert set(out[20:].tolist()) == {-1}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_largest_values_do_not_overflow(bits):
    records = np.full((2, 9 * LINE), 255, np.uint8)
    for value in (-127, 127):
        query, out = np.full(9 * LINE * 8 // bits, value, np.int8), np.empty(2, np.int64)
        dots_of(bits, records, np.array([1, 0], np.int32), 0, 2, query, 9, out)
        assert out.tolist() == [9 * LINE * (8 // bits) * ((1 << bits) - 1) * value] * 2


def test_no_rows_are_no_dots():
    out = np.array([5], np.int64)
    dots_of(2, np.zeros((1, LINE), np.uint8), np.zeros(1, np.int32), 1, 0, np.zeros(4 * LINE, np.int8), 1, out)
    assert out.tolist() == [5]
