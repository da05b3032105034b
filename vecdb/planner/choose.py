"""Which way to search one segment: a pure function of numbers.

The cheapest arm by the cost model wins among those that are sound:

    none    no row can match
    exact   always sound; the only arm with exact=True, without an index, or when k covers all matching rows
    gather  the codes of every matching row, where an index has such
    excerpt copies of these codes side by side, for a filter that was asked for so often that making them pays: the
            filter is expected to come as often again, and each of these queries bears its part of the cost
    scan    bounded at every selectivity: all codes of the segment, those of all lists where there are no others
    lists   the nearest lists of an inverted file
    graph   a walk that widens until k matches are known to be the nearest, where at least 2 % of the rows match; with
            an ef that the user gave, which is used as given, where 30 % do: nothing tells it that it wandered among
            rows that are not allowed

Walks and lists may find too little; the cheapest of exact, gather, scan and an excerpt is their fallback, and a walk
may cost as much as that before it gives up: together at most twice the fallback. Of a filter that was asked for before,
it is known how often that happened: a walk is charged its fallback as often, and copies for that alone may pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vecdb.planner import cost
from vecdb.planner.cost import NOT_MEASURED, Costs
from vecdb.planner.estimate import expected, live
from vecdb.types import Arm, Estimate, Plan, Traits

GRAPH_SHARE_MIN = 0.02
GRAPH_SHARE_MIN_GIVEN = 0.3  # for an ef that the user gave
BOUNDED = (Arm.EXACT, Arm.GATHER, Arm.EXCERPT, Arm.SCAN)  # arms that look at every matching row


def choose(
    estimate: Estimate,
    traits: Sequence[Traits],
    rows: int,
    deleted: int,
    dim: int,
    k: int,
    *,
    exact: bool = False,
    ef: int = 0,
    nprobe: int = 0,
    bounded: bool = True,
    asked: int = 0,
    copied: bool = False,
    escalated: float = 0.0,
    measured: Costs = NOT_MEASURED,
) -> Plan:
    """The plan for one segment.

    estimate   bounds on the rows that match the filter, deleted ones included (all rows without a filter)
    traits     the indexes of the segment; none means that there is nothing but float32 vectors
    rows       rows with a vector, `deleted` of them deleted
    ef         of a walk, which is at least k wide
    nprobe     lists of an inverted file to scan, at least one and at most all
    bounded    whether a walk may widen within a budget; an ef that the user gave is used as given
    asked      earlier queries with this filter;  copied: whether there is an excerpt of its rows
    escalated  the share of earlier walks with this filter that found too little
    measured   what searches cost here
    """
    matching = live(estimate, rows, deleted)
    if matching.high == 0:
        return Plan(Arm.NONE, "no row matches", rows, matching)
    costs = _costs(measured, matching, traits, rows, dim, k, ef, nprobe, bounded)
    making = 0.0
    if copied or asked:
        making = _add_excerpts(costs, measured, matching, traits, rows, k, asked, copied)
    only = _only_exact(matching, costs, k, exact)
    if only:
        return Plan(Arm.EXACT, only, rows, matching, costs, source=measured.source)
    fallbacks = _fallbacks(costs, making, escalated)
    lost = _lost_us(measured, traits, max(k, ef), min(fallbacks.values()))
    charged = _charged(costs, escalated, lost, min(fallbacks.values()))
    arm = Arm(min(charged, key=lambda name: (charged[name], name != Arm.EXACT)))
    plan = Plan(arm, _reason(matching, rows, arm), rows, matching, costs, source=measured.source)
    return _with_effort(measured, plan, traits, max(k, ef), nprobe, bounded, fallbacks, lost)


def _costs(
    measured: Costs,
    matching: Estimate,
    traits: Sequence[Traits],
    rows: int,
    dim: int,
    k: int,
    ef: int,
    nprobe: int,
    bounded: bool,
) -> dict[str, float]:
    """Sound arm -> predicted microseconds, the rows that an index does not hold yet scored exactly."""
    share = expected(matching) / max(1, rows)
    costs = {Arm.EXACT.value: cost.exact_us(measured, expected(matching), dim)}
    flat, least = _has_flat(traits), GRAPH_SHARE_MIN if bounded else GRAPH_SHARE_MIN_GIVEN
    for index in traits:
        if not index.rows:
            continue
        rest = cost.exact_us(measured, share * (rows - index.rows), dim) if index.rows < rows else 0.0
        if index.masked and not index.lists:
            _keep_least(costs, Arm.SCAN, rest + cost.scan_us(measured, index, share, k))
        elif index.masked and not flat:
            _keep_least(costs, Arm.SCAN, rest + cost.lists_us(measured, index, index.lists, share, k))
        if index.gathers:
            _keep_least(costs, Arm.GATHER, rest + cost.gather_us(measured, index, share, k))
        if index.lists:
            _keep_least(costs, Arm.LISTS, rest + cost.lists_us(measured, index, max(1, nprobe), share, k))
        if index.graph and share >= least:
            _keep_least(costs, Arm.GRAPH, rest + cost.graph_us(measured, index, k, ef, share))
    return costs


def _add_excerpts(
    costs: dict[str, float],
    measured: Costs,
    matching: Estimate,
    traits: Sequence[Traits],
    rows: int,
    k: int,
    asked: int,
    copied: bool,
) -> float:
    """Adds the arm, with its part of the making; returns that part."""
    share, making = expected(matching) / max(1, rows), 0.0
    for index in traits:
        if index.gathers and index.rows == rows:
            making = 0.0 if copied else cost.copying_us(index, share) / asked
            _keep_least(costs, Arm.EXCERPT, making + cost.excerpt_us(measured, index, share, k))
    return making


def _fallbacks(costs: dict[str, float], making: float, escalated: float) -> dict[Arm, float]:
    """What each arm that may answer for a walk costs then; copies are made for those that escalate alone."""
    found = {arm: costs[arm.value] for arm in BOUNDED if arm.value in costs}
    if Arm.EXCERPT in found and making > 0.0:
        if escalated > 0.0:
            found[Arm.EXCERPT] += making / escalated - making
        else:
            del found[Arm.EXCERPT]
    return found


def _lost_us(measured: Costs, traits: Sequence[Traits], ef: int, fallback_us: float) -> float | None:
    """What a walk spends before it gives up, which its budget bounds; None where that was not measured."""
    graph = next((index for index in traits if index.graph), None)
    if graph is None or not measured.filtered:
        return None
    return min(cost.gives_up_us(measured, graph, 0, ef), fallback_us)


def _charged(costs: dict[str, float], escalated: float, lost: float | None, fallback_us: float) -> dict[str, float]:
    """Costs, that of a walk with its fallback, as often as earlier ones escalated."""
    if not escalated or Arm.GRAPH.value not in costs:
        return costs
    walk = costs[Arm.GRAPH.value]
    walk += escalated * (fallback_us + (0.0 if lost is None else lost - walk))
    return {**costs, Arm.GRAPH.value: walk}


def _has_flat(traits: Sequence[Traits]) -> bool:
    """Whether a scan has codes of its own; otherwise it goes over all lists."""
    return any(index.masked and not index.lists for index in traits)


def _keep_least(costs: dict[str, float], arm: Arm, microseconds: float) -> None:
    costs[arm.value] = min(costs.get(arm.value, microseconds), microseconds)


def _only_exact(matching: Estimate, costs: dict[str, float], k: int, exact: bool) -> str:
    if exact:
        return "exact=True: every matching row is scored with float32"
    if len(costs) == 1:
        return "no index can serve this: every matching row is scored with float32"
    if k >= matching.high:
        return f"k = {k:,} covers all of the at most {matching.high:,} matching rows"
    return ""


def _with_effort(
    measured: Costs,
    plan: Plan,
    traits: Sequence[Traits],
    ef: int,
    nprobe: int,
    bounded: bool,
    fallbacks: dict[Arm, float],
    lost: float | None,
) -> Plan:
    """The plan with what its arm needs to know, and with what answers when the arm finds too little."""
    lists = max((index.lists for index in traits), default=0)
    if plan.arm is Arm.SCAN:
        return plan if _has_flat(traits) else replace(plan, nprobe=lists)
    if plan.arm in (Arm.EXACT, Arm.GATHER, Arm.EXCERPT):
        return plan
    fallback = min(fallbacks, key=lambda arm: fallbacks[arm])
    if plan.arm is Arm.LISTS:
        probed = min(max(1, nprobe), lists)
        reason = f"{plan.reason}; {probed:,} of {lists:,} lists"
        return replace(plan, reason=reason, nprobe=probed, fallback=fallback)
    graph = next(index for index in traits if index.graph)
    budget = cost.walk_budget(measured, graph, fallbacks[fallback]) if bounded else None
    reason = f"{plan.reason}; ef {ef:,}"
    return replace(plan, reason=reason, ef=ef, budget=budget, fallback=fallback, gives_up_us=lost)


def _reason(matching: Estimate, rows: int, arm: str) -> str:
    found = f"{matching.low:,}" if matching.exact else f"{matching.low:,} to {matching.high:,}"
    share = 100 * expected(matching) / max(1, rows)
    return f"{found} of {rows:,} rows match ({share:.1f} %), and {arm} costs least"
