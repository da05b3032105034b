"""Recall against speed: every engine at a grid of efforts, in rounds that all of them share.

A round times every engine at every effort once, so that what disturbs the machine for a while meets all of them.
Figures are medians over rounds; a ratio is taken within each round first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.graphs import F64, GraphEngine
from benchmarks.graphs.vector_sets import VectorSet, recall

STEPS = (1, 1.2, 1.4, 1.6, 2, 2.4, 2.8, 3.2, 4, 4.8, 5.6, 6.4, 8, 9.6, 12.8, 16, 19.2, 25.6, 38.4, 51.2)  # ef over k
EF_MOST = 1024
ENOUGH = 0.997  # the first effort beyond is the last of a curve
FLAT, FLAT_STEPS = 0.0003, 3  # so is the one after so many that brought no more than this
TARGETS = {10: (0.95, 0.99), 100: (0.97, 0.99)}
SINGLE = 300  # queries that are also asked one at a time
QUANTILES = (0.5, 0.25, 0.75)
# What a ratio is when speeds are lower bounds: (ours is, theirs is).
BOUNDS = {(False, False): "", (False, True): "<=", (True, False): ">=", (True, True): "~"}


@dataclass
class Curve:
    """One engine at one k: recalls[i] at efs[i], and in each round the seconds a query of each point.

    batch    seconds[round][point], all queries in one call
    single   the same for calls of one query each; NaN at points that no target needs
    wanted   the recalls that are looked at
    """

    engine: GraphEngine
    k: int
    efs: list[int] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    batch: list[list[float]] = field(default_factory=list)
    single: list[list[float]] = field(default_factory=list)
    wanted: tuple[float, ...] = ()

    def at(self, wanted: float, mode: str = "batch") -> tuple[list[float], bool] | None:
        """Seconds a query at a recall, one of each round, and whether even the first point is above it."""
        return seconds_at(self.recalls, getattr(self, mode), wanted)


def bracket(recalls: Sequence[float], wanted: float) -> tuple[int, int] | None:
    """The neighbouring points around the first crossing of a recall; twice the first when that is already there."""
    for point, reached in enumerate(recalls):
        if reached >= wanted:
            return max(point - 1, 0), point
    return None


def seconds_at(
    recalls: Sequence[float], rounds: Sequence[Sequence[float]], wanted: float
) -> tuple[list[float], bool] | None:
    """Seconds at a recall in every round, linear in log(seconds) between neighbours; None when it is not reached.

    True with the seconds of the first point when that is above the recall: the engine is at least as fast.
    """
    points = bracket(recalls, wanted)
    if points is None:
        return None
    low, high = points
    if low == high:
        return [seconds[high] for seconds in rounds], recalls[high] > wanted
    share = (wanted - recalls[low]) / (recalls[high] - recalls[low])
    return [math.exp((1 - share) * math.log(s[low]) + share * math.log(s[high])) for s in rounds], False


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of theirs / ours of each round: above 1 when ours takes less time."""
    median, low, high = np.quantile(np.array(theirs) / np.array(ours), QUANTILES)
    return float(median), float(low), float(high)


def efforts(k: int, rows: int) -> list[int]:
    return sorted({min(round(k * step), EF_MOST, max(rows, k)) for step in STEPS})


def explore(engine: GraphEngine, data: VectorSet, queries: Any, k: int, nearest: F64) -> Curve:
    """The efforts of a curve and their recalls; this also warms the engine up.

    The grid is that of the engine where it has one, `efforts(k, rows)`, for not every effort is an ef.
    """
    curve = Curve(engine, k)
    for ef in getattr(engine, "efforts", efforts)(k, len(data.vectors)):
        curve.efs.append(ef)
        curve.recalls.append(recall(data, engine.search(queries, k, ef), nearest))
        if ends(curve.recalls):
            break
    return curve


def ends(recalls: Sequence[float]) -> bool:
    """Whether more effort is not worth a point: enough is found, or no more can be (a quantiser's limit)."""
    return recalls[-1] >= ENOUGH or (len(recalls) > FLAT_STEPS and recalls[-1] - recalls[-1 - FLAT_STEPS] <= FLAT)


def targets(k: int) -> tuple[float, ...]:
    return TARGETS.get(k, TARGETS[10])


