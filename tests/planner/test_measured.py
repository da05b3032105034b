"""Measured costs: fitted, corrected within bounds, believed only when they make sense; and what they do to a choice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.test_choose import coded, flat
from vecdb.planner import cost
from vecdb.planner.choose import choose
from vecdb.planner.cost import NOT_MEASURED, USUAL, Costs, Line
from vecdb.planner.measured import (
    SCALE_MAX,
    SCALE_MIN,
    Walks,
    corrected,
    fitted,
    lines_from_dict,
    lines_to_dict,
    scaled,
    walks_from_dict,
    walks_to_dict,
)
from vecdb.types import Arm, Estimate, Plan

ROWS = 62_436
LINES = {"exact": Line(10.0, 70.0), "gather": Line(12.0, 10.0), "scan": Line(60.0, 3.0), "walk": Line(12.0, 350.0)}


def plan(costs: Costs, share: float, ef: int = 64) -> Plan:
    matching = round(ROWS * share)
    return choose(Estimate(matching, matching), [flat(ROWS), coded(ROWS)], ROWS, 0, 384, 10, ef=ef, measured=costs)


def test_a_line_goes_through_both_measurements() -> None:
    line = fitted(100, 17.0, 1_100, 117.0)
    assert (line.fixed_us, line.each_ns) == pytest.approx((7.0, 100.0))
    assert line.us(600) == pytest.approx(67.0)


@given(st.floats(-10, 1e6), st.floats(-10, 1e6))
def test_a_line_never_falls_or_begins_below_nothing(few_us: float, many_us: float) -> None:
    line = fitted(256, few_us, 4_096, many_us)
    assert line.fixed_us > 0
    assert line.each_ns > 0


def test_costs_choose() -> None:
    assert plan(Costs(LINES), 0.1, ef=200).arm == Arm.GATHER
    dear = Costs({**LINES, "gather": Line(12.0, 100.0)})
    assert plan(dear, 0.1, ef=2_000).arm == Arm.SCAN
    assert plan(dear, 0.1).arm == Arm.GRAPH
    assert plan(Costs({**LINES, "scan": Line(1.0, 0.1)}), 1.0).arm == Arm.SCAN
    assert plan(Costs({**LINES, "exact": Line(1.0, 1.0)}), 0.02).arm == Arm.EXACT


def test_the_same_costs_are_the_same_plan_and_say_where_they_come_from() -> None:
    told = Costs(LINES, source="measured on Monday")
    assert plan(told, 0.3) == plan(Costs(dict(LINES), source="measured on Monday"), 0.3)
    assert plan(told, 0.3).source == "measured on Monday"
    assert plan(NOT_MEASURED, 0.3).source == USUAL
    assert plan(told, 0.1).costs["gather"] == pytest.approx(12.0 + 6.244 * 10 + 6.244 * cost.GATHER_LISTED_NS)


def test_walks_under_filters_are_read_between_shares() -> None:
    costs = Costs(LINES, filtered=((0.02, 1.0), (0.2, 3.0), (0.5, 1.5)))
    assert cost.filtered(costs, 0.001) == 1.0
    assert cost.filtered(costs, 0.0632) == pytest.approx(2.0, rel=0.01)  # half-way on a logarithmic scale
    assert cost.filtered(costs, 0.2) == 3.0
    assert cost.filtered(costs, 0.9) == 1.5
    assert cost.filtered(NOT_MEASURED, 0.2) == cost.GRAPH_FILTERED
    assert plan(costs, 0.2).costs["graph"] > plan(Costs(LINES), 0.2).costs["graph"]
    assert plan(costs, 1.0).costs["graph"] == plan(Costs(LINES), 1.0).costs["graph"]


def test_a_walk_that_gives_up_costs_what_was_measured_and_no_more_than_its_budget() -> None:
    assert plan(Costs(LINES), 0.5).gives_up_us is None
    known = Costs(LINES, filtered=((0.5, 1.0),), far=0.5)
    chosen = plan(known, 0.5)
    assert chosen.arm == Arm.GRAPH
    assert chosen.gives_up_us == pytest.approx(12.0 + 0.5 * 66 * 0.35)
    endless = plan(Costs(LINES, filtered=((0.5, 1.0),), far=40.0), 0.5)
    assert endless.gives_up_us == endless.costs[endless.fallback]


def test_corrections_follow_the_median_slowly_and_not_far() -> None:
    assert corrected(1.0, [1.0] * 64) == 1.0
    assert corrected(1.0, [1.04] * 64) == pytest.approx(1.04)
    assert corrected(1.0, [9.0] * 64) == pytest.approx(1.1)
    assert corrected(1.0, [0.1] * 64) == pytest.approx(1 / 1.1)
    assert corrected(1.0, [1.0] * 58 + [1_000.0] * 6) == 1.0
    scale = 1.0
    for _ in range(100):
        scale = corrected(scale, [50.0] * 64)
    assert scale == SCALE_MAX
    for _ in range(100):
        scale = corrected(scale, [0.001] * 64)
    assert scale == SCALE_MIN
    assert scaled(Line(10.0, 3.0), 0.5) == Line(5.0, 1.5)


def test_what_is_written_is_read() -> None:
    assert lines_from_dict(json.loads(json.dumps(lines_to_dict(LINES)))) == LINES
    walks = Walks(((0.02, 1.25), (0.5, 2.0)), 0.5, 2.5)
    assert walks_from_dict(json.loads(json.dumps(walks_to_dict(walks)))) == walks


@pytest.mark.parametrize(
    "stored",
    [
        None, [], "exact", {"other": [1.0, 1.0]}, {"exact": 3}, {"exact": [1.0]}, {"exact": [1.0, 2.0, 3.0]},
        {"exact": ["1", 2.0]}, {"exact": [True, 2.0]}, {"exact": [-1.0, 2.0]}, {"exact": [1.0, 0.0]},
        {"exact": [float("nan"), 2.0]}, {"exact": [1.0, float("inf")]}, {"exact": [1e9, 2.0]},
        {"exact": [1.0, 10**400]},
    ],
)  # fmt: skip
def test_costs_that_make_no_sense_are_refused(stored: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        lines_from_dict(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"near": None}, {"far": -1.0}, {"near": float("nan")}, {"far": 1e9}, {"filtered": 3}, {"filtered": [[0.1]]},
        {"filtered": [[0.5, 1.0], [0.1, 1.0]]}, {"filtered": [[0.1, 1.0], [0.1, 1.0]]}, {"filtered": [[2.0, 1.0]]},
        {"filtered": [[0.1 + i / 1e6, 1.0] for i in range(99)]}, {"other": 1},
    ],
)  # fmt: skip
def test_walks_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    sound = {"filtered": [[0.1, 1.0]], "near": 1.0, "far": 1.0}
    assert walks_from_dict(sound).near == 1.0
    with pytest.raises(ValueError, match=r"."):
        walks_from_dict({**sound, **change})
