"""Goal: a graph that was carried over is whole, and as good as one built anew.

Method: rows go and come at random, by clusters, all at once; recall beside a fresh build of the same rows.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import graph_builder, graph_carrier
from vecdb.index.graph_carrier import with_successors
from vecdb.index.hnsw import HnswIndex
from vecdb.options import HNSW
from vecdb.types import Metric

K = 10
OPTIONS = HNSW(m=8, ef_construction=60)


def build(vectors, metric=Metric.COSINE, options=OPTIONS, **arguments):
    return HnswIndex.build(matrix_of(vectors, metric), options, **arguments)


def carry(index, keep, new, metric=Metric.COSINE, **arguments):
    """(the index over the kept rows and the new ones after them, the vectors of these)"""
    vectors = np.concatenate([index.matrix.vectors[keep], new]).astype(np.float32)
    new_rows = np.full(index.indexed_rows, -1, np.int32)
    new_rows[keep] = np.arange(len(keep), dtype=np.int32)
    return index.carried(matrix_of(vectors, metric), new_rows, **arguments), vectors


def assert_whole(index):
    index.check()
    assert oracles.reached(index.graph).all()
    links = index.graph.links
    for row in links:
        held = row[row >= 0]
        assert len(set(held.tolist())) == len(held)


def kept_of(rows, share, seed=0):
    return np.sort(np.random.default_rng(seed).permutation(rows)[: round(rows * (1 - share))])


@pytest.mark.parametrize("dim", [2, 64])
def test_deletions_and_new_rows_cost_no_recall(metric, dim):
    vectors = oracles.clustered(6600, dim, seed=1)
    queries, vectors = frozen(vectors[:400].copy()), vectors[400:]
    old, kept, new = build(vectors[:4600], metric), kept_of(4600, 0.15), vectors[4600:5980]
    index, now = carry(old, kept, new, metric)
    raced, _ = carry(old, kept, new, metric, threads=2)
    for one in (index, raced):
        assert_whole(one)
    exact = oracles.nearest(metric, now, queries, K)[1]
    fresh = build(now, metric)
    differences = []
    for ef in (24, 64) if dim > 2 else (64, 200):  # in two dimensions all the answers under dot are a few far rows
        wanted = oracles.recall(fresh.search(queries, K, ef=ef)[1], exact)
        assert oracles.recall(index.search(queries, K, ef=ef)[1], exact) >= wanted - 0.005
        differences.append(oracles.recall(raced.search(queries, K, ef=ef)[1], exact) - wanted)
    assert np.mean(differences) >= -0.005  # two threads do not give one graph, nor one recall


@pytest.mark.parametrize("share", [0.3, 0.49])
def test_many_deletions_cost_no_recall(share):
    vectors = oracles.clustered(4300, 64, seed=2)
    queries, vectors = frozen(vectors[:300].copy()), vectors[300:]
    index, now = carry(build(vectors), kept_of(4000, share), vectors[:0])
    assert_whole(index)
    exact = oracles.nearest(Metric.COSINE, now, queries, K)[1]
    wanted = oracles.recall(build(now).search(queries, K, ef=32)[1], exact)
    assert oracles.recall(index.search(queries, K, ef=32)[1], exact) >= wanted - 0.005


def test_a_region_that_goes_and_one_that_comes(metric):
    """Whole clusters go, so that the neighbours of the lost are lost too; the new ones are elsewhere."""
    rng = np.random.default_rng(3)
    centres = 1.5 * rng.standard_normal((30, 32))
    label = np.repeat(np.arange(30), 120)
    vectors = (centres[label] + rng.standard_normal((3600, 32))).astype(np.float32)
    queries = frozen((centres[label[1200::12]] + rng.standard_normal((200, 32))).astype(np.float32))
    index, now = carry(build(vectors[:2400], metric), np.arange(1200, 2400), vectors[2400:], metric)
    assert_whole(index)
    exact = oracles.nearest(metric, now, queries, K)[1]
    wanted = oracles.recall(build(now, metric).search(queries, K, ef=40)[1], exact)
    assert oracles.recall(index.search(queries, K, ef=40)[1], exact) >= wanted - 0.005


def test_many_generations_stay_as_good_as_a_fresh_build():
    vectors = oracles.clustered(8200, 48, seed=9, clusters=200)
    queries, vectors = frozen(vectors[:200].copy()), vectors[200:]
    index = build(vectors[:2000])
    for first in range(500, 6001, 500):
        index, now = carry(index, np.arange(500, 2000), vectors[first + 1500 : first + 2000])
    assert_whole(index)
    np.testing.assert_array_equal(now, vectors[6000:8000])
    exact = oracles.nearest(Metric.COSINE, now, queries, K)[1]
    wanted = oracles.recall(build(now).search(queries, K, ef=32)[1], exact)
    assert oracles.recall(index.search(queries, K, ef=32)[1], exact) >= wanted - 0.01


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("threads", [1, 3])
def test_duplicates_stay_reachable(metric, share, threads):
    vectors = oracles.clustered(1500, 32, duplicates=share)
    index, now = carry(build(vectors, metric), kept_of(1500, 0.3), vectors[:400], metric, threads=threads)
    assert_whole(index)
    rows, _ = index.search(frozen(now[::200]), K, ef=200)
    assert (rows >= 0).all()


def test_nothing_is_gone_and_nothing_new():
    vectors = oracles.clustered(800, 48)
    old = build(vectors)
    index, _ = carry(old, np.arange(800), vectors[:0])
    for name, array in old.arrays().items():
        np.testing.assert_array_equal(index.arrays()[name], array)
    assert index.graph.entry == old.graph.entry


def test_everything_is_gone():
    vectors = oracles.clustered(800, 48)
    index, now = carry(build(vectors[:400]), np.arange(0), vectors[400:])
    assert_whole(index)
    assert index.search(frozen(now[:1]), K)[0][0, 0] == 0
    nothing, _ = carry(build(vectors[:400]), np.arange(0), vectors[:0])
    assert nothing.indexed_rows == 0
    assert (nothing.search(frozen(now[:1]), K)[0] == -1).all()


def test_the_entry_is_gone():
    vectors = oracles.clustered(1200, 48)
    old = build(vectors)
    top = old.graph.top
    for _ in range(3):  # until the highest level has nobody left
        keep = np.flatnonzero(old.graph.levels < old.graph.top)
        old, vectors = carry(old, keep, vectors[:0])
        assert_whole(old)
    assert old.graph.top < top
    grown, now = carry(old, np.arange(old.indexed_rows), oracles.clustered(300, 48, seed=4))
    assert_whole(grown)
    assert (grown.search(frozen(now[::100]), 1)[1] <= 1).all()


def test_a_graph_that_outgrows_its_levels_is_built_anew(monkeypatch):
    monkeypatch.setattr(graph_carrier, "TOP_NODES_MAX", 4)
    vectors = oracles.clustered(40, 24, duplicates=0)
    old = next(index for seed in range(99) if (index := build(vectors[:30], seed=seed)).graph.top == 1)
    for size, carried in ((32, True), (40, False)):  # 4 * 8 is the most under level 1
        index, _ = carry(old, np.arange(30), vectors[30:size])
        assert_whole(index)
        anew = build(vectors[:size], seed=old.seed + 1).graph
        assert np.array_equal(index.graph.links, anew.links) == (not carried)
        assert np.array_equal(index.graph.levels[:30], old.graph.levels) == carried


def test_one_thread_gives_one_graph():
    vectors = oracles.clustered(1500, 48)
    first, second = (carry(build(vectors[:1000]), kept_of(1000, 0.2), vectors[1000:])[0] for _ in range(2))
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])


def test_progress_may_stop_it():
    vectors = oracles.clustered(1500, 48)
    old, calls = build(vectors[:1000]), []

    def stop(done, total):
        calls.append((done, total))
        if len(calls) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        carry(old, kept_of(1000, 0.2), vectors[1000:], progress=stop)
    assert all(0 <= done <= total for done, total in calls)


# ---- rows that come back --------------------------------------------------------------------------------------------
def test_rows_that_come_back_keep_their_places_without_a_search(metric, monkeypatch):
    """Half of the rows move to the end, and are said to be gone: no row is inserted, and no neighbour lost."""
    vectors = oracles.clustered(1000, 48, duplicates=0.2)
    old, inserted = build(vectors, metric), []
    monkeypatch.setattr(graph_builder, "insert", lambda *given: inserted.append(given))
    moved = np.r_[np.arange(500, 1000), np.arange(500)]
    index, now = carry(old, np.arange(500, 1000), vectors[:500], metric)
    assert not inserted
    assert_whole(index)
    queries = frozen(vectors[::50].copy())
    np.testing.assert_array_equal(now, vectors[moved])
    np.testing.assert_array_equal(index.search(queries, K)[1], old.search(queries, K)[1])


@pytest.mark.parametrize(("dim", "dtype"), [(24, "float32"), (24, "float16"), (25, "float16")])
def test_successors_hold_the_same_vector_and_are_used_once(dim, dtype):
    vectors = oracles.clustered(400, dim, duplicates=0.6).astype(dtype)
    rng = np.random.default_rng(5)
    after = vectors[rng.integers(0, 400, 500)]
    after[:50] = vectors[:50]
    given = np.full(400, -1, np.int32)
    given[:50] = np.arange(50)
    everyone = np.arange(400)
    found = with_successors(matrix_of(vectors, Metric.L2), matrix_of(after, Metric.L2), given, everyone)
    np.testing.assert_array_equal(found[:50], given[:50])
    held = np.flatnonzero(found >= 0)
    np.testing.assert_array_equal(after[found[held]], vectors[held])
    assert len(set(found[held].tolist())) == len(held)
    for row in np.flatnonzero(found < 0):  # all that have its vector are taken
        same = np.flatnonzero((after == vectors[row]).all(1))
        assert set(same.tolist()) <= set(found[held].tolist())


def test_a_twin_that_stays_takes_the_place_of_its_node(metric, monkeypatch):
    """Of each vector the node goes, and a twin, in another place, becomes the node: nobody is inserted."""
    vectors = oracles.clustered(400, 32, duplicates=0)
    old, inserted = build(np.concatenate([vectors, vectors[200:], vectors[200:]]), metric), []
    monkeypatch.setattr(graph_builder, "insert", lambda *given: inserted.append(given))
    keep = np.flatnonzero(old.graph.nodes() == 0)
    index, now = carry(old, np.r_[np.arange(200), keep[::-1]], vectors[:0], metric)
    assert not inserted
    assert_whole(index)
    assert index.graph.nodes().sum() == len(np.unique(now, axis=0)) == len(np.unique(vectors, axis=0))


def test_graphs_of_few_nodes_and_many_twins_are_carried(monkeypatch):
    vectors = np.repeat(oracles.clustered(120, 32, duplicates=0), 20, axis=0)
    old, built = build(vectors[:2000]), []
    monkeypatch.setattr(HnswIndex, "build", lambda *given, **more: built.append(given))
    index, _ = carry(old, kept_of(2000, 0.3), vectors[2000:])
    assert not built
    assert_whole(index)


def test_other_vectors_are_no_successors():
    vectors = oracles.clustered(100, 8, duplicates=0)
    after = vectors.copy()
    after[:, 3] = np.nextafter(after[:, 3], np.float32(9))
    given = np.full(100, -1, np.int32)
    found = with_successors(matrix_of(vectors, Metric.L2), matrix_of(after, Metric.L2), given, np.arange(100))
    assert (found == -1).all()


def test_a_damaged_graph_is_carried_within_its_arrays():
    vectors = oracles.clustered(600, 48)
    index = build(vectors)
    rng = np.random.default_rng(6)
    arrays = {name: array.copy() for name, array in index.arrays().items()}
    for name in ("links", "upper"):
        places = rng.random(arrays[name].shape) < 0.3
        arrays[name][places] = rng.integers(-(2**31), 2**31, places.sum())
        arrays[name][0, 0] = 599
    damaged = HnswIndex.from_arrays(index.matrix, OPTIONS, arrays, index.parameters())
    carried, _ = carry(damaged, kept_of(600, 0.1), vectors[:50])
    assert_whole(carried)
