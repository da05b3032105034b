"""What every index kind promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import DISTANCES, RESCORED, load_kind
from vecdb.kernels import bitset
from vecdb.types import Metric

K = 10


@pytest.fixture(params=["float32", "float16"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Of the stored vectors."""
    return request.param


def data(rows, dim=48, seed=0, dtype="float32"):
    """(vectors, float32 queries) of one distribution; the first query is a stored row."""
    both = oracles.clustered(rows + 20, dim, seed).astype(dtype)
    queries = both[rows:].astype(np.float32)
    if rows:
        queries[0] = both[rows // 2]
    return both[:rows].copy(), frozen(queries)


def assert_well_formed(rows, distances, metric, vectors, queries):
    """Right shapes, true distances, ordered by (distance, row), no row twice, the missing at the end."""
    for i, query in enumerate(queries):
        found = rows[i] >= 0
        count = int(found.sum())
        assert found[:count].all()
        assert np.isinf(distances[i, count:]).all()
        assert len(set(rows[i, :count].tolist())) == count
        np.testing.assert_array_equal(distances[i, :count], oracles.distances(metric, vectors[rows[i, :count]], query))
        pairs = list(zip(distances[i, :count].tolist(), rows[i, :count].tolist(), strict=True))
        assert pairs == sorted(pairs)


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 33, 300])
def test_any_number_of_rows_and_k_beyond_them(kind, metric, rows, dtype):
    vectors, queries = data(rows, dtype=dtype)
    index = kind.build(matrix_of(vectors, metric))
    index.check()
    found, distances = index.search(queries, rows + 5)
    assert found.shape == distances.shape == (20, rows + 5)
    assert found.dtype == np.int32
    assert distances.dtype == np.float32
    assert_well_formed(found, distances, metric, vectors, queries)
    assert ((found >= 0).sum(1) == rows).all()
    assert index.indexed_rows == rows


@pytest.mark.parametrize("dim", [1, 3, 31, 100, 384])
def test_any_dimension(kind, metric, dim, dtype):
    vectors, queries = data(1000, dim, dtype=dtype)
    index = kind.build(matrix_of(vectors, metric))
    found, distances = index.search(queries, K)
    assert_well_formed(found, distances, metric, vectors, queries)
    assert oracles.recall(distances, oracles.nearest(metric, vectors, queries, K)[1]) >= 0.95


def test_recall_on_clusters_with_duplicates(kind, metric, dtype):
    vectors, queries = data(5000, 100, seed=3, dtype=dtype)
    index = kind.build(matrix_of(vectors, metric))
    exact = oracles.nearest(metric, vectors, queries, K)[1]
    assert oracles.recall(index.search(queries, K, ef=128, nprobe=12)[1], exact) >= (
        0.999 if kind.name == "flat" else 0.98
    )


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_only_allowed_rows(kind, metric, share, dtype):
    vectors, queries = data(1500, dtype=dtype)
    mask = np.random.default_rng(2).random(1500) < share
    index = kind.build(matrix_of(vectors, metric))
    found, distances = index.search(queries, K, allow=bitset.from_mask(mask), ef=1500, nprobe=1500)
    assert_well_formed(found, distances, metric, vectors, queries)
    assert mask[found[found >= 0]].all()
    exact = oracles.nearest(metric, vectors, queries, K, mask)
    assert ((found >= 0).sum(1) == min(K, mask.sum())).all()
    assert oracles.recall(distances, exact[1]) >= 0.99


def test_given_rows_are_searched_exactly(kind, metric, dtype):
    vectors, queries = data(700, dtype=dtype)
    index = kind.build(matrix_of(vectors, metric))
    rows = np.arange(3, 700, 9, dtype=np.int32)
    mask = np.isin(np.arange(700), rows)
    exact = oracles.nearest(metric, vectors, queries, K, mask)
    for got, wanted in zip(index.search(queries, K, rows=frozen(rows)), exact, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_an_empty_set_of_rows(kind):
    vectors, queries = data(100)
    index = kind.build(matrix_of(vectors, Metric.COSINE))
    found, distances = index.search(queries, 3, rows=frozen(np.empty(0, np.int32)))
    assert (found == -1).all()
    assert np.isinf(distances).all()


def test_what_is_stored_comes_back(kind, metric, dtype):
    vectors, queries = data(600, dtype=dtype)
    matrix = matrix_of(vectors, metric)
    index = kind.build(matrix)
    parameters = msgpack.unpackb(msgpack.packb(index.parameters()))
    arrays = {name: frozen(array.copy()) for name, array in index.arrays().items()}
    opened = kind.type.from_arrays(matrix, kind.options, arrays, parameters)
    opened.check()
    assert opened.traits == index.traits
    for got, wanted in zip(opened.search(queries, K), index.search(queries, K), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_what_does_not_fit_is_refused(kind):
    vectors, _ = data(600)
    matrix = matrix_of(vectors, Metric.L2)
    index = kind.build(matrix)
    arrays, parameters = index.arrays(), index.parameters()
    with pytest.raises(ValueError, match="rows is 600"):
        kind.type.from_arrays(matrix_of(vectors[:500], Metric.L2), kind.options, arrays, parameters)
    with pytest.raises(ValueError, match="quantiser"):
        kind.type.from_arrays(matrix, kind.options, arrays, {**parameters, "quantiser": "other"})
    for name, array in arrays.items():
        with pytest.raises(ValueError, match=f"array '{name}' is missing"):
            kind.type.from_arrays(matrix, kind.options, {k: v for k, v in arrays.items() if k != name}, parameters)
        for wrong in (array[:-1], array.astype(np.float64)):
            with pytest.raises(ValueError, match=f"array '{name}'|array 'upper'"):
                kind.type.from_arrays(matrix, kind.options, {**arrays, name: wrong}, parameters)


def test_one_thread_and_one_seed_give_one_index(kind):
    vectors, _ = data(800)
    first, second = (kind.build(matrix_of(vectors, Metric.COSINE), seed=5) for _ in range(2))
    assert first.parameters() == second.parameters()
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])


