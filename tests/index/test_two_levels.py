"""Centroids in groups: as good as trained at once, balanced, repeatable; and lists that are ranked by groups."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.index.clusters import assign, train
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import clustering, grouped, two_levels
from vecdb.index.ivf import IvfIndex
from vecdb.index.ivfpq import IvfPqIndex
from vecdb.kernels import bitset, list_ranking
from vecdb.kernels.sorted_scan import SORTED_MAX
from vecdb.options import IVF, IVFPQ
from vecdb.types import Metric

K = 10


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(two_levels, "GROUPED_FROM", 100)
    monkeypatch.setattr(two_levels, "TRAINED_FROM", 100)


@pytest.mark.parametrize("dim", [8, 100])
@pytest.mark.parametrize("trained", [100, 10_000])
def test_as_good_as_trained_at_once(metric, dim, trained, monkeypatch):
    monkeypatch.setattr(two_levels, "TRAINED_FROM", trained)
    matrix = matrix_of(oracles.clustered(12_000, dim, seed=dim, clusters=500), metric)
    values, starts = two_levels.train(matrix, 300, seed=1)
    assert (values.dtype, values.shape, starts.dtype) == (np.float32, (300, dim), np.int32)
    assert starts[0] == 0
    assert starts[-1] == 300
    assert len(starts) - 1 > grouped.PROBES
    assert (np.diff(starts) > 0).all()
    with monkeypatch.context() as patched:
        patched.setattr(two_levels, "GROUPED_FROM", 10_000)
        patched.setattr(two_levels, "TRAINED_FROM", 10_000)
        at_once = train(matrix, 300, seed=1)
    reached = clustering.objective(matrix, at_once, assign(matrix, at_once))
    assigned = two_levels.assign(matrix, values, starts)
    assert clustering.objective(matrix, values, assigned) <= 1.03 * reached
    assert (assigned == assign(matrix, values)).mean() > 0.9


@pytest.mark.parametrize("dim", [8, 100])
def test_one_seed_gives_one_result_whatever_the_threads(dim):
    matrix = matrix_of(oracles.clustered(6000, dim), Metric.L2)
    first, starts = two_levels.train(matrix, 150, seed=5)
    again, other = two_levels.train(matrix, 150, seed=5, threads=3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(starts, other)
    assert not np.array_equal(first, two_levels.train(matrix, 150, seed=6)[0])
    alone = two_levels.assign(matrix, first, starts)
    np.testing.assert_array_equal(alone, two_levels.assign(matrix, first, starts, threads=3))


@pytest.mark.parametrize("distinct", [1, 3, 90, 400])
def test_fewer_different_rows_than_centroids(distinct):
    rows = np.random.default_rng(0).standard_normal((distinct, 40)).astype(np.float32)
    matrix = matrix_of(rows[np.arange(4000) % distinct], Metric.L2)
    values, starts = two_levels.train(matrix, 200)
    assert values.shape == (200, 40)
    assert starts[-1] == 200
    assert (np.diff(starts) > 0).all()
    assert np.isfinite(values).all()
    if distinct < 100:
        assert clustering.objective(matrix, values, assign(matrix, values)) < 1e-6


def test_no_rows():
    values, starts = two_levels.train(matrix_of(np.empty((0, 8), np.float32), Metric.L2), 200)
    assert values.shape == (200, 8)
    np.testing.assert_array_equal(starts, [0, 200])


def test_so_many_lists():
    wanted = {0: 1, 100: 1, 60_000: 234, 1_000_000: 3906, 5_000_000: 8192, 10_000_000: 8192, 40_000_000: 16_384}
    assert {rows: two_levels.list_count(rows, 0) for rows in wanted} == wanted
    assert two_levels.list_count(10**10, 0) == two_levels.LISTS_MAX
    assert two_levels.list_count(1000, 40) == 40
    assert two_levels.list_count(10, 40) == 10


def spotted(share):
    """A dense spot, and far rows."""
    vectors = np.random.default_rng(0).standard_normal((40_000, 40)).astype(np.float32)
    vectors[: int(share * 40_000)] *= np.float32(0.05)
    vectors[-50:] *= np.float32(20)
    return vectors


@pytest.mark.parametrize("vectors", [oracles.clustered(40_000, 40, clusters=500), spotted(0.05), spotted(0.3)])
def test_groups_with_a_long_list_are_balanced_by_all_rows(vectors):
    """Trained on a sample of too few rows to tell lists apart."""
    matrix = matrix_of(vectors, Metric.L2)
    values, starts = two_levels.train(matrix, 400, sample=400 * 6)
    assigned = two_levels.assign(matrix, values, starts)
    told: list[tuple[int, int]] = []
    even, places = two_levels.evened(matrix, values, starts, assigned, progress=lambda *done: told.append(done))
    assert [done for done, _ in told] == list(range(told[0][1]))
    before, after = (np.bincount(part, minlength=400) for part in (assigned, places))
    assert before.max() > clustering.LONGEST * before.mean()
    assert after.max() <= before.max()
    assert (after > 4 * after.mean()).sum() <= (before > 4 * before.mean()).sum()
    assert clustering.objective(matrix, even, places) <= 1.02 * clustering.objective(matrix, values, assigned)
    groups = [np.searchsorted(starts, part, side="right") for part in (assigned, places)]
    np.testing.assert_array_equal(*groups)  # rows move within their group


def test_no_list_is_much_longer_than_the_mean():
    vectors = oracles.clustered(40_000, 40, clusters=500)
    matrix = matrix_of(vectors, Metric.L2)
    values, starts = two_levels.train(matrix, 400)
    places = two_levels.evened(matrix, values, starts, two_levels.assign(matrix, values, starts))[1]
    sizes = np.bincount(places, minlength=400)
    assert sizes.min() > 0
    assert sizes.max() < 4 * sizes.mean()


def test_lists_of_usual_length_stay():
    matrix = matrix_of(oracles.clustered(6000, 40, clusters=400), Metric.L2)
    values, starts = two_levels.train(matrix, 120)
    assigned = (np.arange(6000) % 120).astype(np.int32)
    even, places = two_levels.evened(matrix, values, starts, assigned)
    np.testing.assert_array_equal(even, values)
    np.testing.assert_array_equal(places, assigned)


def test_training_tells_how_far_it_is_and_can_be_stopped():
    matrix = matrix_of(oracles.clustered(6000, 40), Metric.L2)
    calls = []
    two_levels.train(matrix, 150, threads=2, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) > clustering.ITERATIONS
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == max(total for _, total in calls)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_levels.train(matrix, 150, progress=stop)


# ---- searched -------------------------------------------------------------------------------------------------------
def index_of(metric, options, rows=8000, dim=64, kind=IvfIndex):
    both = oracles.clustered(rows + 60, dim, seed=3, clusters=300)
    vectors, queries = both[:rows].copy(), frozen(both[rows:].copy())
    return kind.build(matrix_of(vectors, metric), options), vectors, queries


@pytest.mark.parametrize(("kind", "options"), [(IvfIndex, IVF(nlist=900)), (IvfPqIndex, IVFPQ(nlist=900))])
def test_lists_are_ranked_by_groups(kind, options, metric):
    index, vectors, queries = index_of(metric, options, kind=kind)
    assert len(index.grouping.groups) - 1 > list_ranking.GROUPS_LEAST
    index.check()
    exact = oracles.nearest(metric, vectors, queries, K)[1]
    assert oracles.recall(index.search(queries, K)[1], exact) >= 0.95
    whole = index.search(queries, K, nprobe=900, rescore=1000)
    assert oracles.recall(whole[1], exact) == 1.0
    for nprobe in (60, SORTED_MAX - 1, SORTED_MAX + 1, 899):
        counters = np.zeros(4, np.int64)
        index.search(queries, 100, nprobe=nprobe, counters=counters)  # of as many, no search ends by patience
        assert counters[0] == nprobe * len(queries)


@pytest.mark.parametrize("passing", [3, 40])
def test_a_filter_goes_on_to_all_groups(metric, passing):
    index, vectors, queries = index_of(metric, IVF(nlist=900))
    mask = np.zeros(len(vectors), bool)
    mask[np.random.default_rng(passing).permutation(len(vectors))[:passing]] = True
    few, allow = min(K, passing), frozen(bitset.from_mask(mask))
    rows, distances = index.search(queries, K, nprobe=4, allow=allow)
    assert mask[rows[:, :few]].all()
    assert (rows[:, few:] == -1).all()
    assert all(len(set(found)) == few for found in rows[:, :few].tolist())
    exact = oracles.nearest(metric, vectors, queries, few, mask)[1]
    if passing > K:
        distances = index.search(queries, K, nprobe=900, rescore=1000, allow=allow)[1]
    assert oracles.recall(distances[:, :few], exact) == 1.0


def test_groups_are_stored_and_carried():
    index, vectors, queries = index_of(Metric.L2, IVF(nlist=900))
    arrays, parameters = index.arrays(), index.parameters()
    again = IvfIndex.from_arrays(index.matrix, index.options, arrays, parameters)
    for one, other in zip(index.search(queries, K), again.search(queries, K), strict=True):
        np.testing.assert_array_equal(one, other)
    more = matrix_of(np.concatenate([vectors, vectors[:500] + np.float32(0.01)]), Metric.L2)
    carried = index.carried(more, np.arange(len(vectors), dtype=np.int32))
    np.testing.assert_array_equal(carried.grouping.groups, index.grouping.groups)
    carried.check()
    wrong = arrays["groups"].copy()
    wrong[1] = wrong[2]
    with pytest.raises(ValueError, match="groups"):
        IvfIndex.from_arrays(index.matrix, index.options, {**arrays, "groups": frozen(wrong)}, parameters)
    few = IvfIndex.build(index.matrix, IVF(nlist=40))
    assert "groups" not in few.arrays()
    assert few.parameters()["groups"] == 1


def test_the_nearest_lists_are_ranked_whatever_groups_there_are():
    """By the estimates of all lists at once, which one group gives."""
    index, _, queries = index_of(Metric.L2, IVF(nlist=900))
    fixed = index._fixed
    codes, add, scale, starts, groups, *above = fixed[11:19]
    asked, dots, estimates = np.zeros(64, np.int8), np.empty(32, np.int32), np.empty(32, np.float32)
    chosen, near = np.empty(900, np.int64), np.empty(908, np.int64)
    missed = 0
    for query in queries:
        asked[:] = np.clip(np.rint(query / np.abs(query).max() * 127), -127, 127)
        unit, total = np.float32(np.abs(query).max() / 127), int(asked.sum())

        def rank(nprobe, taken, asked=asked, unit=unit, total=total):
            list_ranking.rank_lists(
                list_ranking.centre_bits(64), codes, add, scale, starts, groups, *above, asked, unit, total, nprobe,
                taken, near, chosen, dots, estimates,
            )  # fmt: skip
            return (near[:nprobe] & 0x7FFFFFFF).tolist()

        every = rank(900, 0)
        assert sorted(every) == list(range(900))
        first = rank(20, 0)
        assert sorted(first, key=every.index) == first
        missed += len(set(first) - set(every[:20]))
        assert rank(900, 20)[:20] == first
        assert sorted(rank(900, 20)) == list(range(900))
    assert missed <= 0.02 * 20 * len(queries)
