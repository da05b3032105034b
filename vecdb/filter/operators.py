"""What each operator means: a path and an operand to a filter node. FilterError for operands that nothing can match.

`where` is the place that an error names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from vecdb.filter.expression import And, Leaf, Node, Or, combine, negate
from vecdb.filter.operands import ORDERED, check_operand, error, kind_of, kind_of_all, type_name
from vecdb.types import Equal, Null, Prefix, Present, Scalar, Search, Sized, Within

IN_MAX = 65_536  # values of one $in
SIZE_MAX = 2**31 - 1


def equal(path: str, value: Any, where: str = "") -> Node:
    """Any value at the path equals `value`; None asks for null."""
    if value is None:
        return Leaf(Null(path))
    if isinstance(value, list | tuple | set | frozenset):
        raise error(where, f"cannot equal a list; use $in for one of several values: {{{path!r}: {{'$in': [...]}}}}")
    operand = check_operand(value, where)
    return Leaf(Equal(path, (operand,)), (kind_of(operand),))


def is_in(path: str, values: Any, where: str = "") -> Node:
    """Any value at the path equals one of `values`; None among them asks for null."""
    listed = _listed(values, where)
    if kind := kind_of_all(listed):
        alike = tuple(dict.fromkeys(listed))
        return combine(Or, Leaf(Equal(path, alike), (kind,) * len(alike)))
    operands: dict[tuple[str, Scalar], None] = {}
    for position, value in enumerate(listed):
        if value is not None:
            operand = check_operand(value, f"{where}[{position}]")
            operands[kind_of(operand), operand] = None
    nodes: list[Node] = []
    if operands or None not in listed:
        kinds = tuple(kind for kind, _ in operands)
        nodes.append(Leaf(Equal(path, tuple(operand for _, operand in operands)), kinds))
    if len(operands) < len(listed) and any(value is None for value in listed):
        nodes.append(Leaf(Null(path)))
    return combine(Or, *nodes)


def within(path: str, low: Any, high: Any, low_open: bool = False, high_open: bool = False, where: str = "") -> Node:
    """Any value at the path lies between the bounds; None leaves a side unbounded."""
    bounds = [None if bound is None else check_operand(bound, where) for bound in (low, high)]
    kinds = tuple(kind_of(bound) for bound in bounds if bound is not None)
    for bound, kind in zip([bound for bound in bounds if bound is not None], kinds, strict=True):
        if kind not in ORDERED:
            raise error(where, f"has no order for {type_name(bound)}; compare numbers, strings or datetimes")
    if len(set(kinds)) > 1:
        raise error(where, f"has bounds of different kinds, {kinds[0]} and {kinds[1]}, which no value lies between")
    return Leaf(Within(path, bounds[0], bounds[1], low_open, high_open), kinds)


def starts_with(path: str, text: Any, where: str = "") -> Node:
    if not isinstance(text, str):
        raise error(where, f"needs a string, not {type_name(text)}")
    return Leaf(Prefix(path, str(check_operand(text, where))))


def exists(path: str) -> Node:
    return Leaf(Present(path))


def is_null(path: str) -> Node:
    return Leaf(Null(path))


def is_empty(path: str) -> Node:
    """There is no value at the path: it is missing, null, or a list without elements."""
    return combine(Or, negate(exists(path)), is_null(path), Leaf(Sized(path, 0, 0)))


def has_all(path: str, values: Any, where: str = "") -> Node:
    """Each of `values` equals some value at the path; a single value counts as a list of one."""
    listed = _listed(values, where)
    if not listed:
        raise error(where, "needs one or more values, because every record has all of none; use $exists for any value")
    operands = {(kind_of(operand), operand): None for operand in _operands(listed, where)}
    return combine(And, *(Leaf(Equal(path, (operand,)), (kind,)) for kind, operand in operands))


def contains(path: str, value: Any, where: str = "") -> Node:
    """A list at the path has an element that equals `value`, or a string that is no element has the part `value`."""
    operand = check_operand(value, where)
    lists = Leaf(Sized(path))
    element = combine(And, Leaf(Equal(path, (operand,)), (kind_of(operand),)), lists)
    if not isinstance(operand, str):
        return element
    return combine(Or, element, combine(And, Leaf(Search(path, operand, regex=False)), negate(lists)))


def matches(path: str, pattern: Any, where: str = "") -> Node:
    """A string at the path (any element) holds a match of the RE2 expression; `^` and `$` bind it to the ends."""
    if not isinstance(pattern, str):
        raise error(where, f"needs an RE2 expression, a string, not {type_name(pattern)}")
    text = str(check_operand(pattern, where))
    problem = _pattern_problem(text)
    if problem:
        raise error(
            where,
            f"RE2 cannot read {text!r:.100}: {problem}; it has no look-around and no references to groups, and "
            "takes (?i) for letters of either case",
        )
    return Leaf(Search(path, text, regex=True))


def has_size(path: str, low: Any, high: Any, where: str = "") -> Node:
    """A list of `low` to `high` elements; None for `high` is unbounded."""
    bounds = [bound for bound in (low, high) if bound is not None]
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(check_operand(bound, where), int) or not 0 <= bound <= SIZE_MAX:
            raise error(where, f"needs a number of elements, an integer from 0 to {SIZE_MAX}, not {bound!r:.100}")
    return Leaf(Sized(path, int(low or 0), None if high is None else int(high)))


def _listed(values: Any, where: str) -> list[Any]:
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise error(where, f"needs a list of values, not {type_name(values)}")
    listed = list(values)
    if len(listed) > IN_MAX:
        raise error(where, f"has {len(listed)} values, the most is {IN_MAX}; split the query")
    return listed


def _operands(values: Iterable[Any], where: str) -> list[Scalar]:
    return [check_operand(value, f"{where}[{position}]") for position, value in enumerate(values)]


@lru_cache(maxsize=256)
def _pattern_problem(pattern: str) -> str:
    """What RE2 says against a pattern, "" when it takes it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""], pa.large_utf8()), pattern)
    except pa.ArrowInvalid as error:
        return str(error).removeprefix("Invalid regular expression: ").replace("\n", " ")
    return ""
