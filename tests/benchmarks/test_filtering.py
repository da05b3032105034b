"""The cases of filtered search match what vecdb matches; forced arms are taken; the tables' arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from benchmarks.dataset import Dataset
from benchmarks.filtering import arms, cases, tables
from tests import oracles

ROWS, QUERIES = 1_500, 40
SECTIONS = ("libs", "games", "science", "python", "doc", "net")


@pytest.fixture(scope="module")
def made() -> tuple[Dataset, cases.Fields]:
    """Records of six sections, each around a point of its own, with the fields that the benchmark adds."""
    rng = np.random.default_rng(2)
    section = rng.integers(0, len(SECTIONS), ROWS + QUERIES)
    centres = oracles.clustered(len(SECTIONS), 24, seed=3)
    vectors = (centres[section] + 0.5 * rng.standard_normal((ROWS + QUERIES, 24))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.array(SECTIONS, object)[section]
    ranks = rng.integers(0, cases.RANKS, ROWS).tolist()
    columns = {"rank": ranks, "half": (vectors[:ROWS, 0] > 0).tolist(), "at": [cases.START] * ROWS}
    columns |= {f"near_{pivot}": rng.permutation(ROWS).tolist() for pivot in range(cases.PIVOTS)}
    payloads = [
        {"section": names[row], "arch": "all", "n_depends": row % 5, "tags": ["a"] if row % 3 else [],
         "installed_kb": row * 20, **{name: values[row] for name, values in columns.items()}}
        for row in range(ROWS)
    ]  # fmt: skip
    data = Dataset([f"r{row}" for row in range(ROWS)], vectors[:ROWS], payloads, vectors[ROWS:])
    return data, cases.Fields(columns, names[:ROWS], names[ROWS:])


@pytest.fixture(scope="module")
def docs(made, tmp_path_factory: pytest.TempPathFactory):
    path: Path = tmp_path_factory.mktemp("filtering") / "data"
    database, collection = arms.build(path, made[0], vecdb.HNSW(m=8, ef_construction=40))
    with database:
        yield collection


def test_masks_are_what_vecdb_matches(made, docs) -> None:
    found = [*cases.all_cases(*made, queries=4), *cases.sweep(*made, filters=12, queries=3)]
    assert {case.table for case in found} == {"set", "selectivity", "correlated", "operators", "split", "sweep"}
    for case in found:
        assert docs.count(case.where) == case.mask.sum(), case.name
        assert 1 <= len(case.queries) <= 4
        assert case.k == min(10, case.mask.sum())


def test_every_arm_is_forced_and_measured(made, docs) -> None:
    data, fields = made
    case = next(one for one in cases.selectivities(fields, data.queries[:6]) if one.name == "1/4")
    names = arms.arms_of(docs, data.queries[0])
    assert names == ["planner", "exact", "graph", "scan"]
    for arm in names[1:]:
        with arms.forced(docs, arm):
            assert {str(part.plan.arm) for part in docs.explain(data.queries[0], 10, case.where).segments} == {arm}
    figures = arms.measure(docs, data, case, names, rounds=1)
    assert set(figures["arms"]) == set(names)
    assert figures["arms"]["exact"]["recall"] == 1.0
    assert all(one["recall"] >= 0.9 and one["p99_us"] >= one["us"] > 0 for one in figures["arms"].values())
    assert figures["chosen"] in names
    assert set(figures["predicted_us"]) >= {"exact", "scan"}


def case_of(planner: float, exact: float, scan: float, recall: float = 1.0) -> dict:
    times = {"planner": planner, "exact": exact, "scan": scan}
    found = {arm: {"us": us, "recall": recall if arm == "scan" else 1.0} for arm, us in times.items()}
    return {"share": 0.1, "cold_us": 9.0, "chosen": "exact", "escalated": 0.0, "arms": found}


def test_a_choice_is_compared_with_the_best_arm_that_finds_enough() -> None:
    assert arms.ratio(case_of(300, 310, 200)) == 1.5
    assert arms.ratio(case_of(300, 310, 200, recall=0.5)) == 1.0
    told = tables.summary({"a": case_of(300, 310, 200), "b": case_of(24, 20, 10), "c": case_of(300, 250, 400)})
    assert (told["filters"], told["worst"]) == (3, 1.5)
    assert told["near"] == pytest.approx(2 / 3)


def test_tables_have_all_cases(tmp_path: Path) -> None:
    found = {"selectivity: 1/2": case_of(300, 310, 200), "set: none": case_of(20, 30, 40), "sweep: 0": case_of(2, 3, 4)}
    peers = {"zvec": {"set: none": {"us": 60.0, "recall": 0.99}}}
    text = tables.report(found, ["planner", "exact", "scan"], peers)
    assert "1 random filters: 100.0 %" in text
    assert text.count("1/2") == 1
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("geometric")] == ["3.00"]
