"""Random payloads and random filters: every form of columns agrees with the oracle."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter import oracle
from tests.filter.sources import all_forms
from vecdb.errors import FilterError
from vecdb.filter.evaluate import estimate, evaluate
from vecdb.filter.parse import parse
from vecdb.kernels import bitset
from vecdb.storage.payload import pack, unpack

numbers = st.sampled_from(
    [
        *(0, 1, 2, -1, 1.0, 1.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 2.0**63, 1e300),
        *(float("inf"), float("-inf"), 5e-324),
    ]
)
words = st.sampled_from(["", "a", "ab", "abc", "b", "é", "a\0", "\U0001f600", "x" * 20, "x" * 21])
times = st.sampled_from(
    [
        dt.datetime(2020, 1, 1),
        dt.date(2020, 1, 1),
        dt.datetime(2020, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime(2020, 1, 1, 0, 0, 0, 1),
        dt.datetime.min,
        dt.datetime.max.replace(tzinfo=dt.UTC),
    ]
)
ordered = numbers | words | times
scalars = ordered | st.booleans() | st.binary(max_size=1)
values = st.recursive(
    scalars | st.none() | st.just(float("nan")) | st.lists(scalars | st.none(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=3,
)
paths = st.sampled_from(["a", "b", "a.b", "a.a.b", "missing"])
payloads = st.dictionaries(st.sampled_from(["a", "b", "a.b", "a.a"]), values, max_size=3)


def kind(value: Any) -> str:
    found = oracle.key(value)
    return found[0] if found else ""


sizes = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(0, 3), min_size=1, max_size=2)
# What Python's re and RE2 read alike; "$" would not be, because Python's also matches before a last newline.
patterns = st.sampled_from(["", "a", "^a", "b.?c", "(?i)A", "^(ab|x+)", "[é-ü]", "\\x00", "^.{2}", "(?s)^.", "x{20}"])

conditions = st.one_of(
    scalars,
    st.none(),
    st.fixed_dictionaries({}, optional={"$gt": numbers, "$lte": numbers, "$ne": scalars}).filter(bool),
    st.builds(lambda operator, operand: {operator: operand}, st.sampled_from(["$eq", "$ne"]), scalars | st.none()),
    st.builds(lambda operator, operand: {operator: operand}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ordered),
    st.builds(
        lambda operator, operand: {operator: operand},
        st.sampled_from(["$in", "$nin"]),
        st.lists(scalars | st.none(), max_size=4),
    ),
    st.tuples(ordered, ordered).filter(lambda pair: kind(pair[0]) == kind(pair[1])).map(lambda p: {"$between": [*p]}),
    st.builds(lambda text: {"$startswith": text}, words),
    st.builds(lambda name, flag: {name: flag}, st.sampled_from(["$exists", "$is_null", "$is_empty"]), st.booleans()),
    st.builds(lambda operator, operand: {operator: operand}, st.sampled_from(["$contains", "$not_contains"]), scalars),
    st.builds(lambda operand: {"$any": operand}, st.lists(scalars | st.none(), max_size=3)),
    st.builds(lambda operand: {"$all": operand}, st.lists(scalars, min_size=1, max_size=3)),
    st.builds(lambda size: {"$size": size}, st.integers(0, 3)),
    st.builds(lambda size: {"$size": size}, sizes),
    st.builds(lambda pattern: {"$regex": pattern}, patterns),
)
conditions = conditions | st.builds(lambda inner: {"$not": {"$lt": inner}}, numbers)
filters = st.recursive(
    st.dictionaries(paths, conditions, min_size=1, max_size=2),
    lambda inner: (
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1)
        )
        | st.builds(lambda part: {"$not": part}, inner)
    ),
    max_leaves=4,
)


@settings(max_examples=250, deadline=None)
@given(st.lists(payloads, max_size=40), st.lists(filters, min_size=1, max_size=4))
def test_every_form_agrees_with_the_oracle(records: list[dict[str, Any]], wheres: list[dict[str, Any]]) -> None:
    expected = [[row for row, payload in enumerate(records) if oracle.matches(payload, where)] for where in wheres]
    for name, source in all_forms(records):
        for where, rows in zip(wheres, expected, strict=True):
            node = parse(where)
            assert node is not None
            found = evaluate(node, source)
            assert bitset.rows_of(found, source.rows).tolist() == rows, (name, where)
            assert found.count == len(rows)
            bounds = estimate(node, source)
            assert bounds.low <= len(rows) <= bounds.high, (name, where)


@settings(max_examples=200, deadline=None)
@given(payloads)
def test_packed_payloads_come_back(payload: dict[str, Any]) -> None:
    assert repr(unpack(pack(payload))) == repr(payload)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | scalars, lambda inner: st.lists(inner) | st.dictionaries(words | paths, inner)))
def test_no_value_breaks_the_parser(where: Any) -> None:
    # No value is good for both: $and takes a list, a field anything but a list.
    with pytest.raises(FilterError, match=r"^where\."):
        parse({"$and": where, "a": where})
