"""The codes of a growing segment: any state of coding gives the same answers."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.flat import FlatIndex, chunks
from vecdb.index.growing import FIRST_ROWS, GrowingFlat
from vecdb.kernels import bitset
from vecdb.kernels.blocks import BLOCK
from vecdb.options import Flat
from vecdb.types import Matrix, Metric

K = 10
CAPACITY = 2000


def part(matrix: Matrix, rows: int) -> Matrix:
    norms = None if matrix.inverse_norms is None else matrix.inverse_norms[:rows]
    return Matrix(matrix.vectors[:rows], norms, matrix.metric)


def assert_exact(got, wanted):
    assert oracles.recall(got[1], wanted[1]) >= 0.99
    same = got[0] == wanted[0]
    np.testing.assert_array_equal(got[1][same], wanted[1][same])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [3, 64, 200])
@pytest.mark.parametrize("coded", [0, FIRST_ROWS - 1, FIRST_ROWS, 1000, 1999, 2000])
def test_coded_and_uncoded_rows(metric, dim, coded, dtype):
    both = oracles.clustered(CAPACITY + 8, dim)
    vectors, queries = both[:CAPACITY].astype(dtype), frozen(both[CAPACITY:])
    matrix = matrix_of(vectors, metric)
    growing = GrowingFlat(CAPACITY, dim, metric)
    assert growing.extend(part(matrix, coded))
    assert growing.coded_rows == (coded if coded >= FIRST_ROWS and dim > 16 else 0)
    for rows in (coded, 1500, CAPACITY):
        got = growing.search(part(matrix, rows), queries, K)
        assert (got[0] < rows).all()
        assert_exact(got, oracles.nearest(metric, vectors[:rows], queries, K))
        mask = np.random.default_rng(1).random(rows) < 0.1
        got = growing.search(part(matrix, rows), queries, K, allow=bitset.from_mask(mask))
        assert_exact(got, oracles.nearest(metric, vectors[:rows], queries, K, mask))


def test_coding_in_steps_is_coding_at_once():
    matrix = matrix_of(oracles.clustered(CAPACITY, 200), Metric.COSINE)
    steps, once = (GrowingFlat(CAPACITY, 200, Metric.COSINE) for _ in range(2))
    for rows in (700, 701, 733, CAPACITY):
        steps.extend(part(matrix, rows))
    once.extend(part(matrix, 700))
    once.extend(matrix)
    queries = matrix.vectors[:5]
    for got, wanted in zip(steps.search(matrix, queries, K), once.search(matrix, queries, K), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_searcher_does_not_wait_for_the_coder():
    matrix = matrix_of(oracles.clustered(1000, 64), Metric.L2)
    growing = GrowingFlat(CAPACITY, 64, Metric.L2)
    with growing._lock:
        assert not growing.extend(matrix, wait=False)
        assert growing.search(matrix, matrix.vectors[:1], 1)[0].tolist() == [[0]]
    assert growing.extend(matrix, wait=False)
    assert growing.coded_rows == 1000


def test_searches_while_rows_are_coded():
    vectors = oracles.clustered(CAPACITY, 200)
    matrix = matrix_of(vectors, Metric.COSINE)
    growing = GrowingFlat(CAPACITY, 200, Metric.COSINE)
    queries = matrix.vectors[100:104]
    wanted = oracles.nearest(Metric.COSINE, vectors[:300], queries, K)
    problems, done = [], threading.Event()

    def look():
        while not done.is_set():
            got = growing.search(part(matrix, 300), queries, K)
            if oracles.recall(got[1], wanted[1]) < 1:
                problems.append(got)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for rows in range(FIRST_ROWS, CAPACITY + 1, 16):
        growing.extend(part(matrix, rows))
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert growing.coded_rows == CAPACITY


@pytest.mark.parametrize(("first", "last", "dim"), [(0, 70_000, 384), (5, 100_000, 384), (7, 9, 8), (3, 99, 70_000)])
def test_rows_are_cut_between_blocks(first, last, dim):
    cuts = chunks(first, last, dim)
    assert (cuts[0][0], cuts[-1][1]) == (first, last)
    assert all(left[1] == right[0] and left[1] % BLOCK == 0 for left, right in pairwise(cuts))
    assert chunks(first, first, dim) == []


def test_threads_write_the_same_codes():
    matrix = matrix_of(oracles.clustered(3000, 3000), Metric.L2)
    assert len(chunks(0, 3000, 3000)) > 2
    one, two = (FlatIndex.build(matrix, Flat(), threads=threads).arrays() for threads in (1, 3))
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
