"""Exact search in NumPy and compiled: both equal the oracle, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import DIMS, ROWS, frozen, matrix_of
from vecdb.index.exact import search_matrix
from vecdb.kernels import bitset
from vecdb.kernels.exact import exact_distances, exact_search
from vecdb.types import Metric

K = 10


def compiled(matrix, queries, k, allow=None, rows=None):
    return search_matrix(matrix, queries, k, allow, rows, None)


@pytest.fixture(params=[exact_search, compiled], ids=["numpy", "numba"])
def search(request):
    return request.param


@pytest.fixture(params=["float32", "float16"])
def dtype(request):
    """Of the stored vectors."""
    return request.param


def queries_for(vectors, dim, seed=1):
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((4, dim)).astype(np.float32)
    queries[1] = 0
    if len(vectors):
        queries[2] = vectors[len(vectors) // 2]
    return frozen(queries)


def assert_same(got, wanted):
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("rows", ROWS)
def test_all_rows(search, metric, dim, rows, dtype):
    vectors = oracles.clustered(rows, dim).astype(dtype)
    queries = queries_for(vectors, dim)
    for k in (K, rows + 3):
        wanted = oracles.nearest(metric, vectors, queries, k)
        assert_same(search(matrix_of(vectors, metric), queries, k), wanted)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_allowed_rows(search, metric, share, dtype):
    vectors = oracles.clustered(1000, 31).astype(dtype)
    queries = queries_for(vectors, 31)
    mask = np.random.default_rng(3).random(1000) < share
    wanted = oracles.nearest(metric, vectors, queries, K, mask)
    matrix = matrix_of(vectors, metric)
    assert_same(search(matrix, queries, K, bitset.from_mask(mask)), wanted)
    picked = np.flatnonzero(mask).astype(np.int32)
    assert_same(search(matrix, queries, K, rows=frozen(picked)), wanted)


def test_rows_and_allow_together(search, metric):
    vectors = oracles.clustered(500, 12)
    queries = queries_for(vectors, 12)
    mask = np.arange(500) % 3 == 0
    rows = np.arange(100, 400, dtype=np.int32)
    inside = mask & np.isin(np.arange(500), rows)
    got = search(matrix_of(vectors, metric), queries, K, bitset.from_mask(mask), frozen(rows))
    assert_same(got, oracles.nearest(metric, vectors, queries, K, inside))


def test_nearly_equal_rows_far_from_the_origin(search, dtype):
    """Norms minus products would lose every digit; the answer must not."""
    rng = np.random.default_rng(5)
    vectors = (1000 + 1e-3 * rng.standard_normal((3000, 16))).astype(dtype)
    queries = frozen(vectors[:3].astype(np.float32))
    assert_same(search(matrix_of(vectors, Metric.L2), queries, K), oracles.nearest(2, vectors, queries, K))


def test_distances_beyond_float32_are_inf_and_their_rows_are_kept(search):
    vectors = np.full((40, 8), 3e30, np.float32)
    vectors[7] = 0
    queries = frozen(np.zeros((1, 8), np.float32))
    rows, distances = search(matrix_of(vectors, Metric.L2), queries, 3)
    assert rows.tolist() == [[7, 0, 1]]
    assert distances.tolist() == [[0.0, np.inf, np.inf]]


def test_many_queries_share_one_pass(search, metric, dtype):
    vectors = oracles.clustered(400, 20).astype(dtype)
    queries = frozen(oracles.clustered(150, 20, seed=9))
    assert_same(search(matrix_of(vectors, metric), queries, 5), oracles.nearest(metric, vectors, queries, 5))


def test_distances_of_given_rows(metric):
    vectors = oracles.clustered(300, 31)
    query = vectors[5]
    rows = np.array([5, 2, 299], np.int32)
    got = exact_distances(matrix_of(vectors, metric), query, rows)
    np.testing.assert_array_equal(got, oracles.distances(metric, vectors[rows], query))
