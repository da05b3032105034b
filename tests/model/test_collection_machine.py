"""A collection and a plain dict live through the same calls, restarts and maintenance, and stay the same.

VECDB_MODEL_EXAMPLES sets the number of runs, VECDB_MODEL_STEPS their length.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import vecdb
from tests.oracles_api import Book
from vecdb.engine.checkpoint import checkpoint

DIM = 3
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"n": {"$lt": 2}}, lambda p: isinstance(p.get("n"), int) and p["n"] < 2),
    ({"n": {"$gte": 1}, "tag": "x"}, lambda p: isinstance(p.get("n"), int) and p["n"] >= 1 and "x" in p.get("tag", "")),
    ({"tag": {"$ne": "x"}}, lambda p: "x" not in p.get("tag", "")),
    ({"n": {"$exists": False}}, lambda p: "n" not in p),
    ({"day": {"$is_null": True}}, lambda p: "day" in p and p["day"] is None),
    ({}, lambda p: True),
    ({"tag": {"$contains": "x"}, "deep": {"$is_empty": True}}, lambda p: "x" in p.get("tag", "") and "deep" not in p),
    ({"tag": {"$size": {"$gte": 1}}}, lambda p: isinstance(p.get("tag"), list) and bool(p["tag"])),
    ({"tag": {"$regex": "^[yz]"}}, lambda p: not {"y", "z"}.isdisjoint(p.get("tag", ""))),
]

PARTS = ("vectors", "payloads", "both")  # of an update

ids = st.one_of(
    st.integers(0, 6), st.sampled_from(["0", "1", "a", "ß"]), st.sampled_from([uuid.UUID(int=i) for i in (0, 1)])
)
vectors = st.lists(st.integers(-2, 2), min_size=DIM, max_size=DIM)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "n": st.one_of(st.integers(0, 3), st.none()),
        "tag": st.one_of(st.sampled_from(["x", "y"]), st.lists(st.sampled_from(["x", "z"]), max_size=2)),
        "day": st.sampled_from([None, dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1, tzinfo=dt.UTC)]),
        "deep": st.sampled_from([{"n": 1}, {"n": [1, {"x": b"\0"}]}]),
    },
)
batches = st.lists(
    st.tuples(ids, st.one_of(st.none(), vectors), payloads), max_size=6, unique_by=lambda r: (type(r[0]), r[0])
)
filters = st.sampled_from(range(len(FILTERS)))


def columns(batch: list[tuple[Any, Any, Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    return [r[0] for r in batch], [r[1] for r in batch], [r[2] for r in batch]


class CollectionMachine(RuleBasedStateMachine):
    @initialize(
        metric=st.sampled_from(["l2", "dot"]),
        index=st.sampled_from(["auto", "flat", "hnsw"]),
        dtype=st.sampled_from(["float32", "float16"]),  # the vectors are small integers: float16 holds them
    )
    def begin(self, metric: str, index: str, dtype: Any) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="vecdb-model-"))
        self.open()
        self.docs = self.db.create_collection("docs", dim=DIM, metric=metric, index=index, dtype=dtype)
        self.book = Book(metric)
        self.reader: vecdb.Database | None = None

    def open(self) -> None:
        self.db = vecdb.open(self.path, maintenance="manual", sync="none", threads=1)

    # ---- writes ---------------------------------------------------------------------------------------------------
    @rule(batch=batches)
    def upsert(self, batch: list[Any]) -> None:
        assert self.docs.upsert(*columns(batch)) == [record[0] for record in batch]
        self.book.write(*columns(batch))

    @rule(batch=batches, conflict=st.sampled_from(["error", "skip", "replace"]))
    def add(self, batch: list[Any], conflict: Any) -> None:
        taken = [record[0] for record in batch if record[0] in self.book.records]
        if conflict == "error" and taken:
            with pytest.raises(vecdb.AlreadyExists, match=re.escape(repr(taken[0]))):
                self.docs.add(*columns(batch), on_conflict="error")
            return
        kept = [record for record in batch if conflict == "replace" or record[0] not in taken]
        assert self.docs.add(*columns(batch), on_conflict=conflict) == [record[0] for record in kept]
        self.book.write(*columns(kept))

    @rule(
        batch=batches,
        gone=st.sampled_from(["n", "tag", "never"]),
        what=st.sampled_from(PARTS),
    )
    def update(self, batch: list[Any], gone: str, what: str) -> None:
        keys, new, patches = columns(batch)
        patches = [{**patch, gone: vecdb.REMOVE} for patch in patches]
        given = {"vectors": new if what != "payloads" else None, "payloads": patches if what != "vectors" else None}
        known = [i for i, key in enumerate(keys) if key in self.book.records]
        assert self.docs.update(keys, **given) == len(known)
        for i in known:
            vector, payload = self.book.records[keys[i]]
            if what != "payloads" and new[i] is not None:
                vector = new[i]
            if what != "vectors":
                payload = {k: v for k, v in {**payload, **patches[i]}.items() if v is not vecdb.REMOVE}
            self.book.write([keys[i]], [vector], [payload])

    @rule(chosen=filters, number=st.integers(0, 3), gone=st.sampled_from(["tag", "never"]))
    def update_where(self, chosen: int, number: int, gone: str) -> None:
        where, predicate = FILTERS[chosen]
        matching = self.book.matching(predicate)
        assert self.docs.update(where=where, payloads={"n": number, gone: vecdb.REMOVE}) == len(matching)
        for key in matching:
            vector, payload = self.book.records[key]
            self.book.write([key], [vector], [{k: v for k, v in {**payload, "n": number}.items() if k != gone}])

    @rule(keys=st.lists(ids, max_size=4))
    def delete(self, keys: list[Any]) -> None:
        known = {key for key in keys if key in self.book.records}
        assert self.docs.delete(keys) == len(known)
        self.book.delete(known)

    @rule(chosen=st.sampled_from([0, 1, 3, 4]))
    def delete_where(self, chosen: int) -> None:
        where, predicate = FILTERS[chosen]
        matching = self.book.matching(predicate)
        assert self.docs.delete(where=where) == len(matching)
        self.book.delete(matching)

    # ---- reads ----------------------------------------------------------------------------------------------------
    @rule(query=vectors, chosen=filters, k=st.integers(1, 12), exact=st.booleans(), offset=st.integers(0, 2))
    def search(self, query: list[int], chosen: int, k: int, exact: bool, offset: int) -> None:
        where, predicate = FILTERS[chosen]
        wanted, distances = self.book.ranked(np.array(query, np.float32), predicate)
        hits = self.docs.search(query, k, where, exact=exact, offset=offset)
        assert hits.distances.tolist() == distances[offset : offset + k].tolist()
        assert [hit.id for hit in hits] == wanted[offset : offset + k]
        assert [hit.payload for hit in hits] == [self.book.records[id][1] for id in wanted[offset : offset + k]]

    @rule(chosen=filters, size=st.integers(1, 4))
    def scroll(self, chosen: int, size: int) -> None:
        where, predicate = FILTERS[chosen]
        matching = self.book.matching(predicate)
        assert self.docs.count(where) == len(matching)
        assert [record.id for record in self.docs.scroll(where, batch_size=size)] == matching
        assert self.docs.get(where=where, limit=2, offset=1).to_list() == [
            {"id": id, "payload": self.book.records[id][1], "vector": None} for id in matching[1:3]
        ]

    @rule(chosen=filters, downwards=st.booleans(), limit=st.integers(0, 5))
    def order(self, chosen: int, downwards: bool, limit: int) -> None:
        where, predicate = FILTERS[chosen]
        numbers = {id: self.book.records[id][1].get("n") for id in self.book.matching(predicate)}
        known = [id for id, number in numbers.items() if number is not None]
        known.sort(key=lambda id: -numbers[id] if downwards else numbers[id])
        wanted = known + [id for id, number in numbers.items() if number is None]
        path = "-n" if downwards else "n"
        assert [record.id for record in self.docs.get(where=where, order_by=path, limit=limit)] == wanted[:limit]
        assert [record.id for record in self.docs.scroll(where, order_by=path)] == wanted

    @rule(keys=st.lists(ids, max_size=5, unique_by=lambda key: (type(key), key)))
    def get(self, keys: list[Any]) -> None:
        found = self.docs.get(keys, include=("payloads", "vectors"))
        known = [key for key in keys if key in self.book.records]
        assert [(record.id, type(record.id)) for record in found] == [(key, type(key)) for key in known]
        for record in found:
            vector, payload = self.book.records[record.id]
            assert record.payload == payload
            assert (record.vector is None) == (vector is None)
            assert vector is None or record.vector.tolist() == list(vector)

    @rule()
    def aggregate(self) -> None:
        values = [p["n"] for _, p in self.book.records.values() if p.get("n") is not None]
        assert dict(self.docs.distinct("n")) == {value: values.count(value) for value in values}
        assert self.docs.min_max("n") == ((min(values), max(values)) if values else None)
        everything = [p for _, p in self.book.records.values()]
        found = self.docs.fields()
        for path in ("n", "tag", "day", "deep"):
            assert (found[path].rows if path in found else 0) == sum(path in p for p in everything)

    # ---- care -----------------------------------------------------------------------------------------------------
    @rule()
    def maintain(self) -> None:
        self.db.maintain()

    @rule()
    def seal(self) -> None:
        """What maintenance does when the growing segment is full: the next steps find segments to merge."""
        engine = self.db._engine
        assert engine is not None
        with engine.maintenance_lock:
            checkpoint(engine)

    @rule()
    def optimize(self) -> None:
        self.docs.optimize()
        assert self.docs.stats().growing_rows == 0
        assert self.db.maintain() is None

    @rule(index=st.sampled_from(["flat", "hnsw", "auto"]))
    def set_index(self, index: str) -> None:
        self.docs.set_index(index)

    @rule()
    def flush(self) -> None:
        self.db.flush()

    @rule()
    def reopen(self) -> None:
        self.close_reader()
        self.db.close()
        self.open()
        self.docs = self.db.get_collection("docs")

    @precondition(lambda self: self.reader is None)
    @rule()
    def read_beside(self) -> None:
        self.reader = vecdb.open(self.path, mode="r")

    @precondition(lambda self: self.reader is not None)
    @rule()
    def refresh(self) -> None:
        assert self.reader is not None
        self.reader.refresh()
        assert self.reader.get_collection("docs").get().ids.tolist() == list(self.book.records)

    def close_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    # ---- always ---------------------------------------------------------------------------------------------------
    @invariant()
    def the_same_records(self) -> None:
        assert self.docs.count() == len(self.book.records)
        found = self.docs.get()
        assert found.ids.tolist() == list(self.book.records)
        assert [type(id) for id in found.ids.tolist()] == [type(id) for id in self.book.records]
        assert found.payloads == [payload for _, payload in self.book.records.values()]

    @invariant()
    def the_same_ranking(self) -> None:
        query = np.array([1, -1, 0], np.float32)
        wanted, _ = self.book.ranked(query)
        assert self.docs.search(query, 50, exact=True, include=()).ids.tolist() == wanted

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.close_reader()
            report = self.db.verify(deep=True)
            self.db.close()
            shutil.rmtree(self.path)
            assert report.ok, str(report)


CollectionMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("VECDB_MODEL_EXAMPLES", "60")),
    stateful_step_count=int(os.environ.get("VECDB_MODEL_STEPS", "30")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCollection = CollectionMachine.TestCase
