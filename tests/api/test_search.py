"""Searching in every state that a collection can be in, against brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import oracles
from tests.oracles_api import METRICS, Book
from vecdb import F
from vecdb.types import Arm

DIM, ROWS, SEALED_BY_CLOSE = 64, 4_400, 4_100
STATES = ("growing", "flat", "hnsw", "mixed", "segments", "lists", "moving")
INDEXES: dict[str, Any] = {"growing": "auto", "flat": vecdb.Flat(), "segments": vecdb.Flat()}
INDEXES |= {"lists": vecdb.IVF(nlist=20), "moving": vecdb.IVF(bits=4)}
Predicate = Callable[[dict[str, Any]], bool]

# Small integers, so that sums are exact in float32, with copies, so that records tie.
RNG = np.random.default_rng(7)
VECTORS = np.rint(3 * oracles.clustered(2 * ROWS + 200, DIM, seed=7)).clip(-9, 9)
VECTORS[RNG.integers(0, len(VECTORS), 300)] = VECTORS[:300]
VECTORS[[5, 4_200, 4_399]] = 0
QUERIES = np.concatenate(
    [VECTORS[100:109] + RNG.integers(-2, 3, (9, DIM)), VECTORS[[3, 4_000]], np.zeros((1, DIM))]
).astype(np.float32)
PAYLOADS = [
    {"n": i, "even": i % 2 == 0, "group": f"g{i % 7}", "tags": [i % 3, f"t{i % 5}"], "nested": {"half": i / 2}}
    for i in range(len(VECTORS))
]


@dataclass
class Case:
    metric: str
    docs: vecdb.Collection
    book: Book

    def write(self, rows: range) -> None:
        part = VECTORS[rows.start : rows.stop], PAYLOADS[rows.start : rows.stop]
        self.docs.upsert(list(rows), *part)
        self.book.write(rows, *part)


def build(path: Path, state: str, metric: str) -> tuple[vecdb.Database, Case]:
    db = vecdb.open(path, maintenance="manual", sync="none", threads=2)
    index = INDEXES.get(state, vecdb.HNSW(m=12, ef_construction=100))
    case = Case(metric, db.create_collection("docs", dim=DIM, metric=metric, index=index), Book(metric))
    if state == "segments":
        for part in range(2):
            case.write(range(part * SEALED_BY_CLOSE, (part + 1) * SEALED_BY_CLOSE))
            db.close()
            db = vecdb.open(path, maintenance="manual", sync="none", threads=2)
            case.docs = db.get_collection("docs")
    else:
        case.write(range(ROWS))
    if state not in ("growing", "segments"):
        db.optimize()
    if state in ("mixed", "segments", "moving"):
        change(case)
    return db, case


def change(case: Case) -> None:
    """Replaced records, deleted ones, records without a vector, patched ones, and new ones."""
    total = len(case.book.records)
    case.docs.delete(list(range(0, 900, 3)))
    case.book.delete(range(0, 900, 3))
    case.write(range(1_000, 1_050))
    case.write(range(total, total + 150))
    case.docs.upsert(list(range(2_000, 2_010)), payloads=PAYLOADS[2_000:2_010])
    case.book.write(range(2_000, 2_010), [None] * 10, PAYLOADS[2_000:2_010])
    case.docs.update(list(range(3_000, 3_010)), payloads=[{"new": 1}] * 10)
    for id in range(3_000, 3_010):
        case.book.write([id], [VECTORS[id]], [{**PAYLOADS[id], "new": 1}])


@pytest.fixture(scope="module", params=[f"{state}-{metric}" for state in STATES for metric in METRICS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    state, metric = request.param.split("-")
    db, made = build(tmp_path_factory.mktemp("search") / "data", state, metric)
    with db:
        made.docs.explain(QUERIES[0])  # waits for the kernels
        stats = made.docs.stats()
        assert len(stats.segments) == {"growing": 0, "segments": 2}.get(state, 1)
        assert (stats.growing_rows > 0) == (state in ("growing", "mixed", "segments", "moving"))
        yield made


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=1e-5, atol=1e-6))


def check_exact(case: Case, hits: vecdb.Hits, query: np.ndarray, k: int, predicate: Predicate | None = None) -> None:
    ids, distances = case.book.ranked(query, predicate)
    if case.metric != "cosine":
        assert hits.ids.tolist() == ids[:k]
        assert hits.distances.tolist() == distances[:k].tolist()
        return
    assert near(hits.distances, distances[:k])
    assert (np.diff(hits.distances) >= 0).all()
    true = dict(zip(ids, distances.tolist(), strict=True))
    assert near(hits.distances, np.array([true[id] for id in hits.ids.tolist()], np.float32))
    place = {id: i for i, id in enumerate(case.book.records)}
    order = [(distance, place[id]) for id, distance in zip(hits.ids.tolist(), hits.distances.tolist(), strict=True)]
    assert order == sorted(order)


def recall(case: Case, hits: vecdb.Hits, query: np.ndarray, k: int, predicate: Predicate | None = None) -> float:
    """The share of hits that are as near as the k-th nearest."""
    _, distances = case.book.ranked(query, predicate)
    if len(distances) == 0:
        return 1.0
    worst = distances[:k][-1]
    return float((hits.distances <= worst + 1e-5 * abs(worst) + 1e-6).mean())


@pytest.mark.parametrize("k", [1, 10, 60])
def test_exact_search(case: Case, k: int) -> None:
    for query in QUERIES:
        check_exact(case, case.docs.search(query, k, exact=True), query, k)


def test_approximate_search(case: Case) -> None:
    shares = []
    for query in QUERIES[:-1]:
        hits = case.docs.search(query, 10)
        assert len(hits) == 10
        assert len(set(hits.ids.tolist())) == 10
        assert (np.diff(hits.distances) >= 0).all()
        shares.append(recall(case, hits, query, 10))
    assert np.mean(shares) >= 0.98


FILTERS: list[tuple[Any, Predicate]] = [
    ({"n": -1}, lambda p: False),
    ({"n": 4_321}, lambda p: p["n"] == 4_321),
    ({"n": {"$in": [7, 8, 9, 3_001, 4_410]}}, lambda p: p["n"] in (7, 8, 9, 3_001, 4_410)),
    ({"n": {"$between": [880, 1_020]}}, lambda p: 880 <= p["n"] <= 1_020),
    (F("n") < 450, lambda p: p["n"] < 450),
    ({"group": "g3"}, lambda p: p["group"] == "g3"),
    ({"tags": "t2", "even": True}, lambda p: "t2" in p["tags"] and p["even"]),
    ({"even": {"$ne": True}}, lambda p: not p["even"]),
    (
        {"$or": [{"group": {"$startswith": "g1"}}, {"nested.half": {"$gte": 900}}]},
        lambda p: p["group"] == "g1" or p["nested"]["half"] >= 900,
    ),
    (~(F("n") == 17), lambda p: p["n"] != 17),
    ({"new": {"$exists": True}}, lambda p: "new" in p),
    ({}, lambda p: True),
]


@pytest.mark.parametrize(("where", "predicate"), FILTERS, ids=map(str, range(len(FILTERS))))
def test_filtered_search(case: Case, where: Any, predicate: Predicate) -> None:
    matches = case.book.matching(predicate)
    assert case.docs.count(where) == len(matches)
    reachable = [id for id in matches if case.book.records[id][0] is not None]
    shares = []
    for k in (1, 10, 40):
        for query in QUERIES[:4]:
            hits = case.docs.search(query, k, where)
            assert len(hits) == len(set(hits.ids.tolist())) == min(k, len(reachable))
            assert all(predicate(payload) for payload in hits.payloads)
            shares.append(recall(case, hits, query, k, predicate))
            check_exact(case, case.docs.search(query, k, where, exact=True), query, k, predicate)
    assert np.mean(shares) >= 0.97


def test_more_than_there_are(case: Case) -> None:
    everything, _ = case.book.ranked(QUERIES[0])
    for exact in (True, False):
        hits = case.docs.search(QUERIES[0], 10_000, exact=exact)
        assert sorted(hits.ids.tolist()) == sorted(everything)
        check_exact(case, hits, QUERIES[0], 10_000)


@pytest.mark.parametrize("exact", [True, False])
def test_offset_pages_through_the_ranking(case: Case, exact: bool) -> None:
    whole = case.docs.search(QUERIES[1], 30, {"even": True}, exact=exact)
    pages = [case.docs.search(QUERIES[1], 10, {"even": True}, exact=exact, offset=at) for at in (0, 10, 20)]
    if exact:
        assert [id for page in pages for id in page.ids.tolist()] == whole.ids.tolist()
    assert [len(page) for page in pages] == [10, 10, 10]
    assert list(case.docs.search(QUERIES[1], 10, {"n": {"$in": [1, 2, 4]}}, offset=3)) == []
    assert list(case.docs.search(QUERIES[1], 10, offset=10_000)) == []


def test_limits_of_distance_and_score(case: Case) -> None:
    whole = case.docs.search(QUERIES[2], 40, exact=True)
    for at in (0, 7, 39):
        bound = whole[at]
        within = [hit.id for hit in whole if hit.distance <= bound.distance]
        for limit in ({"max_distance": bound.distance}, {"min_score": bound.score}):
            assert case.docs.search(QUERIES[2], 40, exact=True, **limit).ids.tolist() == within
    both = case.docs.search(QUERIES[2], 40, exact=True, max_distance=whole[9].distance, min_score=whole[3].score)
    assert both.ids.tolist() == [hit.id for hit in whole if hit.distance <= whole[3].distance]
    assert len(case.docs.search(QUERIES[2], 40, max_distance=whole[0].distance - 1)) == 0
    assert len(case.docs.search(QUERIES[2], 40, max_distance=float("inf"), min_score=float("-inf"))) == 40
    skipped = case.docs.search(QUERIES[2], 40, exact=True, max_distance=whole[20].distance, offset=5)
    assert skipped.ids.tolist() == [hit.id for hit in whole if hit.distance <= whole[20].distance][5:]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("where", [None, {"group": "g3"}, {"n": {"$lt": 3_500}}])
def test_batches_and_threads_change_nothing(case: Case, where: Any, exact: bool) -> None:
    queries = np.tile(QUERIES, (3, 1))
    for _ in range(6):  # a filter that repeats may be searched in another way, which orders equal distances otherwise
        case.docs.search(queries, 15, where, exact=exact)
    alone = [case.docs.search(query, 15, where, exact=exact) for query in queries]
    for threads in (1, 2, None):
        together = case.docs.search(queries, 15, where, exact=exact, threads=threads)
        assert [hits.ids.tolist() for hits in together] == [hits.ids.tolist() for hits in alone]
        assert all(near(a.distances, b.distances) for a, b in zip(together, alone, strict=True))
    assert case.docs.search(np.empty((0, DIM))) == []


def test_scores_follow_the_metric(case: Case) -> None:
    hits = case.docs.search(QUERIES[0], 5)
    wanted = -hits.distances if case.metric == "l2" else 1 - hits.distances
    assert hits.scores.tolist() == wanted.tolist()
    assert [hit.score for hit in hits] == wanted.tolist()
    assert (np.diff(hits.scores) <= 0).all()


def test_payloads_and_vectors_of_hits(case: Case) -> None:
    for hit in case.docs.search(QUERIES[0], 20, include=("payloads", "vectors")):
        vector, payload = case.book.records[hit.id]
        assert hit.payload == payload
        assert hit.vector is not None
        assert vector is not None
        assert hit.vector.tolist() == vector.tolist()


def test_options_of_a_search(case: Case) -> None:
    for options in ({"ef": 10}, {"ef": 500}, {"nprobe": 1}, {"nprobe": 30}, {"rescore": 10}, {"rescore": 400}):
        assert len(case.docs.search(QUERIES[0], 10, **options)) == 10
    many = case.docs.search(QUERIES[:-1], 10, ef=1_000, nprobe=20, rescore=1_000)
    shares = [recall(case, hits, query, 10) for hits, query in zip(many, QUERIES, strict=False)]
    assert np.mean(shares) >= 0.99


def test_a_recall_picks_the_ef_of_walks(case: Case) -> None:
    def efs(**options: Any) -> list[int]:
        parts = case.docs.explain(QUERIES[0], 10, **options).segments
        return [part.plan.ef for part in parts if part.plan.ef is not None]

    least, curves = efs(recall=0.5), [segment.curves for segment in case.docs.stats().segments]
    graphs = ["hnsw" in segment.indexes["vector"] for segment in case.docs.stats().segments]
    assert len(least) == sum(graphs)
    lists = ["ivf" in segment.indexes["vector"] for segment in case.docs.stats().segments]
    assert ["vector" in of_segment for of_segment in curves] == [a or b for a, b in zip(graphs, lists, strict=True)]
    assert (efs(ef=3), efs(ef=12)) == ([10] * len(least), [12] * len(least))
    for options in ({"recall": 0.8}, {"recall": 0.5, "where": {"n": {"$lt": 3_500}}}):
        wider = efs(**options)  # or none, where a scan is cheaper by then
        assert wider >= least[: len(wider)]
    asked = np.concatenate([QUERIES[:-1], VECTORS[:: ROWS // 30][:30] + np.float32(0.4)])
    for wish in (0.8, np.float32(0.95)):
        found = case.docs.search(asked, 10, recall=wish)
        shares = [recall(case, hits, query, 10) for hits, query in zip(found, asked, strict=True)]
        assert np.mean(shares) >= wish - 0.05  # a cluster or a list that is missed costs a query all: one of 40


@pytest.mark.parametrize("where", [None, {"n": {"$lt": 3_500}}])
def test_walks_of_a_graph_fill_k(case: Case, where: Any) -> None:
    arms = {part.plan.arm.value for part in case.docs.explain(QUERIES[0], 10, where, ef=12).segments}
    graphs = [kinds for segment in case.docs.stats().segments for kinds in segment.indexes.values() if "hnsw" in kinds]
    assert bool(arms & {"graph", "excerpt"}) == bool(graphs)
    for query in QUERIES:
        hits = case.docs.search(query, 10, where, ef=12)
        assert len(set(hits.ids.tolist())) == 10
        assert (np.diff(hits.distances) >= 0).all()
        true = dict(zip(*case.book.ranked(query), strict=True))
        assert near(hits.distances, np.array([true[id] for id in hits.ids.tolist()]))
        assert where is None or max(hits.ids.tolist()) < 3_500


def test_explain_tells_the_plan_of_every_segment(case: Case) -> None:
    told = case.docs.explain(QUERIES[0], 5, {"n": {"$lt": 450}})
    parts = len(case.docs.stats().segments) + (case.docs.stats().growing_rows > 0)
    assert (told.collection, told.field, told.k, len(told.segments)) == ("docs", "vector", 5, parts)
    assert sum(part.plan.matching.high for part in told.segments) >= case.docs.count({"n": {"$lt": 450}})
    assert "search docs.vector, k=5" in str(told)
    assert told.to_dict()["segments"][0]["plan"]["arm"] in list(Arm)
    exact = case.docs.explain(QUERIES[0], exact=True)
    assert {part.plan.arm.value for part in exact.segments} == {"exact"}


def test_the_first_query_of_a_process_is_answered_without_kernels(path: Path) -> None:
    db, case = build(path, "mixed", "l2")
    db.close()
    with vecdb.open(path) as db:
        case.docs = db.get_collection("docs")
        first = case.docs.search(QUERIES[0], 25, {"even": True})
        check_exact(case, first, QUERIES[0], 25, lambda payload: payload["even"])
