"""Filters as frozen values: a probe of one path, and, or, not; and `F`, which builds them.

Logic is two-valued, so `!=` is the exact negation of `==`. Nodes are hashable; operands of different kinds
(True, 1, "1") make different nodes although Python calls the first two equal.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from vecdb.errors import FilterError
from vecdb.types import Equal, Null, Prefix, Present, Probe, Scalar, Within

IN_MAX = 65_536  # values of one $in
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_ORDERED = ("number", "timestamp", "string")


class Node:
    """A filter. Combine with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: Node) -> Node:
        return combine(And, self, _node(other, "&"))

    def __or__(self, other: Node) -> Node:
        return combine(Or, self, _node(other, "|"))

    def __invert__(self) -> Node:
        return negate(self)

    def __bool__(self) -> NoReturn:
        raise FilterError(
            "a filter has no truth value: write `a & b`, `a | b`, `~a` instead of `and`, `or`, `not`, put comparisons "
            "into parentheses, and use .between(low, high) instead of `low <= F(...) <= high`"
        )


@dataclass(frozen=True, slots=True)
class Leaf(Node):
    """Rows that a probe matches. `kinds` are the kinds of its operands."""

    probe: Probe
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class And(Node):
    """All of `nodes`; no nodes match every row."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    """Any of `nodes`; no nodes match no row."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """Every row that `node` does not match."""

    node: Node


def combine(kind: type[And] | type[Or], *nodes: Node) -> Node:
    """`kind` of the nodes, without nesting the same kind; one node stands for itself."""
    flat: list[Node] = []
    for node in nodes:
        flat.extend(node.nodes if isinstance(node, kind) else (node,))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def negate(node: Node) -> Node:
    return node.node if isinstance(node, Not) else Not(node)


def equal(path: str, value: Any, where: str = "") -> Node:
    """Any value at the path equals `value`; None asks for null."""
    if value is None:
        return Leaf(Null(path))
    if isinstance(value, list | tuple | set | frozenset):
        raise _error(where, f"cannot equal a list; use $in for one of several values: {{{path!r}: {{'$in': [...]}}}}")
    operand = check_operand(value, where)
    return Leaf(Equal(path, (operand,)), (kind_of(operand),))


def is_in(path: str, values: Any, where: str = "") -> Node:
    """Any value at the path equals one of `values`; None among them asks for null."""
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise _error(where, f"needs a list of values, not {_type_name(values)}")
    listed = list(values)
    if len(listed) > IN_MAX:
        raise _error(where, f"has {len(listed)} values, the most is {IN_MAX}; split the query")
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
        if kind not in _ORDERED:
            raise _error(where, f"has no order for {_type_name(bound)}; compare numbers, strings or datetimes")
    if len(set(kinds)) > 1:
        raise _error(where, f"has bounds of different kinds, {kinds[0]} and {kinds[1]}, which no value lies between")
    return Leaf(Within(path, bounds[0], bounds[1], low_open, high_open), kinds)


def starts_with(path: str, text: Any, where: str = "") -> Node:
    if not isinstance(text, str):
        raise _error(where, f"needs a string, not {_type_name(text)}")
    return Leaf(Prefix(path, str(check_operand(text, where))))


def exists(path: str) -> Node:
    return Leaf(Present(path))


def is_null(path: str) -> Node:
    return Leaf(Null(path))


def kind_of(value: Scalar) -> str:
    """The comparable kind: values of different kinds are never equal."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "bytes" if isinstance(value, bytes) else "timestamp"


def check_operand(value: Any, where: str = "") -> Scalar:
    """The operand as a plain Python scalar, or FilterError. NumPy scalars become Python's."""
    if hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        value = value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise _error(where, f"compares with {value}, beyond int64, which no stored integer reaches; use a float")
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise _error(where, "compares with NaN, which equals nothing and has no order")
        return float(value)
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _error(where, "compares with a string that holds a lone surrogate, which no stored string does")
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, dt.date) and value == value:  # pandas.NaT differs from itself
        return value
    raise _error(
        where,
        f"cannot compare with {_type_name(value)}; use a bool, int, float, str, bytes, datetime or date",
    )


class F:
    """A payload path in a filter: `F("year") >= 2020`, `F("author.name") == "Ada"`, `F("tag").in_(["a", "b"])`.

    Comparisons give nodes for `where=`; a list field matches when any element does. Raises FilterError for operands
    that no value can match.
    """

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, path: str) -> None:
        self._path = check_path(path)

    def __repr__(self) -> str:
        return f"F({self._path!r})"

    def __eq__(self, value: object) -> Node:  # type: ignore[override]
        return equal(self._path, value, f"{self!r} ==")

    def __ne__(self, value: object) -> Node:  # type: ignore[override]
        return negate(equal(self._path, value, f"{self!r} !="))

    def __lt__(self, value: Any) -> Node:
        return self._range("<", high=value, high_open=True)

    def __le__(self, value: Any) -> Node:
        return self._range("<=", high=value)

    def __gt__(self, value: Any) -> Node:
        return self._range(">", low=value, low_open=True)

    def __ge__(self, value: Any) -> Node:
        return self._range(">=", low=value)

    def in_(self, values: Iterable[Any]) -> Node:
        """Equal to one of the values."""
        return is_in(self._path, values, f"{self!r}.in_")

    def not_in(self, values: Iterable[Any]) -> Node:
        """Not in_: true for a missing path too."""
        return negate(is_in(self._path, values, f"{self!r}.not_in"))

    def between(self, low: Any, high: Any) -> Node:
        """low <= value <= high."""
        require_bounds(low, high, f"{self!r}.between")
        return within(self._path, low, high, where=f"{self!r}.between")

    def exists(self) -> Node:
        """The payload has the path, be it null."""
        return exists(self._path)

    def is_null(self) -> Node:
        """The payload has null at the path; a missing path is not null."""
        return is_null(self._path)

    def startswith(self, text: str) -> Node:
        """A string that starts with `text`."""
        return starts_with(self._path, text, f"{self!r}.startswith")

    def _range(
        self, operator: str, low: Any = None, high: Any = None, low_open: bool = False, high_open: bool = False
    ) -> Node:
        where = f"{self!r} {operator}"
        if low is None and high is None:
            raise _error(where, "has no order for None; use .is_null()")
        return within(self._path, low, high, low_open, high_open, where)


def require_bounds(low: Any, high: Any, where: str) -> None:
    if low is None or high is None:
        raise _error(where, "needs two bounds; use <= or >= ($lte, $gte) for one")


def check_path(path: Any, where: str = "F(path)") -> str:
    if not isinstance(path, str):
        raise _error(where, f"needs a payload path, a string, not {_type_name(path)}")
    return str.__str__(path)


def _node(value: Any, operator: str) -> Node:
    if not isinstance(value, Node):
        raise FilterError(
            f"`{operator}` joins two filters, not a filter and {_type_name(value)}; put comparisons into parentheses: "
            f'(F("a") == 1) {operator} (F("b") == 2)'
        )
    return value


def _error(where: str, problem: str) -> FilterError:
    return FilterError(f"{where}: {problem}" if where else problem)


def _type_name(value: Any) -> str:
    return type(value).__name__
