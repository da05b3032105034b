"""The cases of docs/filters.md, executed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.filter import oracle
from tests.filter.sources import all_forms
from vecdb.filter.builder import F
from vecdb.filter.evaluate import evaluate
from vecdb.filter.expression import Node
from vecdb.filter.parse import _LOGICAL, _OPERATORS, parse

DOCUMENT = (Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")
NAMES = {"float": float, "date": date, "datetime": datetime, "UTC": UTC}
CASES = re.findall(r"^\| `(.+)` \| `(.+)` \| (yes|no) \|$", DOCUMENT.split("## Cases")[1], re.MULTILINE)


def value(text: str) -> Any:
    return eval(text, {"__builtins__": {}}, NAMES)  # noqa: S307  the text is this repository's


def test_the_document_has_cases_and_names_every_operator() -> None:
    assert len(CASES) == DOCUMENT.split("## Cases")[1].count("\n| `")
    for operator in (*_OPERATORS, *_LOGICAL, "$not"):
        assert operator in DOCUMENT.split("## Cases")[0]
        assert operator in DOCUMENT.split("## Cases")[1] or operator in ("$and", "$eq", "$lte")


@pytest.mark.parametrize(("payload", "where", "answer"), CASES)
def test_documented_case(payload: str, where: str, answer: str) -> None:
    record, condition, expected = value(payload), value(where), answer == "yes"
    assert oracle.matches(record, condition) == expected
    node = parse(condition)
    if node is None:
        assert expected
        return
    for name, source in all_forms([record, {"z": 1}, record]):
        found = evaluate(node, source)
        other = 1 if oracle.matches({"z": 1}, condition) else 0
        assert found.count == (2 if expected else 0) + other, name


PAIRS: list[tuple[dict[str, Any], Node]] = [
    ({"a": 1}, F("a") == 1),
    ({"a": None}, F("a") == None),  # noqa: E711
    ({"a": {"$ne": 1}}, F("a") != 1),
    ({"a": {"$gt": 1}}, F("a") > 1),
    ({"a": {"$gte": "x"}}, F("a") >= "x"),
    ({"a": {"$lt": 1.5}}, F("a") < 1.5),
    ({"a": {"$lte": 1}}, F("a") <= 1),
    ({"a": {"$between": [1, 2]}}, F("a").between(1, 2)),
    ({"a": {"$in": [1, None]}}, F("a").in_([1, None])),
    ({"a": {"$nin": [1, "b"]}}, F("a").not_in([1, "b"])),
    ({"a": {"$startswith": "x"}}, F("a").startswith("x")),
    ({"a": {"$any": [1, "b"]}}, F("a").any_of([1, "b"])),
    ({"a": {"$all": [1, "b"]}}, F("a").all_of([1, "b"])),
    ({"a": {"$contains": "x"}}, F("a").contains("x")),
    ({"a": {"$not_contains": 5}}, F("a").not_contains(5)),
    ({"a": {"$regex": "x+"}}, F("a").matches("x+")),
    ({"a": {"$size": 2}}, F("a").size(2)),
    ({"a": {"$size": {"$gte": 2, "$lt": 5}}}, F("a").size(2, 4)),
    ({"a": {"$is_empty": True}}, F("a").is_empty()),
    ({"a": {"$exists": True}}, F("a").exists()),
    ({"a": {"$exists": False}}, ~F("a").exists()),
    ({"a": {"$is_null": True}}, F("a").is_null()),
    ({"a": {"$not": {"$gt": 1}}}, ~(F("a") > 1)),
    ({"a": 1, "b": 2, "c": 3}, (F("a") == 1) & (F("b") == 2) & (F("c") == 3)),
    ({"$or": [{"a": 1}, {"b": 2}]}, (F("a") == 1) | (F("b") == 2)),
    ({"$nor": [{"a": 1}, {"b": 2}]}, ~((F("a") == 1) | (F("b") == 2))),
    ({"$not": {"$not": {"a": 1}}}, F("a") == 1),
]


@pytest.mark.parametrize(("where", "built"), PAIRS)
def test_the_builder_gives_the_same_nodes(where: dict[str, Any], built: Node) -> None:
    assert parse(where) == built
    assert hash(parse(where)) == hash(built)
    assert parse(built) is built
