"""What is refused, with the place and the remedy in the message."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from vecdb.errors import FilterError
from vecdb.filter.builder import F
from vecdb.filter.expression import And, Leaf, Node, Not
from vecdb.filter.parse import parse
from vecdb.types import Equal

NAN = float("nan")


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


def endless() -> dict[str, Any]:
    where: dict[str, Any] = {}
    where["$not"] = where
    return where


BAD: list[tuple[Any, str]] = [
    (5, "where: needs a dict"),
    ([{"a": 1}], "where: needs a dict"),
    ({1: 2}, "where: keys are payload paths or operators, strings, not 1"),
    ({"$and": [{"a": 1}, {"year": {"$gte": [1]}}]}, r"where\.\$and\[1\]\.year\.\$gte: cannot compare with list"),
    ({"$an": [{"a": 1}]}, r"where\.\$an: unknown operator '\$an'; did you mean \$and\? known here: \$and, \$or"),
    ({"a": {"$gr": 1}}, r"where\.a\.\$gr: unknown operator '\$gr'; did you mean \$gt"),
    ({"a": {">": 1}}, r"where\.a: '>' is no operator; write \$gt"),
    ({"a": {"$quux": "x"}}, r"unknown operator '\$quux'; known here"),
    ({"a": {"$regex": 5}}, r"where\.a\.\$regex: needs an RE2 expression, a string, not int"),
    (
        {"a": {"$regex": "(?=x)"}},
        r"where\.a\.\$regex: RE2 cannot read '\(\?=x\)': invalid perl operator: .*no look",
    ),
    ({"$or": [{"a": {"$regex": "("}}]}, r"where\.\$or\[0\]\.a\.\$regex: RE2 cannot read '\(': missing \)"),
    ({"a": {"$regex": "\ud800"}}, r"where\.a\.\$regex: compares with a string that holds a lone surrogate"),
    ({"a": {"$contains": [1]}}, r"where\.a\.\$contains: cannot compare with list"),
    ({"a": {"$contains": None}}, r"where\.a\.\$contains: cannot compare with NoneType"),
    ({"a": {"$any": "abc"}}, r"where\.a\.\$any: needs a list of values, not str"),
    ({"a": {"$all": []}}, r"where\.a\.\$all: needs one or more values, .*use \$exists"),
    ({"a": {"$all": [1, None]}}, r"where\.a\.\$all\[1\]: cannot compare with NoneType"),
    ({"a": {"$all": 5}}, r"where\.a\.\$all: needs a list of values, not int"),
    ({"a": {"$size": -1}}, r"where\.a\.\$size: needs a number of elements, an integer from 0 to 2147483647, not -1"),
    ({"a": {"$size": True}}, r"where\.a\.\$size: needs a number of elements"),
    ({"a": {"$size": 1.5}}, r"where\.a\.\$size: needs a number of elements"),
    ({"a": {"$size": 2**31}}, r"where\.a\.\$size: needs a number of elements"),
    ({"a": {"$size": {}}}, r"where\.a\.\$size: needs a number of elements, or comparisons, one of \$gt, "),
    ({"a": {"$size": {"$in": [1]}}}, r"where\.a\.\$size\.\$in: unknown comparison of sizes; known here: \$gt, \$gte"),
    ({"a": {"$size": {"$gt": "x"}}}, r"where\.a\.\$size\.\$gt: needs a number of elements"),
    ({"a": {"$is_empty": 1}}, r"where\.a\.\$is_empty: needs true or false, not 1"),
    ({"$contains": 5}, r"where\.\$contains: the operator is not known here; put it below a field"),
    ({"a": {"$zzzzzz": 1}}, r"known here: \$eq, \$ne"),
    ({"$gte": 5}, r"where\.\$gte: the operator is not known here; put it below a field"),
    ({"a": {"$or": [1]}}, r"where\.a\.\$or: the operator is not known here; it stands above fields"),
    ({"$or": []}, r"where\.\$or: needs a list of one or more"),
    ({"$or": {"a": 1}}, r"where\.\$or: needs a list"),
    ({"$and": [5]}, r"where\.\$and\[0\]: needs a dict of conditions, not int"),
    ({"$not": 5}, r"where\.\$not: needs a dict"),
    ({"a": {}}, r"where\.a: needs an operator"),
    ({"a": {"b": 1}}, r"where\.a: 'b' is no operator; for a nested object use the dotted path 'a\.b'"),
    ({"a": [1, 2]}, r"where\.a: cannot equal a list; use \$in"),
    ({"a": {"$ne": [1]}}, r"where\.a\.\$ne: cannot equal a list"),
    ({"a": {"$eq": {"b": 1}}}, r"where\.a\.\$eq: cannot compare with dict"),
    ({"a": NAN}, r"where\.a: compares with NaN"),
    ({"a": {"$in": [1, NAN]}}, r"where\.a\.\$in\[1\]: compares with NaN"),
    ({"a": {"$in": [1, [2]]}}, r"where\.a\.\$in\[1\]: cannot compare with list"),
    ({"a": {"$in": "abc"}}, r"where\.a\.\$in: needs a list of values, not str"),
    ({"a": {"$in": 5}}, r"where\.a\.\$in: needs a list of values, not int"),
    ({"a": {"$in": list(range(65_537))}}, r"where\.a\.\$in: has 65537 values, the most is 65536"),
    ({"a": {"$lt": None}}, r"where\.a\.\$lt: has no order for None; use \$is_null"),
    ({"a": {"$lt": True}}, r"where\.a\.\$lt: has no order for bool"),
    ({"a": {"$lt": b"x"}}, r"where\.a\.\$lt: has no order for bytes"),
    ({"a": {"$gt": NAN}}, r"where\.a\.\$gt: compares with NaN"),
    ({"a": {"$gt": 2**63}}, r"where\.a\.\$gt: compares with 9223372036854775808, beyond int64"),
    ({"a": {"$eq": 1j}}, r"cannot compare with complex"),
    ({"a": {"$eq": "\ud800"}}, r"lone surrogate"),
    ({"a": {"$between": [1]}}, r"where\.a\.\$between: needs \[low, high\]"),
    ({"a": {"$between": 5}}, r"where\.a\.\$between: needs \[low, high\]"),
    ({"a": {"$between": [1, None]}}, r"where\.a\.\$between: needs two bounds"),
    ({"a": {"$between": [1, "b"]}}, r"where\.a\.\$between: has bounds of different kinds, number and string"),
    ({"a": {"$startswith": 5}}, r"where\.a\.\$startswith: needs a string, not int"),
    ({"a": {"$exists": 1}}, r"where\.a\.\$exists: needs true or false, not 1"),
    ({"a": {"$not": 5}}, r"where\.a\.\$not: needs a dict of operators"),
    (nested(32), "nested deeper than 32 levels"),
    (nested(5_000), "nested deeper than 32 levels"),
    (endless(), "nested deeper than 32 levels"),
    ({"$or": [{"a": 1}] * 4_097}, "more than 4096 conditions"),
]


@pytest.mark.parametrize(("where", "message"), BAD)
def test_refused(where: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse(where)


def test_limits_are_reached_exactly() -> None:
    assert parse(nested(31)) is not None
    assert parse({"$or": [{"a": value} for value in range(4_095)]}) is not None
    assert parse({"a": {"$in": list(range(65_536))}}) is not None


def test_no_filter() -> None:
    assert parse(None) is None
    assert parse({}) is None
    assert parse({"$and": [{}]}) == And(())


def test_nodes_have_no_truth_value() -> None:
    with pytest.raises(FilterError, match="instead of `and`"):
        bool(F("a") == 1)
    with pytest.raises(FilterError, match="between"):
        assert 1 <= F("a") <= 5
    with pytest.raises(FilterError, match="parentheses"):
        (F("a") == 1) & 5  # type: ignore[operator]


def test_builder_errors_name_the_path() -> None:
    with pytest.raises(FilterError, match=r"F\('a'\) <: has no order for bool"):
        _ = F("a") < True
    with pytest.raises(FilterError, match=r"F\('a'\) >=: has no order for None"):
        _ = F("a") >= None
    with pytest.raises(FilterError, match=r"F\('a'\)\.between: needs two bounds"):
        F("a").between(None, 1)
    with pytest.raises(FilterError, match="needs a payload path"):
        F(5)  # type: ignore[arg-type]


def test_depth_of_built_filters_is_bounded() -> None:
    node: Node = F("a") == 1
    for _ in range(33):
        node = Not(node)
    with pytest.raises(FilterError, match="32 levels"):
        parse(node)
    chain: Node = F("a") == 0
    for value in range(1, 1000):
        chain = chain | (F("a") == value)
    assert parse(chain) is chain


def test_kinds_of_operands_make_different_nodes() -> None:
    nodes = {parse({"a": operand}) for operand in (1, True, "1", b"1", 0, False)}
    assert len(nodes) == 6
    assert parse({"a": 1}) == parse({"a": 1.0})
    # In either order: the cache of parsed dicts tells them apart too.
    assert parse({"b": True}) != parse({"b": 1})
    assert parse({"c": 1}) != parse({"c": True})


def test_in_keeps_operands_of_different_kinds() -> None:
    node = parse({"a": {"$in": [True, 1, 1.0, "1"]}})
    assert isinstance(node, Leaf)
    assert isinstance(node.probe, Equal)
    assert node.probe.values == (True, 1, "1")
    assert node.kinds == ("bool", "number", "string")


def test_changing_a_parsed_dict_changes_the_filter() -> None:
    where: dict[str, Any] = {"a": {"$in": [1, 2]}}
    first = parse(where)
    where["a"]["$in"].append(3)
    assert parse(where) != first


def test_numpy_and_pandas_like_operands() -> None:
    assert parse({"a": np.int64(3)}) == parse({"a": 3})
    assert parse({"a": np.float32(0.5)}) == parse({"a": 0.5})
    assert parse({"a": np.bool_(True)}) == parse({"a": True})
    assert parse({"a": np.str_("x")}) == parse({"a": "x"})
    assert parse({"a": {"$in": np.array([1, 2])}}) == parse({"a": {"$in": [1, 2]}})
    moment = dt.datetime(2020, 1, 1)
    assert parse({"a": np.datetime64("2020-01-01T00:00:00", "ns")}) == parse({"a": moment})
    with pytest.raises(FilterError, match="cannot compare with"):
        parse({"a": np.datetime64("NaT")})
