"""The links of a carried graph, beside the same in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.conftest import frozen
from vecdb.kernels import graph_carry

NONE = frozen(np.empty(0, np.int32))
ROWS, WIDTH, DIM = 120, 8, 64


@pytest.fixture
def space():
    """(codes, bias, offsets, half of the squared distances) of random rows."""
    levels = np.random.default_rng(2).integers(-60, 61, (ROWS, DIM))
    half = ((levels[:, None, :] - levels[None]) ** 2).sum(2) // 2
    return (
        frozen((levels + 128).astype(np.uint8)),
        frozen(((levels**2).sum(1) // 2).astype(np.int32)),
        frozen((128 * levels.sum(1)).astype(np.int32)),
        half,
    )


def random_links(rng, rows, width):
    links = np.full((rows, width), -1, np.int32)
    for row in range(rows):
        others = rng.permutation(np.delete(np.arange(rows), row))[: rng.integers(1, width + 1)]
        links[row, : len(others)] = others
    return links


def expected_links(links, row, new_rows, half):
    """(what stays, what may be appended in this order) for one row, by new numbers."""
    held = [int(r) for r in links[row] if r >= 0]
    kept, passed = [new_rows[r] for r in held if new_rows[r] >= 0], [r for r in held if new_rows[r] < 0]
    met, found, at, direct = {row, *held}, [], 0, len(passed)
    while at < len(passed) and (at < direct or len(found) < graph_carry.CANDIDATES_ENOUGH):
        for other in (int(r) for r in links[passed[at]] if r >= 0):
            if other not in met:
                met.add(other)
                (found.append(new_rows[other]) if new_rows[other] >= 0 else passed.append(other))
        at += 1
    target = new_rows[row]
    for near in sorted(found, key=lambda r: (half[target, r], r)) if direct else []:
        if len(kept) < WIDTH and all(0 < half[near, b] >= half[target, near] for b in kept):
            kept.append(near)
    return kept


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_links_are_carried_past_the_lost(space, share):
    codes, bias, offsets, half = space
    rng = np.random.default_rng(int(share * 10))
    old_rows = ROWS + 40
    links = random_links(rng, old_rows, WIDTH)
    new_rows = np.full(old_rows, -1, np.int32)
    stay = rng.permutation(old_rows)[: round(ROWS * (1 - share))]
    new_rows[stay] = rng.permutation(ROWS)[: len(stay)]
    carried, weak = np.full((ROWS, WIDTH), -1, np.int32), np.zeros(ROWS, np.uint8)
    levels, no_upper, first_upper = np.zeros(old_rows, np.uint8), np.empty((0, 4), np.int32), np.zeros(old_rows, int)
    graph_carry.carry_links(
        frozen(links), frozen(no_upper), frozen(first_upper), frozen(levels), frozen(new_rows), codes, bias, NONE,
        offsets, carried, no_upper.copy(), frozen(np.zeros(ROWS, int)), weak, np.zeros(1, np.int64), old_rows,
        np.zeros(old_rows, np.int32), 0,
    )  # fmt: skip
    exact = 0
    for row in stay:
        target = new_rows[row]
        got = carried[target][carried[target] >= 0].tolist()
        wanted = expected_links(links, row, new_rows, half)
        stays = [new_rows[r] for r in links[row] if r >= 0 and new_rows[r] >= 0]
        assert got[: len(stays)] == stays
        assert target not in got
        assert len(set(got)) == len(got)
        assert weak[target] == (sum(r >= 0 for r in links[row]) > 2 * len(stays))
        exact += got == wanted
    assert exact >= 0.9 * len(stay)  # halved integer lengths may settle a tie the other way
    untouched = np.setdiff1d(np.arange(ROWS), new_rows)
    assert (carried[untouched] == -1).all()


def test_deep_losses_are_passed_until_there_are_candidates(space):
    """A row whose only neighbour starts a chain of lost rows is linked to the row behind the chain."""
    codes, bias, offsets, _ = space
    links = np.full((40, WIDTH), -1, np.int32)
    links[:39, 0] = np.arange(1, 40)
    new_rows = np.full(40, -1, np.int32)
    new_rows[[0, 39]] = [5, 9]
    carried, none = np.full((ROWS, WIDTH), -1, np.int32), np.empty((0, 4), np.int32)
    zeros = frozen(np.zeros(40, int))
    graph_carry.carry_links(
        frozen(links), frozen(none), zeros, frozen(np.zeros(40, np.uint8)), frozen(new_rows), codes, bias, NONE,
        offsets, carried, none.copy(), frozen(np.zeros(ROWS, int)), np.zeros(ROWS, np.uint8), np.zeros(1, np.int64), 40,
        np.zeros(40, np.int32), 0,
    )  # fmt: skip
    assert carried[5].tolist() == [9] + [-1] * (WIDTH - 1)
    assert (np.delete(carried, 5, 0) == -1).all()
