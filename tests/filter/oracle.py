"""What filters mean, payload by payload, in the plainest Python. Imports nothing of vecdb."""

from __future__ import annotations

import datetime as dt
import math
import re
from fractions import Fraction
from typing import Any

MISSING = object()


def lookup(payload: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; of several readings the one with the fewest steps, then the first key."""
    level = [(payload, path)]
    while level:
        for entries, rest in level:
            if rest in entries:
                return entries[rest]
        below = []
        for entries, rest in level:
            for key, value in entries.items():
                if isinstance(value, dict) and rest.startswith(key + "."):
                    below.append((value, rest[len(key) + 1 :]))
        level = below
    return MISSING


def instant(value: dt.date) -> Fraction:
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    offset = value.utcoffset() or dt.timedelta()
    wall = value.replace(tzinfo=None) - dt.datetime(1970, 1, 1) - offset
    return Fraction(wall.days * 86400 + wall.seconds) + Fraction(wall.microseconds, 10**6)


def key(value: Any) -> tuple[str, Any] | None:
    """(kind, comparable value), or None for what is compared with nothing."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        return None if value != value else ("number", value if math.isinf(value) else Fraction(value))
    if isinstance(value, str):
        return "string", value
    if isinstance(value, bytes):
        return "bytes", value
    if isinstance(value, dt.date):
        return "time", instant(value)
    return None


def compare(value: Any, operator: str, operand: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(compare_one(key(item), operator, operand) for item in values)


def compare_one(item: tuple[str, Any] | None, operator: str, operand: Any) -> bool:
    if item is None:
        return False
    kind, found = item
    if operator in ("$in", "$any"):
        return any(item == key(option) for option in operand)
    if operator == "$between":
        return compare_one(item, "$gte", operand[0]) and compare_one(item, "$lte", operand[1])
    wanted = key(operand)
    if wanted is None or wanted[0] != kind:
        return False
    if operator == "$startswith":
        return found.startswith(operand)
    if operator == "$eq":
        return found == wanted[1]
    return {
        "$gt": found > wanted[1],
        "$gte": found >= wanted[1],
        "$lt": found < wanted[1],
        "$lte": found <= wanted[1],
    }[operator]


def field_matches(value: Any, operator: str, operand: Any) -> bool:
    match operator:
        case "$eq" if operand is None:
            return value is None
        case "$all":
            return all(compare(value, "$eq", wanted) for wanted in operand)
        case "$contains":
            if isinstance(value, list):
                return compare(value, "$eq", operand)
            return isinstance(value, str) and isinstance(operand, str) and operand in value
        case "$not_contains":
            return not field_matches(value, "$contains", operand)
        case "$size":
            bounds = operand if isinstance(operand, dict) else {"$gte": operand, "$lte": operand}
            return isinstance(value, list) and all(compare_one(key(len(value)), op, b) for op, b in bounds.items())
        case "$is_empty":
            return (value is MISSING or value is None or value == []) == operand
        case "$regex":
            strings = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
            return any(re.search(operand, item) is not None for item in strings)
        case "$ne":
            return not field_matches(value, "$eq", operand)
        case "$nin":
            return not field_matches(value, "$in", operand)
        case "$in" | "$any" if value is None:
            return any(option is None for option in operand)
        case "$not":
            return not all(field_matches(value, inner, below) for inner, below in operand.items())
        case "$exists":
            return (value is not MISSING) == operand
        case "$is_null":
            return (value is None) == operand
    return compare(value, operator, operand)


def matches(payload: dict[str, Any], where: dict[str, Any]) -> bool:
    for name, condition in where.items():
        if name == "$and":
            found = all(matches(payload, part) for part in condition)
        elif name == "$or":
            found = any(matches(payload, part) for part in condition)
        elif name == "$nor":
            found = not any(matches(payload, part) for part in condition)
        elif name == "$not":
            found = not matches(payload, condition)
        else:
            value = lookup(payload, name)
            operators = condition if isinstance(condition, dict) else {"$eq": condition}
            found = all(field_matches(value, operator, operand) for operator, operand in operators.items())
        if not found:
            return False
    return True
