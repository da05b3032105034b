"""Operands of filters: which values can be compared, as what kind, and how an impossible one is refused."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from vecdb.errors import FilterError
from vecdb.types import Scalar

ORDERED = ("number", "timestamp", "string")
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


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
            raise error(where, f"compares with {value}, beyond int64, which no stored integer reaches; use a float")
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise error(where, "compares with NaN, which equals nothing and has no order")
        return float(value)
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise error(where, "compares with a string that holds a lone surrogate, which no stored string does")
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, dt.date) and value == value:  # pandas.NaT differs from itself
        return value
    raise error(
        where,
        f"cannot compare with {type_name(value)}; use a bool, int, float, str, bytes, datetime or date",
    )


def kind_of_all(values: list[Any]) -> str:
    """The kind of values that are all plain integers in range or all plain ASCII strings, else "": a long list of them
    needs no look at each by itself.
    """
    types = set(map(type, values))
    if types == {int} and min(values) >= _INT_MIN and max(values) <= _INT_MAX:
        return "number"
    return "string" if types == {str} and "".join(values).isascii() else ""


def require_bounds(low: Any, high: Any, where: str) -> None:
    if low is None or high is None:
        raise error(where, "needs two bounds; use <= or >= ($lte, $gte) for one")


def check_path(path: Any, where: str = "F(path)") -> str:
    if not isinstance(path, str):
        raise error(where, f"needs a payload path, a string, not {type_name(path)}")
    return str.__str__(path)


def error(where: str, problem: str) -> FilterError:
    return FilterError(f"{where}: {problem}" if where else problem)


def type_name(value: Any) -> str:
    return type(value).__name__
