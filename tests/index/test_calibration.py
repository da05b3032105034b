"""Goal: a search asks for a recall and gets it, at the least ef that an index measured.

Method: curves of graphs over clustered data beside the recall of fresh queries; curves of a hand for reading between.
"""

from __future__ import annotations

from itertools import pairwise

import msgpack
import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import calibration
from vecdb.index.calibration import DEFAULT_EF_MIN, USUAL, effort, from_lists, hold_out, to_lists
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels import bitset
from vecdb.options import EF_MAX, HNSW, Flat
from vecdb.types import Metric

K = 10
OPTIONS = HNSW(m=8, ef_construction=80)
CURVES = {10: ((10, 0.8), (40, 0.95), (160, 0.99)), 100: ((100, 0.9), (400, 0.99))}
WISHES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999999)


@pytest.fixture(scope="module", params=list(Metric), ids=lambda metric: metric.name.lower())
def measured(request):
    """(index over 8,000 rows, 1,000 queries of their distribution)"""
    both = oracles.clustered(9000, 48, seed=4)
    index = HnswIndex.build(matrix_of(both[:8000].copy(), request.param), OPTIONS, threads=2)
    return index, frozen(both[8000:].copy())


def allowance(wish):
    """1.5 points, more for wishes that allow for many misses: a few hundred queries tell those less well."""
    return max(0.015, 0.3 * (1 - wish))


def exact_of(index, queries, k, mask=None):
    return oracles.nearest(index.matrix.metric, index.matrix.vectors, queries, k, mask)[1]


def test_a_graph_is_whole_after_rows_were_held_out(measured):
    index, _ = measured
    index.check()
    assert oracles.reached(index.graph).all()


def test_curves_rise(measured):
    curves = measured[0].curves
    assert sorted(curves) == [10, 100]
    for k, curve in curves.items():
        assert curve[0][0] == k
        assert all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(curve))
        assert curve[-1][1] >= 0.9


@pytest.mark.parametrize("k", [1, 10, 40, 100])
def test_a_wish_is_granted(measured, k):
    index, queries = measured
    exact = exact_of(index, queries[: 400 if k > 10 else 1000], k)
    for wish in (0.9, 0.95, 0.98):
        ef = index.effort(k, wish)
        assert oracles.recall(index.search(queries[: len(exact)], k, ef=ef)[1], exact) >= wish - allowance(wish)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_wish_is_granted_under_a_filter(measured, share):
    index, queries = measured
    mask = np.random.default_rng(5).random(index.indexed_rows) < share
    exact = exact_of(index, queries[:500], K, mask)
    for wish in (0.9, 0.97):
        ef = index.effort(K, wish, share)
        assert ef >= index.effort(K, wish)
        found = index.search(queries[:500], K, ef=ef, allow=bitset.from_mask(mask))[1]
        assert oracles.recall(found, exact) >= wish - allowance(wish)


def test_the_default_finds_nearly_all(measured):
    index, queries = measured
    for k in (K, 100):
        exact = exact_of(index, queries[:300], k)
        assert oracles.recall(index.search(queries[:300], k)[1], exact) >= 0.975
        assert index.effort(k) == max(DEFAULT_EF_MIN, index.effort(k, calibration.DEFAULT_RECALL))


def test_an_ef_of_the_options_is_the_default(measured):
    index = measured[0]
    given = HnswIndex(index.matrix, HNSW(ef=77), index.graph, 0, index.curves)
    assert (given.effort(K), given.effort(100)) == (77, 100)
    assert given.effort(K, None, 0.4) > 77
    assert given.effort(K, 0.9) == index.effort(K, 0.9)


def test_curves_are_stored(measured):
    index, queries = measured
    parameters = msgpack.unpackb(msgpack.packb(index.parameters()))
    opened = HnswIndex.from_arrays(index.matrix, OPTIONS, index.arrays(), parameters)
    assert opened.curves == index.curves
    assert [opened.effort(K, wish) for wish in WISHES] == [index.effort(K, wish) for wish in WISHES]
    without = {name: value for name, value in parameters.items() if name != "curves"}
    opened = HnswIndex.from_arrays(index.matrix, OPTIONS, index.arrays(), without)
    assert opened.effort(K, 0.95) == effort(USUAL, K, 0.95)
    assert oracles.recall(opened.search(queries[:200], K)[1], exact_of(index, queries[:200], K)) >= 0.98


