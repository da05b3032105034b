"""IVFPQ: what it adds to the promises of every kind and to those of lists."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.index.test_contract import K, data
from tests.kernels.conftest import frozen, matrix_of
from vecdb.errors import InvalidInput
from vecdb.index.ivfpq import IvfPqIndex
from vecdb.options import IVFPQ
from vecdb.types import Metric


def recall_of(index, vectors, queries, **arguments):
    exact = oracles.nearest(index.matrix.metric, vectors, queries, K)[1]
    return oracles.recall(index.search(queries, K, **arguments)[1], exact)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rotation", [False, True])
def test_codes_of_either_size_turned_or_not(metric, bits, rotation):
    vectors, queries = data(2000, 40, seed=2)
    index = IvfPqIndex.build(matrix_of(vectors, metric), IVFPQ(nlist=8, bits=bits, rotation=rotation))
    index.check()
    assert recall_of(index, vectors, queries, nprobe=8) >= 0.98
    assert recall_of(index, vectors, queries, nprobe=8, rescore=K) >= 0.6  # the order of the estimates alone
    assert index.arrays()["codes"].shape[1] == 32 * 12  # 10 bytes a row, in whole groups


@pytest.mark.parametrize("m", [1, 3, 16, 31, 60])
@pytest.mark.parametrize("bits", [4, 8])
def test_any_number_of_parts(m, bits):
    vectors, queries = data(800, 31, seed=3)
    index = IvfPqIndex.build(matrix_of(vectors, Metric.L2), IVFPQ(nlist=4, bits=bits, m=m))
    assert index.coding.learned.m == min(m, 31)
    assert recall_of(index, vectors, queries, nprobe=4, rescore=800) == 1.0
    if m >= 16:
        assert recall_of(index, vectors, queries, nprobe=4) >= 0.95


def test_more_parts_than_sums_of_sixteen_bits_hold_with_the_largest_entries():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 1100)).astype(np.float32)
    index = IvfPqIndex.build(matrix_of(vectors, Metric.L2), IVFPQ(nlist=2, m=1100))
    assert recall_of(index, vectors, frozen(vectors[:20] + np.float32(0.1)), nprobe=2) >= 0.99


def test_codebooks_go_along_until_there_are_twice_the_rows():
    vectors, queries = data(3000, 24, seed=5)
    first = IvfPqIndex.build(matrix_of(vectors[:1000], Metric.COSINE), IVFPQ(nlist=5))
    kept = first.carried(matrix_of(vectors[:1900], Metric.COSINE), np.arange(1000, dtype=np.int32))
    np.testing.assert_array_equal(kept.coding.learned.books, first.coding.learned.books)
    grown = kept.carried(matrix_of(vectors, Metric.COSINE), np.arange(1900, dtype=np.int32))
    assert not np.array_equal(grown.coding.learned.books, first.coding.learned.books)
    assert (kept.coding.rows, grown.coding.rows) == (1000, 3000)
    assert recall_of(grown, vectors, queries, nprobe=5) >= 0.98


def test_a_stored_rotation_comes_back_and_a_damaged_one_is_seen():
    vectors, queries = data(600, 20)
    matrix, options = matrix_of(vectors, Metric.L2), IVFPQ(nlist=3, rotation=True)
    index = IvfPqIndex.build(matrix, options)
    arrays = {name: frozen(array.copy()) for name, array in index.arrays().items()}
    opened = IvfPqIndex.from_arrays(matrix, options, arrays, index.parameters())
    assert opened.coding.rows == 600
    for got, wanted in zip(opened.search(queries, K), index.search(queries, K), strict=True):
        np.testing.assert_array_equal(got, wanted)
    spoiled = arrays["turn"].copy()
    spoiled[3, 4] = np.nan
    damaged = IvfPqIndex.from_arrays(matrix, options, {**arrays, "turn": frozen(spoiled)}, index.parameters())
    with pytest.raises(ValueError, match="array 'turn' holds a value that is not a number"):
        damaged.check()
    with pytest.raises(ValueError, match="array 'books'"):
        IvfPqIndex.from_arrays(matrix, IVFPQ(nlist=3, bits=8), arrays, index.parameters())


def test_equal_rows_and_few_rows():
    for vectors in (np.full((500, 12), 0.25, np.float32), np.eye(12, dtype=np.float32)[:3]):
        index = IvfPqIndex.build(matrix_of(vectors, Metric.COSINE), IVFPQ(rotation=True))
        index.check()
        found, distances = index.search(frozen(vectors[:2].copy()), 2)
        assert (distances[:, 0] == 0).all()
        assert (found >= 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 5}, "bits"), ({"bits": 2}, "bits"), ({"m": -1}, "m="), ({"rotation": 1}, "rotation"),
        ({"nlist": -1}, "nlist"), ({"nprobe": 1.5}, "nprobe"), ({"rescore": True}, "rescore"),
    ],
)  # fmt: skip
def test_options_are_checked(wrong, message):
    with pytest.raises(InvalidInput, match=message):
        IVFPQ(**wrong)
