"""Whatever is wrong with an argument: the typed error that names it, and nothing is written."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import re
import struct
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F, InvalidInput, NotFound, VectorField

A, B = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


class World:
    """A database with a sealed and a growing part. `both` has two vector fields, `free` no dimension yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = vecdb.open(path, maintenance="manual")
        self.docs = self.db.create_collection("docs", dim=3)
        self.both = self.db.create_collection("both", fields={"one": VectorField(2), "two": VectorField(3)})
        self.free = self.db.create_collection("free")
        self.docs.upsert(["a", "b"], [A, B], [{"n": 1}, {"n": 2}])
        self.db.optimize()
        self.docs.upsert(["c"], [A], [{"n": 3}])

    def facts(self) -> tuple[Any, ...]:
        """What must not change when a call is refused."""
        stats = self.db.stats()
        log = [(file.name, file.read_bytes()) for file in sorted((self.path / "wal").iterdir())]
        infos = [self.db.get_collection(name).info() for name in self.db.list_collections()]
        records = self.docs.get(include=("payloads",)).to_list()
        return stats.last_lsn, stats.applied_lsn, log, infos, records, self.both.count(), self.free.count()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("bad") / "data")
    with made.db:
        yield made


Call = Callable[[World], object]
Row = tuple[str, Call, type[Exception], str]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


