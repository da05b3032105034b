"""Measured costs as values: fitted, corrected by what queries took, written down, and read with suspicion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from vecdb.planner.cost import Line

NAMES = ("exact", "gather", "excerpt", "scan", "lists", "walk")
FIXED_US_MAX, EACH_NS_MAX = 1e6, 1e7
FACTOR_MIN, FACTOR_MAX = 0.05, 50.0
SHARES_MAX = 32
SCALE_MIN, SCALE_MAX = 0.5, 2.0  # what observed queries may make of a measured cost
STEP_MAX = 1.1  # and how much of that at a time
EACH_NS_MIN, FIXED_US_MIN = 0.01, 0.5


@dataclass(frozen=True, slots=True)
class Walks:
    """How walks of one graph go under filters, in times of the hops that their ef tells.

    filtered   (share, factor), shares ascending: filters that are the same everywhere, the fallback's part counted in
    near       a filter that the query lies in the middle of
    far        a filter that leaves out what is near the query: what a walk spends before it gives up
    """

    filtered: tuple[tuple[float, float], ...]
    near: float
    far: float


def fitted(few: float, few_us: float, many: float, many_us: float) -> Line:
    """The line through two measurements, of `few` and `many` rows or hops; it never falls or begins below nothing."""
    each = max((many_us - few_us) / (many - few) * 1e3, EACH_NS_MIN)
    return Line(max(few_us - few * each / 1e3, FIXED_US_MIN), each)


def scaled(line: Line, scale: float) -> Line:
    return replace(line, fixed_us=line.fixed_us * scale, each_ns=line.each_ns * scale)


def corrected(scale: float, ratios: Sequence[float]) -> float:
    """The next scale of a line, when queries took `ratios` times what the scaled line said: towards their median, by a
    tenth at most, and within half and twice of what was measured. One slow query, or a tenth of them, change nothing.
    """
    ordered = sorted(ratios)
    median = ordered[len(ordered) // 2]
    step = min(max(median, 1 / STEP_MAX), STEP_MAX)
    return min(max(scale * step, SCALE_MIN), SCALE_MAX)


def lines_to_dict(lines: Mapping[str, Line]) -> dict[str, list[float]]:
    return {name: [round(line.fixed_us, 3), round(line.each_ns, 4)] for name, line in lines.items()}


def lines_from_dict(stored: Any) -> dict[str, Line]:
    """What `lines_to_dict` made; ValueError for anything else."""
    if not isinstance(stored, dict) or not set(stored) <= set(NAMES):
        raise ValueError("costs are not by the name of a way to search")
    lines = {}
    for name, pair in stored.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"the cost of {name} is not a pair")
        fixed_us = _number(pair[0], 0.0, FIXED_US_MAX)
        lines[name] = Line(fixed_us, _number(pair[1], EACH_NS_MIN / 10, EACH_NS_MAX))
    return lines


def walks_to_dict(walks: Walks) -> dict[str, Any]:
    filtered = [[round(share, 6), round(factor, 4)] for share, factor in walks.filtered]
    return {"filtered": filtered, "near": round(walks.near, 4), "far": round(walks.far, 4)}


def walks_from_dict(stored: Any) -> Walks:
    """What `walks_to_dict` made; ValueError for anything else."""
    if not isinstance(stored, Mapping) or set(stored) != {"filtered", "near", "far"}:
        raise ValueError("walks are not told by filtered, near and far")
    filtered = stored["filtered"]
    if not isinstance(filtered, list | tuple) or len(filtered) > SHARES_MAX:
        raise ValueError("walks by share are not a list")
    points = []
    for point in filtered:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise ValueError("a walk by share is not a pair")
        points.append((_number(point[0], 1e-9, 1.0), _factor(point[1])))
    if any(left[0] >= right[0] for left, right in pairwise(points)):
        raise ValueError("the shares of walks do not ascend")
    return Walks(tuple(points), _factor(stored["near"]), _factor(stored["far"]))


def factor(value: float) -> float:
    """A measured factor within what is believed of one."""
    return min(max(value, FACTOR_MIN), FACTOR_MAX)


def _factor(value: Any) -> float:
    return _number(value, FACTOR_MIN / 2, FACTOR_MAX * 2)


def _number(value: Any, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is no number from {least:g} to {most:g}")
    return float(value)
