"""Mongo-style dicts to filter nodes. Every error names the path of the bad key: where.$and[1].year.$gte."""

from __future__ import annotations

import difflib
import hashlib
import marshal
from collections.abc import Callable, Mapping
from typing import Any

from vecdb.errors import FilterError
from vecdb.filter import operators
from vecdb.filter.expression import And, Leaf, Node, Not, Or, combine, negate
from vecdb.filter.operands import require_bounds
from vecdb.types import Sized

DEPTH_MAX = 32
NODES_MAX = 4_096
_CACHE_ENTRIES = 1_024
_CACHE_BYTES = 1 << 20  # of the kept filters, written as bytes; a larger one is not kept
_LONG_KEY = 128  # bytes from which a filter is kept under a digest of them

_cache: dict[bytes, tuple[Node, int]] = {}  # with the bytes it was written in


def parse(where: Mapping[str, Any] | Node | None) -> Node | None:
    """The filter that `where` means, or None for no filter (None or {}).

    Raises FilterError for unknown operators, operands that cannot match, more than 32 levels, 4,096 nodes or 65,536
    values of one $in.
    """
    if where is None or isinstance(where, Node):
        if where is not None:
            _check_size(where)
        return where
    if not isinstance(where, Mapping):
        raise FilterError(f'where: needs a dict or F("path") comparisons, not {type(where).__name__}')
    if not where:
        return None
    written = _written(where)
    if written is None:
        return _parsed(where)
    key = written if len(written) < _LONG_KEY else hashlib.blake2b(written).digest()
    kept = _cache.get(key)
    if kept is not None:
        return kept[0]
    node = _parsed(where)
    if len(_cache) >= _CACHE_ENTRIES or sum(size for _, size in list(_cache.values())) + len(written) > _CACHE_BYTES:
        _cache.clear()
    _cache[key] = node, len(written)
    return node


def _parsed(where: Mapping[str, Any]) -> Node:
    node = _object(where, "where", 1)
    _check_size(node)
    return node


def _written(where: Any) -> bytes | None:
    """The value as bytes, or None. marshal takes builtin types only and tells True, 1 and 1.0 apart.

    Version 0 writes no references and no interning flags, so equal values give equal bytes. It is never read back.
    """
    try:
        written = marshal.dumps(where, 0)
    except ValueError:  # a datetime, a NumPy scalar, a subclass, or nested without end
        return None
    return written if len(written) <= _CACHE_BYTES else None


def _object(where: Any, at: str, depth: int) -> Node:
    """{"field": ..., "$and": [...]}: all of the entries."""
    if not isinstance(where, Mapping):
        raise FilterError(f"{at}: needs a dict of conditions, not {type(where).__name__}")
    _check_depth(at, depth)
    nodes = []
    for key, value in where.items():
        if not isinstance(key, str):
            raise FilterError(f"{at}: keys are payload paths or operators, strings, not {key!r}")
        if key.startswith("$"):
            nodes.append(_logical(key, value, f"{at}.{key}", depth))
        else:
            nodes.append(_field(key, value, f"{at}.{key}", depth))
    return combine(And, *nodes)


def _logical(key: str, value: Any, at: str, depth: int) -> Node:
    if key == "$not":
        return negate(_object(value, at, depth + 1))
    if key not in _LOGICAL:
        raise _unknown(key, at, [*_LOGICAL, "$not"], f"put it below a field: {{'field': {{{key!r}: ...}}}}")
    if not isinstance(value, list | tuple) or not value:
        raise FilterError(f"{at}: needs a list of one or more conditions, not {value!r:.100}")
    return _LOGICAL[key](
        [
            item if isinstance(item, Node) else _object(item, f"{at}[{position}]", depth + 1)
            for position, item in enumerate(value)
        ]
    )