IDS: list[tuple[Any, str]] = [
    ("a", "ids must be a list of str, int or uuid.UUID, not str; for one record give a list of one"),
    (b"a", "ids must be a list"),
    (5, "ids must be a list"),
    ({"a": 1}, "ids must be a list"),
    ({"a"}, "ids must be a list"),
    ([None], "an id must be a str, an int or a uuid.UUID, not None"),
    ([1.0], "not 1.0 of type float"),
    ([True], "not True of type bool"),
    ([np.bool_(True)], "of type bool"),
    ([b"a"], "of type bytes"),
    ([("a",)], "of type tuple"),
    ([[1]], "of type list"),
    ([dt.date(2020, 1, 1)], "of type date"),
    ([np.datetime64("2020")], "of type datetime64"),
    (np.array([1.5]), "of type float"),
    (np.array(["2020"], "datetime64[D]"), "of type date"),
    (np.array([[1]]), "ids must be one-dimensional, not of shape (1, 1)"),
    (np.array(1), "ids must be one-dimensional"),
    ([""], "must have 1 to 480 bytes in UTF-8, this one has 0"),
    (["x" * 481], "this one has 481"),
    (["é" * 241], "this one has 482"),
    (["\ud800"], "holds a lone surrogate"),
    ([2**63], "must fit in 64 bits with a sign"),
    ([-(2**63) - 1], "must fit in 64 bits with a sign"),
    (np.array([2**63], np.uint64), "must fit in 64 bits with a sign"),
]
TWICE: list[tuple[Any, str]] = [
    (["x", "y", "x"], "the id 'x' occurs more than once"),
    (np.array([1, 1]), "the id 1 occurs more than once"),
    ([1, np.int8(1)], "the id 1 occurs more than once"),
    ([uuid.UUID(int=1), uuid.UUID(int=1)], "occurs more than once"),
]
VECTORS: list[tuple[Any, str]] = [
    ([1.0, 2.0, 3.0], "must have the shape (records, dim), not (3,); for one record give an array of one row"),
    (np.zeros(3), "must have the shape (records, dim), not (3,)"),
    (np.float32(1), "must have the shape (records, dim), not ()"),
    (1.0, "must be an array of shape (records, dim) or a list of vectors, not float"),
    ("abc", "not str"),
    (np.zeros((1, 1, 3)), "not (1, 1, 3)"),
    (np.zeros((1, 2)), "must have 3 dimensions, not 2"),
    (np.zeros((1, 0)), "must have 3 dimensions, not 0"),
    (np.zeros((1, 65_536)), "must have 3 dimensions, not 65536"),
    ([[1, 2, 3], [1, 2]], "differ in length"),
    ([[1, 2, 3], 5], "differ in length"),
    ([[1, 2, np.nan]], "vector 0 of 'vector' holds NaN, infinity or a value beyond float32"),
    ([A, [1, 2, np.inf]], "vector 1 of 'vector' holds NaN"),
    (np.array([[1, 2, -np.inf]], np.float16), "vector 0"),
    ([[1e300, 0, 0]], "a value beyond float32"),
    ([[10**40, 0, 0]], "must be numbers, not of dtype object"),
    ([["1", "2", "3"]], "must be numbers, not of dtype <U1"),
    ([[1j, 0, 0]], "not of dtype complex128"),
    (np.ones((1, 3), bool), "not of dtype bool"),
    (np.ones((1, 3), object), "not of dtype object"),
    (np.ones((1, 3), "M8[s]"), "not of dtype datetime64[s]"),
    (np.ones((1, 3), "S1"), "not of dtype |S1"),
    ([[None, 1, 2]], "not of dtype object"),
    ([[{}, 1, 2]], "not of dtype object"),
    ({"other": [A]}, "there is no vector field 'other'; this collection has 'vector'"),
    ({0: [A]}, "there is no vector field 0"),
]
PAYLOADS: list[tuple[Any, str]] = [
    ({"n": 1}, "payloads must be a list of dicts, not dict"),
    ("text", "payloads must be a list of dicts, not str"),
    (1, "payloads must be a list of dicts, not int"),
    ([1], "payloads[0] must be a dict or None, not int"),
    ([[("n", 1)]], "payloads[0] must be a dict or None, not list"),
    ([{1: 2}], "payloads[0]: payload has the key 1 of type int; keys must be strings"),
    ([{None: 2}], "keys must be strings"),
    ([{"$n": 1}], 'keys that start with "$" are reserved'),
    ([{"a": [{"$n": 1}]}], "payload['a'][0] has the key '$n'"),
    ([{"n": {1, 2}}], "payload['n'] has the type set, which a payload cannot hold; convert it with sorted()"),
    ([{"n": 2**63}], "payload['n'] is the integer 9223372036854775808, beyond int64"),
    ([{"n": [-(2**63) - 1]}], "payload['n'][0] is the integer"),
    ([{"n": np.uint64(2**63)}], "beyond int64"),
    ([{"n": 1j}], "has the type complex"),
    ([{"n": decimal.Decimal(1)}], "decimal.Decimal"),
    ([{"n": object()}], "has the type object"),
    ([{"n": uuid.UUID(int=1)}], "uuid.UUID"),
    ([{"n": dt.time(1)}], "datetime.time"),
    ([{"n": dt.timedelta(1)}], "datetime.timedelta"),
    ([{"n": np.zeros((2, 2))}], "only 1-D arrays are taken"),
    ([{"n": "\ud800"}], "payload['n'] holds a lone surrogate"),
    ([{"\ud800": 1}], "holds a lone surrogate"),
    ([deep(32)], "is nested deeper than 32 levels"),
    ([{"n": "x" * (1 << 20)}], "the most is 1048576"),
]
WHERE: list[tuple[Any, str]] = [
    ("n = 1", 'where: needs a dict or F("path") comparisons, not str'),
    ([{"n": 1}], "where: needs a dict"),
    (1, "where: needs a dict"),
    ({"n": {"$foo": 1}}, "where.n.$foo"),
    ({"$foo": []}, "where.$foo"),
    ({"$and": {"n": 1}}, "where.$and"),
    ({"$or": [{"n": 1}, 5]}, "where.$or[1]"),
    ({"$and": [{"n": 1}, {"year": {"$gte": [1]}}]}, "where.$and[1].year.$gte"),
    ({"n": {"$gt": None}}, "where.n.$gt"),
    ({"n": {"$in": 5}}, "where.n.$in"),
    ({"n": {"$in": [{}]}}, "where.n.$in"),
    ({"n": {"$between": [1]}}, "where.n.$between"),
    ({"n": {"$startswith": 1}}, "where.n.$startswith"),
    ({"n": {"$exists": 1}}, "where.n.$exists"),
    ({"$not": []}, "where.$not"),
    ({1: 2}, "where: keys are payload paths or operators, strings, not 1"),
    ({"n": object()}, "where.n"),
    ({"n": {1, 2}}, "where.n"),
    ({"$and": [{"n": i} for i in range(4_097)]}, "where: more than 4096 conditions"),
    ({"n": {"$in": list(range(65_537))}}, "where.n.$in"),
]
QUERIES: list[tuple[Any, str]] = [
    (None, "or an array of shape (queries, dim); not NoneType"),
    ("abc", "a query must be a vector of numbers"),
    (1.0, "a query must be a vector of numbers"),
    ({}, "a query must be a vector of numbers"),
    ([], "a query of 'vector' must have 3 dimensions, not 0"),
    ([1, 2], "a query of 'vector' must have 3 dimensions, not 2"),
    ([[1, 2, 3], [1, 2]], "the query vectors differ in length"),
    (np.zeros((1, 1, 3)), "a query must be a vector of numbers"),
    (np.zeros((2, 4)), "must have 3 dimensions, not 4"),
    ([1, 2, np.nan], "the query holds NaN"),
    ([1, 2, np.inf], "the query holds NaN, infinity"),
    ([1, 2, 1e300], "the query holds NaN, infinity or a value beyond float32"),
    ([1, 2, 1j], "a query must be a vector of numbers"),
    ([True, False, True], "a query must be a vector of numbers"),
    (np.array([1, 2, 3], object), "a query must be a vector of numbers"),
    (["1", "2", "3"], "a query must be a vector of numbers"),
    ([None, 1, 2], "a query must be a vector of numbers"),
]
COUNTS: list[Any] = [0, -1, 10_001, 2**63, 1.0, "3", None, True, np.float32(2), np.bool_(True), [1], np.array([1, 2])]
SEARCH_OPTIONS: list[tuple[dict[str, Any], str]] = [
    *[({"k": k}, "k must be") for k in COUNTS],
    *[({"ef": n}, "ef must be") for n in (0, -1, 65_537, 2**63, 1.5, "9", True)],
    *[
        ({"recall": x}, "recall must be a number from 0.5 to below 1")
        for x in (0.49, 1, 1.0, -1, "0.9", True, np.nan, [1])
    ],
    ({"recall": 0.9, "ef": 50}, "leave out either recall= or ef="),
    ({"recall": 0.9, "exact": True}, "leave one of them out"),
    *[({"rescore": n}, "rescore must be") for n in (0, -1, 2**63, 1.5, "9", True)],
    *[({"offset": n}, "offset must be") for n in (-1, 2**63, 1.5, "9", None, True, False, 0.0)],
    *[({"threads": n}, "threads must be") for n in (0, -1, 2**63, 1.5, "9", True)],
    *[({"exact": x}, "exact must be True or False") for x in (None, 1, "yes", [])],
    *[({"max_distance": x}, "max_distance must be a number") for x in ("1", True, np.nan, [1], 1j, 10**400)],
    *[({"min_score": x}, "min_score must be a number") for x in ("1", True, np.nan, [1], np.complex64(1), 10**400)],
    *[({"include": x}, "include must be a tuple of 'payloads', 'vectors'") for x in ("payloads", ("ids",), [["x"]], 1)],
    *[({"field": x}, "there is no vector field") for x in ("other", 0, "", ["vector"])],
]
NAMES: list[Any] = [None, 1, b"docs", "", "Docs", "-a", "_a", "a b", "a/b", "..", "a" * 64, "é", "a\n", ["docs"], {}]


