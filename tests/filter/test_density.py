"""Filters over enough rows that sets are sparse, dense and full: rows, bits, and every mixture of the two."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.filter import oracle
from tests.filter.sources import all_forms
from vecdb.filter.evaluate import estimate, evaluate
from vecdb.filter.parse import parse
from vecdb.kernels import bitset
from vecdb.types import ROWS_DENSITY

ROWS = 1_600


def record(row: int, random_: random.Random) -> dict[str, Any]:
    payload: dict[str, Any] = {"rare": row % 500, "half": row % 2, "year": 1990 + random_.randrange(40)}
    if row % 3:
        payload["tags"] = random_.sample(["a", "b", "c", "d", "e", 1, 1.0, 2], random_.randrange(4))
    if row % 5 == 0:
        payload["name"] = f"name {random_.randrange(900)}"
    if row % 7 == 0:
        payload["maybe"] = None if row % 2 else row / 7
    return payload


def leaf(random_: random.Random) -> dict[str, Any]:
    year = 1990 + random_.randrange(40)
    return random_.choice(
        [
            {"rare": random_.randrange(500)},
            {"rare": {"$in": [random_.randrange(600) for _ in range(random_.choice([2, 30]))]}},
            {"rare": {"$lt": random_.choice([3, 10, 40, 400])}},
            {"half": 1},
            {"half": {"$ne": 7}},
            {"year": {"$between": [year, year + random_.choice([0, 1, 2, 20])]}},
            {"tags": random_.choice(["a", 1])},
            {"tags": {"$in": ["a", 1]}},
            {"tags": {"$gte": random_.choice(["d", "a", 1])}},
            {"name": {"$startswith": random_.choice(["name 1", "name 12", "name"])}},
            {"name": {"$in": [f"name {number}" for number in range(random_.choice([5, 200]))]}},
            {"name": {"$gt": "name 88"}},
            {"maybe": {"$exists": True}},
            {"maybe": None},
            {"tags": {"$all": random_.sample(["a", "b", 1], 2)}},
            {"tags": {"$size": {"$gte": random_.randrange(4)}}},
            {"tags": {"$contains": "a"}},
            {"name": {"$contains": random_.choice(["7", "name 11"])}},
            {"name": {"$regex": random_.choice(["[0-4]7$", "^name 1.$"])}},
            {"tags": {"$is_empty": random_.random() < 0.5}},
            {"nothing": 1},
        ]
    )


def tree(random_: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth == 3 or random_.random() < 0.3:
        return leaf(random_)
    operator = random_.choice(["$and", "$and", "$or", "$nor", "$not"])
    if operator == "$not":
        return {"$not": tree(random_, depth + 1)}
    return {operator: [tree(random_, depth + 1) for _ in range(random_.choice([2, 2, 3]))]}


@pytest.mark.parametrize("seed", range(2))
def test_sets_of_every_density(seed: int) -> None:
    random_ = random.Random(seed)
    payloads = [record(row, random_) for row in range(ROWS)]
    wheres = [tree(random_) for _ in range(45)]
    wheres += [{"$and": [leaf(random_), {"$not": leaf(random_)}]} for _ in range(20)]
    expected = [[row for row, p in enumerate(payloads) if oracle.matches(p, where)] for where in wheres]
    forms = set()
    for name, source in all_forms(payloads):
        for where, rows in zip(wheres, expected, strict=True):
            node = parse(where)
            assert node is not None
            bounds = estimate(node, source)
            found = evaluate(node, source)
            assert bitset.rows_of(found, ROWS).tolist() == rows, (name, where)
            assert found.count == len(rows)
            assert (found.bits is None) == (len(rows) <= ROWS // ROWS_DENSITY)
            assert bounds.low <= len(rows) <= bounds.high
            forms.add(found.bits is None)
    assert forms == {True, False}