# What other languages write for an operator.
_SIGNS = {"=": "$eq", "==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}


def _field(path: str, value: Any, at: str, depth: int) -> Node:
    """A value to equal, or {"$operator": operand, ...}: all of them."""
    if not isinstance(value, Mapping):
        return operators.equal(path, value, at)
    _check_depth(at, depth + 1)
    if not value:
        raise FilterError(f"{at}: needs an operator, one of {', '.join(_OPERATORS)}")
    nodes = []
    for key, operand in value.items():
        if key in _SIGNS:
            raise FilterError(f"{at}: {key!r} is no operator; write {_SIGNS[key]}")
        if not isinstance(key, str) or not key.startswith("$"):
            raise FilterError(
                f"{at}: {key!r} is no operator; for a nested object use the dotted path {f'{path}.{key}'!r} as the key"
            )
        if key == "$not":
            nodes.append(negate(_negated(path, operand, f"{at}.$not", depth + 1)))
        elif key in _OPERATORS:
            nodes.append(_OPERATORS[key](path, operand, f"{at}.{key}"))
        else:
            raise _unknown(key, at + "." + key, list(_OPERATORS), "it stands above fields: {'$and': [{...}, {...}]}")
    return combine(And, *nodes)


def _negated(path: str, operand: Any, at: str, depth: int) -> Node:
    if not isinstance(operand, Mapping):
        raise FilterError(f"{at}: needs a dict of operators, such as {{'$gt': 5}}; use $ne for a value")
    return _field(path, operand, at, depth)


def _unknown(key: str, at: str, known: list[str], elsewhere: str) -> FilterError:
    if key in _OPERATORS or key in _LOGICAL:
        return FilterError(f"{at}: the operator is not known here; {elsewhere}")
    near = difflib.get_close_matches(key, known, 1, 0.65)
    hint = f"did you mean {near[0]}? " if near else ""
    return FilterError(f"{at}: unknown operator {key!r}; {hint}known here: {', '.join(known)}")


def _flag(build: Callable[[str], Node], path: str, operand: Any, at: str) -> Node:
    if not isinstance(operand, bool):
        raise FilterError(f"{at}: needs true or false, not {operand!r:.100}")
    return build(path) if operand else negate(build(path))


def _compared(path: str, operand: Any, at: str, *, low: bool, is_open: bool) -> Node:
    if operand is None:
        raise FilterError(f"{at}: has no order for None; use $is_null")
    if low:
        return operators.within(path, operand, None, is_open, False, at)
    return operators.within(path, None, operand, False, is_open, at)


def _between(path: str, operand: Any, at: str) -> Node:
    if not isinstance(operand, list | tuple) or len(operand) != 2:
        raise FilterError(f"{at}: needs [low, high], not {operand!r:.100}")
    low, high = operand
    require_bounds(low, high, at)
    return operators.within(path, low, high, where=at)


def _size(path: str, operand: Any, at: str) -> Node:
    """A number of elements, or {"$gte": 1, "$lt": 9}: all of the comparisons."""
    if not isinstance(operand, Mapping):
        return operators.has_size(path, operand, operand, at)
    low, high = 0, operators.SIZE_MAX
    for key, bound in operand.items():
        if key not in _SIZE_BOUNDS:
            raise FilterError(f"{at}.{key}: unknown comparison of sizes; known here: {', '.join(_SIZE_BOUNDS)}")
        operators.has_size(path, bound, bound, f"{at}.{key}")
        first, last = _SIZE_BOUNDS[key](int(bound))
        low, high = max(low, first), min(high, last)
    if not operand:
        raise FilterError(f"{at}: needs a number of elements, or comparisons, one of {', '.join(_SIZE_BOUNDS)}")
    return Leaf(Sized(path, low, None if high == operators.SIZE_MAX else high))


_SIZE_BOUNDS: dict[str, Callable[[int], tuple[int, int]]] = {
    "$gt": lambda bound: (bound + 1, operators.SIZE_MAX),
    "$gte": lambda bound: (bound, operators.SIZE_MAX),
    "$lt": lambda bound: (0, bound - 1),
    "$lte": lambda bound: (0, bound),
}
_LOGICAL: dict[str, Callable[[list[Node]], Node]] = {
    "$and": lambda nodes: combine(And, *nodes),
    "$or": lambda nodes: combine(Or, *nodes),
    "$nor": lambda nodes: negate(combine(Or, *nodes)),
}
_OPERATORS: dict[str, Callable[[str, Any, str], Node]] = {
    "$eq": operators.equal,
    "$ne": lambda path, operand, at: negate(operators.equal(path, operand, at)),
    "$gt": lambda path, operand, at: _compared(path, operand, at, low=True, is_open=True),
    "$gte": lambda path, operand, at: _compared(path, operand, at, low=True, is_open=False),
    "$lt": lambda path, operand, at: _compared(path, operand, at, low=False, is_open=True),
    "$lte": lambda path, operand, at: _compared(path, operand, at, low=False, is_open=False),
    "$in": operators.is_in,
    "$nin": lambda path, operand, at: negate(operators.is_in(path, operand, at)),
    "$between": _between,
    "$startswith": operators.starts_with,
    "$regex": operators.matches,
    "$contains": operators.contains,
    "$not_contains": lambda path, operand, at: negate(operators.contains(path, operand, at)),
    "$any": operators.is_in,
    "$all": operators.has_all,
    "$size": _size,
    "$is_empty": lambda path, operand, at: _flag(operators.is_empty, path, operand, at),
    "$exists": lambda path, operand, at: _flag(operators.exists, path, operand, at),
    "$is_null": lambda path, operand, at: _flag(operators.is_null, path, operand, at),
}


def _check_depth(at: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise FilterError(f"{at:.100}...: nested deeper than {DEPTH_MAX} levels; flatten the filter")


def _check_size(node: Node) -> None:
    """Bounds the depth and the number of nodes, also of trees that were built with operators."""
    level, count, depth = [node], 0, 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > NODES_MAX or depth > DEPTH_MAX:
            raise FilterError(
                f"where: more than {NODES_MAX} conditions or {DEPTH_MAX} levels; use $in for many values of one field"
            )
        below: list[Node] = []
        for parent in level:
            match parent:
                case And() | Or():
                    below.extend(parent.nodes)
                case Not():
                    below.append(parent.node)
                case Leaf():
                    pass
        level = below
