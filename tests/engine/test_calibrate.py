"""Measuring what searches cost: once a machine, once a graph; kept, believed with care, corrected by queries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests import oracles
from vecdb.engine import calibrate, costs
from vecdb.engine.costs import OBSERVED, CostBook, Place
from vecdb.engine.plans import Tally
from vecdb.planner.cost import NOT_MEASURED, USUAL, Line
from vecdb.planner.measured import Walks
from vecdb.types import Arm, Estimate, Plan

ROWS, DIM = 2_400, 64
MANY = 12_000  # smaller segments have no lists
VECTORS = oracles.clustered(ROWS, DIM, seed=5).astype(np.float32)
PLACE = Place(384, "float32", 2, 2, 16, 16)
LINES = {"exact": Line(10.0, 70.0), "walk": Line(12.0, 350.0)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kept = tmp_path / "cache"
    kept.mkdir()
    monkeypatch.setattr(costs, "cache_directory", lambda: kept)
    monkeypatch.setattr(calibrate, "MEASURED_ROWS", ROWS // 2)
    return kept


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> Iterator[Path]:
    with vecdb.open(tmp_path / "data", maintenance="manual", sync="none", threads=1) as db:
        docs = db.create_collection("docs", dim=DIM, metric="l2", index=vecdb.HNSW(m=8, ef_construction=40))
        docs.upsert(list(range(ROWS)), VECTORS, [{"n": n} for n in range(ROWS)])
        db.optimize()
    return tmp_path / "data"


def opened(path: Path) -> tuple[vecdb.Database, vecdb.Collection]:
    db = vecdb.open(path, maintenance="manual", sync="none", threads=1)
    docs = db.get_collection("docs")
    docs.explain(VECTORS[0])  # the kernels are there
    return db, docs


def test_costs_are_measured_once_and_kept(data: Path, cache: Path) -> None:
    db, docs = opened(data)
    with db:
        assert docs.explain(VECTORS[0]).segments[0].plan.source == USUAL
        assert db.stats().costs == {}
        assert db.maintain() == "measure"
        assert db.maintain() is None
        (place, told), *others = db.stats().costs.items()
        assert not others
        assert f"{DIM} x float32" in place
        assert set(told["lines"]) == {"exact", "gather", "excerpt", "scan", "walk"}
        assert all(fixed > 0 and each > 0 for fixed, each in told["lines"].values())
        plan = docs.explain(VECTORS[0]).segments[0].plan
        assert plan.source.startswith("measured on this machine, ")
        assert plan.source in str(docs.explain(VECTORS[0]))
        stored = next(iter(docs._state.view.segments[0].fields.values())).indexes["hnsw"].entry.parameters["walks"]
        assert len(stored["filtered"]) == len({share for share, _ in stored["filtered"]}) == 5
    (kept,) = cache.iterdir()
    assert json.loads(kept.read_text())["facts"]["lines"] == told["lines"]
    db, docs = opened(data)
    with db:
        assert docs.explain(VECTORS[0]).segments[0].plan.source == plan.source
        assert db.maintain() is None


def test_what_is_kept_is_measured_again_when_it_is_damaged(data: Path, cache: Path, caplog) -> None:
    db, _ = opened(data)
    with db:
        db.maintain()
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    db, docs = opened(data)
    with db, caplog.at_level(logging.WARNING, "vecdb"):
        assert docs.explain(VECTORS[0], 3).segments[0].plan.source == USUAL or "not believed" in caplog.text
        assert db.maintain() == "measure"
        assert db.maintain() is None
        assert docs.explain(VECTORS[0], 4).segments[0].plan.source != USUAL


def test_another_machine_with_the_same_data_measures_for_itself(data: Path, cache: Path, monkeypatch) -> None:
    db, _ = opened(data)
    with db:
        db.maintain()
    monkeypatch.setattr(costs, "processor", lambda: "another")
    db, docs = opened(data)
    with db:
        assert docs.explain(VECTORS[0]).segments[0].plan.source == USUAL
        assert db.maintain() == "measure"
        assert any("another" in place for place in db.stats().costs)
    assert len(list(cache.iterdir())) == 2


def test_optimize_and_small_segments_measure_nothing(data: Path, cache: Path, monkeypatch) -> None:
    db, _ = opened(data)
    with db:
        db.optimize()
        assert db.stats().costs == {}
        monkeypatch.setattr(calibrate, "MEASURED_ROWS", ROWS + 1)
        assert db.maintain() is None
    assert not list(cache.iterdir())


def test_results_do_not_depend_on_costs(data: Path, cache: Path) -> None:
    """Whatever is believed of the arms, exact search is exact, and every arm finds the nearest of a filter."""
    db, docs = opened(data)
    with db:
        where = {"n": {"$lt": 900}}
        exact = docs.search(VECTORS[5], 10, where, exact=True)
        engine = db._engine
        place = next(iter(engine.costs.places))
        for dear in ("exact", "gather", "excerpt", "scan", "walk"):
            lines = {
                name: Line(1.0, 1e6 if name == dear else 1.0) for name in ("exact", "gather", "excerpt", "scan", "walk")
            }
            engine.costs.put(place, lines, "test")
            found = docs.search(VECTORS[5], 10, where)
            assert docs.explain(VECTORS[5], 10, where).segments[0].plan.source == "measured on this machine, test"
            assert found.distances[0] == exact.distances[0]
            assert oracles.recall(found.distances[None], exact.distances[None]) >= 0.9


def test_a_book_corrects_by_the_median_of_queries(cache: Path) -> None:
    book = CostBook()
    assert book.costs(PLACE, None) is NOT_MEASURED
    book.put(PLACE, LINES, "today")
    measured, version = book.find(PLACE), book.version
    assert measured is not None
    for _ in range(OBSERVED - 1):
        book.observe(measured, Arm.EXACT, 3.0)
    assert book.version == version
    book.observe(measured, Arm.EXACT, 3.0)
    assert book.version == version + 1
    costs_now = book.costs(PLACE, None)
    assert costs_now.lines["exact"].each_ns == pytest.approx(77.0)
    assert costs_now.lines["walk"] == LINES["walk"]
    assert costs_now.source == "measured on this machine, today, corrected by 64 queries"
    for _ in range(OBSERVED):
        book.observe(measured, Arm.EXACT, 1.0)
        book.observe(measured, Arm.SCAN, 5.0)  # was not measured here
        book.observe(measured, Arm.LISTS, 5.0)
    assert book.version == version + 1
    assert CostBook().costs(PLACE, None).lines == LINES  # another process begins from what was measured


def test_how_walks_go_counts_without_measured_lines(cache: Path) -> None:
    walks = Walks(((0.1, 2.0),), 0.5, 3.0)
    found = CostBook().costs(PLACE, walks)
    assert (found.filtered, found.far, found.source) == (walks.filtered, 3.0, USUAL)
    assert CostBook().costs(None, None) is NOT_MEASURED


@pytest.mark.parametrize("facts", [{}, [], {"when": 3, "lines": {}}, {"when": "x" * 99, "lines": {}}, {"when": "now"}])
def test_kept_facts_that_make_no_sense_are_refused(cache: Path, facts: object, caplog) -> None:
    costs.write_facts(cache, str(PLACE), facts)
    with caplog.at_level(logging.WARNING, "vecdb"):
        assert CostBook().find(PLACE) is None
    assert "not believed" in caplog.text


def test_walks_that_make_no_sense_are_not_read(caplog) -> None:
    with caplog.at_level(logging.WARNING, "vecdb"):
        assert costs.read_walks({"walks": {"near": 1.0}}) is None
    assert "not believed" in caplog.text
    assert costs.read_walks({}) is None


def test_a_walk_that_gives_up_early_may_escalate_more_often() -> None:
    def kept_after(gives_up_us: float | None) -> int:
        """Escalations out of 100 queries until the plan is given up."""
        walk = Plan(
            Arm.GRAPH, "given", ROWS, Estimate(ROWS, ROWS), {"graph": 50.0, "scan": 100.0}, fallback=Arm.SCAN,
            gives_up_us=gives_up_us,
        )  # fmt: skip
        for escalated in range(100):
            tally = Tally(walk)
            tally.add(100, escalated)
            if tally.plan.arm is Arm.SCAN:
                return escalated
        return 100

    assert 51 <= kept_after(None) <= 56  # a standard deviation for luck
    assert kept_after(10.0) > 80
    assert kept_after(100.0) < 40


@pytest.mark.parametrize("index", [vecdb.IVF(nlist=16), vecdb.IVFPQ(nlist=16)])
def test_lists_are_measured(tmp_path: Path, cache: Path, index: vecdb.IVF | vecdb.IVFPQ) -> None:
    with vecdb.open(tmp_path / "data", maintenance="manual", sync="none", threads=1) as db:
        docs = db.create_collection("docs", dim=DIM, metric="l2", index=index)
        docs.upsert(list(range(MANY)), oracles.clustered(MANY, DIM, seed=6))
        db.optimize()
        before = docs.explain(VECTORS[0]).segments[0].plan
        assert (before.source, db.maintain(), db.maintain()) == (USUAL, "measure", None)
        ((place, told),) = db.stats().costs.items()
        assert f"16 lists of {docs._state.meta.fields[0].index.kind}" in place
        assert set(told["lines"]) == {"exact", "lists", "scan"}
        after = docs.explain(VECTORS[0]).segments[0].plan
        assert after.source.startswith("measured on this machine, ")
        assert set(after.costs) == set(before.costs)
        assert after.costs["lists"] != before.costs["lists"]
        for _ in range(OBSERVED):
            docs.search(VECTORS[1])
        assert db.stats().costs[place]["observed"] in (0, OBSERVED)  # when lists are the arm


def test_a_segment_that_grows_borrows_from_one_that_was_measured(data: Path, cache: Path) -> None:
    db, _ = opened(data)
    with db:
        young = db.create_collection("young", dim=DIM, metric="l2")
        young.upsert(list(range(1_500)), VECTORS[:1_500])
        assert young.explain(VECTORS[0]).segments[0].plan.source == USUAL
        db.maintain()
        plan = young.explain(VECTORS[0]).segments[0].plan
        assert plan.source.startswith("measured on this machine, ")
        assert plan.source.endswith("with 2^12 rows")
        other = db.create_collection("other", dim=DIM // 2, metric="l2")
        other.upsert(list(range(1_500)), VECTORS[:1_500, : DIM // 2])
        assert other.explain(VECTORS[0, : DIM // 2]).segments[0].plan.source == USUAL


def test_what_a_place_lends() -> None:
    listed = PLACE._replace(flat_bits=0, graph_bits=0, m=0, lists=("ivf", 2, 64))
    growing = PLACE._replace(graph_bits=0, m=0, size=12)
    assert PLACE.lends(PLACE._replace(size=20)) == {"exact", "scan", "gather", "excerpt", "walk"}
    assert PLACE.lends(growing) == {"exact", "scan"}
    assert PLACE.lends(growing._replace(flat_bits=4)) == {"exact"}
    assert listed.lends(growing) == growing.lends(listed) == {"exact"}
    assert PLACE.lends(PLACE._replace(dim=385)) == PLACE.lends(PLACE._replace(dtype="float16")) == set()
