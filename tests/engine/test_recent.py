"""Payloads that were read lately are kept: nobody can tell but by the time it takes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.engine.recent import MANY, TOGETHER, RecentRecords
from vecdb.errors import InvalidInput
from vecdb.storage.keys import encode_key
from vecdb.storage.payload import pack

PAYLOADS: list[dict[str, Any]] = [
    {},
    {"text": "a", "n": 1, "f": 0.5, "b": True, "none": None, "raw": b"\0"},
    {"tags": ["x", "y"], "mixed": [1, None, "z"], "empty": []},
    {"nested": {"list": [1, {"deep": [2]}]}, "rows": [[1, 2], [3]]},
    {"objects": [{"a": 1}]},
    {"day": dt.date(2024, 2, 29), "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "times": [dt.datetime(2020, 5, 5)]},
]
TIMES = 2  # reads after which a record is kept
ROUNDS = 3 * TIMES


class Catalog:
    """Packed payloads by sequence, and which were read."""

    def __init__(self, payloads: Sequence[dict[str, Any]]) -> None:
        self.packed = [pack(payload) for payload in payloads]
        self.reads: list[int] = []

    def read(self, sequences: Sequence[int]) -> list[tuple[bytes, bytes]]:
        self.reads += sequences
        return [(encode_key(f"id-{sequence}"), self.packed[sequence]) for sequence in sequences]


def payloads(recent: RecentRecords, collection: int, sequences: Sequence[int], catalog: Catalog) -> list:
    ids, found = recent.records(collection, sequences, catalog.read)
    assert ids == [f"id-{sequence}" for sequence in sequences]
    return found


def spoil(value: Any) -> None:
    """Changes everything in a payload that can be changed."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value["spoilt"] = True
    elif isinstance(value, list):
        for one in value:
            spoil(one)
        value.append("spoilt")


def test_each_call_gets_payloads_of_its_own() -> None:
    catalog, recent = Catalog(PAYLOADS), RecentRecords(1 << 20)
    for _ in range(ROUNDS):
        found = payloads(recent, 1, range(len(PAYLOADS)), catalog)
        assert found == PAYLOADS
        assert [type(value) for payload in found for value in payload.values()] == [
            type(value) for payload in PAYLOADS for value in payload.values()
        ]
        spoil(found)


def test_what_is_asked_for_again_is_not_read_again() -> None:
    catalog, recent = Catalog(PAYLOADS), RecentRecords(1 << 20)
    for _ in range(ROUNDS):
        payloads(recent, 1, [1, 2, 3], catalog)
    assert len(catalog.reads) == 3 * TIMES
    payloads(recent, 1, [3, 4, 1], catalog)
    assert catalog.reads[3 * TIMES :] == [4]
    payloads(recent, 1, [4], catalog)  # read again, and kept now
    payloads(recent, 1, [4], catalog)
    assert catalog.reads[3 * TIMES :] == [4, 4]


def test_a_record_that_is_asked_for_twice_in_one_call_is_two_dicts() -> None:
    catalog, recent = Catalog(PAYLOADS), RecentRecords(1 << 20)
    for _ in range(ROUNDS):
        first, second = payloads(recent, 1, [1, 1], catalog)
        assert first == second == PAYLOADS[1]
        assert first is not second


def test_collections_are_kept_apart() -> None:
    one, other, recent = Catalog([{"is": 1}]), Catalog([{"is": 2}]), RecentRecords(1 << 20)
    for _ in range(ROUNDS):
        assert payloads(recent, 1, [0], one) == [{"is": 1}]
        assert payloads(recent, 2, [0], other) == [{"is": 2}]


def test_it_stays_within_its_bytes_and_keeps_what_is_asked_for() -> None:
    catalog = Catalog([{"n": n, "text": "x" * 500} for n in range(2_000)])
    limit = 200_000
    recent = RecentRecords(limit)
    for start in range(0, 2_000, 10):
        for _ in range(2 * TIMES):
            assert [p["n"] for p in payloads(recent, 1, range(start, start + 10), catalog)] == [
                *range(start, start + 10)
            ]
            payloads(recent, 1, [0, 1], catalog)
        assert recent.nbytes <= limit
    assert recent.nbytes > limit / 4
    assert catalog.reads.count(0) < 2_000 / 10  # asked for four times as often, and mostly found


def test_no_bytes_keep_nothing_and_neither_do_long_lists() -> None:
    catalog = Catalog([{"n": n} for n in range(MANY + 1)])
    for recent, sequences in ((RecentRecords(0), range(3)), (RecentRecords(1 << 20), range(MANY + 1))):
        for _ in range(ROUNDS):
            assert [p["n"] for p in payloads(recent, 1, sequences, catalog)] == list(sequences)
        assert recent.nbytes == 0


def test_a_collection_shows_each_version(tmp_path: Path) -> None:
    vectors = np.eye(8, dtype=np.float32)
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=8)
        docs.upsert(range(8), vectors, [{"version": 1, "tags": ["a"]}] * 8)
        db.optimize()
        for _ in range(ROUNDS):
            for hit in docs.search(vectors[3], k=8):
                assert hit.payload == {"version": 1, "tags": ["a"]}
                spoil(hit.payload)
        assert db.stats().payload_cache_bytes > 0
        before = docs.search(vectors[3], k=1)
        docs.update([3], payloads=[{"version": 2}])
        db.optimize()
        for _ in range(ROUNDS):
            assert docs.search(vectors[3], k=1)[0].payload == {"version": 2, "tags": ["a"]}
            assert docs.get([4])[0].payload == {"version": 1, "tags": ["a"]}
        assert before[0].payload == {"version": 1, "tags": ["a"]}
        docs.delete([3])
        assert len(docs.get([3])) == 0


def test_a_bound_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="payload_cache"):
        vecdb.open(tmp_path / "db", payload_cache=-1)
    with vecdb.open(tmp_path / "db", payload_cache=0) as db:
        assert db.stats().payload_cache_bytes == 0


def hits_of(docs: vecdb.Collection, *, both: bool) -> Any:
    hits = docs.search(np.eye(8, dtype=np.float32)[3], k=8)
    assert sorted(hits.ids.tolist()) == [f"r{n}" for n in range(8)]
    assert ("payloads" in hits.__dict__) == both
    return hits


def test_ids_come_with_their_payloads_for_those_who_ask_for_both(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db", maintenance="manual", sync="none") as db:
        docs = db.create_collection("docs", dim=8)
        docs.upsert([f"r{n}" for n in range(8)], np.eye(8, dtype=np.float32), [{"n": n} for n in range(8)])
        db.optimize()
        first = hits_of(docs, both=False)
        assert [f"r{payload['n']}" for payload in first.payloads] == first.ids.tolist()
        for _ in range(TOGETHER):
            hits = hits_of(docs, both=True)
            assert hits.ids.dtype == first.ids.dtype
            assert [f"r{hit.payload['n']}" for hit in hits] == hits.ids.tolist()
        hits_of(docs, both=False)  # now and then it is seen whether they still do
        held = hits_of(docs, both=False)
        _ = held.payloads
        held = docs.search(np.eye(8, dtype=np.float32)[3], k=8)
        assert len(docs.search(np.eye(8, dtype=np.float32)[3], k=8, include=()).ids) == 8
    assert sorted(held.ids.tolist()) == [f"r{n}" for n in range(8)]  # closed: ids still, payloads not
    with pytest.raises(vecdb.Closed):
        _ = held.payloads