def wanted_of(curve: Curve) -> tuple[float, ...]:
    return curve.wanted or targets(curve.k)


def limits(curves: Sequence[Curve], wanted: Sequence[float]) -> tuple[float, ...]:
    """`wanted`, and before them what the curves find at most that reach none of them, rounded down."""
    most = {math.floor(max(curve.recalls) * 1e4) / 1e4 for curve in curves if max(curve.recalls) < min(wanted)}
    return (*sorted(most), *wanted)


def measure(
    engines: list[GraphEngine],
    data: VectorSet,
    k: int,
    nearest: F64,
    rounds: int,
    single: bool,
    wanted: Sequence[float] = (),
) -> list[Curve]:
    """One curve an engine, in their order.

    wanted   recalls to look at, together with those where curves end that reach none of them; none: TARGETS
    """
    queries = {engine.name: engine.ready(data.queries) for engine in engines}
    curves = [explore(engine, data, queries[engine.name], k, nearest) for engine in engines]
    looked_at = limits(curves, wanted) if wanted else targets(k)
    for curve in curves:
        curve.wanted = looked_at
    needed = [singles(curve) if single else set() for curve in curves]
    for curve in curves:
        curve.batch, curve.single = ([[math.nan] * len(curve.efs) for _ in range(rounds)] for _ in range(2))
    for number in range(rounds):
        for point in range(max(len(curve.efs) for curve in curves)):
            for turn in range(len(curves)):
                which = (turn + number) % len(curves)
                curve, asked = curves[which], queries[curves[which].engine.name]
                if point >= len(curve.efs):
                    continue
                curve.batch[number][point] = batch_seconds(curve.engine, asked, k, curve.efs[point])
                if point in needed[which]:
                    curve.single[number][point] = single_seconds(curve.engine, asked, k, curve.efs[point])
    return curves


def singles(curve: Curve) -> set[int]:
    """The points that the targets lie between."""
    return {point for wanted in wanted_of(curve) for point in bracket(curve.recalls, wanted) or ()}


def batch_seconds(engine: GraphEngine, queries: Any, k: int, ef: int) -> float:
    """Seconds a query of one call with all of them."""
    begin = time.perf_counter()
    engine.search(queries, k, ef)
    return (time.perf_counter() - begin) / len(queries)


def single_seconds(engine: GraphEngine, queries: Any, k: int, ef: int) -> float:
    """Seconds a query of calls with one each."""
    alone = [queries[number : number + 1] for number in range(min(SINGLE, len(queries)))]
    begin = time.perf_counter()
    for query in alone:
        engine.search(query, k, ef)
    return (time.perf_counter() - begin) / len(alone)


def figures(curve: Curve) -> dict[str, Any]:
    """What is kept of a curve: points, and queries a second at the targets."""
    reached = {}
    for wanted in wanted_of(curve):
        for mode in ("batch", "single"):
            found = curve.at(wanted, mode)
            if found is not None and not math.isnan(found[0][0]):
                reached.setdefault(str(wanted), {"at_least": found[1]})[mode] = 1 / float(np.median(found[0]))
    return {
        "ef": curve.efs,
        "recall": [round(reached_here, 5) for reached_here in curve.recalls],
        "qps": [round(1 / seconds, 1) for seconds in np.median(curve.batch, axis=0).tolist()],
        "at": reached,
    }


def compare(curves: list[Curve]) -> dict[str, dict[str, Any]]:
    """For the first curve, ours: its ratio to every other at each target, and which of the others is the best."""
    ours, result = curves[0], {}
    others = [curve for curve in curves[1:] if curve is not ours]
    for wanted in wanted_of(ours):
        for mode in ("batch", "single"):
            mine = ours.at(wanted, mode)
            theirs = {curve.engine.name: found for curve in others if (found := curve.at(wanted, mode)) is not None}
            if mine is None or not theirs or math.isnan(mine[0][0]):
                continue
            best = min(theirs, key=lambda name: float(np.median(theirs[name][0])))
            ratios = {name: paired(mine[0], seconds) for name, (seconds, _) in theirs.items()}
            bounds = {name: BOUNDS[mine[1], bound] for name, (_, bound) in theirs.items()}
            result[f"{wanted} {mode}"] = {"best": best, "ratios": ratios, "bounds": bounds}
    return result
