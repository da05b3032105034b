"""One case through the collection API: the planner's choice, and every arm forced in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from benchmarks.dataset import Dataset
from benchmarks.filtering.cases import Case
from vecdb.engine import plans
from vecdb.planner.choose import choose
from vecdb.types import Arm, Plan

BATCH = 1_000
FREE = "planner"
BUDGET = 20_000  # distances of a walk that is forced: far more than where a graph pays, some 30 ms where it does not
RECALL = 0.98  # an arm that finds less is no rival in a ratio
ESCALATIONS = 20  # queries that are asked once more to see whether they escalate


def build(path: Path, data: Dataset, index: Any) -> tuple[vecdb.Database, vecdb.Collection]:
    database = vecdb.open(path, sync="none")
    docs = database.create_collection("docs", dim=data.vectors.shape[1], metric="cosine", index=index)
    for at in range(0, len(data.ids), BATCH):
        part = slice(at, at + BATCH)
        docs.upsert(data.ids[part], data.vectors[part], data.payloads[part])
    docs.optimize()
    docs.explain(data.queries[0])  # waits for the kernels
    return database, docs


@contextmanager
def forced(docs: vecdb.Collection, arm: str) -> Iterator[None]:
    """Searches take `arm` where the segment has what it needs and some row matches; FREE leaves the planner alone.

    Without costs a forced plan is not given up, however often it escalates.
    """

    def chosen(*numbers: Any, **options: Any) -> Plan:
        plan = choose(*numbers, **options)
        traits, k = numbers[1], numbers[5]
        if arm == FREE or plan.arm is Arm.NONE or Arm(arm) not in able(traits):
            return plan
        fallback = Arm.SCAN if Arm.SCAN in able(traits) else Arm.EXACT
        weak = arm in (Arm.GRAPH, Arm.LISTS)
        return replace(
            plan, arm=Arm(arm), ef=max(k, options["ef"]), nprobe=options["nprobe"] or None, budget=BUDGET,
            costs={}, fallback=fallback if weak else None,
        )  # fmt: skip

    plans.choose = chosen
    forget(docs)
    try:
        yield
    finally:
        plans.choose = choose
        forget(docs)


def able(traits: Any) -> set[Arm]:
    arms = {Arm.EXACT}
    for index in traits:
        arms |= {Arm.SCAN} if index.masked else set()
        arms |= {Arm.GRAPH} if index.graph else set()
        arms |= {Arm.LISTS} if index.lists else set()
        arms |= {Arm.GATHER, Arm.EXCERPT} if index.gathers else set()
    return arms


def arms_of(docs: vecdb.Collection, query: Any) -> list[str]:
    """The planner's choice, then all arms that the indexes of the collection serve."""
    costs: set[str] = set()
    for part in docs.explain(query).segments:
        costs |= set(part.plan.costs)
    if Arm.GATHER in costs:
        costs.add(Arm.EXCERPT)  # copies of what is gathered: an arm of filters that repeat, as these do
    return [FREE, *sorted(costs)]


def forget(docs: vecdb.Collection) -> None:
    """Plans are kept with their segments; the filters' rows stay cached, and so do copies of their codes."""
    for segment in docs._state.view.segments:
        segment.plans.clear()
        segment.ways.clear()


def ask(docs: vecdb.Collection, case: Case, query: Any) -> tuple[list[Any], float]:
    """(ids, seconds) of one search, its payloads read."""
    k = case.k  # it counts the matching records
    begin = time.perf_counter()
    hits = docs.search(query, k, case.where)
    _ = hits.payloads
    ids = hits.ids
    return list(ids), time.perf_counter() - begin


def measure(docs: vecdb.Collection, data: Dataset, case: Case, arms: list[str], rounds: int) -> dict[str, Any]:
    """Figures of one case by arm: arms take turns, and a time is the least of the medians of the rounds."""
    _, cold = ask(docs, case, case.queries[0])
    kth = kth_distance(data, case)
    held = replace(data, queries=case.queries)
    figures: dict[str, Any] = {arm: {} for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            with forced(docs, arm):
                ask(docs, case, case.queries[0])  # the plan is made
                found = [ask(docs, case, query) for query in case.queries]
            spent = np.array([seconds for _, seconds in found]) * 1e6
            one = figures[arm]
            one["us"] = min(one.get("us", np.inf), float(np.median(spent)))
            one["p99_us"] = min(one.get("p99_us", np.inf), float(np.percentile(spent, 99)))
            one["recall"] = held.recall([ids for ids, _ in found], kth, case.k)
    return {"share": float(case.mask.mean()), "cold_us": cold * 1e6, "arms": figures, **planned(docs, case)}


def planned(docs: vecdb.Collection, case: Case) -> dict[str, Any]:
    """What the planner chose, what it predicted, and how many of some queries escalated."""
    told = [docs.explain(query, case.k, case.where, analyze=True) for query in case.queries[:ESCALATIONS]]
    parts = told[0].segments
    predicted: dict[str, float] = {}
    for part in parts:
        for arm, microseconds in part.plan.costs.items():
            predicted[arm] = predicted.get(arm, 0.0) + microseconds
    escalated = sum(part.work.escalated for one in told for part in one.segments if part.work is not None)
    chosen = " and ".join(dict.fromkeys(str(part.plan.arm) for part in parts))
    return {"chosen": chosen, "predicted_us": predicted, "escalated": escalated / len(told)}


def kth_distance(data: Dataset, case: Case) -> Any:
    distances = 1.0 - case.queries @ data.vectors[case.mask].T
    return np.partition(distances, case.k - 1, axis=1)[:, case.k - 1]


def ratio(figures: Mapping[str, Any]) -> float:
    """The planner's time over that of the best arm which finds enough."""
    arms = figures["arms"]
    rivals = [one["us"] for one in arms.values() if one["recall"] >= RECALL]
    return float(arms[FREE]["us"] / min(rivals)) if rivals else 1.0
