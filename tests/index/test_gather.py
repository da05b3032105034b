"""Chosen rows by their codes: the best of them are found, whatever the codes, and nothing outside them."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import DISTANCES, RESCORED, VISITED
from vecdb.index.gather import rows_in, sizes
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels import bitset
from vecdb.options import HNSW
from vecdb.types import Metric

ROWS, DIM = 3_000, 64


def built(bits: int, metric: Metric, dim: int = DIM) -> tuple[HnswIndex, np.ndarray, np.ndarray]:
    both = oracles.clustered(ROWS + 40, dim, seed=bits).astype(np.float32)
    vectors, queries = both[:ROWS].copy(), frozen(both[ROWS:].copy())
    options = HNSW(m=4, ef_construction=8, bits=bits)
    return HnswIndex.build(matrix_of(vectors, metric), options, seed=1), vectors, queries


@pytest.fixture(scope="module", params=[2, 4, 8])
def made(request: pytest.FixtureRequest) -> tuple[HnswIndex, np.ndarray, np.ndarray]:
    return built(request.param, Metric.COSINE)


@pytest.mark.parametrize("share", [0.002, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_nearest_of_the_rows_are_found(made, share, k):
    index, vectors, queries = made
    mask = np.random.default_rng(3).random(ROWS) < share
    rows, counters = np.flatnonzero(mask).astype(np.int32), np.zeros(4, np.int64)
    found, distances = index.gather(queries, k, rows, counters=counters)
    exact = oracles.nearest(Metric.COSINE, vectors, queries, k, mask)
    assert oracles.recall(distances, exact[1]) >= (0.999 if index.graph.codes.sure else 0.9)
    there = min(k, len(rows))
    assert mask[found[:, :there]].all()
    assert (found[:, there:] == -1).all()
    assert np.isinf(distances[:, there:]).all()
    assert counters[VISITED] == 0
    assert counters[DISTANCES] == len(rows) * len(queries)
    assert 0 < counters[RESCORED] <= len(rows) * len(queries)


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2])
def test_other_metrics(metric):
    index, vectors, queries = built(4, metric)
    mask = np.random.default_rng(3).random(ROWS) < 0.2
    _, distances = index.gather(queries, 10, np.flatnonzero(mask).astype(np.int32))
    assert oracles.recall(distances, oracles.nearest(metric, vectors, queries, 10, mask)[1]) >= 0.999


def test_more_rows_scored_exactly_are_more_found(made):
    index, vectors, queries = made
    every = np.arange(ROWS, dtype=np.int32)
    rows, distances = index.gather(queries, 10, every, rescore=ROWS)
    exact = oracles.nearest(Metric.COSINE, vectors, queries, 10)
    np.testing.assert_array_equal(rows, exact[0])
    np.testing.assert_allclose(distances, exact[1], rtol=1e-5, atol=1e-6)


def test_no_rows(made):
    index, _, queries = made
    rows, distances = index.gather(queries, 3, np.empty(0, np.int32))
    assert (rows == -1).all()
    assert np.isinf(distances).all()


def test_short_vectors_are_not_gathered_by_codes():
    assert built(8, Metric.L2, dim=16)[0].traits.gathers is False


def test_at_least_k_are_scored():
    for bits in (2, 4, 8):
        for k in (1, 10, 1_000):
            for rescore in (None, 1, 5_000):
                scored, pool = sizes(bits, k, rescore)
                assert k <= scored <= pool
                assert rescore is None or scored == max(rescore, k)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_rows_of_bits(rows, share):
    mask = np.random.default_rng(rows).random(rows) < share
    listed = rows_in(bitset.from_mask(mask), int(mask.sum()))
    np.testing.assert_array_equal(listed, np.flatnonzero(mask))
    assert listed.dtype == np.int32
