"""The nearest centroid of every row, and sums of the rows of each, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import kernel_inputs
from vecdb.index.clustering import Centroids
from vecdb.kernels import kmeans
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.jit import kernel
from vecdb.kernels.quantize import block_bytes
from vecdb.types import Metric


@kernel
def tile(blocks, add, scale, levels, first, shifts, units, best, which):
    kmeans.nearest_tile(blocks, add, scale, levels, np.intp(first), shifts, units, best, which)


def squared(rows, centroids):
    rows, centroids = rows.astype(np.float64), centroids.astype(np.float64)
    return ((rows[:, None] - centroids[None]) ** 2).sum(2)


@pytest.mark.parametrize("dim", [1, 33, 100])
def test_the_least_estimate_of_every_lane(dim):
    rng = np.random.default_rng(dim)
    centroids = rng.standard_normal((70, dim)).astype(np.float32)
    blocks = np.empty((3, block_bytes(8, dim)), np.uint8)
    add, scale = np.empty(96, np.float32), np.empty(96, np.float32)
    kmeans.pack_centroids(frozen(centroids), frozen(np.zeros(dim, np.float32)), blocks, add, scale)
    levels = np.zeros((2 * kmeans.TILE, blocks.shape[1] // BLOCK), np.int8)
    levels[:, :dim] = rng.integers(-127, 128, (2 * kmeans.TILE, dim))
    shifts = 128 * levels.sum(1, dtype=np.int32)
    units = rng.random(2 * kmeans.TILE, np.float32)
    best, which = np.empty((kmeans.TILE, BLOCK), np.float32), np.empty((kmeans.TILE, BLOCK), np.int32)
    tile(frozen(blocks), frozen(add), frozen(scale), levels, kmeans.TILE, shifts, units, best, which)
    codes = blocks.reshape(3, -1, BLOCK, 4).transpose(0, 2, 1, 3).reshape(96, -1).astype(np.int64) - 128
    asked = levels[kmeans.TILE :].astype(np.int64)
    wanted = (asked @ codes.T * units[kmeans.TILE :, None] * scale + add).reshape(kmeans.TILE, 3, BLOCK)
    np.testing.assert_allclose(best, wanted.min(1), rtol=1e-4, atol=1e-3)
    picked = np.take_along_axis(wanted, which[:, None], 1)[:, 0]
    np.testing.assert_allclose(picked, wanted.min(1), rtol=1e-4, atol=1e-3)
    assert np.isinf(add[70:]).all()  # padding is nearer to nothing
    np.testing.assert_allclose(codes[:70, :dim] * (scale[:70, None] / -2), centroids, atol=0.02)


@pytest.mark.parametrize("dim", [1, 7, 32, 33, 64, 384])
@pytest.mark.parametrize("count", [1, 31, 200])
def test_the_nearest_centroid(dim, count):
    rows = oracles.clustered(333, dim, seed=dim) * np.float32(3) + np.float32(5)
    centroids = frozen(rows[np.random.default_rng(count).permutation(333)[:count]].copy())
    assigned, distances = np.full(333, -1, np.int32), np.full(333, -1, np.float32)
    forms = Centroids.of(centroids)
    forms.nearest(rows, 0, 130, assigned, distances)
    assert (assigned[130:] == -1).all()
    forms.nearest(rows, 130, 333, assigned, distances)
    exact = squared(rows, centroids)
    np.testing.assert_allclose(distances, exact.min(1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(exact[np.arange(333), assigned], exact.min(1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dim", [3, 64])
def test_the_first_of_equal_centroids(dim):
    rows = oracles.clustered(100, dim)
    centroids = frozen(np.concatenate([rows[:40], rows[:40]]))
    assigned, distances = np.empty(100, np.int32), np.empty(100, np.float32)
    Centroids.of(centroids).nearest(rows, 0, 100, assigned, distances)
    assert (assigned < 40).all()
    assert (distances[:40] == 0).all()


@pytest.mark.parametrize("dim", [4, 64])
def test_values_that_overflow_give_some_centroid(dim):
    rows = np.full((20, dim), 3e38, np.float32)
    rows[::2] *= -1
    assigned, distances = np.full(20, -1, np.int32), np.empty(20, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        Centroids.of(frozen(rows[:5].copy())).nearest(rows, 0, 20, assigned, distances)
    assert ((assigned >= 0) & (assigned < 5)).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_as_lists_are_searched(metric, dtype):
    vectors = oracles.clustered(50, 20).astype(dtype)
    matrix = matrix_of(vectors, metric)
    rows = np.array([3, 3, 49, 0], np.int32)
    out = np.empty((4, 20), np.float32)
    kmeans.load_rows(*kernel_inputs(matrix), frozen(rows), out)
    wanted = vectors[rows].astype(np.float32)
    if metric == Metric.COSINE:
        wanted *= matrix.inverse_norms[rows, None]
    np.testing.assert_array_equal(out, wanted)


def test_sums_of_members():
    rng = np.random.default_rng(0)
    rows, assigned = rng.standard_normal((500, 13)).astype(np.float32), rng.integers(0, 7, 500).astype(np.int32)
    sums = np.zeros((8, 13))
    for first, last in ((0, 5), (5, 5), (5, 13)):
        kmeans.add_members(frozen(rows), frozen(assigned), first, last, sums)
    wanted = np.stack([rows[assigned == at].sum(0, dtype=np.float64) for at in range(8)])
    np.testing.assert_allclose(sums, wanted, rtol=1e-12)
