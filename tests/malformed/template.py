"""The database that gets damaged, and every answer that it must still give.

Three collections: "docs" is sealed, indexed and has a log tail; "twin" has files of the same names and sizes with other
contents, for swaps; "pair" has two vector fields, float16, records without a vector, and integer ids.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb.engine.checkpoint import checkpoint

ROWS = 1600  # above the number from which segments have scan codes
DIM = 64
TAIL = 4  # batches in the log only
TAIL_ROWS = 5
DELETED = 7
INDEX = vecdb.HNSW(m=4, ef_construction=40, ef=400)  # few links make small files, and a wide walk finds all the same
DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def record_id(number: int) -> str:
    return f"id-{number:05d}"


def payload(salt: int, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "int": (number * 7 + salt) % 1000,
        "float": ((number * 13 + salt) % 997) / 8,
        "string": f"word {(number + salt) % 40:03d}",
        "bool": (number + salt) % 3 == 0,
        "time": DAY + dt.timedelta(hours=(number * 5 + salt) % 4000),
        "bytes": bytes([(number + salt) % 50, salt % 256]),
        "list": [f"tag{(number + salt) % 6}", f"tag{(number + salt) % 5}"],
    }
    if (number + salt) % 2:
        made["some"] = None if (number + salt) % 4 == 1 else number
    return made


def vectors(salt: int, rows: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng([salt, rows]).standard_normal((rows, dim)).astype(np.float32)


Records = dict[Any, tuple[Any, dict[str, Any]]]  # id -> (vector, payload)


def sealed_records(salt: int) -> Records:
    rows = vectors(salt, ROWS)
    made: Records = {record_id(n): (rows[n], payload(salt, n)) for n in range(ROWS)}
    for number in range(0, DELETED * 100, 100):
        del made[record_id(number)]
    return made


def tail_batch(number: int) -> Records:
    """Replaces some sealed records and adds some."""
    rows = vectors(1000 + number, TAIL_ROWS)
    numbers = [number * 10 + 1 + n if n % 2 else ROWS + number * TAIL_ROWS + n for n in range(TAIL_ROWS)]
    return {record_id(n): (rows[i], payload(500 + number, n)) for i, n in enumerate(numbers)}


def states() -> list[Records]:
    """What "docs" holds after 0, 1, ... batches of the tail."""
    found = [sealed_records(1)]
    for number in range(TAIL):
        found.append({**found[-1], **tail_batch(number)})
    return found


def pair_records() -> tuple[list[int], np.ndarray, list[np.ndarray | None]]:
    ids = list(range(-20, 20))
    left = vectors(5, 40, 4).astype(np.float16).astype(np.float32)
    right = vectors(6, 40, 3)
    return ids, left, [None if i % 3 == 0 else right[i] for i in range(40)]


def build(path: Path, salt: int = 1) -> None:
    """`salt` 1: the database that is expected; another gives other contents of the same shapes."""
    names = [record_id(n) for n in range(ROWS)]
    with vecdb.open(path, maintenance="manual") as db:
        for made, name in ((salt, "docs"), (salt + 1, "twin")):
            docs = db.create_collection(name, dim=DIM, index=INDEX)
            docs.upsert(names, vectors(made, ROWS), [payload(made, n) for n in range(ROWS)])
            db.optimize()
            docs.delete([record_id(number) for number in range(0, DELETED * 100, 100)])
            checkpoint(db._engine)  # type: ignore[arg-type]  # the deletions are in the catalog, their rows in the files
        pair = db.create_collection(
            "pair", fields={"left": vecdb.VectorField(4, "l2", dtype="float16"), "right": vecdb.VectorField(3, "dot")}
        )
        ids, left, right = pair_records()
        pair.upsert(ids, {"left": left, "right": right}, [{"n": i} for i in ids])
        checkpoint(db._engine)  # type: ignore[arg-type]
        for number in range(TAIL):
            batch = tail_batch(number)
            docs = db.get_collection("docs")
            docs.upsert(list(batch), np.array([v for v, _ in batch.values()]), [p for _, p in batch.values()])


# ---- what must be found ---------------------------------------------------------------------------------------------
class Wrong(Exception):
    """The database answered, and the answer is not true."""


@dataclass(frozen=True, slots=True)
class Expected:
    docs: list[Records]
    twin: Records


EXPECTED = Expected(states(), sealed_records(2))


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def probe(db: vecdb.Database, *, whole: bool = True) -> int:
    """Compares every way of reading with the truth. Returns how many batches of the tail are there.

    whole   look at each record of "twin" too
    """
    expect(db.list_collections() == ["docs", "pair", "twin"], f"collections {db.list_collections()}")
    docs = db.get_collection("docs")
    found = records_of(docs)
    after = next((n for n in reversed(range(TAIL + 1)) if same(found, EXPECTED.docs[n])), None)
    if after is None:
        raise Wrong(f"docs has {len(found)} records, and no state of it ever was like that")
    check_answers(docs, EXPECTED.docs[after])
    twin = db.get_collection("twin")
    expect(twin.count() == len(EXPECTED.twin), "the number of records of twin")
    if whole:
        expect(same(records_of(twin), EXPECTED.twin), "the records of twin")
        check_answers(twin, EXPECTED.twin)
    check_pair(db.get_collection("pair"))
    return after


def records_of(collection: vecdb.Collection) -> Records:
    found: Records = {}
    for record in collection.get(include=("payloads", "vectors")):
        expect(record.id not in found, f"{record.id!r} is there twice")
        found[record.id] = (record.vector, record.payload)
    return found


def same(found: Records, wanted: Records) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[name][0], vector) and found[name][1] == made for name, (vector, made) in wanted.items()
    )


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"int": {"$lt": 100}}, lambda p: p["int"] < 100),
    ({"float": {"$gte": 100.0}}, lambda p: p["float"] >= 100),
    ({"string": {"$in": ["word 003", "word 017"]}}, lambda p: p["string"] in ("word 003", "word 017")),
    ({"bool": True}, lambda p: p["bool"]),
    ({"time": {"$lt": DAY + dt.timedelta(hours=500)}}, lambda p: p["time"] < DAY + dt.timedelta(hours=500)),
    ({"bytes": bytes([7, 1])}, lambda p: p["bytes"] == bytes([7, 1])),
    ({"list": "tag3"}, lambda p: "tag3" in p["list"]),
    ({"list": {"$size": 2}}, lambda p: len(p["list"]) == 2),
    ({"some": {"$exists": True}}, lambda p: "some" in p),
    ({"some": {"$is_null": True}}, lambda p: "some" in p and p["some"] is None),
]


def check_answers(collection: vecdb.Collection, wanted: Records) -> None:
    expect(collection.count() == len(wanted), "count")
    asked = list(wanted)[::50]
    expect([r.id for r in collection.get(asked)] == asked, "get by id")
    expect(len(collection.get([record_id(0), record_id(100)])) == 0, "a deleted record is found")
    for where, holds in FILTERS:
        matching = [name for name, (_, made) in wanted.items() if holds(made)]
        expect(collection.count(where) == len(matching), f"count({where})")
    table = np.array([vector for vector, _ in wanted.values()], np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    place = {name: i for i, name in enumerate(wanted)}
    for seed, where, holds in ((0, None, None), (1, *FILTERS[0]), (2, *FILTERS[6])):
        query = np.random.default_rng(seed).standard_normal(DIM)
        distances = 1 - table @ (query / np.linalg.norm(query))
        allowed = [i for name, i in place.items() if holds is None or holds(wanted[name][1])]
        nearest = np.sort(distances[allowed])[:10]
        for exact in (True, False):
            hits = collection.search(query, k=10, where=where, exact=exact)
            expect(len(hits) == min(10, len(allowed)), f"{len(hits)} hits")
            true = np.array([distances[place[name]] for name in hits.ids])
            expect(np.allclose(hits.distances, true, atol=1e-5), "a distance is wrong")
            expect(all(place[name] in set(allowed) for name in hits.ids), "a hit that the filter excludes")
            near = np.count_nonzero(true <= nearest[-1] + 1e-6)
            expect(near >= (len(nearest) if exact else 8), f"only {near} of the nearest")


def check_pair(pair: vecdb.Collection) -> None:
    ids, left, right = pair_records()
    found = pair.get(include=("payloads", "vectors"), field="left")
    expect([r.id for r in found] == ids, "the ids of pair")
    expect(all(np.array_equal(r.vector, left[i]) for i, r in enumerate(found)), "float16 vectors")
    expect([r.payload for r in found] == [{"n": i} for i in ids], "payloads of pair")
    other = pair.get(include=("vectors",), field="right")
    for i, record in enumerate(other):
        held, vector = record.vector, right[i]
        expect((held is None) == (vector is None), "sparse vectors")
        expect(vector is None or np.array_equal(held, vector), "vectors of a sparse field")
    query = np.array([1.0, -1.0, 0.5])
    there = [i for i in range(40) if right[i] is not None]
    best = max(there, key=lambda i: float(query @ right[i]))
    expect(pair.search(query, k=1, field="right", exact=True).ids.tolist() == [ids[best]], "the nearest of pair")
