"""How a search of lists ends: by the lists it was given, or earlier, when nothing nearer turns up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import probing
from vecdb.index.base import VISITED
from vecdb.index.ivf import IvfIndex
from vecdb.index.probing import Probing, Setting
from vecdb.kernels import bitset
from vecdb.options import IVF
from vecdb.types import Metric

K, LISTS = 10, 60


@pytest.fixture(scope="module")
def made():
    """(vectors, queries, index)"""
    both = oracles.clustered(12_060, 48, seed=5)
    vectors = both[:12_000].copy()
    return vectors, frozen(both[12_000:].copy()), IvfIndex.build(matrix_of(vectors, Metric.L2), IVF(nlist=LISTS))


def lists_of(index, queries, **wish):
    counters = np.zeros(4, np.int64)
    index.search(queries, K, counters=counters, **wish)
    return int(counters[VISITED]) / len(queries)


def test_a_search_waits_for_the_rows_of_a_quarter_of_its_lists():
    assert probing.patience(Setting(40, 20), 100, 10_000.0) == 1_000
    assert probing.patience(Setting(80, 20), 100, 10_000.0) == 2_000


def test_a_search_of_few_lists_waits_for_four():
    assert {probing.patience(Setting(n, 20), 100, 10_000.0) for n in (1, 4, 8, 16)} == {400}


def test_rows_that_a_filter_hides_are_not_waited_for():
    assert probing.patience(Setting(40, 20), 100, 100.0) == 10
    assert probing.patience(Setting(40, 20), 100, 0.0) == 1


def test_all_lists_are_all_lists(made):
    vectors, queries, index = made
    assert probing.patience(Setting(LISTS, 20), LISTS, len(vectors)) == probing.NEVER
    assert lists_of(index, queries, nprobe=LISTS) == LISTS
    one_in_ten = frozen(bitset.from_mask(np.arange(len(vectors)) % 10 == 0))
    assert lists_of(index, queries, nprobe=LISTS, allow=one_in_ten) == LISTS


def test_a_search_that_meets_nothing_nearer_ends_early_and_misses_little(made):
    vectors, queries, index = made
    exact = oracles.nearest(Metric.L2, vectors, queries, K)[1]
    assert lists_of(index, queries, nprobe=LISTS - 10) < 0.8 * (LISTS - 10)
    assert oracles.recall(index.search(queries, K, nprobe=LISTS - 10)[1], exact) >= 0.99


def test_a_filter_that_lies_far_off_is_not_taken_for_the_end(made):
    """Rows that may not be returned say nothing about those that may."""
    vectors, queries, index = made
    distances = ((vectors[None] - queries[:1, None]) ** 2).sum(-1)[0]
    far = np.sort(np.argsort(distances)[-300:])
    mask = np.zeros(len(vectors), bool)
    mask[far] = True
    rows, _ = index.search(queries[:1], K, nprobe=8, allow=frozen(bitset.from_mask(mask)))
    assert len(set(rows[0].tolist()) & set(far.tolist())) == K


def test_curves_of_another_patience_are_not_believed(made):
    usual = Probing({10: 3.0, 100: 2.0}, math.inf, {})
    stored = made[2].measured.to_dict()
    assert probing.read(stored, usual).to_dict() == stored
    assert probing.read({**stored, "patience": [0.5, 4]}, usual) is usual
    assert probing.read({name: value for name, value in stored.items() if name != "patience"}, usual) is usual
