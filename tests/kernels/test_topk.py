from __future__ import annotations

import numpy as np
import pytest

from vecdb.kernels import topk

SPECIAL = np.array([0.0, -1.5, 1.5, np.inf, -np.inf, 1e-40, 3e38, -3e38], np.float32)


def test_keys_order_like_distance_then_row():
    pairs = [(distance, row) for distance in SPECIAL for row in (0, 5, 2**31 - 1)]
    keys = [topk.pack_key(distance, row) for distance, row in pairs]
    assert [pairs[i] for i in np.argsort(keys)] == sorted(pairs)


def test_keys_can_be_read_back():
    for distance in SPECIAL:
        for row in (0, 7, 2**31 - 1):
            key = topk.pack_key(distance, row)
            assert topk.key_row(key) == row
            assert topk.key_distance(key) == distance


@pytest.mark.parametrize("count", [1, 2, 3, 31, 500])
@pytest.mark.parametrize("values", [3, 10**9])
def test_keep_smallest(count, values):
    rng = np.random.default_rng(count)
    for kept in sorted({1, count // 2 or 1, count}):
        keys = rng.integers(-values, values, count + 5)
        wanted = np.sort(keys[:count])[:kept]
        after = keys[count:].copy()
        largest = topk.keep_smallest(keys, count, kept)
        np.testing.assert_array_equal(np.sort(keys[:kept]), wanted)
        np.testing.assert_array_equal(keys[count:], after)
        assert largest == wanted[-1]


@pytest.mark.parametrize("count", [0, 1, 2, 10, 1000])
def test_sort_keys(count):
    keys = np.random.default_rng(count).integers(-50, 50, count)
    wanted = np.sort(keys)
    topk.sort_keys(keys, count)
    np.testing.assert_array_equal(keys, wanted)
