"""Arrays of indexes: on whole cache lines, on large pages from 2 MiB on, and no memory is an error like any other."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from vecdb.memory import LARGE_PAGE, LINE, aligned, want_large_pages


@pytest.mark.parametrize(
    ("shape", "value"), [((0, 3), 7), ((5,), 0), ((1_000, 33), -1), ((300_000, 4), 0), ((700_001,), 9)]
)
def test_arrays_are_aligned_and_filled(shape: tuple[int, ...], value: int) -> None:
    array = aligned(shape, np.int32, value)
    assert array.shape == shape
    assert array.dtype == np.int32
    assert (array == value).all()
    if array.size:  # NumPy does not say where nothing lies
        assert array.ctypes.data % (LARGE_PAGE if array.nbytes >= LARGE_PAGE else LINE) == 0
    array[...] = 3  # it may be written
    assert (array == 3).all()


def test_it_lives_as_long_as_what_is_made_of_it() -> None:
    part = aligned((1_000_000,), np.int32, 5)[-7:].view(np.uint32)
    others = [aligned((1_000_000,), np.int32, 6) for _ in range(4)]
    assert (part == 5).all()
    assert len(others) == 4


def test_memory_that_cannot_be_had() -> None:
    with pytest.raises(MemoryError, match="cannot be had"):
        aligned((1 << 60,), np.uint8)


def test_advice_changes_nothing() -> None:
    for array in (np.arange(10), np.arange(1_000_000), np.frombuffer(mmap.mmap(-1, 3 * LARGE_PAGE), np.uint8)):
        before = array.copy()
        want_large_pages(array)
        np.testing.assert_array_equal(array, before)
