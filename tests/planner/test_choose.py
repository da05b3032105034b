"""The planner's choices as tables, and their sense at every size."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.planner.choose import GRAPH_SHARE_MIN, GRAPH_SHARE_MIN_GIVEN, choose
from vecdb.planner.cost import Costs, Line
from vecdb.planner.estimate import expected, filled_blocks, live
from vecdb.types import Arm, Estimate, Plan, Traits

SIZES = (1_000, 5_000, 20_000, 62_436, 117_000, 1_000_000)
SHARES = (1.0, 0.6, 0.49, 0.31, 0.29, 0.1, 0.044, 0.026, 0.0066, 0.0031, 0.0001)


def flat(rows: int, dim: int = 384, bits: int = 2) -> Traits:
    return Traits("flat", rows, dim, bits, masked=True, graph=False)


def hnsw(rows: int, dim: int = 384) -> Traits:
    return Traits("hnsw", rows, dim, 8, masked=False, graph=True)


def coded(rows: int, dim: int = 384) -> Traits:
    """A graph whose codes serve chosen rows."""
    return replace(hnsw(rows, dim), code_bits=2, gathers=True)


def ivf(rows: int, lists: int = 512, dim: int = 384) -> Traits:
    return Traits("ivf", rows, dim, 2, masked=True, graph=False, lists=lists)


def plan(
    rows: int, share: float, *, k: int = 10, graph: bool = True, ef: int | None = None, bounded: bool = True
) -> Plan:
    """With the ef of a graph over text embeddings, unless given: 40 for k = 10, more the fewer rows match."""
    traits = [flat(rows), hnsw(rows)] if graph else [flat(rows)]
    matching = round(rows * share)
    ef = round(40 * max(share, 1e-4) ** -0.75) if ef is None else ef
    return choose(Estimate(matching, matching), traits, rows, 0, 384, k, ef=ef, bounded=bounded)


TABLE = [
    # rows, share, with a graph, with codes alone
    (1_000, 1.0, Arm.SCAN, Arm.SCAN),
    (1_000, 0.05, Arm.EXACT, Arm.EXACT),
    (62_436, 1.0, Arm.GRAPH, Arm.SCAN),
    (62_436, 0.49, Arm.GRAPH, Arm.SCAN),
    (62_436, 0.088, Arm.GRAPH, Arm.SCAN),
    (62_436, 0.044, Arm.SCAN, Arm.SCAN),
    (62_436, 0.026, Arm.EXACT, Arm.EXACT),
    (62_436, 0.0031, Arm.EXACT, Arm.EXACT),
    (117_000, 0.49, Arm.GRAPH, Arm.SCAN),
    (117_000, 0.29, Arm.GRAPH, Arm.SCAN),
    (117_000, 0.1, Arm.GRAPH, Arm.SCAN),
    (117_000, 0.01, Arm.EXACT, Arm.EXACT),
    (1_000_000, 1.0, Arm.GRAPH, Arm.SCAN),
    (1_000_000, 0.31, Arm.GRAPH, Arm.SCAN),
    (1_000_000, 0.1, Arm.GRAPH, Arm.SCAN),
    (1_000_000, 0.03, Arm.GRAPH, Arm.EXACT),
    (1_000_000, 0.015, Arm.EXACT, Arm.EXACT),
    (1_000_000, 0.003, Arm.EXACT, Arm.EXACT),
    (1_000_000, 0.0, Arm.NONE, Arm.NONE),
]


@pytest.mark.parametrize(("rows", "share", "with_graph", "with_codes"), TABLE)
def test_table(rows: int, share: float, with_graph: Arm, with_codes: Arm) -> None:
    assert plan(rows, share).arm == with_graph
    assert plan(rows, share, graph=False).arm == with_codes


GATHER_TABLE = [
    # rows, share, with a graph whose codes serve chosen rows
    (62_436, 1.0, Arm.GRAPH),
    (62_436, 0.49, Arm.GRAPH),
    (62_436, 0.044, Arm.GATHER),
    (62_436, 0.026, Arm.GATHER),
    (62_436, 0.0031, Arm.GATHER),
    (62_436, 0.0003, Arm.GATHER),
    (1_000_000, 0.31, Arm.GRAPH),
    (1_000_000, 0.003, Arm.GATHER),
    (1_000_000, 0.0, Arm.NONE),
]


@pytest.mark.parametrize(("rows", "share", "arm"), GATHER_TABLE)
def test_codes_of_chosen_rows(rows: int, share: float, arm: Arm) -> None:
    matching = round(rows * share)
    ef = round(40 * max(share, 1e-4) ** -0.75)
    chosen = choose(Estimate(matching, matching), [flat(rows), coded(rows)], rows, 0, 384, 10, ef=ef)
    assert chosen.arm == arm
    if arm is Arm.GATHER:
        assert (chosen.ef, chosen.budget, chosen.fallback) == (None, None, None)


def test_codes_of_chosen_rows_answer_where_a_walk_gives_up() -> None:
    def fallback(share: float) -> Arm | None:
        matching = round(62_436 * share)
        return choose(Estimate(matching, matching), [flat(62_436), coded(62_436)], 62_436, 0, 384, 10, ef=20).fallback

    assert (fallback(0.25), fallback(1.0)) == (Arm.GATHER, Arm.SCAN)


LISTS_TABLE = [
    # rows, share, lists scanned, with an inverted file alone
    (117_000, 1.0, 32, Arm.LISTS),
    (117_000, 0.3, 64, Arm.LISTS),
    (117_000, 0.1, 64, Arm.LISTS),
    (117_000, 0.1, 512, Arm.SCAN),  # the scan goes over all lists
    (117_000, 0.01, 256, Arm.LISTS),
    (117_000, 0.003, 256, Arm.EXACT),
    (117_000, 0.0001, 512, Arm.EXACT),
    (1_000_000, 0.05, 128, Arm.LISTS),
]


@pytest.mark.parametrize(("rows", "share", "nprobe", "arm"), LISTS_TABLE)
def test_lists(rows: int, share: float, nprobe: int, arm: Arm) -> None:
    matching = round(rows * share)
    chosen = choose(Estimate(matching, matching), [ivf(rows)], rows, 0, 384, 10, nprobe=nprobe)
    assert chosen.arm == arm
    if arm == Arm.LISTS:
        assert (chosen.nprobe, chosen.ef, chosen.budget) == (nprobe, None, None)
        assert chosen.fallback in (Arm.EXACT, Arm.SCAN)
        assert chosen.reason.endswith(f"; {nprobe} of 512 lists")
    else:
        assert (chosen.nprobe, chosen.fallback) == (512 if arm == Arm.SCAN else None, None)


def test_lists_are_clamped() -> None:
    everything = Estimate(117_000, 117_000)
    least = choose(everything, [ivf(117_000), flat(117_000)], 117_000, 0, 384, 10, nprobe=0)
    assert (least.arm, least.nprobe) == (Arm.LISTS, 1)
    most = choose(everything, [ivf(117_000)], 117_000, 0, 384, 10, nprobe=10_000)
    assert (most.arm, most.nprobe) == (Arm.SCAN, 512)
    assert most.costs["lists"] == most.costs["scan"]
    # Plain codes of the segment are what a scan reads, where there are any.
    both = choose(everything, [ivf(117_000), flat(117_000)], 117_000, 0, 384, 10, nprobe=512)
    assert (both.arm, both.nprobe) == (Arm.SCAN, None)
    assert both.costs["scan"] < both.costs["lists"]


def test_more_lists_cost_more_and_fewer_matches_less() -> None:
    costs = [
        choose(Estimate(9_000, 9_000), [ivf(117_000)], 117_000, 0, 384, 10, nprobe=nprobe).costs["lists"]
        for nprobe in (1, 8, 64, 512)
    ]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)
    shares = [
        choose(Estimate(matching, matching), [ivf(117_000)], 117_000, 0, 384, 10, nprobe=64).costs["lists"]
        for matching in (117_000, 20_000, 2_000)
    ]
    assert shares == sorted(shares, reverse=True)


def test_a_walk_costs_no_more_than_what_answers_instead() -> None:
    walk = plan(60_000, 1.0, ef=64)
    assert (walk.arm, walk.fallback) == (Arm.GRAPH, Arm.SCAN)
    assert walk.budget is not None
    # Half of the fallback's time would be half of the budget, and the walk was expected to need less.
    assert walk.budget > 64 * 12
    narrow = choose(Estimate(20_000, 20_000), [hnsw(20_000)], 20_000, 0, 384, 10, ef=64)
    assert (narrow.arm, narrow.fallback) == (Arm.GRAPH, Arm.EXACT)
    assert narrow.costs["exact"] / walk.costs["scan"] == pytest.approx(narrow.budget / walk.budget, rel=0.01)
    given = choose(Estimate(20_000, 20_000), [hnsw(20_000)], 20_000, 0, 384, 10, ef=64, bounded=False)
    assert (given.arm, given.budget, given.fallback) == (Arm.GRAPH, None, Arm.EXACT)


def test_widths_of_codes_that_were_not_measured() -> None:
    def scan(bits: int) -> float:
        return choose(Estimate(9_000, 9_000), [flat(9_000, bits=bits)], 9_000, 0, 384, 10).costs["scan"]

    assert scan(3) == scan(4)
    assert scan(16) == scan(32)
    assert scan(64) == scan(32)


def test_forced_choices() -> None:
    everything = Estimate(5_000, 5_000)
    both = [flat(5_000), hnsw(5_000)]
    assert choose(everything, [], 5_000, 0, 384, 10).arm == Arm.EXACT
    forced = choose(everything, both, 5_000, 0, 384, 10, exact=True)
    assert (forced.arm, set(forced.costs)) == (Arm.EXACT, {"exact", "scan", "graph"})
    assert choose(everything, both, 5_000, 0, 384, 5_000).arm == Arm.EXACT
    assert choose(Estimate(0, 9), both, 5_000, 0, 384, 10).arm == Arm.EXACT
    assert choose(everything, both, 5_000, 5_000, 384, 10).arm == Arm.NONE
    assert choose(Estimate(0, 0), [], 5_000, 0, 384, 10, exact=True).arm == Arm.NONE
    assert choose(everything, [flat(0)], 5_000, 0, 384, 10).arm == Arm.EXACT


def test_a_reason_is_a_sentence_with_the_figures() -> None:
    chosen = plan(62_436, 0.1, graph=False)
    assert chosen.reason == "6,244 of 62,436 rows match (10.0 %), and scan costs least"
    bounds = choose(Estimate(10, 4_000), [flat(62_436)], 62_436, 0, 384, 10)
    assert bounds.reason.startswith("10 to 4,000 of 62,436 rows match (3.2 %), ")
    assert (bounds.rows, bounds.matching) == (62_436, Estimate(10, 4_000))


def test_deleted_rows_leave_the_bounds() -> None:
    assert live(Estimate(50, 80), 100, 30) == Estimate(20, 70)
    assert live(Estimate(10, 10), 100, 30) == Estimate(0, 10)
    assert live(Estimate(100, 100), 100, 100) == Estimate(0, 0)
    assert expected(Estimate(10, 20)) == 15
    assert plan(117_000, 1.0).arm == Arm.GRAPH
    mostly_deleted = choose(Estimate(117_000, 117_000), [flat(117_000), hnsw(117_000)], 117_000, 116_000, 384, 10)
    assert mostly_deleted.arm == Arm.EXACT


def test_fewer_matches_never_cost_more() -> None:
    for rows, graph in itertools.product(SIZES, (True, False)):
        costs = [plan(rows, share, graph=graph).costs for share in SHARES if round(rows * share)]
        for more, fewer in itertools.pairwise(costs):
            assert fewer["exact"] <= more["exact"]
            assert fewer["scan"] <= more["scan"]


def test_once_exact_always_exact_below() -> None:
    for rows in SIZES:
        arms = [plan(rows, share).arm for share in SHARES if round(rows * share)]
        first = arms.index(Arm.EXACT)
        assert set(arms[first:]) == {Arm.EXACT}


def test_an_ef_that_is_given_is_walked_where_most_rows_match() -> None:
    for share in SHARES:
        given, free = (plan(1_000_000, share, bounded=bounded) for bounded in (False, True))
        assert ("graph" in given.costs) == (share >= GRAPH_SHARE_MIN_GIVEN)
        assert ("graph" in free.costs) == (share >= GRAPH_SHARE_MIN)
        assert given.budget is None


def test_larger_graphs_have_slower_hops() -> None:
    costs = [plan(rows, 1.0).costs["graph"] for rows in (20_000, 62_436, 117_000, 1_000_000)]
    assert costs[0] == costs[1] < costs[2] < costs[3] < 3 * costs[0]


def test_a_wider_search_leaves_the_graph() -> None:
    assert plan(117_000, 1.0, ef=64).arm == Arm.GRAPH
    assert plan(117_000, 1.0, ef=4_096).arm == Arm.SCAN
    assert plan(117_000, 1.0, k=2_000).arm == Arm.SCAN
    assert (plan(117_000, 1.0, ef=64).ef, plan(117_000, 1.0, k=100, ef=64).ef) == (64, 100)
    assert plan(117_000, 1.0, ef=64).reason.endswith("; ef 64")
    assert plan(117_000, 0.01).ef is None


def test_rows_beyond_an_index_are_paid_for() -> None:
    full = choose(Estimate(117_000, 117_000), [flat(117_000), hnsw(117_000)], 117_000, 0, 384, 10)
    half = choose(Estimate(117_000, 117_000), [flat(117_000), hnsw(60_000)], 117_000, 0, 384, 10)
    assert full.arm == Arm.GRAPH
    assert half.arm == Arm.SCAN
    assert half.costs["graph"] > full.costs["graph"]


def test_the_better_of_two_indexes_of_a_kind_counts() -> None:
    narrow = choose(Estimate(9_000, 9_000), [flat(9_000, bits=2)], 9_000, 0, 384, 10)
    wide = choose(Estimate(9_000, 9_000), [flat(9_000, bits=8)], 9_000, 0, 384, 10)
    both = choose(Estimate(9_000, 9_000), [flat(9_000, bits=8), flat(9_000, bits=2)], 9_000, 0, 384, 10)
    assert both.costs["scan"] == min(narrow.costs["scan"], wide.costs["scan"])


def test_blocks_fill_with_the_share() -> None:
    assert filled_blocks(0.0, 32) == 0.0
    assert filled_blocks(1.0, 32) == 1.0
    assert 0.26 < filled_blocks(0.01, 32) < 0.29  # 28 % were measured


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 2_000_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 4096),
    st.integers(1, 10_000),
    st.sampled_from([(), ("flat",), ("hnsw",), ("flat", "hnsw"), ("ivf",), ("flat", "ivf"), ("flat", "hnsw", "ivf")]),
    st.booleans(),
)
def test_every_choice_is_sound(
    rows: int, low: float, high: float, dead: float, dim: int, k: int, kinds: tuple[str, ...], exact: bool
) -> None:
    bounds = sorted((round(rows * low), round(rows * high)))
    made = {"flat": flat(rows, dim), "hnsw": hnsw(rows, dim), "ivf": ivf(rows, dim=dim)}
    traits = [made[kind] for kind in kinds]
    estimate, deleted = Estimate(*bounds), round(rows * dead)
    chosen = choose(estimate, traits, rows, deleted, dim, k, exact=exact, nprobe=8)
    alive = live(estimate, rows, deleted)
    assert chosen.matching == alive
    assert (chosen.arm == Arm.NONE) == (alive.high == 0)
    if chosen.arm == Arm.NONE:
        return
    assert all(microseconds > 0 for microseconds in chosen.costs.values())
    assert chosen.reason
    if exact or not traits or k >= alive.high:
        assert chosen.arm == Arm.EXACT
    else:
        assert chosen.costs[chosen.arm] == min(chosen.costs.values())
    if chosen.arm == Arm.SCAN:
        assert "flat" in kinds or "ivf" in kinds
    assert (chosen.arm == Arm.LISTS) <= ("ivf" in kinds)
    assert (chosen.fallback is not None) == (chosen.arm in (Arm.GRAPH, Arm.LISTS))
    if chosen.arm == Arm.GRAPH:
        assert "hnsw" in kinds
        assert expected(alive) >= GRAPH_SHARE_MIN * rows


def repeated(asked: int, escalated: float, *, copied: bool = False) -> Plan:
    """A filter of half the rows, whose walks cost a tenth of a scan and a third of an excerpt."""
    costs = Costs({"walk": Line(20.0, 500.0), "scan": Line(15.0, 6.0), "excerpt": Line(12.0, 4.5)}, ((0.01, 1.0),))
    return choose(
        Estimate(30_000, 30_000), [flat(62_436), coded(62_436)], 62_436, 0, 384, 10, ef=40, asked=asked, copied=copied,
        escalated=escalated, measured=costs,
    )  # fmt: skip


def test_a_walk_is_charged_its_fallback() -> None:
    assert repeated(1_000, 0.1).arm is Arm.GRAPH
    assert repeated(1_000, 0.1).costs == repeated(1_000, 0.9).costs
    assert repeated(1_000, 0.9).arm is Arm.EXCERPT
    assert repeated(1, 1.0).arm is Arm.GATHER


def test_copies_for_the_fallback_alone_have_to_pay() -> None:
    assert repeated(1_000, 0.0).fallback is Arm.GATHER
    assert repeated(10, 0.1).fallback is Arm.GATHER
    assert repeated(1_000, 0.1).fallback is Arm.EXCERPT
    assert repeated(1, 0.0, copied=True).fallback is Arm.EXCERPT
    assert repeated(1_000, 0.1).budget < repeated(1_000, 0.0).budget