def test_threads_build_a_good_index(kind):
    vectors, queries = data(3000, seed=4)
    index = kind.build(matrix_of(vectors, Metric.COSINE), threads=4)
    index.check()
    exact = oracles.nearest(Metric.COSINE, vectors, queries, K)[1]
    assert oracles.recall(index.search(queries, K)[1], exact) >= 0.97


@pytest.mark.parametrize("before", [0, 1, 300, 900])
def test_new_rows_are_found_and_the_old_index_stays(kind, metric, before, dtype):
    vectors, queries = data(1000, dtype=dtype)
    old = kind.build(matrix_of(vectors[:before], metric))
    kept = {name: array.copy() for name, array in old.arrays().items()}
    new = old.carried(matrix_of(vectors, metric), np.arange(before, dtype=np.int32), threads=2)
    new.check()
    assert (old.indexed_rows, new.indexed_rows) == (before, 1000)
    for name, array in old.arrays().items():
        np.testing.assert_array_equal(array, kept[name])
    found, distances = new.search(queries, K)
    assert_well_formed(found, distances, metric, vectors, queries)
    assert oracles.recall(distances, oracles.nearest(metric, vectors, queries, K)[1]) >= 0.98


def test_an_index_moves_to_other_rows(kind, metric):
    """Some rows are gone, the rest is in another order, and others are new."""
    vectors, queries = data(1300, seed=6)
    rng = np.random.default_rng(1)
    stay = rng.permutation(1000)[:800]
    new = vectors[rng.permutation(np.concatenate([stay, np.arange(1000, 1300)]))]
    new_rows = np.full(1000, -1, np.int32)
    places = rng.permutation(1100)[:800].astype(np.int32)
    new[places] = vectors[stay]
    new_rows[stay] = places
    moved = kind.build(matrix_of(vectors[:1000], metric)).carried(matrix_of(new, metric), new_rows)
    moved.check()
    found, distances = moved.search(queries, K)
    assert_well_formed(found, distances, metric, new, queries)
    assert oracles.recall(distances, oracles.nearest(metric, new, queries, K)[1]) >= 0.98


def test_concurrent_searches_agree(kind):
    vectors, queries = data(2000)
    index = kind.build(matrix_of(vectors, Metric.COSINE))
    wanted = index.search(queries, K)

    def run(_):
        return [index.search(queries, K) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(run, range(8)):
            for rows, distances in results:
                np.testing.assert_array_equal(rows, wanted[0])
                np.testing.assert_array_equal(distances, wanted[1])


def test_one_query_or_many_give_the_same(kind, metric, dtype):
    vectors, _ = data(1200, dtype=dtype)
    index = kind.build(matrix_of(vectors, metric))
    queries = frozen(oracles.clustered(130, 48, seed=8))
    many = index.search(queries, K)
    for i in range(0, 130, 13):
        one = index.search(frozen(queries[i : i + 1]), K)
        np.testing.assert_array_equal(one[0][0], many[0][i])
        np.testing.assert_array_equal(one[1][0], many[1][i])


def test_counters_add_up(kind):
    vectors, queries = data(900, 128)
    index = kind.build(matrix_of(vectors, Metric.COSINE))
    counters = np.zeros(4, np.int64)
    index.search(queries, K, counters=counters)
    once = counters.copy()
    index.search(queries, K, counters=counters)
    np.testing.assert_array_equal(counters, 2 * once)
    assert once[DISTANCES] > once[RESCORED] > 0


class Stop(Exception):
    pass


def test_progress_is_told_and_may_stop_the_build(kind):
    vectors, _ = data(2000, 128)
    matrix = matrix_of(vectors, Metric.L2)
    calls = []
    kind.build(matrix, threads=2, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2000, 2000)
    assert all(0 <= done <= total == 2000 for done, total in calls)

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        kind.build(matrix, threads=2, progress=stop)


def test_vectors_are_borrowed(kind):
    vectors, _ = data(200)
    matrix = matrix_of(vectors, Metric.COSINE)
    before = vectors.copy()
    index = kind.build(matrix)
    assert index.matrix is matrix
    np.testing.assert_array_equal(vectors, before)
    assert not any(np.shares_memory(array, matrix.vectors) for array in index.arrays().values())


def test_unknown_kind():
    with pytest.raises(ValueError, match="no index kind 'tree'"):
        load_kind("tree")
