"""The parts of the graph: pools, link lists, reachability."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import kernel_inputs
from vecdb.kernels import graph, graph_build, graph_links, row_codes
from vecdb.kernels.intrinsics import atomic_add, compare_and_swap, insert_sorted, store_release
from vecdb.kernels.jit import kernel
from vecdb.types import Metric

NONE = frozen(np.empty(0, np.int32))
NO_FLOATS = frozen(np.empty(0, np.float32))


def coded(rows, dim=64, seed=0):
    """(codes, bias, offsets, levels) of random rows, with two duplicates of row 0."""
    levels = np.random.default_rng(seed).integers(-60, 61, (rows, dim))
    levels[1:3] = levels[0]
    codes = (levels + 128).astype(np.uint8)
    bias = ((levels**2).sum(1) // 2).astype(np.int32)
    return frozen(codes), frozen(bias), frozen((128 * levels.sum(1)).astype(np.int32)), levels


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_sorted_pool_keeps_the_smallest(blocks):
    rng = np.random.default_rng(2)
    pool, given = np.full(8 * blocks, graph.NO_NODE), []
    for key in rng.integers(-40, 40, 90):
        given.append(int(key))
        if key < pool[-1]:
            put(pool, blocks, key)
        wanted = sorted(given)[: 8 * blocks]
        assert pool[: len(wanted)].tolist() == wanted
        assert (pool[len(wanted) :] == graph.NO_NODE).all()


@kernel
def put(pool, blocks, key):
    insert_sorted(pool, np.intp(blocks), np.int64(key))


def test_node_keys():
    estimates = np.array([-np.inf, -3e9, -0.5, 0.0, 1e-30, 0.25, 7.0, np.inf], np.float32)
    for row in (0, 3, 2**31 - 1):
        keys = [int(graph.node_key(estimate, row)) for estimate in estimates]
        assert keys == sorted(keys)
        assert {int(graph.node_row(key)) for key in keys} == {row}
        assert {int(graph.node_row(key | 1)) for key in keys} == {row}
    assert graph.node_key(np.float32(1.0), 4) < graph.node_key(np.float32(1.0), 5) < graph.NO_NODE


def test_diverse_links_and_one_of_each_duplicate():
    codes, bias, offsets, levels = coded(40)
    half = ((levels[:, None, :] - levels[None]) ** 2).sum(2) / 2
    node = 39
    order = np.argsort(half[node], kind="stable")
    keys = np.array([graph_links.length_key(round(half[node, row]), row) for row in order if row != node])
    chosen, lengths = np.empty(40, np.int32), np.empty(40, np.int32)
    kept = graph_links.select_diverse(
        codes, bias, NONE, offsets, keys, len(keys), 30, chosen, lengths, np.empty(64, np.int8), 1
    )
    wanted: list[int] = []
    for row in order[order != node]:
        if all(half[row, other] >= half[node, row] - 1 and half[row, other] > 0 for other in wanted):
            wanted.append(int(row))
    assert set(chosen[:kept].tolist()) <= set(range(39))
    assert len({0, 1, 2} & set(chosen[:kept].tolist())) <= 1
    assert abs(kept - len(wanted)) <= 2  # halved integer lengths may settle a tie the other way


def test_full_link_list_is_thinned_and_stays_sorted_out():
    codes, bias, offsets, _ = coded(60)
    width = 8
    links, lengths = np.full((60, width), -1, np.int32), np.zeros((60, width), np.int32)
    keys, signed = np.empty(width + 1, np.int64), np.empty(64, np.int8)
    other, other_lengths = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    graph_links.signed_row(codes, 5, signed)
    for row in [r for r in range(60) if r != 5] * 2:
        graph_links.signed_row(codes, 5, signed)
        length = graph_links.link_length(codes, bias, NONE, offsets, 5, signed, row, 1)
        graph_links.add_link(
            codes, bias, NONE, offsets, links, lengths, 5, np.int32(row), length, keys, other, other_lengths, signed, 1
        )
        held = links[5][links[5] >= 0]
        assert row in held or len(held) >= 1
        assert len(set(held.tolist())) == len(held)
        assert (links[5][len(held) :] == -1).all()
    assert (np.delete(links, 5, 0) == -1).all()


def test_every_row_becomes_reachable():
    rng = np.random.default_rng(4)
    links = np.full((200, 6), -1, np.int32)
    for row in range(100, 200):  # rows 100.. link into the others, nobody links to them
        links[row, :2] = rng.integers(0, 100, 2)
    for row in range(99):
        links[row, 0] = row + 1
    assert oracles.reachable(links, 0).sum() == 100
    graph_build.reach_rows(links, 0, frozen(np.ones(len(links), np.uint8)))
    assert oracles.reachable(links, 0).all()


def test_a_full_graph_of_islands_becomes_reachable():
    links = np.full((90, 4), -1, np.int32)
    for row in range(90):
        links[row] = [(row // 5) * 5 + (row + step) % 5 for step in range(1, 5)]
    rounds = 0
    while graph_build.reach_rows(links, 0, frozen(np.ones(len(links), np.uint8))):
        rounds += 1
    assert 1 <= rounds <= 3
    assert oracles.reachable(links, 0).all()


@kernel
def use_atomics(counter, flags):
    before = atomic_add(counter, np.intp(0), np.int64(5))
    taken = compare_and_swap(flags, np.intp(1), np.int32(0), np.int32(9))
    again = compare_and_swap(flags, np.intp(1), np.int32(0), np.int32(8))
    store_release(flags, np.intp(0), np.int32(3))
    return before, taken, again


def test_atomics():
    counter, flags = np.array([2], np.int64), np.zeros(2, np.int32)
    assert use_atomics(counter, flags) == (2, True, False)
    assert counter.tolist() == [7]
    assert flags.tolist() == [3, 9]


@pytest.mark.parametrize("level", [0, 1])
def test_a_damaged_graph_is_walked_within_its_arrays(level):
    vectors = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    records, factors = encoded(2, vectors)
    links = np.random.default_rng(1).integers(-(2**31), 2**31, (50, 8)).astype(np.int32)
    links[::2] %= 50
    first_upper = frozen(np.random.default_rng(2).integers(0, 10**6, 50))
    pool, query = np.full(24, graph.NO_NODE), np.zeros(row_codes.query_bytes(2, 64), np.int8)
    unit, shift = row_codes.encode_query(2, vectors[3], np.empty(64, np.int8), query)
    pool[0] = graph.node_key(np.float32(0), 4)
    graph.walk(
        2, records, factors, NO_FLOATS, np.float32(0), frozen(links), first_upper, level, query, unit, shift, 20, 24,
        15, 20, frozen(np.empty(0, np.uint64)), NONE, graph.NO_LIMIT, np.zeros(50, np.int32), np.int32(1), pool,
        np.empty(0, np.int64), np.empty(18, np.int32), np.empty(9, np.int64),
    )  # fmt: skip
    met = pool[:20][pool[:20] != graph.NO_NODE]
    assert 1 <= len(met) <= 20
    assert all(0 <= graph.node_row(key) < 50 for key in met)


def encoded(bits, vectors, metric=Metric.L2, centre=None):
    rows, dim = vectors.shape
    records = np.zeros((rows, row_codes.record_bytes(bits, dim)), np.uint8)
    factors = records.view(np.float32)
    centre = np.zeros(dim, np.float32) if centre is None else centre
    inputs = kernel_inputs(matrix_of(vectors, metric))
    row_codes.encode_records(bits, *inputs, frozen(centre), 0, rows, records, factors)
    return frozen(records), frozen(factors)
