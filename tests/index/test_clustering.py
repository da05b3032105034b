"""k-means: good, balanced, repeatable, and sound on data that has no clusters to find."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.index.clusters import assign, train
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import clustering, samples
from vecdb.types import Metric


def space(vectors, metric):
    rows = vectors.astype(np.float64)
    return rows * oracles.inverse_norms(vectors)[:, None] if metric == Metric.COSINE else rows


def lloyd(rows, count, iterations, seed):
    """Plain k-means from evenly drawn rows; the mean squared distance that it reaches."""
    centroids = rows[np.random.default_rng(seed).permutation(len(rows))[:count]].copy()
    for _ in range(iterations + 1):
        exact = ((rows**2).sum(1)[:, None] - 2 * rows @ centroids.T) + (centroids**2).sum(1)
        assigned, reached = exact.argmin(1), exact.min(1).mean()
        for at in range(count):
            if (assigned == at).any():
                centroids[at] = rows[assigned == at].mean(0)
    return reached


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [8, 100])
def test_as_good_as_plain_k_means(metric, dim, dtype):
    vectors = oracles.clustered(4000, dim, seed=dim, clusters=300).astype(dtype)
    matrix = matrix_of(vectors, metric)
    centroids = train(matrix, 40, seed=1, sample=4000)
    assert (centroids.dtype, centroids.shape) == (np.float32, (40, dim))
    assigned = assign(matrix, centroids)
    rows = space(vectors, metric)
    exact = ((rows[:, None] - centroids.astype(np.float64)) ** 2).sum(2)
    np.testing.assert_allclose(exact[np.arange(4000), assigned], exact.min(1), rtol=1e-4, atol=1e-5)
    reached = clustering.objective(matrix, centroids, assigned)
    assert reached == pytest.approx(exact.min(1).mean(), rel=1e-4)
    assert reached <= 1.03 * np.median([lloyd(rows, 40, 10, seed) for seed in range(3)])


@pytest.mark.parametrize("dim", [8, 100])
def test_one_seed_gives_one_result_whatever_the_threads(dim):
    matrix = matrix_of(oracles.clustered(3000, dim), Metric.L2)
    first = train(matrix, 30, seed=5)
    np.testing.assert_array_equal(first, train(matrix, 30, seed=5, threads=3))
    assert not np.array_equal(first, train(matrix, 30, seed=6))
    alone = assign(matrix, first)
    np.testing.assert_array_equal(alone, assign(matrix, first, threads=3))


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_list_is_much_longer_than_the_mean(share):
    """A dense spot would be one long list, and far rows many short ones."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20_000, 40)).astype(np.float32)
    vectors[: int(share * 20_000)] *= np.float32(0.05)
    vectors[-50:] *= np.float32(20)
    matrix = matrix_of(vectors, Metric.L2)
    sizes = np.bincount(assign(matrix, train(matrix, 100)), minlength=100)
    assert sizes.max() < 4 * sizes.mean()


def test_a_sample_is_spread_over_the_rows():
    rng = np.random.default_rng(0)
    picked = samples.spread(10_007, 100, rng)
    assert len(picked) == 100
    assert (np.abs(picked - (np.arange(100) + 0.5) * 100.07) <= 51).all()
    np.testing.assert_array_equal(samples.spread(10, 10, rng), np.arange(10))
    np.testing.assert_array_equal(samples.spread(0, 10, rng), np.arange(0))


@pytest.mark.parametrize("dim", [4, 64])
@pytest.mark.parametrize("distinct", [1, 3, 40])
def test_fewer_different_rows_than_centroids(metric, dim, distinct):
    """Every row finds a centroid at no distance; a zero vector is one of the rows."""
    rng = np.random.default_rng(distinct)
    some = rng.standard_normal((distinct, dim)).astype(np.float32)
    some[0] = 0
    vectors = some[rng.integers(0, distinct, 500)]
    matrix = matrix_of(vectors, metric)
    centroids = train(matrix, 64)
    assert np.isfinite(centroids).all()
    assigned = assign(matrix, centroids)
    assert clustering.objective(matrix, centroids, assigned) < 1e-10
    assert len(np.unique(assigned)) == len(np.unique(vectors, axis=0))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_fewer_rows_than_centroids(rows):
    matrix = matrix_of(oracles.clustered(rows, 48), Metric.COSINE)
    centroids = train(matrix, 8)
    assert centroids.shape == (8, 48)
    assigned = assign(matrix, centroids)
    assert assigned.shape == (rows,)
    assert clustering.objective(matrix, centroids, assigned) < 1e-10


def test_rows_that_differ_by_almost_nothing():
    vectors = np.full((300, 40), 7, np.float32)
    vectors[:150, 0] = np.nextafter(np.float32(7), np.float32(8))
    matrix = matrix_of(vectors, Metric.L2)
    centroids = train(matrix, 16)
    assert np.isfinite(centroids).all()
    assert clustering.objective(matrix, centroids, assign(matrix, centroids)) < 1e-6


def test_no_list_is_empty_when_there_are_enough_rows():
    """Most rows are copies, so most seeds would be."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((4000, 40)).astype(np.float32)
    vectors[1000:] = vectors[rng.integers(0, 5, 3000)]
    matrix = matrix_of(vectors, Metric.L2)
    sizes = np.bincount(assign(matrix, train(matrix, 64, sample=4000)), minlength=64)
    assert sizes.min() > 0


class Stop(Exception):
    pass


def test_progress_is_told_and_may_stop():
    matrix = matrix_of(oracles.clustered(3000, 64), Metric.L2)
    calls = []

    def note(done, total):
        calls.append((done, total))

    centroids = train(matrix, 50, threads=2, progress=note)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > clustering.ITERATIONS
    calls.clear()
    assign(matrix, centroids, progress=note)
    assert calls[-1] == (3000, 3000)

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        train(matrix, 50, progress=stop)
    with pytest.raises(Stop):
        assign(matrix, frozen(centroids), threads=2, progress=stop)
