"""Long lists of values: checked as a whole where they are alike, one by one where not, and parsed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vecdb.errors import FilterError
from vecdb.filter import operands
from vecdb.filter import parse as parsing
from vecdb.filter.expression import Leaf, Or
from vecdb.filter.operands import check_operand, kind_of, kind_of_all
from vecdb.filter.parse import parse
from vecdb.storage.column_values import points
from vecdb.types import Equal, Null


class Number(int):
    """A number that is not quite Python's."""


ALIKE: list[list[Any]] = [[1], [3, 1, 2], [-(2**63), 2**63 - 1], ["a"], ["", "b", "a\x00"]]
UNLIKE: list[list[Any]] = [
    [], [None], [1, None], [1, "a"], [1, 2.0], [True], [1, True], [2**63], [-(2**63) - 1], ["é"], [1.0, 2.0], [b"a"],
    [Number(3)], [np.int64(3)], ["a", "\ud800"],
]  # fmt: skip


@pytest.mark.parametrize("values", ALIKE)
def test_lists_of_one_plain_kind_are_taken_as_a_whole(values: list[Any]) -> None:
    assert kind_of_all(values) == kind_of(values[0])
    assert [check_operand(value) for value in values] == values


@pytest.mark.parametrize("values", UNLIKE)
def test_others_are_looked_at_one_by_one(values: list[Any]) -> None:
    assert kind_of_all(values) == ""


@pytest.mark.parametrize(
    "values", [*ALIKE, *(v for v in UNLIKE if v not in ([2**63], [-(2**63) - 1], ["a", "\ud800"]))]
)
def test_both_ways_make_the_same_filter(values: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    twice = {"a": {"$in": [*values, *values]}}
    whole = parsing._parsed(twice)
    monkeypatch.setattr("vecdb.filter.operators.kind_of_all", lambda values: "")
    single = parsing._parsed(twice)
    assert whole == single
    assert hash(whole) == hash(single)


def test_null_among_numbers_is_still_asked_for() -> None:
    node = parse({"a": {"$in": [1, 2, None]}})
    assert isinstance(node, Or)
    assert {type(leaf.probe) for leaf in node.nodes if isinstance(leaf, Leaf)} == {Equal, Null}


def test_one_bad_value_is_named() -> None:
    with pytest.raises(FilterError, match=r"where\.a\.\$in\[1000\]: .*int64"):
        parse({"a": {"$in": [*range(1_000), 2**63]}})
    with pytest.raises(FilterError, match=r"\$in\[2\]: .*lone surrogate"):
        parse({"a": {"$in": ["a", "b", "\ud800"]}})


def test_long_filters_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_cache", {})
    values = list(range(5_000))
    first = parse({"a": {"$in": values}})
    assert parse({"a": {"$in": list(values)}}) is first
    assert parse({"a": {"$in": values[:-1]}}) is not first
    assert parse({"a": {"$in": [*values[:-1], True]}}) != first
    assert parse({"a": {"$in": [float(value) for value in values]}}) is not first


def test_kept_filters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_cache", {})
    monkeypatch.setattr(parsing, "_CACHE_BYTES", 4_096)
    for number in range(200):
        parse({"a": {"$in": [number, *range(100)]}})
        assert sum(size for _, size in parsing._cache.values()) <= 4_096
    before = dict(parsing._cache)
    parse({"a": {"$in": list(range(2_000))}})
    assert parsing._cache == before, "one that is too large is not kept"


@pytest.mark.parametrize("values", [[3, 1, 3, 2], [2**62, -(2**62)], [1, 2.0, 2.5, 2**70 * 1.0], [True, 1], ["a", 1]])
def test_points_of_a_column_of_integers(values: list[Any]) -> None:
    wanted = sorted({int(v) for v in values if type(v) in (int, float) and v == int(v) and abs(v) < 2**63})
    assert points("int", values).tolist() == wanted
    assert points("int", tuple(values)).dtype == np.dtype("<i8")


def test_limits_are_those_of_stored_integers() -> None:
    assert (operands._INT_MIN, operands._INT_MAX) == (-(2**63), 2**63 - 1)