def write_rows() -> Iterator[Row]:
    for verb in ("upsert", "add"):
        for ids, told in [*IDS, *TWICE]:
            count = len(ids) if hasattr(ids, "__len__") and np.ndim(ids) else 1
            yield verb, lambda w, v=verb, i=ids, n=count: getattr(w.docs, v)(i, [A] * n), InvalidInput, told
        for vectors, told in VECTORS:
            count = len(vectors) if isinstance(vectors, list) and isinstance(vectors[0], list) else 1
            ids = [f"new{i}" for i in range(count)]
            yield verb, lambda w, v=verb, i=ids, x=vectors: getattr(w.docs, v)(i, x), InvalidInput, told
        for payloads, told in PAYLOADS:
            yield verb, lambda w, v=verb, p=payloads: getattr(w.docs, v)(["new"], [A], p), InvalidInput, told
    for ids, told in [*IDS, *TWICE]:
        yield "update", lambda w, i=ids: w.docs.update(i, payloads=[{}]), InvalidInput, told
    for vectors, told in VECTORS:
        count = len(vectors) if isinstance(vectors, list) and isinstance(vectors[0], list) else 1
        yield "update", lambda w, n=count, x=vectors: w.docs.update(["a", "b"][:n], x), InvalidInput, told
    for payloads, told in PAYLOADS:
        yield "update", lambda w, p=payloads: w.docs.update(["a"], payloads=p), InvalidInput, told
    for ids, told in IDS:
        yield "delete", lambda w, i=ids: w.docs.delete(i), InvalidInput, told
    for where, told in WHERE:
        yield "delete", lambda w, x=where: w.docs.delete(where=x), vecdb.FilterError, told


