"""The arithmetic of the benchmarks: what counts as found, and what the tables say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.dataset import Dataset
from benchmarks.measure import percentiles
from benchmarks.report import comparison, table


@pytest.fixture
def data() -> Dataset:
    """Four records on the unit circle, two of them the same point; the query is the first axis."""
    angles = np.array([0.0, 0.5, 0.5, 1.0])
    return Dataset(
        ids=["a", "b", "c", "d"],
        vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        payloads=[{"kb": 1, "arch": "all"}, {"kb": 2, "arch": "all"}, {"kb": 3, "arch": "x"}, {"kb": 4, "arch": "all"}],
        queries=np.array([[1.0, 0.0]], np.float32),
    )


def test_matching(data: Dataset) -> None:
    assert data.matching(()).tolist() == [True] * 4
    assert data.matching((("kb", ">=", 2), ("kb", "<=", 3))).tolist() == [False, True, True, False]
    assert data.matching((("arch", "==", "all"),)).tolist() == [True, True, False, True]


def test_kth_distance_is_exact(data: Dataset) -> None:
    assert data.kth_distance((), k=2)[0] == pytest.approx(1 - np.cos(0.5), abs=1e-6)
    assert data.kth_distance((("arch", "==", "all"),), k=3)[0] == pytest.approx(1 - np.cos(1.0), abs=1e-6)


@pytest.mark.parametrize(
    ("found", "recall"),
    [(["a", "b"], 1.0), (["a", "c"], 1.0), (["a", "d"], 0.5), (["a"], 0.5), ([], 0.0), (["a", "a"], 0.5)],
)
def test_ties_count_as_found_and_repeats_do_not(data: Dataset, found: list[str], recall: float) -> None:
    assert data.recall([found], data.kth_distance((), k=2), k=2) == recall


def test_percentiles() -> None:
    figures = percentiles([0.001] * 99 + [0.101])
    assert figures["p50_ms"] == pytest.approx(1.0)
    assert figures["qps"] == pytest.approx(500.0)


def test_table() -> None:
    assert table([["", "x"], ["ab", "1"]]).splitlines() == ["    x", "-----", "ab  1"]


def test_comparison_is_against_the_better_of_each_row() -> None:
    def engine(*speeds: float) -> dict[str, dict[str, dict[str, float]]]:
        return {"filters": {name: {"qps": speed} for name, speed in zip("ab", speeds, strict=True)}}

    lines = comparison({"vecdb": engine(80, 200), "zvec": engine(10, 100), "qdrant-edge": engine(20, 10)}).splitlines()
    assert lines[2].split() == ["a", "80", "10", "20", "4.00"]
    assert lines[3].split() == ["b", "200", "100", "10", "2.00"]
    assert lines[4].split()[-1] == "2.83"
