"""Graphs take the coarsest codes that tell their rows apart, and score every candidate where none do."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import RESCORED
from vecdb.index.code_quality import choose_codes, sample
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels.quantize import centre_of
from vecdb.options import HNSW
from vecdb.types import Metric


def chosen(vectors, metric=Metric.L2, wanted=0):
    matrix = matrix_of(vectors, metric)
    return choose_codes(matrix, centre_of(int(metric), matrix.vectors, matrix.inverse_norms), wanted)


def test_few_dimensions_take_all_the_bits_of_their_cache_line():
    for dim in (2, 8, 32, 56):
        assert chosen(oracles.clustered(1500, dim)).bits == 8
    assert chosen(oracles.clustered(1500, 100)).bits == 4


@pytest.mark.parametrize(("measure", "bits"), [(Metric.COSINE, 2), (Metric.L2, 2), (Metric.DOT, 4)])
def test_many_dimensions_take_few_bits(measure, bits):
    """Under dot codes are relative to the origin, from where near rows look more alike."""
    codes = chosen(oracles.clustered(1500, 1000), measure)
    assert (codes.bits, codes.sure) == (bits, True)


def spiky(rows, dim, seed=0):
    """Nearly all values are 0: the levels of a grid say little about the few that are not."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.97] = 0
    return vectors


def test_vectors_that_coarse_codes_blur_take_finer_ones():
    vectors = spiky(3000, 300)
    assert chosen(vectors, Metric.COSINE).bits == 8
    queries = frozen(spiky(40, 300, seed=1))
    exact = oracles.nearest(Metric.COSINE, vectors, queries, 10)[1]
    index = HnswIndex.build(matrix_of(vectors, Metric.COSINE), HNSW())
    assert oracles.recall(index.search(queries, 10, ef=400)[1], exact) >= 0.95


def test_wanted_bits_are_taken_and_their_worth_is_known():
    vectors = spiky(1500, 300)
    for bits, sure in ((2, False), (4, False), (8, True)):
        codes = chosen(vectors, Metric.COSINE, bits)
        assert (codes.bits, codes.sure) == (bits, sure)
    counters = np.zeros(4, np.int64)
    index = HnswIndex.build(matrix_of(vectors, Metric.COSINE), HNSW(bits=2))
    index.search(frozen(vectors[:1]), 10, ef=70, counters=counters)
    assert counters[RESCORED] == 70


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_too_few_rows_to_judge_take_the_finest(rows):
    codes = chosen(oracles.clustered(rows, 300) if rows > 1 else np.ones((rows, 300), np.float32))
    assert (codes.bits, codes.sure) == (8, False)


def test_the_sample_is_spread_over_the_rows():
    part = sample(matrix_of(np.arange(10_000, dtype=np.float32).reshape(-1, 1), Metric.L2))
    assert part.rows == 2048
    assert part.vectors[0] == 0
    assert part.vectors[-1] == 9999