def read_rows() -> Iterator[Row]:
    for query, told in QUERIES:
        yield "search", lambda w, q=query: w.docs.search(q), InvalidInput, told
        yield "explain", lambda w, q=query: w.docs.explain(q), InvalidInput, told
    for options, told in SEARCH_OPTIONS:
        yield "search", lambda w, o=options: w.docs.search(A, **o), InvalidInput, told
    for options, told in SEARCH_OPTIONS:
        if set(options) <= {"k", "field", "exact", "ef", "recall"}:
            yield "explain", lambda w, o=options: w.docs.explain(A, **o), InvalidInput, told
    for where, told in WHERE:
        for verb in ("count", "scroll"):
            yield verb, lambda w, v=verb, x=where: getattr(w.docs, v)(x), vecdb.FilterError, told
        yield "get", lambda w, x=where: w.docs.get(where=x), vecdb.FilterError, told
        yield "distinct", lambda w, x=where: w.docs.distinct("n", where=x), vecdb.FilterError, told
        yield "min_max", lambda w, x=where: w.docs.min_max("n", where=x), vecdb.FilterError, told
        yield "search", lambda w, x=where: w.docs.search(A, where=x), vecdb.FilterError, told
        yield "explain", lambda w, x=where: w.docs.explain(A, where=x), vecdb.FilterError, told
    for ids, told in IDS:
        yield "get", lambda w, i=ids: w.docs.get(i), InvalidInput, told
    for number in (-1, 2**63, 1.5, "1", True, [1]):
        yield "get", lambda w, n=number: w.docs.get(limit=n), InvalidInput, "limit must be"
        yield "get", lambda w, n=number: w.docs.get(offset=n), InvalidInput, "offset must be"
        yield "scroll", lambda w, n=number: w.docs.scroll(batch_size=n), InvalidInput, "batch_size must be"
    for path in (1, "", "-", b"n", ["n"], True):
        yield "get", lambda w, p=path: w.docs.get(order_by=p), InvalidInput, "order_by must be a payload path"
    for path in (1, "", None, b"n", ["n"]):
        yield "distinct", lambda w, p=path: w.docs.distinct(p), InvalidInput, "a payload path is a string"
        yield "min_max", lambda w, p=path: w.docs.min_max(p), InvalidInput, "a payload path is a string"
    for include in ("payloads", ("ids",), 1, [["x"]]):
        yield "get", lambda w, i=include: w.docs.get(include=i), InvalidInput, "include must be a tuple"
        yield "scroll", lambda w, i=include: w.docs.scroll(include=i), InvalidInput, "include must be a tuple"


def schema_rows() -> Iterator[Row]:
    for name in NAMES:
        told = "a collection name has 1 to 63"
        for verb in ("create_collection", "get_collection", "get_or_create_collection", "delete_collection"):
            yield verb, lambda w, v=verb, n=name: getattr(w.db, v)(n), InvalidInput, told
        yield "rename", lambda w, n=name: w.db.rename_collection("docs", n), InvalidInput, told
        yield "rename", lambda w, n=name: w.db.rename_collection(n, "new"), InvalidInput, told
    shapes: list[tuple[dict[str, Any], str]] = [
        *[({"dim": dim}, "VectorField(dim=) must be") for dim in (0, -1, 65_536, 1.5, "3", True, [3], 2**63)],
        *[({"metric": m}, "metric must be one of cosine") for m in ("cosin", None, 1, ["l2"], "")],
        *[({"index": i}, "index must be") for i in ("tree", None, 1, [], vecdb.HNSW, "")],
        ({"fields": ["vector"]}, "fields must be a dict"),
        ({"fields": {}}, "a collection has 1 to 64 vector fields, not 0"),
        ({"fields": {f"f{i}": VectorField(1) for i in range(65)}}, "not 65"),
        ({"fields": {"one": 3}}, "fields['one'] must be a vecdb.VectorField, not 3"),
        ({"fields": {"a b": VectorField(3)}}, "a field name has 1 to 63"),
        ({"fields": {1: VectorField(3)}}, "a field name has 1 to 63"),
        ({"fields": {"one": VectorField(3)}, "dim": 3}, "give dim, metric, index and dtype in each vecdb.VectorField"),
        ({"fields": {"one": VectorField(3)}, "metric": "l2"}, "give dim, metric, index and dtype in each"),
        ({"fields": {"one": VectorField(3)}, "dtype": "float16"}, "give dim, metric, index and dtype in each"),
        *[({"dtype": d}, "dtype must be one of float32, float16") for d in ("float64", "f2", None, np.float16, 16, "")],
    ]
    for shape, told in shapes:
        yield "create", lambda w, s=shape: w.db.create_collection("new", **s), InvalidInput, told
        yield "get_or_create", lambda w, s=shape: w.db.get_or_create_collection("new", **s), InvalidInput, told
    yield "create", lambda w: w.db.create_collection("docs", dim=3), vecdb.AlreadyExists, "'docs' exists"
    yield "rename", lambda w: w.db.rename_collection("docs", "both"), vecdb.AlreadyExists, "'both' exists"
    for verb in ("get_collection", "delete_collection"):
        yield verb, lambda w, v=verb: getattr(w.db, v)("nothing"), NotFound, "there is no collection 'nothing'"
    yield "rename", lambda w: w.db.rename_collection("nothing", "new"), NotFound, "has: both, docs, free"
    for shape in ({"dim": 4}, {"metric": "l2"}, {"dtype": "float16"}, {"fields": {"other": VectorField(3)}}):
        yield (
            "get_or_create",
            lambda w, s=shape: w.db.get_or_create_collection("docs", **s),
            InvalidInput,
            "take it as it is with get_collection()",
        )
    for index in ("tree", None, 1, [], vecdb.Flat):
        yield "set_index", lambda w, i=index: w.docs.set_index(i), InvalidInput, "index must be"
    for field in ("other", 0, ""):
        yield "set_index", lambda w, f=field: w.docs.set_index("flat", field=f), InvalidInput, "no vector field"
    yield "set_index", lambda w: w.both.set_index("flat"), InvalidInput, "say which with field="


