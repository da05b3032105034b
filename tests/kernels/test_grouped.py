"""The nearest centroid of the nearest groups, against plain NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen
from vecdb.index import grouped

SIZES = (1, 31, 32, 33, 7, 64, 5, 40, 12, 3, 20, 9)
STARTS = frozen(np.concatenate([[0], np.cumsum(SIZES)]).astype(np.int32))


def squared(rows, centroids):
    rows, centroids = rows.astype(np.float64), centroids.astype(np.float64)
    return ((rows[:, None] - centroids[None]) ** 2).sum(2)


def some_groups(dim, rows=3000):
    """Rows, and rows as centroids, the groups of which are runs of neighbours."""
    vectors = oracles.clustered(rows, dim, seed=dim) * np.float32(3) + np.float32(5)
    picked = vectors[np.random.default_rng(dim).permutation(rows)[: STARTS[-1]]]
    return frozen(vectors), frozen(picked[np.argsort(squared(picked, picked[:12]).argmin(1), kind="stable")])


def found(forms, rows, first=0, last=None):
    last = len(rows) if last is None else last
    assigned, distances = np.full(len(rows), -1, np.int32), np.full(len(rows), -1, np.float32)
    forms.nearest(rows, first, last, assigned, distances)
    return assigned, distances


@pytest.mark.parametrize("dim", [1, 7, 32, 33, 64, 384])
def test_the_nearest_of_all_groups(dim, monkeypatch):
    monkeypatch.setattr(grouped, "PROBES", len(SIZES))
    rows, centroids = some_groups(dim)
    assigned, distances = found(grouped.GroupedCentroids.of(centroids, STARTS), rows)
    exact = squared(rows, centroids)
    np.testing.assert_allclose(distances, exact[np.arange(len(rows)), assigned], rtol=1e-4, atol=1e-3)
    nearest = exact.min(1)
    assert (distances <= 1.0001 * nearest + 1e-3).mean() > 0.995  # of equally good lanes one counts
    np.testing.assert_allclose(distances, nearest, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("dim", [8, 64])
@pytest.mark.parametrize("probes", [1, 3])
def test_only_the_nearest_groups_count(dim, probes, monkeypatch):
    monkeypatch.setattr(grouped, "PROBES", probes)
    rows, centroids = some_groups(dim)
    forms = grouped.GroupedCentroids.of(centroids, STARTS)
    assigned, distances = found(forms, rows)
    group_of = np.repeat(np.arange(len(SIZES)), SIZES)
    middles = np.stack([centroids[a:b].mean(0) for a, b in pairwise(STARTS)])
    np.testing.assert_allclose(forms.middles, middles, rtol=1e-5, atol=1e-5)
    order = squared(rows, middles)
    allowed = order <= np.sort(order, 1)[:, probes - 1 : probes] * 1.02 + 1e-3  # groups are chosen by 8 bits
    exact = squared(rows, centroids)
    assert allowed[np.arange(len(rows)), group_of[assigned]].all()
    nearest = np.where(np.argsort(np.argsort(order, 1), 1)[:, group_of] < probes, exact, np.inf).min(1)
    np.testing.assert_allclose(distances, exact[np.arange(len(rows)), assigned], rtol=1e-4, atol=1e-3)
    assert (np.abs(distances - nearest) <= 1e-3 * nearest + 1e-3).mean() > 0.98


@pytest.mark.parametrize("dim", [8, 64])
def test_a_part_of_the_rows_and_the_first_of_equal_centroids(dim):
    rows, centroids = some_groups(dim)
    twice, starts = frozen(np.concatenate([centroids, centroids])), np.concatenate([STARTS, STARTS[1:] + STARTS[-1]])
    forms = grouped.GroupedCentroids.of(twice, starts.astype(np.int32))
    assigned, distances = found(forms, rows, 700, 2500)
    assert (assigned[:700] == -1).all()
    assert (assigned[2500:] == -1).all()
    assert (distances[2500:] == -1).all()
    assert (assigned[700:2500] < STARTS[-1]).all()
    whole, far = found(forms, rows)
    np.testing.assert_array_equal(whole[700:2500], assigned[700:2500])
    np.testing.assert_array_equal(far[700:2500], distances[700:2500])
