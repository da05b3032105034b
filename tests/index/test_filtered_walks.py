"""Walks under a filter: they widen until the k nearest allowed are known, and give up when that is hopeless."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import calibration
from vecdb.index.base import DISTANCES, ESCALATED, VISITED, load_kind
from vecdb.index.hnsw import HnswIndex
from vecdb.kernels import bitset
from vecdb.options import HNSW
from vecdb.types import Metric

ROWS, K, PLENTY = 12_000, 10, 10**6


@pytest.fixture(scope="module")
def made() -> tuple[HnswIndex, np.ndarray, np.ndarray]:
    """A graph, its vectors, and queries."""
    both = oracles.clustered(ROWS + 60, 32, seed=8).astype(np.float32)
    vectors, queries = both[:ROWS].copy(), frozen(both[ROWS:].copy())
    return load_kind("hnsw").build(matrix_of(vectors, Metric.L2), HNSW(), seed=1), vectors, queries


def walks(made, mask, *, ef=None, budget=PLENTY, k=K):
    """(rows, distances, counters) of walks under a filter; ef as an engine picks it."""
    index, _, queries = made
    counters = np.zeros(4, np.int64)
    ef = index.effort(k, None, float(mask.mean())) if ef is None else ef
    found = index.search(queries, k, allow=bitset.from_mask(mask), ef=ef, budget=budget, counters=counters)
    return *found, counters


def exact(made, mask, k=K):
    _, vectors, queries = made
    return oracles.nearest(Metric.L2, vectors, queries, k, mask)[1]


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.05])
@pytest.mark.parametrize("k", [1, K, 40])
def test_filters_at_random(made, share, k):
    mask = np.random.default_rng(3).random(ROWS) < share
    rows, distances, counters = walks(made, mask, k=k)
    given_up = rows[:, 0] < 0
    assert counters[ESCALATED] == given_up.sum() <= 6
    assert (rows[~given_up] >= 0).all()
    assert mask[rows[~given_up]].all()
    assert oracles.recall(distances[~given_up], exact(made, mask, k)[~given_up]) >= 0.97


def test_far_filters_are_given_up_before_they_cost_much(made):
    """The rows that are farthest from every query: a walk of fixed width returns what is not the nearest."""
    _, vectors, queries = made
    mask = half_space(vectors, queries, far=True)
    rows, _, counters = walks(made, mask)
    fixed = walks(made, mask, budget=None)
    assert counters[ESCALATED] >= 0.9 * len(queries)
    assert (rows[:, 0] < 0).sum() == counters[ESCALATED]
    assert counters[DISTANCES] < fixed[2][DISTANCES]


def half_space(vectors, queries, far):
    """A fifth of the rows, by their place along the line through the middles of the queries and of the rows."""
    along = vectors @ (queries.mean(0) - vectors.mean(0))
    return along < np.quantile(along, 0.2) if far else along > np.quantile(along, 0.8)


def test_near_filters_end_early(made):
    index, vectors, _ = made
    middle = vectors[77]
    distance = ((vectors - middle) ** 2).sum(1)
    mask = distance <= np.quantile(distance, 0.1)
    near = index, vectors, frozen(vectors[np.argsort(distance)[:40]] + np.float32(0.01))
    rows, distances, counters = walks(near, mask)
    fixed = walks(near, mask, budget=None)
    assert counters[ESCALATED] <= 4
    assert counters[VISITED] < 0.6 * fixed[2][VISITED]
    kept = rows[:, 0] >= 0
    assert oracles.recall(distances[kept], exact(near, mask)[kept]) >= 0.97


def test_a_budget_bounds_every_step(made):
    mask = np.random.default_rng(4).random(ROWS) < 0.05
    rows, _, counters = walks(made, mask, budget=120)
    assert counters[ESCALATED] == len(rows)
    assert (rows == -1).all()
    assert counters[DISTANCES] < len(rows) * 200


def test_fewer_matches_than_k_are_left_to_others(made):
    mask = np.zeros(ROWS, bool)
    mask[[5, 900, 7_000]] = True
    rows, _, counters = walks(made, mask)
    assert counters[ESCALATED] == len(rows)
    assert (rows == -1).all()


def test_an_ef_without_a_budget_is_used_as_given(made):
    mask = np.random.default_rng(4).random(ROWS) < 0.05
    narrow, wide = (walks(made, mask, ef=ef, budget=None)[2][VISITED] for ef in (20, 200))
    assert narrow < 0.3 * wide


@pytest.mark.parametrize("share", [1.0, 0.4, 0.03])
def test_steps_rise_to_what_the_share_needs(share):
    curves = {10: ((10, 0.7), (40, 0.95), (160, 0.99)), 100: ((100, 0.8), (400, 0.96))}
    ef = round(160 * calibration.further(curves, K, round(K / share)))
    steps = calibration.steps(curves, K, ef, share, 2.0, 10**6)
    sizes, widths = steps[:, 0], steps[:, 1]
    assert (np.diff(sizes) >= 0).all()
    assert (np.diff(widths) >= 0).all()
    assert (sizes[0], sizes[-1]) == (K, np.ceil(2 * K / share))
    assert (widths >= sizes).all()
    assert widths[0] == pytest.approx(160, abs=2)
    assert widths[-1] > ef
    assert calibration.steps(curves, K, ef, share, 2.0, 15)[-1, 0] == 15


def test_how_far_walks_must_go_is_not_what_codes_miss():
    """A curve that stops below the wish, for its codes are coarse, asks for no wider walks than one that does not."""
    near = (10, 0.7), (40, 0.95), (160, 0.992)
    fine = {10: near, 100: ((100, 0.8), (200, 0.985), (400, 0.996))}
    coarse = {10: near, 100: ((100, 0.77), (200, 0.95), (400, 0.96), (800, 0.961))}
    assert calibration.effort(coarse, 100, 0.99) > 4 * calibration.effort(fine, 100, 0.99)
    assert calibration.further(coarse, 10, 100) < 1.5 * calibration.further(fine, 10, 100)
    assert calibration.further(fine, 10, 10) == 1.0
    assert calibration.further(fine, 10, 1_000) > calibration.further(fine, 10, 100)
    assert calibration.reach({}, 50_000, 0.99) >= 50_000