def option_rows() -> Iterator[Row]:
    for value in (3, 0, "8", 2.0, True, None):
        yield "Flat", lambda w, v=value: vecdb.Flat(bits=v), InvalidInput, "Flat(bits="
    for name, values in {
        "m": (3, 65, 16.0, "16", True, None),
        "ef_construction": (15, 4_097, 200.0, None, True),
        "ef": (-1, 65_537, 1.0, None, True),
    }.items():
        for value in values:
            yield "HNSW", lambda w, o={name: value}: vecdb.HNSW(**o), InvalidInput, f"HNSW({name}=) must be"
    for value in (-1, 10_001, 1.0, None, True):
        yield "Flat", lambda w, v=value: vecdb.Flat(rescore=v), InvalidInput, "Flat(rescore=) must be"
    for value in (0, 65_536, "3", True, 3.0):
        yield "VectorField", lambda w, v=value: VectorField(v), InvalidInput, "VectorField(dim=) must be"
    yield "VectorField", lambda w: VectorField(3, "manhattan"), InvalidInput, "metric must be one of"
    yield "VectorField", lambda w: VectorField(3, index="annoy"), InvalidInput, "index must be"
    for path in (None, 1, b"x", "", ["x"]):
        yield "open", lambda w, p=path: vecdb.open(p), InvalidInput, "the path of a database must be a str or a Path"
    yield "open", lambda w: vecdb.open("a\0b"), InvalidInput, "NUL"
    yield "open", lambda w: vecdb.open("~no-such-user-here/x"), InvalidInput, "home directory"
    for options, told in (
        ({"mode": "w"}, "mode must be"),
        ({"mode": None}, "mode must be"),
        ({"sync": "always"}, "sync must be one of full, interval, none"),
        ({"sync": True}, "sync must be one of"),
        ({"interval_ms": 0}, "interval_ms=) must be"),
        ({"interval_ms": 1.5}, "interval_ms=) must be"),
        ({"maintenance": "off"}, "maintenance must be one of auto, manual"),
        ({"maintenance": []}, "maintenance must be one of"),
        ({"threads": -1}, "threads=) must be"),
        ({"threads": True}, "threads=) must be"),
        ({"maintenance": "auto"}, "is open in this process with"),
    ):
        yield "open", lambda w, o=options: vecdb.open(w.path, **o), InvalidInput, told