MALFORMED = [
    None, 7, "10", [], {}, [[10]], [[10, []]], [[10, [[10]]]], [[10, [[10, 0.9, 1]]]], [["10", [[10, 0.9]]]],
    [[0, [[10, 0.9]]]], [[True, [[10, 0.9]]]], [[10, [[10, "0.9"]]]], [[10, [[10, 1.1]]]], [[10, [[10, float("nan")]]]],
    [[10, [[0, 0.9]]]], [[10, [[EF_MAX + 1, 0.9]]]], [[10, [[10.0, 0.9]]]], [[10, [[20, 0.9], [10, 0.95]]]],
    [[10, [[10, 0.9], [20, 0.8]]]], [[[10], [[10, 0.9]]]], [[k, [[10, 0.9]]] for k in range(1, 40)],
    [[10, [[ef, 0.5] for ef in range(1, 100)]]],
]  # fmt: skip


@pytest.mark.parametrize("stored", MALFORMED, ids=repr)
def test_a_malformed_curve_is_as_none(stored):
    assert from_lists(stored) == {}


def test_lists_and_back():
    assert from_lists(to_lists(CURVES)) == CURVES
    assert from_lists(to_lists({})) == {}


@pytest.mark.parametrize("curves", [CURVES, {}, {10: ((10, 1.0),)}, {10: ((10, 0.9), (20, 0.95), (30, 0.95))}])
def test_more_is_never_cheaper(curves):
    ks = (1, 5, 10, 11, 30, 99, 100, 101, 1000, 10_000, 60_000)
    table = [[effort(curves, k, wish) for wish in WISHES] for k in ks]
    assert all(row == sorted(row) for row in table)
    assert all(list(column) == sorted(column) for column in zip(*table, strict=True))
    assert all(k <= ef <= EF_MAX for k, row in zip(ks, table, strict=True) for ef in row)


def test_reading_between_and_beyond_the_points():
    assert [effort(CURVES, 10, wish) for wish in (0.6, 0.8, 0.95, 0.99)] == [10, 10, 40, 160]
    assert 60 < effort(CURVES, 10, 0.97) < 100
    assert effort(CURVES, 3, 0.95) == 40
    assert effort(CURVES, 10, 0.995) == 320  # the misses halve, so ef doubles
    assert effort(CURVES, 10, 0.99999) == 8 * 160  # not followed further
    assert effort(CURVES, 100, 0.99) == 400
    assert 40 < effort(CURVES, 30, 0.95) < effort(CURVES, 100, 0.95)
    assert effort(CURVES, 1000, 0.99) == 4000
    assert effort(CURVES, 7, 0.5) == 10
    assert effort({10: ((10, 1.0),)}, 10, 0.9999) == 10


def test_small_graphs_have_no_curve():
    vectors = oracles.clustered(900, 32)
    index = HnswIndex.build(matrix_of(vectors, Metric.L2), HNSW())
    assert index.parameters()["curves"] == []
    assert index.effort(K, 0.95) == effort(USUAL, K, 0.95)
    queries = frozen(oracles.clustered(50, 32, seed=2))
    exact = oracles.nearest(Metric.L2, vectors, queries, K)[1]
    assert oracles.recall(index.search(queries, K)[1], exact) >= 0.98


def test_a_scan_has_no_ef():
    assert FlatIndex.build(matrix_of(oracles.clustered(300, 32), Metric.L2), Flat()).effort(K, 0.9) is None


def test_what_is_held_out():
    order = np.arange(10_000, dtype=np.int32)[::-1].copy()
    held_last, count = hold_out(order, 1)
    assert count == min(calibration.HELD_MAX, 9_999 // calibration.HELD_SHARE)
    assert held_last[0] == order[0]
    assert sorted(held_last.tolist()) == sorted(order.tolist())
    assert (np.diff(held_last[:-count]) < 0).all()  # the others stay in order
    assert np.ptp(held_last[-count:]) > 9_000
    for first in (len(order) - 1_000, len(order)):
        same, none = hold_out(order, first)
        assert none == 0
        np.testing.assert_array_equal(same, order)


def test_twins_of_held_out_rows_do_not_count():
    """Every vector is there twice: were the copies of the queries counted, nobody could find them."""
    once = oracles.clustered(3000, 48, duplicates=0)
    index = HnswIndex.build(matrix_of(np.concatenate([once, once]), Metric.L2), OPTIONS)
    assert index.curves[10][-1][1] >= 0.99


def test_a_carried_graph_keeps_its_curves_until_much_is_new():
    both = oracles.clustered(7000, 48, seed=3)
    vectors, queries = both[:6000].copy(), frozen(both[6000:].copy())
    old = HnswIndex.build(matrix_of(vectors[:3500].copy(), Metric.L2), OPTIONS)
    rows = np.arange(3500, dtype=np.int32)
    few = old.carried(matrix_of(vectors[:3700].copy(), Metric.L2), rows)
    assert few.curves == old.curves
    many = old.carried(matrix_of(vectors, Metric.L2), rows)
    assert many.curves != old.curves
    exact = exact_of(many, queries, K)
    assert oracles.recall(many.search(queries, K, ef=many.effort(K, 0.95))[1], exact) >= 0.935
