"""The arithmetic of the graph benchmark: what counts as found, speeds between points, ratios of rounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.graphs.curves import Curve, compare, efforts, ends, figures, measure, paired, seconds_at
from benchmarks.graphs.vecdb_graph import VecdbGraph
from benchmarks.graphs.vector_sets import VectorSet, nearest_distances, recall
from tests import oracles


@pytest.fixture
def circle() -> VectorSet:
    """Four rows on the unit circle, two of them the same point; the query is the first axis."""
    angles = np.array([0.0, 0.5, 0.5, 1.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return VectorSet("circle", "cosine", rows, np.array([[1.0, 0.0]], np.float32))


@pytest.mark.parametrize(
    ("found", "share"),
    [([0, 1], 1.0), ([0, 2], 1.0), ([2, 0], 1.0), ([1, 2], 1.0), ([0, 3], 0.5), ([0, -1], 0.5), ([0, 0], 0.5)],
)
def test_ties_count_as_found_and_repeats_do_not(circle: VectorSet, found: list[int], share: float) -> None:
    assert recall(circle, np.array([found]), nearest_distances(circle, 2)) == share


def test_recall_of_more_than_there_is(circle: VectorSet) -> None:
    found = np.array([[0, 1, 2, 3, -1, -1]])
    assert recall(circle, found, nearest_distances(circle, 6)) == 1.0


@pytest.mark.parametrize(("name", "metric"), [("cosine", oracles.COSINE), ("l2", oracles.L2)])
def test_nearest_distances_are_exact(name: str, metric: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the rows come in several blocks."""
    monkeypatch.setattr("benchmarks.graphs.vector_sets.BLOCK", 100)
    rng = np.random.default_rng(0)
    rows, queries = rng.standard_normal((350, 12)), rng.standard_normal((9, 12))
    if name == "cosine":
        rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
    data = VectorSet("random", name, rows.astype(np.float32), queries.astype(np.float32))
    _, expected = oracles.nearest(metric, data.vectors, data.queries, 20)
    assert nearest_distances(data, 20) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_a_part_has_the_first_rows(circle: VectorSet) -> None:
    assert circle.part(2).vectors.tolist() == circle.vectors[:2].tolist()
    assert circle.part(2).digest() != circle.digest()


def test_seconds_between_points_are_a_geometric_mean() -> None:
    found = seconds_at([0.90, 0.94, 0.96], [[9.0, 1.0, 4.0], [9.0, 2.0, 8.0]], 0.95)
    assert found is not None
    assert found[0] == pytest.approx([2.0, 4.0])
    assert found[1] is False


def test_seconds_at_a_point_are_those_of_the_point() -> None:
    found = seconds_at([0.90, 0.95, 0.99], [[1.0, 3.0, 9.0]], 0.95)
    assert found is not None
    assert found[0] == pytest.approx([3.0])


def test_a_recall_that_is_not_reached_has_no_seconds() -> None:
    assert seconds_at([0.90, 0.94], [[1.0, 2.0]], 0.95) is None


def test_the_first_point_is_a_bound_when_it_is_above() -> None:
    assert seconds_at([0.97, 0.99], [[1.0, 2.0], [1.5, 2.0]], 0.95) == ([1.0, 1.5], True)
    assert seconds_at([0.95, 0.99], [[1.0, 2.0]], 0.95) == ([1.0], False)


def test_the_first_crossing_counts_when_recall_is_not_monotone() -> None:
    found = seconds_at([0.90, 0.96, 0.94, 0.99], [[1.0, 1.0, 50.0, 60.0]], 0.95)
    assert found == ([pytest.approx(1.0)], False)