def odd_rows() -> Iterator[Row]:
    new = {"ids": ["x", "y"], "vectors": [A, B], "payloads": [{}, {}]}
    for short in new:
        given = {name: values[:1] if name == short else values for name, values in new.items()}
        yield "upsert", lambda w, g=given: w.docs.upsert(**g), InvalidInput, "must have one entry per record each"
        yield "add", lambda w, g=given: w.docs.add(**g), InvalidInput, "must have one entry per record each"
    yield "upsert", lambda w: w.docs.upsert(), InvalidInput, "there is nothing to write"
    yield "upsert", lambda w: w.docs.upsert(vectors={}), InvalidInput, "there is nothing to write"
    yield "upsert", lambda w: w.docs.upsert(range(1_000_001)), InvalidInput, "one call may write 1,000,000 records"
    yield "upsert", lambda w: w.both.upsert([1], [A]), InvalidInput, "several vector fields (one, two)"
    yield "upsert", lambda w: w.both.upsert([1], {"one": [[1, 2]], "two": [A, B]}), InvalidInput, "one entry per record"
    yield "upsert", lambda w: w.both.upsert([1], {"one": [A]}), InvalidInput, "'one' must have 2 dimensions, not 3"
    yield "upsert", lambda w: w.free.upsert([1], np.zeros((1, 65_536))), InvalidInput, "1 to 65535 dimensions"
    yield "upsert", lambda w: w.free.upsert([1], np.zeros((1, 0))), InvalidInput, "1 to 65535 dimensions"
    yield "upsert", lambda w: w.free.upsert([1], [[1, 2]], [{"n": {1}}]), InvalidInput, "set"
    yield "search", lambda w: w.free.search([]), InvalidInput, "dimensions, not 0"
    yield "search", lambda w: w.both.search(A), InvalidInput, "say which with field="
    yield "explain", lambda w: w.both.explain(A), InvalidInput, "say which with field="
    for conflict in ("ignore", None, 1, ["skip"]):
        yield "add", lambda w, c=conflict: w.docs.add(["x"], [A], on_conflict=c), InvalidInput, "on_conflict must be"
    yield "add", lambda w: w.docs.add(["x", "a"], [A, A]), vecdb.AlreadyExists, "1 of 2 ids exist already: 'a'"
    yield "update", lambda w: w.docs.update(None, payloads=[{}]), InvalidInput, "update needs the ids"
    yield "update", lambda w: w.docs.update(["a"]), InvalidInput, "update needs vectors, payloads or both"
    yield "update", lambda w: w.docs.update(["a"], [A, B]), InvalidInput, "has 2 entries for 1 ids"
    yield "update", lambda w: w.docs.update(["a"], payloads=[]), InvalidInput, "payloads has 0 entries for 1 ids"
    yield "update", lambda w: w.docs.update(["a"], payloads=[{"x": {"y": vecdb.REMOVE}}]), InvalidInput, "payload['x']"
    yield "update", lambda w: w.docs.update(["a", "b"], payloads=[{}, {"$x": 1}]), InvalidInput, "payloads[1]: payload"
    yield "upsert", lambda w: w.docs.upsert(["x"], payloads=[{"x": vecdb.REMOVE}]), InvalidInput, "payload['x']"
    yield "delete", lambda w: w.docs.delete(), InvalidInput, "delete needs either ids or where"
    yield "delete", lambda w: w.docs.delete(["a"], where={}), InvalidInput, "and not both"
    yield "get", lambda w: w.docs.get(["a"], where={}), InvalidInput, "get takes either ids or where, not both"
    yield "F", lambda w: F(1), vecdb.FilterError, "path"  # type: ignore[arg-type]
    yield "F", lambda w: F("n") >= [1], vecdb.FilterError, "F('n') >="
    yield "F", lambda w: bool(F("n") == 1), vecdb.FilterError, "a filter has no truth value"


ROWS = [*write_rows(), *read_rows(), *schema_rows(), *option_rows(), *odd_rows()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error", "told"), [row[1:] for row in ROWS], ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)]
)
def test_bad_argument(world: World, call: Call, error: type[Exception], told: str) -> None:
    before = world.facts()
    with pytest.raises(error, match=re.escape(told)) as raised:
        call(world)
    assert type(raised.value) is error
    assert world.facts() == before


