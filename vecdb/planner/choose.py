"""Which way to search one segment: a pure function of numbers.

The cheapest arm by the cost model wins among those that are sound:

    none    no row can match
    exact   always sound; the only arm with exact=True, without an index, or when k covers all matching rows
    scan    bounded at every selectivity
    graph   only where at least 30 % of the rows match: below that the share alone does not predict a walk, which may
            wander among rows that are not allowed
"""

from __future__ import annotations

from collections.abc import Sequence

from vecdb.planner import cost
from vecdb.planner.estimate import expected, live
from vecdb.types import Arm, Estimate, Plan, Traits

GRAPH_SHARE_MIN = 0.3


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
) -> Plan:
    """The plan for one segment.

    estimate   bounds on the rows that match the filter, deleted ones included (all rows without a filter)
    traits     the indexes of the segment; none means that there is nothing but float32 vectors
    rows       rows with a vector, `deleted` of them deleted
    ef         of a walk, which is at least k wide
    """
    matching = live(estimate, rows, deleted)
    if matching.high == 0:
        return Plan(Arm.NONE, "no row matches", rows, matching)
    costs = _costs(matching, traits, rows, dim, k, ef)
    only = _only_exact(matching, costs, k, exact)
    if only:
        return Plan(Arm.EXACT, only, rows, matching, costs)
    arm = min(costs, key=lambda name: (costs[name], name != Arm.EXACT))
    reason = _reason(matching, rows, costs, arm)
    if arm != Arm.GRAPH:
        return Plan(Arm(arm), reason, rows, matching, costs)
    return Plan(Arm.GRAPH, f"{reason}; ef {max(k, ef):,}", rows, matching, costs, max(k, ef))


def _costs(matching: Estimate, traits: Sequence[Traits], rows: int, dim: int, k: int, ef: int) -> dict[str, float]:
    """Sound arm -> predicted microseconds, the rows that an index does not hold yet scored exactly."""
    share = expected(matching) / max(1, rows)
    costs = {Arm.EXACT.value: cost.exact_us(expected(matching), dim)}
    for index in traits:
        rest = cost.exact_us(share * (rows - index.rows), dim) if index.rows < rows else 0.0
        if index.rows and index.masked:
            _keep_least(costs, Arm.SCAN, rest + cost.scan_us(index, share, k))
        if index.rows and index.graph and share >= GRAPH_SHARE_MIN:
            _keep_least(costs, Arm.GRAPH, rest + cost.graph_us(index, k, ef))
    return costs


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


def _reason(matching: Estimate, rows: int, costs: dict[str, float], arm: str) -> str:
    found = f"{matching.low:,}" if matching.exact else f"{matching.low:,} to {matching.high:,}"
    share = 100 * expected(matching) / max(1, rows)
    others = ", ".join(
        f"{name} {costs[name]:,.0f}" for name in sorted(costs, key=lambda name: costs[name]) if name != arm
    )
    return f"{found} of {rows:,} rows match ({share:.1f} %): {arm} {costs[arm]:,.0f} us, {others} us"
