"""`F("path")`: filters by Python's operators. Both forms of a filter become the same nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vecdb.filter import operators
from vecdb.filter.expression import Node, negate
from vecdb.filter.operands import check_path, error, require_bounds


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
        return operators.equal(self._path, value, f"{self!r} ==")

    def __ne__(self, value: object) -> Node:  # type: ignore[override]
        return negate(operators.equal(self._path, value, f"{self!r} !="))

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
        return operators.is_in(self._path, values, f"{self!r}.in_")

    def not_in(self, values: Iterable[Any]) -> Node:
        """Not in_: true for a missing path too."""
        return negate(operators.is_in(self._path, values, f"{self!r}.not_in"))

    def between(self, low: Any, high: Any) -> Node:
        """low <= value <= high."""
        require_bounds(low, high, f"{self!r}.between")
        return operators.within(self._path, low, high, where=f"{self!r}.between")

    def exists(self) -> Node:
        """The payload has the path, be it null."""
        return operators.exists(self._path)

    def is_null(self) -> Node:
        """The payload has null at the path; a missing path is not null."""
        return operators.is_null(self._path)

    def startswith(self, text: str) -> Node:
        """A string that starts with `text`."""
        return operators.starts_with(self._path, text, f"{self!r}.startswith")

    def is_empty(self) -> Node:
        """The path is missing, null, or a list without elements."""
        return operators.is_empty(self._path)

    def any_of(self, values: Iterable[Any]) -> Node:
        """A list that has one of the values (or a single value that is one); the same as in_."""
        return operators.is_in(self._path, values, f"{self!r}.any_of")

    def all_of(self, values: Iterable[Any]) -> Node:
        """A list that has every one of the values, one or more."""
        return operators.has_all(self._path, values, f"{self!r}.all_of")

    def contains(self, value: Any) -> Node:
        """A list that has the element `value`, or a string that has the part `value`."""
        return operators.contains(self._path, value, f"{self!r}.contains")

    def not_contains(self, value: Any) -> Node:
        """Not contains: true for a missing path too."""
        return negate(operators.contains(self._path, value, f"{self!r}.not_contains"))

    def matches(self, pattern: str) -> Node:
        """A string that holds a match of an RE2 expression."""
        return operators.matches(self._path, pattern, f"{self!r}.matches")

    def size(self, low: int, high: int | None = None) -> Node:
        """A list of `low` elements, or with `high` of `low` to `high` elements."""
        return operators.has_size(self._path, low, low if high is None else high, f"{self!r}.size")

    def _range(
        self, operator: str, low: Any = None, high: Any = None, low_open: bool = False, high_open: bool = False
    ) -> Node:
        where = f"{self!r} {operator}"
        if low is None and high is None:
            raise error(where, "has no order for None; use .is_null()")
        return operators.within(self._path, low, high, low_open, high_open, where)
