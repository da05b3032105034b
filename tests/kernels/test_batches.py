"""Products of four queries at once, and pools of which only what may be near is scored: the same as without."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import DIMS, frozen, matrix_of
from vecdb.index.base import RESCORED, load_kind
from vecdb.kernels import block_fours, bounded, quantize
from vecdb.kernels.jit import kernel
from vecdb.options import Flat
from vecdb.types import Metric

K = 10


@kernel
def products_of_four(bits, codes, queries, first, groups, out):
    for block in range(codes.shape[0]):
        block_fours.dot_four(bits, codes, block * codes.shape[1], queries, first, groups, out, 128 * block)


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("dim", DIMS)
def test_products_of_a_block_with_four(bits, dim):
    rng = np.random.default_rng(dim)
    levels = rng.integers(0, 1 << bits, (70, dim)).astype(np.uint8)
    codes = oracles.pack_blocks(levels, bits)
    assert codes.shape == (3, quantize.block_bytes(bits, dim))
    queries = np.zeros((6, codes.shape[1] // 128 * (32 // bits)), np.int8)
    queries[:, :dim] = rng.integers(-127, 128, (6, dim))
    out = np.empty(3 * 128, np.int32)
    products_of_four(bits, frozen(codes), queries, 1, codes.shape[1] // 128, out)
    found = out.reshape(3, 4, 32)
    for i in range(4):
        np.testing.assert_array_equal(
            found[:, i].reshape(-1)[:70], oracles.block_dots(levels, queries[1 + i, :dim]), str(i)
        )


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("number", [3, 4, 5, 8, 67, 130])
def test_a_batch_finds_what_each_query_finds(bits, number):
    vectors = oracles.clustered(3_000 + number, 200, seed=5).astype(np.float32)
    queries = frozen(vectors[3_000:].copy())
    index = load_kind("flat").build(matrix_of(vectors[:3_000].copy(), Metric.COSINE), Flat(bits=bits))
    allow = np.random.default_rng(1).integers(0, 2**63, 47).astype(np.uint64)
    allow[10:20] = 0  # blocks without an allowed row
    for allowed in (None, frozen(allow)):
        rows, distances = index.search(queries, K, allow=allowed)
        for i in range(number):
            alone = index.search(queries[i : i + 1], K, allow=allowed)
            np.testing.assert_array_equal(rows[i], alone[0][0])
            np.testing.assert_array_equal(distances[i], alone[1][0])


def hard(name: str) -> np.ndarray:
    rng = np.random.default_rng(8)
    vectors = oracles.clustered(4_000, 200, seed=6).astype(np.float32)
    if name == "norms":  # from a thousandth to a thousand
        vectors *= 10.0 ** rng.uniform(-3, 3, (4_000, 1)).astype(np.float32)
    elif name == "copies":
        vectors = vectors[rng.integers(0, 40, 4_000)]
    elif name == "equal":
        vectors[:] = vectors[0]
    elif name == "zeros":
        vectors[rng.random(4_000) < 0.5] = 0
    elif name == "far":  # two clusters, far apart
        vectors[2_000:] += 1_000
    return np.ascontiguousarray(vectors)


@pytest.mark.parametrize("name", ["plain", "norms", "copies", "equal", "zeros", "far"])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_bounded_pool_loses_nothing(metric, name, k):
    vectors = hard(name)
    queries = frozen(vectors[::80].copy())
    index = load_kind("flat").build(matrix_of(vectors, metric), Flat())
    counted, all_of_them = np.zeros(4, np.int64), np.zeros(4, np.int64)
    rows, distances = index.search(queries, k, counters=counted)
    whole = max(200, 4 * k)
    wanted = index.search(queries, k, rescore=whole, counters=all_of_them)
    assert all_of_them[RESCORED] == len(queries) * whole
    assert len(queries) * bounded.FIRST <= counted[RESCORED] <= all_of_them[RESCORED]
    np.testing.assert_array_equal(distances, wanted[1])
    np.testing.assert_array_equal(rows, wanted[0])


def test_most_of_a_pool_is_not_scored():
    vectors, counters = hard("plain"), np.zeros(4, np.int64)
    index = load_kind("flat").build(matrix_of(vectors, Metric.COSINE), Flat())
    index.search(frozen(vectors[::80].copy()), K, counters=counters)
    assert counters[RESCORED] < 50 * 200 * 0.6
