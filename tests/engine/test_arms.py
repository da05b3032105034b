"""However a segment is searched, the same filter allows the same records: at k = n every arm returns all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.filter import oracle
from tests.filter.test_density import leaf, record, tree
from vecdb.engine import plans, wanted
from vecdb.types import Arm, Plan, Traits

ROWS, DIM = 1200, 32
SERVES: dict[Arm, Callable[[Traits], bool]] = {
    Arm.SCAN: lambda traits: traits.masked,
    Arm.GRAPH: lambda traits: traits.graph,
    Arm.LISTS: lambda traits: traits.lists > 0,
    Arm.GATHER: lambda traits: traits.gathers,
    Arm.EXCERPT: lambda traits: traits.gathers,
}
INDEXES: dict[str, Any] = {
    "growing": "flat",
    "flat": "flat",
    "hnsw": vecdb.HNSW(m=8, ef_construction=40),
    "ivf": vecdb.IVF(nlist=9),
    "ivfpq": vecdb.IVFPQ(nlist=9),
}
SERVED = {
    Arm.SCAN: {"growing", "flat", "hnsw", "ivf", "ivfpq"},
    Arm.GATHER: {"hnsw"},
    Arm.EXCERPT: {"hnsw"},
    Arm.GRAPH: {"hnsw"},
    Arm.LISTS: {"ivf", "ivfpq"},
}


class Store:
    """Records with the payloads of tests/filter/test_density.py, a tenth of them deleted, some without a vector."""

    def __init__(self, path: Path, name: str) -> None:
        random_ = random.Random(5)
        self.payloads = [record(row, random_) for row in range(ROWS)]
        vectors = np.random.default_rng(5).standard_normal((ROWS, DIM)).astype(np.float32)
        self.db = vecdb.open(path, maintenance="manual", sync="none")
        self.docs = self.db.create_collection("docs", dim=DIM, index=INDEXES[name])
        listed = [None if row % 23 == 7 else vector for row, vector in enumerate(vectors)]
        self.docs.upsert(range(ROWS), listed, self.payloads)
        if name != "growing":
            self.db.optimize()
        self.docs.delete(range(0, ROWS, 10))
        self.name, self.query = name, vectors[1]
        self.db._engine.kernels.wait("float32")

    def matching(self, where: dict[str, Any]) -> list[int]:
        there = (row for row in range(ROWS) if row % 10 and row % 23 != 7)
        return [row for row in there if oracle.matches(self.payloads[row], where)]


@pytest.fixture(scope="module", params=INDEXES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wanted, "LISTS_ROWS_MIN", ROWS // 2)
        made = Store(tmp_path_factory.mktemp("arms") / "data", request.param)
        yield made
        made.db.close()


def forcing(arm: Arm, taken: list[Arm]) -> Callable[..., Plan]:
    """The planner, overruled wherever an index of the segment can serve the arm."""
    choose = plans.choose

    def chosen(*args: Any, **options: Any) -> Plan:
        plan = choose(*args, **options)
        known = [traits for given in args if isinstance(given, list | tuple) for traits in given]
        able = arm is Arm.EXACT or any(SERVES[arm](traits) for traits in known if isinstance(traits, Traits))
        if plan.arm is not Arm.NONE and able:
            plan = replace(plan, arm=arm, ef=max(ROWS, plan.ef or 0))
        taken.append(plan.arm)
        return plan

    return chosen


@pytest.mark.parametrize("arm", [Arm.EXACT, Arm.GATHER, Arm.EXCERPT, Arm.SCAN, Arm.GRAPH, Arm.LISTS])
def test_every_arm_finds_the_same_records(store: Store, arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    random_ = random.Random(9)
    taken: list[Arm] = []
    monkeypatch.setattr(plans, "choose", forcing(arm, taken))
    for segment in store.docs._state.view.segments:
        segment.plans.clear()  # of the tests before
        segment.ways.clear()
    for where in [*(leaf(random_) for _ in range(25)), *(tree(random_) for _ in range(25))]:
        expected = store.matching(where)
        hits = store.docs.search(store.query, max(1, len(expected)), where)
        assert sorted(hits.ids.tolist()) == expected, where
        assert (np.diff(hits.distances) >= 0).all()
        exact = store.docs.search(store.query, max(1, len(expected)), where, exact=True)
        assert np.allclose(hits.distances, exact.distances, atol=1e-5)
    assert (arm in taken) == (store.name in SERVED.get(arm, INDEXES)), "whether an index of the segment serves the arm"
