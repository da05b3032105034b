"""Filters as frozen values: a probe of one path, and, or, not.

Logic is two-valued, so `!=` is the exact negation of `==`. Nodes are hashable; operands of different kinds
(True, 1, "1") make different nodes although Python calls the first two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from vecdb.errors import FilterError
from vecdb.types import Probe


class Node:
    """A filter. Combine with `&`, `|` and `~`. Its hash is kept, because caches ask for it in every query."""

    __slots__ = ("_hash",)
    __match_args__: ClassVar[tuple[str, ...]] = ()  # the fields, as dataclasses list them
    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            value = hash((type(self), *(getattr(self, name) for name in self.__match_args__)))
            object.__setattr__(self, "_hash", value)
            return value

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

    __hash__ = Node.__hash__
    probe: Probe
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class And(Node):
    """All of `nodes`; no nodes match every row."""

    __hash__ = Node.__hash__
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    """Any of `nodes`; no nodes match no row."""

    __hash__ = Node.__hash__
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """Every row that `node` does not match."""

    __hash__ = Node.__hash__
    node: Node


def combine(kind: type[And] | type[Or], *nodes: Node) -> Node:
    """`kind` of the nodes, without nesting the same kind; one node stands for itself."""
    flat: list[Node] = []
    for node in nodes:
        flat.extend(node.nodes if isinstance(node, kind) else (node,))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def negate(node: Node) -> Node:
    return node.node if isinstance(node, Not) else Not(node)


def paths_of(node: Node) -> set[str]:
    """Every payload path that the filter looks at."""
    if isinstance(node, Leaf):
        return {node.probe.path}
    below = node.nodes if isinstance(node, And | Or) else (node.node,) if isinstance(node, Not) else ()
    return {path for part in below for path in paths_of(part)}


def _node(value: Any, operator: str) -> Node:
    if not isinstance(value, Node):
        raise FilterError(
            f"`{operator}` joins two filters, not a filter and {type(value).__name__}; put comparisons into "
            f'parentheses: (F("a") == 1) {operator} (F("b") == 2)'
        )
    return value
