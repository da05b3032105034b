"""The distances that are returned: float64 sums over whole and broken sixteens, whatever is asked for meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.conftest import frozen
from vecdb.kernels.distance import exact_distance, score_rows, squared_norm
from vecdb.kernels.topk import key_distance, key_row
from vecdb.types import Metric

ROWS = 9


def expected(metric: Metric, query: np.ndarray, vector: np.ndarray) -> np.float32:
    a, b = query.astype(np.float64), vector.astype(np.float64)
    if metric == Metric.L2:
        return np.float32(((a - b) ** 2).sum())
    if metric == Metric.DOT:
        return np.float32(1.0 - a @ b)
    return np.float32(1.0 - a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dim", [1, 7, 15, 16, 17, 31, 32, 33, 100, 384, 385])
def test_distances_are_those_of_float64(metric: Metric, dim: int, dtype: type) -> None:
    rng = np.random.default_rng(dim)
    vectors, queries = rng.standard_normal((ROWS, dim)).astype(dtype), rng.standard_normal((2, dim)).astype(np.float32)
    stored = frozen(vectors.view(np.uint16) if dtype is np.float16 else vectors)
    norm = squared_norm(frozen(queries), 1) if metric == Metric.COSINE else 0.0
    for row in range(ROWS):
        found = {exact_distance(int(metric), stored, row, frozen(queries), 1, norm, soon) for soon in range(ROWS)}
        assert len(found) == 1
        assert found.pop() == pytest.approx(expected(metric, queries[1], vectors[row]), rel=3e-7, abs=3e-7)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, ROWS])
def test_every_row_of_a_pool_is_scored_once(metric: Metric, count: int) -> None:
    rng = np.random.default_rng(count)
    vectors, queries = (rng.standard_normal((n, 48)).astype(np.float32) for n in (ROWS, 1))
    keys = rng.permutation(ROWS).astype(np.int64)
    rows = keys.copy()
    score_rows(int(metric), frozen(vectors), frozen(queries), 0, keys, count)
    np.testing.assert_array_equal(keys[count:], rows[count:])
    for key, row in zip(keys[:count], rows[:count], strict=True):
        assert key_row(key) == row
        assert key_distance(key) == pytest.approx(expected(metric, queries[0], vectors[row]), rel=3e-7, abs=3e-7)
