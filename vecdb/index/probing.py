"""How many lists to scan for a recall, and how many rows to score exactly: measured on rows of the index itself.

Some rows are asked for their neighbours other than themselves. The truth comes from the same codes: all lists scanned,
and more rows scored exactly than any search does.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.index import calibration
from vecdb.index.base import frozen
from vecdb.index.calibration import Curve, Curves
from vecdb.types import F32, I32, Matrix

Search = Callable[[F32, int, "Setting"], tuple[I32, F32]]  # (queries, k, setting) -> (rows, distances)

QUERIES, DEEP_QUERIES = 256, 64
NEAR, DEEP = 10, 100  # the measured k
TRUTH_POOL = 600  # rows scored exactly for the truth
POOLS = (1.2, 1.6, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)  # rows scored exactly over k
LOSS_MAX = 0.001  # recall that scoring fewer rows may cost
SLACKS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.5)
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ENOUGH = 0.998  # where a curve ends
EFFORTS_MAX = 1024  # readings of the curves that an index keeps
NO_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Setting:
    """What one search is given: lists to scan, rows to score exactly, and the slack of estimates (see `decide`)."""

    nprobe: int
    pool: int
    slack: float = float("inf")


@dataclass(frozen=True, slots=True)
class Probing:
    """What was measured. pools: rows scored exactly over k; curves: by k, (lists, recall)."""

    pool: float
    slack: float
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        return {"pool": self.pool, "slack": self.slack, "curves": calibration.to_lists(self.curves)}


def measure(
    matrix: Matrix, lists: int, search: Search, threads: int, tick: Callable[[], None], usual: Probing
) -> Probing:
    """Pool, slack and curves of an index that `search` searches; `usual` where there are too few rows to tell.

    tick   called between searches; may raise to stop
    """
    rows = sample(matrix.rows)
    if len(rows) < QUERIES // 4 or matrix.rows <= 2 * DEEP:
        return usual
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="vecdb-build") as team:

        def ask(asked: I32, k: int, setting: Setting) -> F32:
            """The distances of the k nearest other rows."""
            tick()
            parts = np.array_split(asked, min(max(1, threads), len(asked)))
            found = team.map(lambda part: _others(matrix, part, k, search, setting), parts)
            return np.concatenate(list(found))

        near = ask(rows, NEAR, Setting(lists, TRUTH_POOL))
        pool, slack = _scored(lambda setting: _recall(ask(rows, NEAR, setting), near), lists)
        deep_rows = rows[:: max(1, len(rows) // DEEP_QUERIES)]
        deep = ask(deep_rows, DEEP, Setting(lists, TRUTH_POOL))
        probing = Probing(pool, slack, {})
        return Probing(
            pool,
            slack,
            {
                NEAR: _curve(lambda n: _recall(ask(rows, NEAR, setting_of(probing, NEAR, n)), near), lists),
                DEEP: _curve(lambda n: _recall(ask(deep_rows, DEEP, setting_of(probing, DEEP, n)), deep), lists),
            },
        )


def setting_of(probing: Probing, k: int, nprobe: int) -> Setting:
    """As a search for k uses it: with more neighbours there are relatively fewer that estimates put wrongly."""
    beyond = (probing.pool - 1.0) * NEAR * (k / NEAR) ** 0.75
    return Setting(nprobe, k + int(np.ceil(beyond)), probing.slack)


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


def _scored(recall: Callable[[Setting], float], lists: int) -> tuple[float, float]:
    """(pool over k, slack): the least that lose nothing that matters, all lists scanned."""
    pool = POOLS[-1]
    for tried in POOLS:
        if recall(Setting(lists, round(tried * NEAR))) >= 1.0 - LOSS_MAX:
            pool = tried
            break
    for slack in SLACKS:
        if recall(Setting(lists, round(pool * NEAR), slack)) >= 1.0 - 2 * LOSS_MAX:
            return pool, slack
    return pool, float("inf")


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
        pool, slack = float(stored["pool"]), float(stored["slack"])
        curves = calibration.from_lists(stored["curves"])
    except (TypeError, KeyError, ValueError):
        return usual
    sound = 1.0 <= pool <= POOLS[-1] and slack >= 0.0
    return Probing(pool, slack, curves) if sound else usual


def compared(before: Probing, after: Probing) -> list[float]:
    """[recall before, recall after] of the NEAR nearest, with the lists that reach the default recall after."""
    if not (before.curves and after.curves):
        return []
    nprobe = calibration.width(after.curves, NEAR, calibration.DEFAULT_RECALL)
    return [_at(curves.curves[NEAR], nprobe) for curves in (before, after)]


def _at(curve: Curve, nprobe: float) -> float:
    return round(float(np.interp(nprobe, [n for n, _ in curve], [found for _, found in curve])), 4)
