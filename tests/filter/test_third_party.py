"""Filters against those of Qdrant's client, which evaluates them on plain dicts, where both mean the same.

Left out is where they differ by design: Qdrant's equality keeps 1 and 1.0 apart, its substring looks into the elements
of lists, nulls inside a list make it null, and a single value counts as one element.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter.sources import all_forms
from vecdb.filter.evaluate import evaluate
from vecdb.filter.parse import parse
from vecdb.kernels import bitset

models = pytest.importorskip("qdrant_client.http.models", reason="a development dependency: qdrant-client")
payload_filters = pytest.importorskip("qdrant_client.local.payload_filters")

words = st.sampled_from(["", "a", "ab", "abc", "b", "bab", "é"])
integers = st.sampled_from([0, 1, 2, -1, 7, 2**40])
numbers = integers | st.sampled_from([0.5, 1.5, -2.5, 1e300])
keys = words | integers | st.booleans()  # what Qdrant can match exactly
elements = words | numbers | st.booleans()
values = elements | st.none() | st.lists(elements, max_size=4)
payloads = st.dictionaries(
    st.sampled_from(["a", "b"]), values | st.dictionaries(st.sampled_from(["c", "d"]), values, max_size=2), max_size=2
)
paths = st.sampled_from(["a", "b", "a.c", "b.d", "a.c.c", "missing"])

Pair = tuple[dict[str, Any], Any]  # the same filter for vecdb and for Qdrant


def field(path: str, condition: Any, **wanted: Any) -> Pair:
    return {path: condition}, models.Filter(must=[models.FieldCondition(key=path, **wanted)])


def empty(path: str, null: bool) -> Pair:
    key = models.PayloadField(key=path)
    theirs = models.IsNullCondition(is_null=key) if null else models.IsEmptyCondition(is_empty=key)
    return {path: {"$is_null" if null else "$is_empty": True}}, models.Filter(must=[theirs])


BOUNDS = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


def between(path: str, operator: str, bound: float) -> Pair:
    return field(path, {operator: bound}, range=models.Range(**{BOUNDS[operator]: bound}))


def no_element(path: str, listed: list[Any]) -> Pair:
    """$nin: Qdrant's `except` asks for some element that differs, so the negation of `any` is what is meant."""
    theirs = models.FieldCondition(key=path, match=models.MatchAny(any=listed))
    return {path: {"$nin": listed}}, models.Filter(must_not=[theirs])


same_kind = st.lists(words, min_size=1, max_size=3) | st.lists(integers, min_size=1, max_size=3)
leaves = st.one_of(
    st.builds(lambda path, value: field(path, value, match=models.MatchValue(value=value)), paths, keys),
    st.builds(lambda path, some: field(path, {"$in": some}, match=models.MatchAny(any=some)), paths, same_kind),
    st.builds(lambda path, some: field(path, {"$any": some}, match=models.MatchAny(any=some)), paths, same_kind),
    st.builds(no_element, paths, same_kind),
    st.builds(between, paths, st.sampled_from(sorted(BOUNDS)), numbers),
    st.builds(
        lambda path, text: field(path, {"$startswith": text}, match=models.MatchPrefix(prefix=text)), paths, words
    ),
    st.builds(
        lambda path, size: field(path, {"$size": {"$gt": size}}, values_count=models.ValuesCount(gt=size)),
        paths,
        st.integers(1, 3),  # a single value counts as one
    ),
    st.builds(
        lambda path, size: field(path, {"$size": size}, values_count=models.ValuesCount(gte=size, lte=size)),
        paths,
        st.integers(2, 4),
    ),
    st.builds(empty, paths, st.booleans()),
    st.builds(
        lambda path, listed: (
            {path: {"$all": listed}},
            models.Filter(must=[models.FieldCondition(key=path, match=models.MatchValue(value=v)) for v in listed]),
        ),
        paths,
        same_kind,
    ),
)


def joined(operator: str, parts: list[Pair]) -> Pair:
    ours, theirs = [part[0] for part in parts], [part[1] for part in parts]
    clause = {"$and": "must", "$or": "should", "$nor": "must_not"}[operator]
    return {operator: ours}, models.Filter(**{clause: theirs})


filters = st.recursive(
    leaves,
    lambda inner: st.builds(joined, st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(payloads, max_size=20), st.lists(filters, min_size=1, max_size=3))
def test_qdrant_agrees(records: list[dict[str, Any]], pairs: list[Pair]) -> None:
    expected = [
        [row for row, payload in enumerate(records) if payload_filters.check_filter(theirs, payload, row, {})]
        for _, theirs in pairs
    ]
    for name, source in all_forms(records):
        for (where, _), rows in zip(pairs, expected, strict=True):
            node = parse(where)
            assert node is not None
            assert bitset.rows_of(evaluate(node, source), source.rows).tolist() == rows, (name, where)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": words}), max_size=20), words)
def test_qdrant_agrees_on_parts_of_strings(records: list[dict[str, Any]], text: str) -> None:
    theirs = field("a", {"$contains": text}, match=models.MatchSubstring(substring=text))[1]
    expected = [row for row, payload in enumerate(records) if payload_filters.check_filter(theirs, payload, row, {})]
    node = parse({"a": {"$contains": text}})
    assert node is not None
    for name, source in all_forms(records):
        assert bitset.rows_of(evaluate(node, source), source.rows).tolist() == expected, name
