"""Which payloads are accepted, and in which form: exactly the types that come back from the disk."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, cast

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.types import Payload, Scalar

DEPTH_MAX = 32  # containers inside each other, the payload itself included
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
# Types that need no change; integers need a look at their size.
PLAIN = frozenset({str, float, bool, NoneType, bytes, dt.datetime, dt.date})


def normalise(payload: Payload) -> dict[str, Any]:
    """A copy of exactly the types that `unpack` returns. Raises InvalidInput like `pack`."""
    if not isinstance(payload, Mapping):
        raise InvalidInput(f"a payload must be a dict, not {_type_name(payload)}")
    return cast(dict[str, Any], _normalise(payload, (), 1))


def _normalise(value: Any, path: tuple[str | int, ...], depth: int) -> Any:
    if type(value) in PLAIN or (type(value) is int and INT_MIN <= value <= INT_MAX):
        return value
    if isinstance(value, dict | Mapping):
        _check_depth(path, depth)
        return {
            _key(key, path): item if type(item) in PLAIN else _normalise(item, (*path, key), depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        _check_depth(path, depth)
        items = value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "biufU" else value
        return [
            item if type(item) in PLAIN else _normalise(item, (*path, position), depth + 1)
            for position, item in enumerate(items)
        ]
    return _normalise_scalar(value, path)


def _normalise_scalar(value: Any, path: tuple[str | int, ...]) -> Scalar | None:
    """Subclasses and NumPy scalars become the plain type."""
    if isinstance(value, np.generic) and not isinstance(value, str | bytes):
        value = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise InvalidInput(f"{place(path)} is the integer {value}, beyond int64; store it as a string or a float")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dt.date) and value == value:  # pandas.NaT is a datetime that differs from itself
        return _plain_date(value)
    raise InvalidInput(f"{place(path)} has the type {_type_name(value)}, which a payload cannot hold; {_remedy(value)}")


def _plain_date(value: dt.date) -> dt.date:
    if not isinstance(value, dt.datetime):
        return dt.date(value.year, value.month, value.day)
    wall = dt.datetime(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    return wall.replace(tzinfo=value.tzinfo, fold=value.fold)


def _remedy(value: Any) -> str:
    if isinstance(value, set | frozenset):
        return "convert it with sorted()"
    if isinstance(value, np.ndarray):
        return "only 1-D arrays are taken; convert it with tolist()"
    if type(value).__module__ == "decimal":
        return "convert it with float() or str()"
    return (
        "convert it to None, bool, int, float, str, bytes, datetime, date, a list or a dict (str() keeps it readable)"
    )


def _key(key: Any, path: tuple[str | int, ...]) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"{place(path)} has the key {key!r} of type {_type_name(key)}; keys must be strings")
    if key.startswith("$"):
        raise InvalidInput(f'{place(path)} has the key {key!r}; keys that start with "$" are reserved, rename it')
    return str.__str__(key)


def _check_depth(path: tuple[str | int, ...], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidInput(f"{place(path)} is nested deeper than {DEPTH_MAX} levels; flatten the payload")


def place(path: tuple[str | int, ...]) -> str:
    """How Python would spell the place: payload["a"][0]."""
    return "payload" + "".join(f"[{step!r}]" for step in path)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def surrogate(value: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """Where the first string is that UTF-8 cannot encode."""
    if isinstance(value, str):
        return path if any("\ud800" <= character <= "\udfff" for character in value) else None
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in entries:
        found = surrogate(key, (*path, key)) or surrogate(item, (*path, key))
        if found:
            return found
    return None
