"""Writes the golden databases of the present format: python -m tests.golden.make

They are what a release leaves on disk, kept for ever: every later release must read them and find what expected.json
says. Those of a released format are never made anew. Clock and random numbers are fixed, so only the format and the
kernels change what is written.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tarfile
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb.engine import registry, wanted
from vecdb.engine.checkpoint import checkpoint
from vecdb.storage.schema import FORMAT_VERSION

HERE = Path(__file__).parent
PLACE = HERE / f"format-{FORMAT_VERSION}"
SHAPES = ("fresh", "killed", "closed")
SNAPSHOT = "snapshot.vecdb"
EXPECTED = "expected.json"
DIM = 20
ROWS = 48
K = 5


class FixedClock:
    """A minute passes between two looks, from 2026-01-01 on."""

    def __init__(self) -> None:
        self.now = 1_767_225_600_000_000_000

    def time_ns(self) -> int:
        self.now += 60_000_000_000
        return self.now

    def monotonic(self) -> float:
        return self.time_ns() / 1e9


class FixedRandom:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def bytes(self, count: int) -> bytes:
        return self.generator.bytes(count)


# ---- what is written ------------------------------------------------------------------------------------------------
def vectors_of(seed: int, rows: int, dim: int) -> np.ndarray:
    """Multiples of 1/8, which float16 holds as well; no zero vector."""
    return (np.random.default_rng(seed).integers(-40, 40, (rows, dim)) * 2 + 1).astype(np.float32) / 8


def payload_of(number: int) -> dict[str, Any]:
    return {
        "number": number,
        "share": number / 4,
        "even": number % 2 == 0,
        "word": f"wörd-{number % 7}",
        "nothing": None,
        "tags": [f"t{number % 3}", number % 5],
        "deep": {"er": {"number": -number}},
        "day": dt.datetime(2020, 1, 1) + dt.timedelta(days=number),
        "moment": dt.datetime(2021, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=number),
        "date": dt.date(2022, 1, 1) + dt.timedelta(days=number),
        "raw": bytes([number % 256]),
    }


FILTERS: list[dict[str, Any]] = [
    {"number": {"$gte": 10}},
    {"tags": "t1"},
    {"deep.er.number": {"$lt": -5}},
    {"nothing": {"$is_null": True}},
    {"day": {"$lt": dt.datetime(2020, 1, 6)}},
    {"word": {"$startswith": "wörd-3"}},
]
INDEXES: dict[str, Any] = {
    "flat": vecdb.Flat(),
    "hnsw": vecdb.HNSW(m=6, ef_construction=30),
    "ivf": vecdb.IVF(nlist=4),
    "ivfpq": vecdb.IVFPQ(nlist=4),
}
METRICS = {"flat": "l2", "hnsw": "cosine", "ivf": "dot", "ivfpq": "cosine"}


def fill(db: vecdb.Database) -> None:
    """A collection of each kind of index; one with several fields, kinds of ids and everything in payloads."""
    for seed, (kind, index) in enumerate(INDEXES.items()):
        docs = db.create_collection(kind, dim=DIM, metric=METRICS[kind], index=index)
        vectors = vectors_of(seed, ROWS, DIM)
        vectors[-3:] = vectors[0]
        docs.upsert(list(range(ROWS)), vectors, [{"number": n, "third": n % 3} for n in range(ROWS)])
    fields = {"title": vecdb.VectorField(4, "cosine"), "body": vecdb.VectorField(3, "l2", dtype="float16")}
    mixed = db.create_collection("mixed", fields=fields)
    names: list[Any] = [f"näme-{n}" if n % 3 else uuid.UUID(int=n) if n % 2 else n for n in range(20)]
    title, body = vectors_of(8, 20, 4), vectors_of(9, 20, 3)
    given = {
        "title": [title[n] if n % 4 else None for n in range(20)],
        "body": [body[n] if n % 5 else None for n in range(20)],
    }
    mixed.upsert(names, given, [payload_of(n) if n % 6 else {} for n in range(20)])
    db.create_collection("empty", dim=2)
    db.optimize()
    mixed.delete([names[4]])
    mixed.update([names[7]], payloads=[{"word": "changed", "share": vecdb.REMOVE}])
    db.get_collection("hnsw").delete([5, 6])
    checkpoint(db._engine)  # type: ignore[arg-type]
    db.get_collection("flat").upsert(["logged"], vectors_of(11, 1, DIM), [{"number": -1}])
    mixed.delete([names[8]])


def make(place: Path) -> None:
    usual = registry.DEFAULT_SEAMS
    registry.DEFAULT_SEAMS = replace(usual, clock=FixedClock(), random=FixedRandom())
    bounds = wanted.CODED_ROWS_MIN, wanted.LISTS_ROWS_MIN
    wanted.CODED_ROWS_MIN = wanted.LISTS_ROWS_MIN = 32  # so that small segments have indexes
    try:
        with vecdb.open(place / "fresh", maintenance="manual"):
            pass
        with vecdb.open(place / "closed", maintenance="manual") as db:
            fill(db)
            db.snapshot(place / SNAPSHOT)
            shutil.copytree(place / "closed", place / "killed")
    finally:
        registry.DEFAULT_SEAMS = usual
        wanted.CODED_ROWS_MIN, wanted.LISTS_ROWS_MIN = bounds


def write_golden(target: Path) -> None:
    """Each database as a compressed archive, the snapshot as it is, and what they hold."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make(place)
        for shape in SHAPES:
            pack(place / shape, target / f"{shape}.tar.xz")
        shutil.copy(place / SNAPSHOT, target / SNAPSHOT)
        told = {shape: contents(place / shape) for shape in SHAPES}
    (target / EXPECTED).write_text(json.dumps(told, indent=None, ensure_ascii=False) + "\n", encoding="utf-8")


