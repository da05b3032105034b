"""The graph: sound, whole, good with duplicates, bounded, and unharmed by interruption."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import DISTANCES, ESCALATED, RESCORED, VISITED
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels import bitset
from vecdb.kernels.graph import LAST_EPOCH
from vecdb.options import HNSW
from vecdb.types import Metric

K = 10


def build(vectors, metric=Metric.COSINE, options=None, **arguments):
    return HnswIndex.build(matrix_of(vectors, metric), options or HNSW(), **arguments)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_row_is_reachable_whatever_the_duplicates(metric, share, threads):
    vectors = oracles.clustered(2000, 32, duplicates=share)
    index = build(vectors, metric, HNSW(m=8, ef_construction=40), threads=threads)
    index.check()
    assert oracles.reached(index.graph).all()
    more = matrix_of(np.concatenate([vectors, vectors[:500]]), metric)
    grown = index.carried(more, np.arange(2000, dtype=np.int32), threads=threads)
    assert oracles.reached(grown.graph).all()


def test_all_rows_equal():
    vectors = np.ones((500, 32), np.float32)
    index = build(vectors)
    index.check()
    rows, distances = index.search(frozen(vectors[:1]), 500)
    assert sorted(rows[0].tolist()) == list(range(500))
    assert (distances == 0).all()


def test_zero_vectors_are_one_away_from_everything():
    vectors = oracles.clustered(800, 48)
    vectors[::2] = 0
    index = build(vectors)
    queries = frozen(np.concatenate([oracles.clustered(10, 48, seed=5), np.zeros((1, 48), np.float32)]))
    got = index.search(queries, K)
    assert oracles.recall(got[1], oracles.nearest(Metric.COSINE, vectors, queries, K)[1]) >= 0.99
    assert (got[1][-1] == 1).all()


def test_dot_products_of_rows_of_all_lengths():
    rng = np.random.default_rng(8)
    both = oracles.clustered(4050, 64) * rng.lognormal(0, 0.7, (4050, 1)).astype(np.float32)
    vectors, queries = both[:4000].copy(), frozen(both[4000:])
    index = build(vectors, Metric.DOT)
    exact = oracles.nearest(Metric.DOT, vectors, queries, K)[1]
    assert oracles.recall(index.search(queries, K)[1], exact) >= 0.95


def test_a_far_origin_does_not_blur_the_codes():
    both = oracles.clustered(3030, 32) + np.float32(500)
    vectors, queries = both[:3000].copy(), frozen(both[3000:])
    exact = oracles.nearest(Metric.L2, vectors, queries, K)[1]
    assert oracles.recall(build(vectors, Metric.L2).search(queries, K)[1], exact) >= 0.97


def test_wider_walks_find_more():
    both = oracles.clustered(4100, 100)
    vectors, queries = both[:4000].copy(), frozen(both[4000:])
    exact = oracles.nearest(Metric.COSINE, vectors, queries, K)[1]
    index = build(vectors, options=HNSW(m=6, ef_construction=30))
    found = [oracles.recall(index.search(queries, K, ef=ef)[1], exact) for ef in (10, 40, 400)]
    assert found[0] < found[1] <= found[2]
    assert found[2] >= 0.99


def test_a_walk_gives_up_at_its_budget():
    vectors = oracles.clustered(3000, 64)
    index = build(vectors)
    counters = np.zeros(4, np.int64)
    rows, _ = index.search(frozen(vectors[:5]), K, ef=1000, budget=200, counters=counters)
    assert counters[ESCALATED] == 5
    assert 5 * 200 <= counters[DISTANCES] < 5 * 300
    assert counters[VISITED] > 0
    assert (rows == -1).all()
    counters[:] = 0
    index.search(frozen(vectors[:5]), K, ef=50, budget=10**6, counters=counters)
    assert counters[ESCALATED] == 0


def test_rescore_says_how_many_rows_are_scored():
    vectors = oracles.clustered(2000, 64)
    index, counters = build(vectors), np.zeros(4, np.int64)
    index.search(frozen(vectors[:1]), K, rescore=37, counters=counters)
    assert counters[RESCORED] == 37


def test_marks_are_cleared_when_their_epochs_run_out():
    vectors = oracles.clustered(500, 32)
    index = build(vectors)
    queries = frozen(vectors[:3])
    wanted = index.search(queries, K)
    marks = index._visited[0]
    marks.epoch = LAST_EPOCH - 1
    marks.stamps[:] = LAST_EPOCH - 1
    for got, expected in zip(index.search(queries, K), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert marks.epoch == 2  # the last one, and two after the stamps were cleared


def test_a_filter_that_passes_few_gives_what_was_met():
    vectors = oracles.clustered(3000, 48)
    mask = np.zeros(3000, bool)
    mask[[5, 77, 1234]] = True
    rows, _ = build(vectors).search(frozen(vectors[:4]), K, allow=bitset.from_mask(mask), ef=3000)
    for found in rows:
        assert set(found[found >= 0].tolist()) == {5, 77, 1234}


DAMAGE = {
    "links": [(lambda a: a.__setitem__((3, 0), 10**6), "outside"), (lambda a: a.__setitem__((3, 0), 3), "to itself")],
    "upper": [(lambda a: a.__setitem__((0, 0), -7), "outside"), (lambda a: a.__setitem__((0, 0), -1), "gap")],
    "centre": [(lambda a: a.__setitem__(0, np.nan), "not a number")],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_does_no_harm(name):
    vectors = oracles.clustered(600, 48)
    index = build(vectors)
    for spoil, reason in DAMAGE[name]:
        arrays = {key: array.copy() for key, array in index.arrays().items()}
        spoil(arrays[name])
        opened = HnswIndex.from_arrays(index.matrix, index.options, arrays, index.parameters())
        with pytest.raises(ValueError, match=reason):
            opened.check()
        rows, _ = opened.search(frozen(vectors[:20]), K)
        assert ((rows >= -1) & (rows < 600)).all()


def test_a_wrong_entry_is_found():
    index = build(oracles.clustered(600, 48))
    low = int(np.argmin(index.graph.levels))
    parameters = {**index.parameters(), "entry": low}
    with pytest.raises(ValueError, match="highest level"):
        HnswIndex.from_arrays(index.matrix, index.options, index.arrays(), parameters).check()
    with pytest.raises(ValueError, match="out of range"):
        HnswIndex.from_arrays(index.matrix, index.options, index.arrays(), {**parameters, "entry": 600})
