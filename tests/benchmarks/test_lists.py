"""The arithmetic of the benchmark of inverted lists: efforts, targets, objectives, halves, allowances, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from benchmarks.graphs.curves import Curve, compare, figures, limits
from benchmarks.graphs.vector_sets import VectorSet, nearest_distances
from benchmarks.lists import TARGETS, file_of, large, prepare, probes, tables
from benchmarks.lists.cold import LEAST, allowance, can_allocate, memory
from benchmarks.lists.drift import halves, nearest_is_new, never_trained_again
from benchmarks.lists.exact import parts
from benchmarks.lists.growth import sizes
from benchmarks.lists.training import objective
from benchmarks.lists.vecdb_lists import VecdbLists
from vecdb.index import drift


class Known:
    """An engine of which only the name matters."""

    version = "1"

    def __init__(self, name: str) -> None:
        self.name = name


def curve_of(name: str, recalls: list[float], seconds: list[float], wanted: tuple[float, ...] = TARGETS) -> Curve:
    return Curve(Known(name), 10, list(range(len(recalls))), recalls, [seconds], [seconds], wanted)


@pytest.mark.parametrize("nlist", [1, 5, 244, 3906])
def test_lists_to_scan_rise_to_all_or_to_the_most(nlist: int) -> None:
    found = probes(nlist)
    assert found == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == min(nlist, 1024)


def test_recalls_that_a_curve_ends_at_are_looked_at_too() -> None:
    """A curve that reaches the first target is compared there; 0.87654 is rounded down, so that it is reached."""
    curves = [curve_of("a", [0.9, 0.99], [1, 2]), curve_of("b", [0.8, 0.87654], [1, 2]), curve_of("c", [0.96], [1])]
    assert limits(curves, TARGETS) == (0.8765, 0.95, 0.98)


def test_ratios_are_taken_where_the_other_ends() -> None:
    wanted = (0.87, *TARGETS)
    ours = curve_of("ours", [0.87, 0.99], [1.0, 2.0], wanted)
    found = compare([ours, ours, curve_of("coarse", [0.8, 0.87], [1.0, 3.0], wanted)])
    assert found["0.87 batch"]["ratios"] == {"coarse": pytest.approx((3.0, 3.0, 3.0))}
    assert "0.95 batch" not in found


def test_the_objective_is_the_mean_squared_distance_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    vectors, centroids = rng.standard_normal((500, 12), np.float32), rng.standard_normal((7, 12), np.float32)
    distances = ((vectors[:, None].astype(np.float64) - centroids) ** 2).sum(2)
    assert objective(vectors, centroids) == pytest.approx(distances.min(1).mean(), rel=1e-9)


def test_halves_are_of_whole_sections() -> None:
    sections = ["a"] * 30 + ["b"] * 25 + ["c"] * 25 + ["d"] * 20
    old, new = halves(sections)
    assert sorted([*old, *new]) == list(range(100))
    assert {sections[row] for row in old}.isdisjoint(sections[row] for row in new)
    assert 50 <= len(old) < 100


def test_queries_about_new_rows_have_none_of_the_old_nearest() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    data = VectorSet("four", "l2", rows, np.array([[0.9, 0.0], [0.0, 0.9], [-0.9, 0.0]], np.float32))
    assert nearest_is_new(data, 2, nearest_distances(data, 1)).tolist() == [False, False, True]


def test_bounds_of_drift_come_back() -> None:
    fit = drift.Fit(9.0, 9.0)
    before = fit.drifted(drift.Fit(1.0, 1.0), 10, 100)
    with never_trained_again():
        assert fit.drifted(drift.Fit(1.0, 1.0), 10, 100) == ""
    assert fit.drifted(drift.Fit(1.0, 1.0), 10, 100) == before != ""


def test_sizes_that_are_there() -> None:
    assert sizes(1_000_000) == [10_000, 100_000, 1_000_000]
    assert sizes(99_999) == [10_000]
    assert sizes(5000) == [5000]


def test_a_call_has_so_many_queries() -> None:
    assert [len(part) for part in parts(np.zeros((250, 2), np.float32), 100)] == [100, 100, 50]


def test_what_is_allowed_is_less_than_a_large_file() -> None:
    assert allowance(1 << 30) == 1 << 29
    assert allowance(1 << 20) == LEAST


def test_memory_of_this_process() -> None:
    used = memory()
    assert 0 < used["anonymous"] <= used["peak"]
    assert used["counted"] > 0 < used["file_backed"]
    assert can_allocate(1 << 20)


@pytest.mark.parametrize("options", [vecdb.IVF(nlist=8), vecdb.IVFPQ(nlist=8)])
def test_stored_lists_answer_as_those_that_were_built(options: vecdb.IVF | vecdb.IVFPQ, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = rng.standard_normal((600, 128), np.float32), rng.standard_normal((5, 128), np.float32)
    built, loaded = (VecdbLists("l2", options, "vecdb lists") for _ in range(2))
    said: list[str] = []
    for engine in (built, loaded):
        prepare([engine], vectors, "digest", tmp_path, 1, said.append)
    assert len(said) == 1
    assert file_of(tmp_path, "digest", built).is_file()
    assert loaded.search(queries, 10, 3).tolist() == built.search(queries, 10, 3).tolist()
    arrays = built.index.arrays().values()
    assert sum(array.nbytes for array in arrays) / 600 <= loaded.bytes_per_vector() < 128 * 4


def measured() -> dict[str, object]:
    """Figures of three engines: ours, and two of one family of which "b" is the faster."""
    wanted = (0.9, *TARGETS)
    ours = curve_of("vecdb", [0.9, 0.95, 0.98], [1.0, 2.0, 4.0], wanted)
    others = [curve_of("a", [0.9, 0.95], [4.0, 9.0], wanted), curve_of("b", [0.9, 0.95], [2.0, 6.0], wanted)]
    return {
        "name": "rows",
        "families": {"vecdb": "vecdb", "a": "family", "b": "family"},
        "curves": {"10": {curve.engine.name: figures(curve) for curve in (ours, *others)}},
        "ratios": {"10": {"vecdb": compare([ours, ours, *others])}},
        "modes": ["batch", "single"],
        "bytes": {"vecdb": 104.0, "a": 96.0, "b": 96.0},
    }


def test_the_best_of_a_family_counts() -> None:
    found = measured()
    assert tables.best_of(found, "10", "batch", "0.95", "family") == "b"
    assert tables.against(found, "10", "batch", "0.95", "vecdb", "family").startswith("3.00 ")
    assert tables.against(found, "10", "batch", "0.98", "vecdb", "family") == "-"
    lines = tables.families(found, "10", "single").splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["family", "0.9"], ["family", "0.95"]]


def test_a_report_has_every_engine() -> None:
    report = tables.report(measured())
    for name, points in (("vecdb", 3), ("a", 2), ("b", 2)):
        lines = [line for line in report.splitlines() if line.startswith(f"{name} ")]
        assert len(lines) == points + 3  # two modes, and bytes


def test_rows_on_the_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    middles = rng.integers(30, 200, (40, 16))
    rows = (middles[rng.integers(0, 40, 5300)] + rng.integers(-20, 20, (5300, 16))).astype(np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    exact = large.nearest_distances(rows[300:], rows[:3].astype(np.float32))
    wanted = np.sort(((rows[300:].astype(float) - rows[:3, None].astype(float)) ** 2).sum(2))[:, : large.K]
    np.testing.assert_array_equal(exact, wanted)
    said: list[str] = []
    found = large.measure(tmp_path / "rows.npy", 20, 2, tmp_path, said.append)
    assert (found["rows"], found["nlist"], len(said)) == (5000, 20, 2)
    assert found["recall"][-1] > 0.97
    assert all(us > 0 for us in found["us"].values())
    assert "5,000" in tables.large(found)
