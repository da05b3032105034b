"""Inverted lists: every code, what is measured, life after training, damage."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import probing
from vecdb.index.base import DISTANCES, RESCORED, VISITED
from vecdb.index.drift import Fit
from vecdb.index.ivf import IvfIndex
from vecdb.index.levels import Levels, usual_probing
from vecdb.index.two_levels import list_count
from vecdb.kernels import bitset
from vecdb.kernels.rotation import draw_signs
from vecdb.options import IVF
from vecdb.types import Matrix, Metric

K = 10


def data(rows=6000, dim=64, seed=0):
    both = oracles.clustered(rows + 60, dim, seed)
    return both[:rows].copy(), frozen(both[rows:].copy())


def recall_of(index, vectors, queries, metric, **wish):
    exact = oracles.nearest(metric, vectors, queries, K)[1]
    return oracles.recall(index.search(queries, K, **wish)[1], exact)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_every_code_is_decided_by_float32(bits, metric):
    vectors, queries = data()
    index = IvfIndex.build(matrix_of(vectors, metric), IVF(nlist=30, bits=bits))
    index.check()
    assert recall_of(index, vectors, queries, metric) >= 0.96
    assert recall_of(index, vectors, queries, metric, nprobe=30, rescore=600) == 1.0


def test_more_lists_find_more_and_cost_more():
    vectors, queries = data()
    index = IvfIndex.build(matrix_of(vectors, Metric.L2), IVF(nlist=40))
    found, scanned = [], []
    for nprobe in (1, 4, 12, 40):
        counters = np.zeros(4, np.int64)
        exact = oracles.nearest(Metric.L2, vectors, queries, K)[1]
        found.append(oracles.recall(index.search(queries, K, nprobe=nprobe, counters=counters)[1], exact))
        scanned.append(int(counters[DISTANCES] - counters[RESCORED]))
        assert counters[VISITED] <= nprobe * len(queries)
        assert counters[VISITED] == nprobe * len(queries) or 1 < nprobe < 40
    assert found == sorted(found)
    assert scanned == sorted(scanned)
    assert scanned[-1] == len(vectors) * len(queries)


@pytest.mark.parametrize("wish", [0.8, 0.9, 0.95, 0.99])
def test_a_recall_that_is_asked_for_is_reached(wish, metric):
    both = oracles.clustered(8500, 64, seed=2)
    vectors, queries = both[:8000].copy(), frozen(both[8000:].copy())
    index = IvfIndex.build(matrix_of(vectors, metric), IVF(nlist=64))
    nprobe = index.effort(K, wish)
    assert recall_of(index, vectors, queries, metric, nprobe=nprobe) >= wish - 0.02


def test_more_is_never_cheaper():
    index = IvfIndex.build(matrix_of(data()[0], Metric.COSINE), IVF())
    efforts = [index.effort(K, wish) for wish in (0.5, 0.8, 0.9, 0.99, 0.999)]
    assert efforts == sorted(efforts)
    assert index.effort(K, 0.9) <= index.effort(100, 0.9) <= index.effort(1000, 0.9)
    assert index.effort(K, 0.9) <= index.effort(K, 0.9, 0.1) <= index.effort(K, 0.9, 0.005) == index.grouping.count
    assert IvfIndex.build(matrix_of(data()[0], Metric.COSINE), IVF(nlist=30, nprobe=7)).effort(K) == 7


@pytest.mark.parametrize("count", [1, 7, 64, 640])
def test_a_filter_far_from_the_query_still_finds_k(count):
    vectors, queries = data()
    index = IvfIndex.build(matrix_of(vectors, Metric.L2), IVF(nlist=40))
    far = np.argsort(-oracles.distances(Metric.L2, vectors, queries[0]), kind="stable")[:count]
    mask = np.isin(np.arange(len(vectors)), far)
    found, distances = index.search(queries[:1], K, nprobe=1, allow=bitset.from_mask(mask))
    assert (found[0] >= 0).sum() == min(K, count)
    assert mask[found[found >= 0]].all()
    if count <= K:
        np.testing.assert_array_equal(distances, oracles.nearest(Metric.L2, vectors, queries[:1], K, mask)[1])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_filters_are_searched_as_deep_as_they_need(share):
    vectors, queries = data(8000)
    mask = np.random.default_rng(1).random(len(vectors)) < share
    index = IvfIndex.build(matrix_of(vectors, Metric.COSINE), IVF(nlist=64))
    exact = oracles.nearest(Metric.COSINE, vectors, queries, K, mask)[1]
    assert oracles.recall(index.search(queries, K, allow=bitset.from_mask(mask))[1], exact) >= 0.97


@pytest.mark.parametrize("k", [1, 64, 128, 129, 700])
def test_any_k(k):
    vectors, queries = data(3000)
    index = IvfIndex.build(matrix_of(vectors, Metric.L2), IVF(nlist=20))
    _, distances = index.search(queries, k, nprobe=20)
    exact = oracles.nearest(Metric.L2, vectors, queries, k)
    assert oracles.recall(distances, exact[1]) >= 0.99
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((500, 24), np.float32),
        np.zeros((500, 24), np.float32),
        np.repeat(oracles.clustered(9, 24), 60, axis=0),
        oracles.clustered(700, 24) * np.geomspace(1e-3, 1e3, 700, dtype=np.float32)[:, None],
        oracles.clustered(700, 2),
    ],
    ids=["equal", "zero", "copies", "norms", "plane"],
)
def test_hard_data(vectors, metric):
    index = IvfIndex.build(matrix_of(vectors, metric), IVF(nlist=12))
    index.check()
    queries = frozen(vectors[::37].copy())
    rows, distances = index.search(queries, K, nprobe=12)
    assert all(len(set(row.tolist())) == K for row in rows)
    assert oracles.recall(distances, oracles.nearest(metric, vectors, queries, K)[1]) >= 0.97


def test_a_rotation_is_taken_where_dimensions_are_uneven():
    rng = np.random.default_rng(3)
    even = rng.standard_normal((2000, 64), dtype=np.float32)
    uneven = even * np.exp(1.5 * rng.standard_normal(64)).astype(np.float32)
    for vectors, rounds in ((even, 0), (uneven, 4)):
        centroids, assigned = frozen(vectors[:1].copy() * 0), np.zeros(2000, np.int32)
        assert len(Levels.learn(matrix_of(vectors, Metric.L2), centroids, assigned, IVF()).signs) == rounds
    index = IvfIndex.build(matrix_of(uneven, Metric.L2), IVF(nlist=8))
    assert len(index.coding.signs) == 4
    assert recall_of(index, uneven, frozen(uneven[:50] + np.float32(0.01)), Metric.L2, nprobe=8) >= 0.98


def test_threads_do_not_change_the_index():
    vectors, _ = data(5000)
    one, four = (IvfIndex.build(matrix_of(vectors, Metric.COSINE), IVF(), threads=n).arrays() for n in (1, 4))
    for name, array in one.items():
        np.testing.assert_array_equal(array, four[name])


# ---- life -----------------------------------------------------------------------------------------------------------
def arrival(first, second, metric=Metric.COSINE, options=IVF(nlist=32)):  # noqa: B008 - frozen
    """(the index of `first`, the one that it becomes when `second` arrives, all vectors)."""
    both = np.concatenate([first, second])
    old = IvfIndex.build(matrix_of(first, metric), options)
    return old, old.carried(matrix_of(both, metric), np.arange(len(first), dtype=np.int32)), both


def test_rows_of_the_same_kind_join_the_lists():
    vectors, queries = data(6000)
    old, new, both = arrival(vectors[:4000], vectors[4000:])
    assert new.retrained is None
    np.testing.assert_array_equal(new.grouping.centroids.stored, old.grouping.centroids.stored)
    assert new.trained == old.trained
    assert recall_of(new, both, queries, Metric.COSINE) >= 0.96


def test_lists_that_drifted_are_trained_again():
    rng = np.random.default_rng(0)
    first = oracles.clustered(3000, 48, seed=1)
    second = (oracles.clustered(3000, 48, seed=9) + 4 * rng.standard_normal(48)).astype(np.float32)
    _, new, both = arrival(first, second, Metric.L2)
    assert new.retrained is not None
    told = new.parameters()["retrained"]
    assert told["rows"] == 6000
    assert told["because"]
    assert told["error"][1] < told["error"][0]
    assert new.trained == new.fit
    assert recall_of(new, both, frozen(second[::50].copy()), Metric.L2) >= 0.96


def test_lists_grow_in_number_with_the_rows():
    vectors, _ = data(6000)
    old, new, _ = arrival(vectors[:600], vectors[600:], options=IVF())
    assert (old.grouping.count, new.grouping.count) == (list_count(600, 0), list_count(6000, 0))
    assert "lists" in new.parameters()["retrained"]["because"]


def test_fit_tells_why():
    trained = Fit(1.0, 2.0)
    assert Fit(1.1, 2.5).drifted(trained, 10, 10) == ""
    assert "far" in Fit(1.3, 2.0).drifted(trained, 10, 10)
    assert "largest" in Fit(1.0, 6.0).drifted(trained, 10, 10)
    assert "lists" in Fit(1.0, 2.0).drifted(trained, 10, 25)
    assert Fit.read(Fit(0.5, 3.0).to_dict()) == Fit(0.5, 3.0)
    for stored in (None, {}, {"error": 1.0}, {"error": float("nan"), "largest": 1.0}):
        with pytest.raises(ValueError, match="fit"):
            Fit.read(stored)


# ---- storage --------------------------------------------------------------------------------------------------------
def stored(bits=2, dim=384, rows=12_000):
    return IvfIndex.build(matrix_of(oracles.clustered(rows, dim, clusters=300), Metric.COSINE), IVF(bits=bits))


@pytest.mark.parametrize(("bits", "most"), [(2, 120), (1, 71)])
def test_bytes_of_a_row(bits, most):
    index = stored(bits)
    assert sum(array.nbytes for array in index.arrays().values()) <= most * index.matrix.rows


@pytest.mark.parametrize("name", ["slots", "starts", "sizes"])
def test_what_would_lead_out_of_bounds_is_refused_at_once(name):
    index = stored(dim=32, rows=3000)
    for value in (-1, 1 << 30):
        damaged = index.arrays()[name].copy()
        damaged[len(damaged) // 2] = value
        with pytest.raises(ValueError, match=name):
            IvfIndex.from_arrays(index.matrix, index.options, {**index.arrays(), name: damaged}, index.parameters())


@pytest.mark.parametrize("name", ["slots", "add", "scale", "centroids"])
def test_damaged_values_are_found(name):
    index = stored(dim=32, rows=3000)
    damaged = index.arrays()[name].copy()
    damaged.reshape(-1)[3] = damaged.reshape(-1)[4] if name == "slots" else np.nan
    opened = IvfIndex.from_arrays(index.matrix, index.options, {**index.arrays(), name: damaged}, index.parameters())
    with pytest.raises(ValueError, match=name):
        opened.check()


def test_an_index_serves_without_what_was_measured():
    index = stored(dim=32, rows=3000)
    parameters = {**index.parameters(), "probing": {"pools": "many"}}
    opened = IvfIndex.from_arrays(index.matrix, index.options, index.arrays(), parameters)
    assert opened.measured == usual_probing(2)
    queries = frozen(index.matrix.vectors[:20].copy())
    assert recall_of(opened, index.matrix.vectors, queries, Metric.COSINE) >= 0.9


def test_measured_values_are_kept():
    index = stored(dim=32, rows=3000)
    assert probing.read(index.measured.to_dict(), usual_probing(2)) == index.measured


# ---- rows that are not in memory ------------------------------------------------------------------------------------
class SlowPages:
    """Pages of which every search waits for some until they are asked for."""

    def __init__(self):
        self.waits, self.scattered, self.asked = 0, False, []

    def faults(self):
        self.waits += 10
        return self.waits

    def scatter(self):
        self.scattered = True

    def ask(self, rows):
        self.asked.append(rows.tolist())


def test_rows_that_are_not_in_memory_are_asked_for_at_once(metric):
    vectors, queries = data(3000)
    matrix, pages = matrix_of(vectors, metric), SlowPages()
    index = IvfIndex.build(matrix, IVF(nlist=20))
    cold = IvfIndex.build(Matrix(matrix.vectors, matrix.inverse_norms, metric, pages), IVF(nlist=20))
    assert pages.scattered
    pages.asked.clear()
    for query in (queries[:1], queries[:30]):
        cold._cold.left = 1
        for got, wanted in zip(cold.search(query, K, nprobe=20), index.search(query, K, nprobe=20), strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert len(pages.asked) == 2
    assert pages.asked[0] == sorted(set(pages.asked[0]))
    assert K <= len(pages.asked[0]) < 3000


# ---- kernels --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dim", [1, 2, 3, 31, 64, 100, 384])
def test_a_rotation_keeps_lengths_and_angles(dim):
    from vecdb.kernels.rotation import rotate_rows

    rows = np.random.default_rng(dim).standard_normal((20, dim)).astype(np.float32)
    turned = rows.copy()
    rotate_rows(turned, frozen(draw_signs(dim, 1)))
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=1e-4 * dim**0.5 + 1e-4)
    if dim > 2:
        assert not np.allclose(turned, rows, atol=0.01)