def test_ratios_are_of_rounds() -> None:
    """Both slow down together in the second round: the ratio does not see it."""
    assert paired([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == (2.0, 2.0, 2.0)
    assert paired([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == (2.0, 1.5, 2.5)


@pytest.mark.parametrize(("k", "rows"), [(10, 10**6), (100, 10**6), (10, 30), (100, 50)])
def test_efforts_rise_from_k(k: int, rows: int) -> None:
    efs = efforts(k, rows)
    assert efs[0] == k
    assert efs == sorted(set(efs))
    assert efs[-1] <= max(k, min(1024, rows))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_stored_graph_answers_as_the_one_that_was_built(metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = rng.standard_normal((300, 128), np.float32), rng.standard_normal((5, 128), np.float32)
    built, loaded = VecdbGraph(metric), VecdbGraph(metric)
    built.build(vectors, threads=1)
    built.save(tmp_path / "graph")
    loaded.load(tmp_path / "graph", vectors)
    assert loaded.search(queries, 10, 20).tolist() == built.search(queries, 10, 20).tolist()
    assert loaded.bytes_per_vector() == built.bytes_per_vector()
    assert loaded.index.graph.records.ctypes.data % 64 == 0


class Perfect:
    """An engine that finds the share of the nearest that ef is of the rows."""

    version = "1"

    def __init__(self, name: str, data: VectorSet) -> None:
        self.name, self.data = name, data

    def ready(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int, ef: int) -> np.ndarray:
        rows, _ = oracles.nearest(oracles.L2, self.data.vectors[:ef], queries, k)
        return rows


def test_a_curve_ends_at_the_first_point_beyond_what_is_asked() -> None:
    rng = np.random.default_rng(1)
    data = VectorSet("few", "l2", rng.random((60, 4), np.float32), rng.random((5, 4), np.float32))
    engines = [Perfect("ours", data), Perfect("other", data)]
    curves = measure(engines, data, 10, nearest_distances(data, 10), rounds=2, single=True)
    for curve in curves:
        assert curve.recalls[-1] == 1.0
        assert max(curve.recalls[:-1]) < 0.997
        assert np.isfinite(curve.batch).all()
        assert np.array(curve.batch).shape == (2, len(curve.efs))
        assert np.isfinite(curve.single).sum() == 2 * np.isfinite(curve.single[0]).sum() > 0


def curve_of(name: str, recalls: list[float], batch: list[list[float]]) -> Curve:
    missing = [[math.nan] * len(recalls) for _ in batch]
    engine = Perfect(name, VectorSet("", "l2", np.empty((0, 1), np.float32), np.empty((0, 1), np.float32)))
    return Curve(engine, 10, list(range(len(recalls))), recalls, batch, missing)


def test_the_best_of_the_others_is_chosen_for_each_recall() -> None:
    ours = curve_of("ours", [0.95, 0.99], [[1.0, 2.0], [1.0, 2.0]])
    fast = curve_of("fast", [0.95, 0.98], [[2.0, 3.0], [2.0, 3.0]])
    thorough = curve_of("thorough", [0.95, 0.99], [[5.0, 6.0], [5.0, 6.0]])
    found = compare([ours, fast, thorough])
    assert found["0.95 batch"]["best"] == "fast"
    assert found["0.95 batch"]["ratios"]["fast"] == (2.0, 2.0, 2.0)
    assert found["0.99 batch"]["best"] == "thorough"
    assert found["0.99 batch"]["ratios"] == {"thorough": (3.0, 3.0, 3.0)}
    assert set(found) == {"0.95 batch", "0.99 batch"}  # single calls were not measured


def test_ratios_to_a_bound_are_bounds() -> None:
    ours = curve_of("ours", [0.94, 0.96], [[1.0, 1.0]])
    others = [curve_of("begins above", [0.96], [[3.0]]), curve_of("around", [0.94, 0.96], [[3.0, 3.0]])]
    assert compare([ours, *others])["0.95 batch"]["bounds"] == {"begins above": "<=", "around": ""}


def test_a_curve_ends_when_recall_stands_still() -> None:
    assert ends([0.90, 0.997])
    assert not ends([0.90, 0.95, 0.99])
    assert not ends([0.9800, 0.9801, 0.9802, 0.9804])
    assert ends([0.9800, 0.9801, 0.9802, 0.9803 - 1e-9])


def test_figures_are_medians_of_rounds() -> None:
    kept = figures(curve_of("ours", [0.96, 0.98], [[0.5, 1.0], [0.25, 1.0], [0.25, 4.0]]))
    assert kept["qps"] == [4.0, 1.0]
    assert kept["at"] == {"0.95": {"at_least": True, "batch": 4.0}}