# ---- handles --------------------------------------------------------------------------------------------------------
WRITES: dict[str, Callable[[vecdb.Collection], object]] = {
    "upsert": lambda c: c.upsert(["new"], [A]),
    "add": lambda c: c.add(["new"], [A]),
    "update": lambda c: c.update(["a"], payloads=[{"n": 9}]),
    "delete": lambda c: c.delete(["a"]),
    "delete where": lambda c: c.delete(where={}),
    "set_index": lambda c: c.set_index("flat"),
    "optimize": lambda c: c.optimize(),
    "flush": lambda c: c.flush(),
}
READS: dict[str, Callable[[vecdb.Collection], object]] = {
    "search": lambda c: c.search(A),
    "explain": lambda c: c.explain(A),
    "get": lambda c: c.get(),
    "scroll": lambda c: list(c.scroll()),
    "count": lambda c: c.count(),
    "len": len,
    "distinct": lambda c: c.distinct("n"),
    "min_max": lambda c: c.min_max("n"),
    "fields": lambda c: c.fields(),
    "stats": lambda c: c.stats(),
    "info": lambda c: c.info(),
}
CHANGES: dict[str, Callable[[vecdb.Database], object]] = {
    "create_collection": lambda db: db.create_collection("new"),
    "get_or_create_collection": lambda db: db.get_or_create_collection("new"),
    "rename_collection": lambda db: db.rename_collection("docs", "new"),
    "delete_collection": lambda db: db.delete_collection("docs"),
    "maintain": lambda db: db.maintain(),
    "optimize": lambda db: db.optimize(),
    "flush": lambda db: db.flush(),
}
LOOKS: dict[str, Callable[[vecdb.Database], object]] = {
    "path": lambda db: db.path,
    "get_collection": lambda db: db.get_collection("docs"),
    "list_collections": lambda db: db.list_collections(),
    "refresh": lambda db: db.refresh(),
    "stats": lambda db: db.stats(),
    "with": lambda db: db.__enter__(),
}


def files(path: Path) -> dict[str, bytes]:
    """Every file but those that only say who holds the database."""
    found = (file for file in path.rglob("*") if file.is_file() and file.name not in ("LOCK", "lock.mdb"))
    return {str(file): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("closed") / "data")
    made.db.close()
    made.db.close()
    return made


@pytest.mark.parametrize("call", [*WRITES.values(), *READS.values()], ids=[*WRITES, *READS])
def test_collection_of_a_closed_database(closed: World, call: Callable[[vecdb.Collection], object]) -> None:
    before = files(closed.path)
    with pytest.raises(vecdb.Closed, match="the database was closed; open it again"):
        call(closed.docs)
    assert files(closed.path) == before
    assert repr(closed.docs) == "Collection('docs', closed)"


@pytest.mark.parametrize("call", [*CHANGES.values(), *LOOKS.values()], ids=[*CHANGES, *LOOKS])
def test_closed_database(closed: World, call: Callable[[vecdb.Database], object]) -> None:
    with pytest.raises(vecdb.Closed, match="the database was closed; open it again"):
        call(closed.db)
    assert repr(closed.db) == "Database(closed)"


@pytest.mark.parametrize("call", [*WRITES.values(), *READS.values()], ids=[*WRITES, *READS])
def test_deleted_collection(world: World, call: Callable[[vecdb.Collection], object]) -> None:
    gone = world.db.create_collection("gone", dim=3)
    gone.upsert(["a"], [A])
    world.db.delete_collection("gone")
    before = world.facts()
    with pytest.raises(NotFound, match="the collection 'gone' was deleted"):
        call(gone)
    assert world.facts() == before
    assert repr(gone) == "Collection('gone', deleted)"


@pytest.fixture(scope="module")
def reader(closed: World) -> Iterator[vecdb.Database]:
    with vecdb.open(closed.path, mode="r") as db:
        yield db


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_collection_of_a_reader(closed: World, reader: vecdb.Database, call: Any) -> None:
    before = files(closed.path)
    with pytest.raises(vecdb.ReadOnly, match='mode="r"'):
        call(reader.get_collection("docs"))
    assert files(closed.path) == before


@pytest.mark.parametrize("call", CHANGES.values(), ids=CHANGES)
def test_reader(closed: World, reader: vecdb.Database, call: Any) -> None:
    before = files(closed.path)
    with pytest.raises(vecdb.ReadOnly, match='mode="r"'):
        call(reader)
    assert files(closed.path) == before


def test_a_reader_beside_the_writer_of_its_process_stays_a_reader(world: World) -> None:
    with vecdb.open(world.path, mode="r") as reader:
        docs = reader.get_collection("docs")
        for call in WRITES.values():
            with pytest.raises(vecdb.ReadOnly, match='mode="r"'):
                call(docs)
        assert docs.count() == world.docs.count()


def test_maintain_is_for_manual_maintenance(path: Path) -> None:
    with vecdb.open(path) as db, pytest.raises(InvalidInput, match="here a thread does it"):
        db.maintain()


# ---- directories ----------------------------------------------------------------------------------------------------
SECOND_WRITER = """
import sys, vecdb
try:
    vecdb.open(sys.argv[1])
except vecdb.Locked as error:
    print(error)
"""


