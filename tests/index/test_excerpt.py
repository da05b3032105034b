"""An excerpt finds what a gather of the same rows finds: the same codes, the same pool, the same order."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.index.test_gather import built
from tests.kernels.conftest import matrix_of
from vecdb.engine.excerpts import Excerpts
from vecdb.index.code_quality import Codes
from vecdb.index.graph_builder import empty_graph
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels.excerpt import code_words
from vecdb.options import HNSW
from vecdb.types import Metric


def coded(bits, dim, metric, rows=700, seed=3):
    """An index whose records have `bits`, without links: a gather follows none."""
    vectors = oracles.clustered(rows, dim, seed)
    matrix = matrix_of(vectors, metric)
    levels, twins = np.zeros(rows, np.uint8), np.full(rows, -1, np.int32)
    graph = empty_graph(rows, dim, 8, levels, twins, vectors.mean(0), Codes(bits, True))
    index = HnswIndex(matrix, HNSW(m=8), graph, 0, {})
    encoded(index)
    return index


def encoded(index):
    from vecdb.index.base import kernel_inputs
    from vecdb.index.hnsw import FINE_BITS
    from vecdb.kernels.row_codes import encode_records

    graph = index.graph
    for bits, records in ((graph.bits, graph.records), (FINE_BITS, graph.fine)):
        if len(records):
            encode_records(
                bits, *kernel_inputs(index.matrix), graph.centre, 0, len(records), records, records.view(np.float32)
            )


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize(("bits", "dim"), [(2, 384), (2, 257), (2, 1030), (4, 192), (4, 37), (8, 64), (8, 50)])
def test_finds_what_a_gather_finds(bits, dim, metric):
    index = coded(bits, dim, metric)
    queries = oracles.clustered(12, dim, 9)
    rng = np.random.default_rng(dim)
    for count in (1, 31, 32, 33, 200, 700):
        rows = np.sort(rng.choice(700, count, replace=False)).astype(np.int32)
        excerpt = index.excerpt(rows)
        for k in (1, 10, 60):
            k = min(k, count)
            counters = np.zeros((2, 4), np.int64)
            found, distances = excerpt.search(queries, k, counters=counters[0])
            expected, wanted = index.gather(queries, k, rows, counters=counters[1])
            np.testing.assert_array_equal(distances, wanted)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(counters[0], counters[1])


def test_a_graph_that_was_built():
    index, _, queries = built(2, Metric.COSINE, 96)
    rows = np.arange(0, index.matrix.rows, 3, dtype=np.int32)
    np.testing.assert_array_equal(index.excerpt(rows).search(queries, 10)[1], index.gather(queries, 10, rows)[1])


def test_no_rows():
    index = coded(2, 384, Metric.L2)
    rows, distances = index.excerpt(np.empty(0, np.int32)).search(oracles.clustered(2, 384, 1), 3)
    assert (rows == -1).all()
    assert np.isinf(distances).all()


def test_a_copy_is_as_long_as_the_codes():
    assert (code_words(2, 384), code_words(2, 256), code_words(4, 37), code_words(8, 50)) == (24, 16, 5, 13)


def test_the_least_recently_used_go_first():
    index, made = coded(2, 384, Metric.L2), []

    def rows(first, count):
        made.append(first)
        return np.arange(first, first + count, dtype=np.int32)

    kept = Excerpts()
    for first in (0, 200, 400):
        kept.get((first, None), index, lambda first=first: rows(first, 200))
    kept.get((0, None), index, lambda: rows(0, 200))
    assert made == [0, 200, 400]
    kept.get((600, None), index, lambda: rows(600, 200))  # more than the 700 rows that there are
    assert [kept.holds((first, None), index) for first in (0, 200, 400, 600)] == [True, False, True, True]
    whole = kept.get((1, None), index, lambda: rows(0, 700))
    assert len(whole.rows) == 700
    assert [kept.holds((first, None), index) for first in (0, 400, 600, 1)] == [False, False, False, True]


def test_another_graph_makes_another_copy():
    index, other = coded(2, 384, Metric.L2), coded(2, 384, Metric.L2, seed=4)
    kept, every = Excerpts(), np.arange(50, dtype=np.int32)
    first = kept.get((0, None), index, lambda: every)
    assert kept.holds((0, None), index)
    assert not kept.holds((0, None), other)
    assert kept.get((0, None), other, lambda: every) is not first
    assert kept.holds((0, None), other)
