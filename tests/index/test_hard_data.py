"""Data that breaks graphs: copies, clusters far apart, few and many dimensions; and the ways in which rows arrive."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels import bitset
from vecdb.options import HNSW
from vecdb.types import Metric

K = 10
OPTIONS = HNSW(m=8, ef_construction=60)


def build(vectors, metric=Metric.COSINE, **arguments):
    return HnswIndex.build(matrix_of(vectors, metric), OPTIONS, **arguments)


def grown(index, vectors, metric=Metric.COSINE, **arguments):
    return index.carried(matrix_of(vectors, metric), np.arange(index.indexed_rows, dtype=np.int32), **arguments)


def with_copies(rows, dim, copies, seed=0):
    """(vectors in random order, the rows of the copies of one vector)"""
    rng = np.random.default_rng(seed)
    vectors = oracles.clustered(rows, dim, seed=seed, duplicates=0)
    where = np.sort(rng.permutation(rows)[:copies])
    vectors[where] = vectors[where[0]]
    return vectors, where


@pytest.mark.parametrize("copies", [2, 40, 700])
def test_all_copies_of_a_vector_are_found(metric, copies):
    vectors, where = with_copies(1500, 24, copies)
    vectors *= np.float32(3)
    for index in (build(vectors, metric), grown(build(vectors[:900], metric), vectors, metric)):
        index.check()
        rows, distances = index.search(frozen(vectors[where[:1]]), copies)
        if metric != Metric.DOT:  # under dot longer rows are nearer than the row itself
            assert rows[0].tolist() == where.tolist()
        assert len(set(rows[0].tolist())) == copies
        assert (np.diff(distances[0]) >= 0).all()


def test_copies_are_filtered_one_by_one():
    vectors, where = with_copies(1500, 24, 60)
    index, query = build(vectors), frozen(vectors[where[:1]])
    for kept in (where[:1], where[-1:], where[1::7], where[30:]):
        mask = np.zeros(1500, bool)
        mask[kept] = True
        rows, _ = index.search(query, len(kept), allow=bitset.from_mask(mask), ef=200)
        assert rows[0].tolist() == kept.tolist()


def test_clusters_that_are_tight_and_far_apart():
    rng = np.random.default_rng(3)
    centres = 1000 * rng.standard_normal((60, 48))
    both = (centres[rng.integers(0, 60, 3200)] + 0.01 * rng.standard_normal((3200, 48))).astype(np.float32)
    vectors, queries = both[:3000].copy(), frozen(both[3000:].copy())
    index = build(vectors, Metric.L2)
    assert oracles.reached(index.graph).all()
    rows, _ = index.search(queries, K, ef=64)
    near = oracles.nearest(Metric.L2, vectors, queries, 1)[0]
    gaps = np.linalg.norm(vectors[rows] - queries[:, None], axis=2)
    assert (gaps < 1).mean() >= 0.99, "hits lie in other clusters"
    assert near.shape == (200, 1)


@pytest.mark.parametrize("dim", [1, 2, 3, 2000])
def test_few_and_many_dimensions(metric, dim):
    both = oracles.clustered(2100, dim, seed=dim)
    vectors, queries = both[:2000].copy(), frozen(both[2000:].copy())
    exact = oracles.nearest(metric, vectors, queries, K)[1]
    assert oracles.recall(build(vectors, metric).search(queries, K, ef=200)[1], exact) >= 0.97


def test_rows_that_arrive_alone_in_batches_or_on_threads_are_found_as_well():
    both = oracles.clustered(4000, 64, seed=5)
    vectors, queries = both[:3000].copy(), frozen(both[3000:].copy())
    exact = oracles.nearest(Metric.COSINE, vectors, queries, K)[1]
    batches = build(vectors[:500])
    for size in range(1000, 3001, 500):
        batches = grown(batches, vectors[:size])
    alone = build(vectors[:2960])
    for size in range(2961, 3001):
        alone = grown(alone, vectors[:size])
    for ef in (80, 160):
        recalls = [
            oracles.recall(index.search(queries, K, ef=ef)[1], exact)
            for index in (build(vectors), build(vectors, threads=4), batches, alone)
        ]
        assert max(recalls) - min(recalls) <= 0.005, recalls
