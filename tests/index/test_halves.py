"""Goal: what is kept as float16 loses 11 bits at most, however large or small the values are.

Method: values of many sizes, rounded and read back, and what was stored damaged.
"""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.index.halves import Halves


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 3e4, 7e4, 1e30])
def test_values_keep_eleven_bits(size):
    values = (size * np.random.default_rng(0).standard_normal((40, 7))).astype(np.float32)
    halves = Halves.of(values)
    assert halves.stored.dtype == np.float16
    largest = np.abs(values).max()
    np.testing.assert_allclose(halves.values(), values, rtol=2.0**-11, atol=largest * 2.0**-29)
    np.testing.assert_array_equal(Halves.of(halves.values()).stored, halves.stored)


@pytest.mark.parametrize("values", [np.zeros((0, 3), np.float32), np.zeros((2, 3), np.float32)])
def test_nothing_and_zeros(values):
    halves = Halves.of(values)
    assert halves.unit == 1.0
    np.testing.assert_array_equal(halves.values(), values)


def test_what_was_stored_is_read():
    halves = Halves.of(np.linspace(-5, 3, 12, dtype=np.float32).reshape(4, 3))
    again = Halves.read({"add": halves.stored}, "add", (4, 3), {"add": halves.unit})
    np.testing.assert_array_equal(again.values(), halves.values())
    for units in (None, {}, {"add": 0.0}, {"add": float("nan")}, {"add": float("inf")}, {"add": -1.0}):
        with pytest.raises(ValueError, match="unit"):
            Halves.read({"add": halves.stored}, "add", (4, 3), units)
    with pytest.raises(ValueError, match="add"):
        Halves.read({"add": halves.values()}, "add", (4, 3), {"add": 1.0})
