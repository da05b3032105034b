"""How many lists to scan for a recall, and how many rows to score exactly: measured on rows of the index itself.

Some rows are asked for their neighbours other than themselves. The truth comes from the same codes: all lists scanned,
and more rows scored exactly than any search does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vecdb.index import calibration
from vecdb.index.base import NO_BITS, frozen
from vecdb.index.calibration import Curve, Curves
from vecdb.kernels import bitset
from vecdb.threads import Pool
from vecdb.types import F32, I32, AnyArray, Matrix

Search = Callable[..., tuple[I32, F32]]  # (queries, k, setting, allow=) -> (rows, distances)

Ask = Callable[..., F32]  # (rows, k, setting[, allow]) -> distances of the k nearest other rows

QUERIES, DEEP_QUERIES = 256, 64
NEAR, DEEP = 10, 100  # the measured k
SPARSE = 100  # one row in so many passes a filter under which NEAR of them are looked for: as good as SPARSE * NEAR
TRUTH_POOLS = 60  # rows scored exactly for the truth, over k
USUAL_RECALL = 0.95  # slack is measured with the lists that reach it
POOLS = (1.2, 1.6, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0)  # rows scored exactly over k
LOSS_MAX = 0.001  # recall that scoring fewer rows may cost
SLACKS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.5)
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ENOUGH = 0.998  # where a curve ends
COMPARED_RECALL = 0.95
PATIENCE, PATIENT_LISTS = 0.25, 4  # of the lists of a search, and at least: as many that bring nothing nearer end it
NEVER = 1 << 62
READINGS_MAX = 1024  # readings of what was measured that an index keeps


@dataclass(frozen=True, slots=True)
class Setting:
    """What one search is given: lists to scan, rows to score exactly, and the slack of estimates (see `decide`)."""

    nprobe: int
    pool: int
    slack: float = math.inf


@dataclass(frozen=True, slots=True)
class Probing:
    """What was measured.

    pools   by k, rows scored exactly over k;  slack: see `decide`;  curves: by k, (lists, recall)
    """

    pools: Mapping[int, float]
    slack: float
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        pools = [[k, self.pools[k]] for k in sorted(self.pools)]
        curves = calibration.to_lists(self.curves)
        return {"pools": pools, "slack": self.slack, "curves": curves, "patience": [PATIENCE, PATIENT_LISTS]}


def measure(
    matrix: Matrix, lists: int, search: Search, threads: int, tick: Callable[[], None], usual: Probing
) -> Probing:
    """Pool, slack and curves of an index that `search` searches; `usual` where there are too few rows to tell.

    tick   called between searches; may raise to stop
    """
    rows = sample(matrix.rows)
    if len(rows) < QUERIES // 4 or matrix.rows <= 2 * DEEP:
        return usual
    with Pool(threads, "vecdb-build") as team:

        def ask(asked: I32, k: int, setting: Setting, allow: AnyArray = NO_BITS) -> F32:
            """The distances of the k nearest other rows."""
            tick()
            parts = np.array_split(asked, min(max(1, threads), len(asked)))
            found = team.map(lambda part: _others(matrix, part, k, partial(search, allow=allow), setting), parts)
            return np.concatenate(list(found))

        return _measured(ask, rows, matrix.rows, lists)


def _measured(ask: Ask, rows: I32, total: int, lists: int) -> Probing:
    few = rows[:: max(1, len(rows) // DEEP_QUERIES)]
    asked = {NEAR: rows, DEEP: few}
    exact = {k: ask(asked[k], k, Setting(lists, TRUTH_POOLS * k)) for k in asked}

    def recall(k: int, setting: Setting) -> float:
        return _recall(ask(asked[k], k, setting), exact[k])

    pools = {k: _pool(partial(recall, k), k, lists) for k in asked}
    probing = Probing(pools, math.inf, {})
    curves = {k: _curve(lambda n, k=k: recall(k, setting_of(probing, k, n)), lists) for k in asked}  # type: ignore[misc]
    if total >= 4 * SPARSE * NEAR:
        allow = frozen(bitset.from_mask(np.random.default_rng(0).random(total) * SPARSE < 1))
        sparse = ask(few, NEAR, Setting(lists, TRUTH_POOLS * NEAR), allow)
        curves[SPARSE * NEAR] = _curve(
            lambda n: _recall(ask(few, NEAR, setting_of(probing, NEAR, n), allow), sparse), lists
        )
    usual = min(lists, math.ceil(calibration.width(curves, NEAR, USUAL_RECALL)))
    return Probing(pools, _slack(partial(recall, NEAR), setting_of(probing, NEAR, usual)), curves)


def setting_of(probing: Probing, k: int, nprobe: int) -> Setting:
    """As a search for k uses it. Estimates put as many rows wrongly for a few neighbours as for NEAR of them."""
    measured = sorted(probing.pools)
    beyond = [math.log((probing.pools[at] - 1.0) * at) for at in measured]
    more = math.exp(float(np.interp(math.log(k), np.log(measured), beyond))) * max(1.0, k / measured[-1])
    return Setting(nprobe, k + math.ceil(more - 1e-9), probing.slack)


def patience(setting: Setting, lists: int, rows: float) -> int:
    """Rows in turn that are not among the k nearest, after which a search ends; rows: those that may be found.

    Scanning all lists is meant to find what is there, and ends with the last.
    """
    if setting.nprobe >= lists:
        return NEVER
    return max(1, int(max(PATIENCE * setting.nprobe, PATIENT_LISTS) * rows / lists))


def share_of(allow: AnyArray, rows: int) -> float:
    """Of the rows, those that a bitset lets pass; an empty one lets all."""
    return int(np.bitwise_count(allow).sum()) / rows if len(allow) else 1.0


def sample(rows: int) -> I32:
    """Evenly spaced rows."""
    return np.unique(np.linspace(0, max(0, rows - 1), min(QUERIES, rows)).astype(np.int32))


def _others(matrix: Matrix, asked: I32, k: int, search: Search, setting: Setting) -> F32:
    """The distances of the k nearest rows of each but the row itself."""
    queries = frozen(np.ascontiguousarray(matrix.vectors[asked].astype(np.float32)))
    rows, distances = search(queries, k + 1, Setting(setting.nprobe, setting.pool + 1, setting.slack))
    itself = rows == asked[:, None]
    itself[~itself.any(1), k] = True
    return np.asarray(distances[~itself].reshape(len(asked), k))


def _recall(distances: F32, exact: F32) -> float:
    last = exact[:, -1:]
    return float((distances <= last + 1e-6 * np.abs(last) + 1e-7).mean())


def _pool(recall: Callable[[Setting], float], k: int, lists: int) -> float:
    """The least rows scored exactly, over k, that lose nothing that matters, all lists scanned."""
    for tried in POOLS[:-1]:
        if recall(Setting(lists, round(tried * k))) >= 1.0 - LOSS_MAX:
            return tried
    return POOLS[-1]


def _slack(recall: Callable[[Setting], float], setting: Setting) -> float:
    """The least that loses nothing that matters."""
    whole = recall(setting)
    for slack in SLACKS:
        if recall(replace(setting, slack=slack)) >= whole - LOSS_MAX:
            return slack
    return math.inf


def _curve(recall: Callable[[int], float], lists: int) -> Curve:
    points: list[tuple[int, float]] = []
    for nprobe in (*(n for n in PROBES if n < lists), lists):
        points.append((nprobe, recall(nprobe)))
        if points[-1][1] >= ENOUGH:
            break
    return calibration.never_falling(points)


def read(stored: Any, usual: Probing) -> Probing:
    """What `to_dict` made; `usual` for anything else, for an index serves without its curves too."""
    try:
        pools = {int(k): float(pool) for k, pool in stored["pools"]}
        slack, curves = float(stored["slack"]), calibration.from_lists(stored["curves"])
    except (TypeError, KeyError, ValueError):
        return usual
    if stored.get("patience") != [PATIENCE, PATIENT_LISTS]:  # the same lists find something else
        return usual
    sound = set(pools) == {NEAR, DEEP} and all(1.0 < pool <= POOLS[-1] for pool in pools.values()) and slack >= 0.0
    return Probing(pools, slack, curves) if sound else usual


def compared(before: Probing, after: Probing) -> list[float]:
    """[recall before, recall after] of the NEAR nearest, with as many lists as reach COMPARED_RECALL after."""
    if not (before.curves and after.curves):
        return []
    nprobe = calibration.width(after.curves, NEAR, COMPARED_RECALL)
    return [_at(curves.curves[NEAR], nprobe) for curves in (before, after)]


def _at(curve: Curve, nprobe: float) -> float:
    return round(float(np.interp(nprobe, [n for n, _ in curve], [found for _, found in curve])), 4)