def test_a_second_writer_is_refused_with_the_pid_of_the_first(world: World) -> None:
    before = world.facts()
    told = subprocess.run(
        [sys.executable, "-c", SECOND_WRITER, str(world.path)], capture_output=True, text=True, check=True
    ).stdout
    assert str(os.getpid()) in told
    assert str(world.path) in told
    assert world.facts() == before


def test_a_missing_database_is_not_created_by_a_reader(path: Path) -> None:
    with pytest.raises(NotFound, match="there is no database at"):
        vecdb.open(path, mode="r")
    assert not path.exists()


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_file_is_not_a_database(path: Path, mode: Any) -> None:
    path.write_text("mine")
    with pytest.raises(vecdb.VecdbError, match=re.escape(str(path))):
        vecdb.open(path, mode=mode)
    assert path.read_text() == "mine"


def test_a_directory_of_something_else_is_left_alone(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(vecdb.VecdbError, match=re.escape(str(path))):
        vecdb.open(path)
    with pytest.raises(NotFound, match="there is no database at"):
        vecdb.open(path, mode="r")
    assert [file.name for file in path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["wal/1.wal", "segments/mine"])
def test_a_database_that_lost_its_superblock_is_not_made_anew(path: Path, name: str) -> None:
    World(path).db.close()
    (path / "VECDB").unlink()
    before = files(path)
    with pytest.raises(InvalidInput, match="has no VECDB file"):
        vecdb.open(path)
    assert files(path) == before
    other = path.parent / "other"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("mine")
    with pytest.raises(InvalidInput, match=f"it holds '{name}'"):
        vecdb.open(other)
    assert (other / name).read_text() == "mine"


SUPERBLOCK = struct.Struct("<8sIIQQ16sQII")


@pytest.mark.parametrize(
    ("at", "value", "modes", "told"),
    [
        (1, 2, ("rw", "r"), "the database has format 2; this vecdb reads formats 1 to 1"),
        (1, 0, ("rw", "r"), "the database has format 0"),
        (3, 4, ("rw", "r"), "unknown features 0x4"),
        (4, 8, ("rw",), "unknown features 0x8"),
    ],
)
def test_an_unknown_format_is_refused(path: Path, at: int, value: int, modes: tuple[Any, ...], told: str) -> None:
    World(path).db.close()
    fields = list(SUPERBLOCK.unpack((path / "VECDB").read_bytes()))
    fields[at] = value
    body = SUPERBLOCK.pack(*fields)[:-4]
    (path / "VECDB").write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    before = files(path)
    for mode in modes:
        with pytest.raises(vecdb.UnsupportedFormat, match=told):
            vecdb.open(path, mode=mode)
    assert files(path) == before
    if "r" not in modes:
        with vecdb.open(path, mode="r") as db:
            assert db.get_collection("docs").count() == 3


@pytest.mark.parametrize("damage", [b"", b"x", b"VECDB\0\0\1" + bytes(56)], ids=["empty", "short", "zeros"])
def test_a_damaged_superblock_is_refused(path: Path, damage: bytes) -> None:
    World(path).db.close()
    (path / "VECDB").write_bytes(damage)
    before = files(path)
    modes: tuple[Any, ...] = ("rw", "r")
    for mode in modes:
        with pytest.raises(vecdb.Corrupted, match="superblock"):
            vecdb.open(path, mode=mode)
    assert files(path) == before


def test_options_that_are_equal_and_not_the_same_are_told_apart(world: World) -> None:
    """Checked options are remembered: 1 == True must not let the one pass for the other."""
    assert len(world.docs.search(A, k=1, exact=True, ef=None)) == 1
    for wrong in ({"k": True}, {"k": 1, "exact": 1}, {"k": 1, "offset": False}, {"k": 1.0}):
        with pytest.raises(InvalidInput):
            world.docs.search(A, **{"exact": True, **wrong})


@pytest.mark.parametrize("include", [["payloads"], {"payloads"}, ("payloads",)])
def test_what_to_include_may_be_any_collection(world: World, include: Any) -> None:
    hits = world.docs.search(A, k=1, include=include)
    assert hits[0].payload == {"n": 1}
    with pytest.raises(InvalidInput, match="vectors were not asked for"):
        _ = hits.vectors


@pytest.mark.parametrize("option", ["ef", "rescore", "offset", "threads", "nprobe", "max_distance", "min_score"])
def test_options_of_unhashable_types_are_refused_by_name(world: World, option: str) -> None:
    with pytest.raises(InvalidInput, match=option):
        world.docs.search(A, **{option: [1]})