def pack(directory: Path, target: Path) -> None:
    def plainly(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if member.name.endswith("lock.mdb") else member  # the reader table of LMDB is of its process

    with tarfile.open(target, "w:xz", preset=9) as archive:
        archive.add(directory, directory.name, filter=plainly)


def unpacked(golden: Path, shape: str, place: Path) -> Path:
    """The database of this shape, below `place`."""
    with tarfile.open(golden / f"{shape}.tar.xz") as archive:
        archive.extractall(place, filter="tar")
    return place / shape


# ---- what is read ---------------------------------------------------------------------------------------------------
def plain(value: Any) -> Any:
    """As JSON, types kept apart."""
    match value:
        case dict():
            return {key: plain(one) for key, one in value.items()}
        case list():
            return [plain(one) for one in value]
        case np.ndarray():
            return value.tolist()
        case bytes():
            return {"bytes": value.hex()}
        case uuid.UUID():
            return {"uuid": str(value)}
        case dt.datetime() | dt.date():
            return {type(value).__name__: value.isoformat()}
    return value


def contents(path: Path) -> dict[str, Any]:
    """Everything that the database in `path` answers, as JSON. Opened for reading only."""
    with vecdb.open(path, mode="r") as db:
        return {name: contents_of(db.get_collection(name)) for name in db.list_collections()}


def contents_of(docs: vecdb.Collection) -> dict[str, Any]:
    info = docs.info()
    told: dict[str, Any] = {"fields": info["fields"], "columns": columns_of(docs)}
    records = docs.get(include=("payloads",))
    told["records"] = [[plain(record.id), plain(record.payload)] for record in records]
    filters = [
        {"number": {"$gte": 10}},
        {"tags": "t1"},
        {"deep.er.number": {"$lt": -5}},
        {"nothing": {"$is_null": True}},
    ]
    told["counts"] = [docs.count(where=where) for where in filters]
    for field, shape in info["fields"].items():
        vectors = docs.get(field=field, include=("vectors",))
        told[f"vectors of {field}"] = [plain(record.vector) for record in vectors]
        told[f"searches of {field}"] = searches(docs, field, shape["dim"])
    return told


def columns_of(docs: vecdb.Collection) -> dict[str, Any]:
    return {path: [info.rows, list(info.types)] for path, info in docs.fields().items()}


def searches(docs: vecdb.Collection, field: str, dim: int) -> list[Any]:
    """Ids and distances, exact and through the index, filtered and not."""
    told = []
    for query in vectors_of(77, 2, dim):
        for options in ({"exact": True}, {}, {"where": {"number": {"$gte": 10}}}):
            hits = docs.search(query, k=K, field=field, include=(), **options)
            told.append([[plain(one) for one in hits.ids.tolist()], [round(float(d), 5) for d in hits.distances]])
    return told


if __name__ == "__main__":
    if PLACE.exists():
        shutil.rmtree(PLACE)
    PLACE.mkdir()
    write_golden(PLACE)
    size = sum(file.stat().st_size for file in PLACE.rglob("*") if file.is_file())
    print(f"{PLACE}: {size / 1000:.0f} kB")
