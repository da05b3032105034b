"""How wide a walk must be for a recall: curves measured while a graph is built, on rows that it does not hold yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vecdb.index.base import frozen
from vecdb.index.flat import FlatIndex
from vecdb.kernels import bitset
from vecdb.options import EF_MAX, Flat
from vecdb.threads import Pool
from vecdb.types import F32, I32, I64, U64, Matrix

Curve = tuple[tuple[int, float], ...]  # (ef, recall), ef ascending, recall never falling
Curves = Mapping[int, Curve]  # by k
Walk = Callable[[F32, int, int], F32]  # (queries, k, ef) -> distances (queries, k)

DEFAULT_RECALL = 0.99  # of searches that ask for neither a recall nor an ef
DEFAULT_EF_MIN = 32  # their ef is no lower, however easy the held-out rows were
HELD_SHARE, HELD_MIN, HELD_MAX = 16, 64, 256  # one node in so many is held out, and how many at least and at most
FRESH_SHARE = 8  # a graph that is carried over is measured again when one node in so many is new
NEAR, DEEP = 10, 100  # the measured k
DEEP_QUERIES = 64  # with more neighbours a query tells more, and costs more
STEPS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 16.0, 22.4, 32.0, 44.8)  # ef over k
MEASURED_EF_MAX, MEASURED_RECALL = 800, 0.995  # where a curve ends
MISS_MIN = 1e-4  # misses below this are noise
BEYOND_MAX = 8.0  # how far past its end a curve is followed
STEPS_PER_DOUBLING = 2  # of the nearest that a filtered walk knows
CURVES_MAX, POINTS_MAX = 16, 64  # of what was stored

# Of graphs that are too small to hold rows out, and of those that were stored without a curve: on the safe side.
USUAL: Curves = {
    10: ((64, 0.9), (96, 0.95), (160, 0.98), (256, 0.99)),
    100: ((200, 0.9), (280, 0.95), (400, 0.98), (560, 0.99)),
}


def effort(curves: Curves, k: int, recall: float) -> int:
    """The least ef, at least k, at which walks found `recall` of the k nearest; see `width`."""
    return max(k, min(math.ceil(width(curves or USUAL, k, recall) - 1e-9), EF_MAX))


def width(curves: Curves, k: int, recall: float) -> float:
    """The ef, or the lists of an inverted file, that found `recall`, read between points on logarithmic scales.

    Beyond the largest k it grows with k. Beyond the end of a curve the misses are taken to halve when it doubles, up to
    BEYOND_MAX times the largest that was measured; a recall that is not reached there is not reached.
    """
    measured = sorted(curves)
    widths = [math.log(_width(curves[at], recall)) for at in measured]
    return math.exp(float(np.interp(math.log(k), np.log(measured), widths))) * max(1.0, k / measured[-1])


def further(curves: Curves, k: int, deep: int, recall: float = DEFAULT_RECALL) -> float:
    """How many times as wide a walk must be that meets the `deep` nearest as surely as another the k nearest."""
    return reach(curves, deep, recall) / reach(curves, k, recall) if deep > k else 1.0


def reach(curves: Curves, k: int, recall: float) -> float:
    """The ef at which walks have met `recall` of the k nearest, whether or not their codes let these be returned.

    That is where a curve has come to `recall` of its height. Beyond the largest measured k it goes on as between the
    two largest, and is never below k.
    """
    curves = curves or USUAL
    measured = np.log(sorted(curves))
    widths = np.log([_width(curves[at], recall * curves[at][-1][1]) for at in sorted(curves)])
    deep = math.log(k)
    if deep > measured[-1] and len(measured) > 1:
        slope = (widths[-1] - widths[-2]) / (measured[-1] - measured[-2])
        return max(float(k), math.exp(widths[-1] + slope * (deep - measured[-1])))
    return max(float(k), math.exp(float(np.interp(deep, measured, widths))))


def steps(curves: Curves, k: int, ef: int, share: float, expected: float, rows: int) -> I64:
    """Of a walk under a filter that passes `share` of `rows`: int64 (steps, 2), see vecdb.kernels.graph_search.widen.

    ef        what finds k allowed rows where the filter is the same everywhere
    expected  allowed nodes of the last ball, times k
    """
    last = max(k, min(math.ceil(expected * k / share), rows))
    count = math.ceil(STEPS_PER_DOUBLING * math.log2(last / k))
    sizes = [min(math.ceil(k * 2 ** (i / STEPS_PER_DOUBLING)), last) for i in range(count)] + [last]
    first = ef / further(curves, k, math.ceil(k / share))
    made = [(size, max(k, size, math.ceil(first * further(curves, k, size)))) for size in sizes]
    rising: I64 = np.maximum.accumulate(np.array(made, np.int64))
    return rising


def _width(curve: Curve, recall: float) -> float:
    efs = [ef for ef, _ in curve]
    logs = [-math.log(_miss(found)) for _, found in curve]
    width = math.exp(float(np.interp(-math.log(_miss(recall)), logs, np.log(efs))))
    return width * min(BEYOND_MAX, max(1.0, _miss(curve[-1][1]) / _miss(recall)))


def _miss(recall: float) -> float:
    return max(1.0 - recall, MISS_MIN)


# ---- measuring ------------------------------------------------------------------------------------------------------
def hold_out(order: I32, first: int) -> tuple[I32, int]:
    """(the nodes order[first:] with a sample of them at the end, its size: 0 when there are too few).

    The sample is drawn under a seed and in no order, so its first ones are a sample too.
    """
    fresh = len(order) - first
    count = min(HELD_MAX, fresh // HELD_SHARE)
    if count < HELD_MIN or fresh * FRESH_SHARE < len(order):
        return order, 0
    at = first + np.random.default_rng(0).permutation(fresh)[:count]
    return np.concatenate([np.delete(order, at), order[at]]), count


def measure(
    matrix: Matrix, twins: I32, held: I32, walk: Walk, threads: int, tick: Callable[[], None]
) -> dict[int, Curve]:
    """Curves of a graph that holds every row but those of the nodes `held`, whose vectors are the queries.

    tick   called between searches; may raise to stop
    """
    allow, scan = _without(twins, held), FlatIndex.build(matrix, Flat(), threads=threads)
    queries = matrix.vectors[held].astype(np.float32)
    with Pool(threads, "vecdb-build") as pool:

        def spread(search: Callable[[F32], F32], asked: F32) -> F32:
            tick()
            parts = [frozen(part) for part in np.array_split(asked, min(threads, len(asked)))]
            return np.concatenate(list(pool.map(search, parts)))

        def nearest(asked: F32, k: int) -> F32:
            return spread(lambda part: scan.search(part, k, allow=allow)[1], asked)

        def curve(exact: F32) -> Curve:
            asked, k = queries[: len(exact)], exact.shape[1]
            return _curve(lambda ef: spread(lambda part: walk(part, k, ef), asked), exact)

        deep = nearest(queries[:DEEP_QUERIES], DEEP)
        near = deep[:, :NEAR]
        if len(queries) > len(deep):
            near = np.concatenate([near, nearest(queries[len(deep) :], NEAR)])
        return {NEAR: curve(near), DEEP: curve(deep)}


def _curve(search: Callable[[int], F32], exact: F32) -> Curve:
    """Points of rising ef; `search` gives the distances that a walk finds for the queries of `exact`."""
    k, last = exact.shape[1], exact[:, -1:]
    worst = last + 1e-6 * np.abs(last) + 1e-7  # ties count as found
    points: list[tuple[int, float]] = []
    for ef in (round(k * step) for step in STEPS if k * step <= MEASURED_EF_MAX):
        points.append((ef, float((search(ef) <= worst).mean())))
        if points[-1][1] >= MEASURED_RECALL:
            break
    return never_falling(points)


def _without(twins: I32, held: I32) -> U64:
    """All rows but the held nodes and the chains behind them."""
    mask = np.ones(len(twins), np.bool_)
    for node in held:
        row = int(node)
        while row >= 0:
            mask[row] = False
            row = int(twins[row])
    return bitset.from_mask(mask)


def never_falling(points: Sequence[tuple[int, float]]) -> Curve:
    """The same with each recall as low as any later one; four digits, as it is stored."""
    recalls = np.minimum.accumulate([recall for _, recall in points][::-1])[::-1]
    return tuple((ef, round(float(recall), 4)) for (ef, _), recall in zip(points, recalls, strict=True))


# ---- storing --------------------------------------------------------------------------------------------------------
def to_lists(curves: Curves) -> list[Any]:
    """[[k, [[ef, recall], ...]], ...]"""
    return [[k, [[ef, recall] for ef, recall in curves[k]]] for k in sorted(curves)]


def from_lists(stored: Any) -> Curves:
    """What `to_lists` made; {} for anything else, for a graph serves without its curves too."""
    try:
        curves = {k: tuple((ef, recall) for ef, recall in points) for k, points in stored}
    except (TypeError, ValueError):
        return {}
    sound = len(curves) <= CURVES_MAX and all(
        type(k) is int and 1 <= k <= EF_MAX and _is_curve(curve) for k, curve in curves.items()
    )
    return curves if sound else {}


def _is_curve(curve: Sequence[tuple[Any, Any]]) -> bool:
    return (
        0 < len(curve) <= POINTS_MAX
        and all(type(ef) is int and type(recall) is float for ef, recall in curve)
        and all(1 <= ef <= EF_MAX and 0.0 <= recall <= 1.0 for ef, recall in curve)
        and all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(curve))
    )
