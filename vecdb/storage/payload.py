"""Payloads: the user's dicts as bytes and back, and as the flat values that columns index.

Bytes are msgpack. Extension types keep what msgpack has no word for:

    1  datetime: int64 microseconds of the wall clock since 1970-01-01T00:00 (naive), then for an aware one
       int64 microseconds of its UTC offset and the zoneinfo key in UTF-8 (may be empty); little endian
    2  date: int32 proleptic ordinal, little endian
"""

from __future__ import annotations

import datetime as dt
import struct
import zoneinfo
from collections.abc import Sequence
from types import NoneType
from typing import Any

import msgpack

from vecdb.errors import InvalidInput
from vecdb.storage.payload_types import INT_MAX, INT_MIN, PLAIN, normalise, place, surrogate
from vecdb.types import Payload, Scalar

SIZE_MAX = 1 << 20  # packed bytes
CODE_DATETIME, CODE_DATE = 1, 2

# () stands for a nested object: there is something at the path, and no value of its own.
FlatValue = Scalar | None | list[Scalar] | tuple[()]


class Elements(list[Scalar]):
    """The elements of a list that are indexed; `length` counts the others too."""

    __slots__ = ("length",)
    length: int


_EPOCH = dt.datetime(1970, 1, 1)
_ARRAY = struct.Struct(">BH")  # msgpack's array 16
_ARRAY_16 = 0xDC
_TOGETHER = 64  # payloads unpacked in one call
_MICROSECOND = dt.timedelta(microseconds=1)
_PLAIN_ELEMENTS = PLAIN - {NoneType}


def prepare(payload: Payload) -> tuple[bytes, dict[str, FlatValue]]:
    """`pack` and `flatten` in one pass, for ingest. Raises InvalidInput like `pack`."""
    flat = _flatten_plain(payload)
    if flat is None:
        payload = normalise(payload)
        flat = flatten(payload)
    return _pack(payload), flat


def pack(payload: Payload) -> bytes:
    """The payload as msgpack.

    Raises InvalidInput, naming the place in the payload, for keys that are not strings or start with "$", values of
    other types than None, bool, int64, float, str, bytes, list, dict, datetime and date (NumPy scalars and 1-D arrays
    become Python's, tuples become lists), more than 32 levels, or more than 1 MiB.
    """
    return _pack(normalise(payload))


def unpack(data: bytes) -> dict[str, Any]:
    """The payload that was packed. Raises ValueError when the bytes are not a packed payload."""
    if len(data) > SIZE_MAX:
        raise ValueError(f"a payload of {len(data)} bytes, the most is {SIZE_MAX}")
    try:
        payload = _unpacked(data)
    except (msgpack.exceptions.UnpackException, OverflowError) as error:
        raise ValueError(f"not a packed payload: {error}") from error
    if not isinstance(payload, dict):
        raise ValueError(f"a packed payload is an object, not {type(payload).__name__}")
    return payload


def unpack_all(packed: Sequence[bytes]) -> list[dict[str, Any]]:
    """`unpack` of each, with as many as 64 in one call of msgpack."""
    payloads: list[dict[str, Any]] = []
    for start in range(0, len(packed), _TOGETHER):
        payloads += _unpack_together(packed[start : start + _TOGETHER])
    return payloads


def _unpack_together(packed: Sequence[bytes]) -> list[dict[str, Any]]:
    """Their bytes end to end, behind the head of an array, are an array of them."""
    if max(map(len, packed)) <= SIZE_MAX:
        try:
            found: list[Any] = _unpacked(_ARRAY.pack(_ARRAY_16, len(packed)) + b"".join(packed))
        except (msgpack.exceptions.UnpackException, ValueError, OverflowError):
            found = []  # one of them is damaged: one by one they tell which, and why
        if set(map(type, found)) == {dict}:
            return found
    return [unpack(data) for data in packed]


def _unpacked(data: bytes) -> Any:
    # Container lengths are bounded by the length of the data; timestamps (never written) come back as floats.
    return msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_unpack_extension, timestamp=1)


def flatten(payload: Payload) -> dict[str, FlatValue]:
    """Dotted path -> value of a payload that `normalise` or `unpack` returned.

    Of several ways to read a path, the one with the fewest steps wins: a literal key "a.b" hides {"a": {"b": ...}}.
    Lists keep their scalar elements only; elements that are null, objects or lists are not indexed.
    """
    flat: dict[str, FlatValue] = {}
    level: list[tuple[str, Payload]] = [("", payload)]
    while level:
        below: list[tuple[str, Payload]] = []
        for prefix, entries in level:
            for key, value in entries.items():
                path = prefix + key
                if isinstance(value, dict):
                    below.append((path + ".", value))
                    flat.setdefault(path, ())
                elif path not in flat:
                    flat[path] = _indexed_elements(value) if isinstance(value, list) else value
        level = below
    return flat


def microseconds(value: dt.datetime | dt.date) -> int:
    """Microseconds since 1970 in UTC; a naive datetime is read as UTC, a date as its midnight."""
    if not isinstance(value, dt.datetime):
        return (value.toordinal() - _EPOCH.toordinal()) * 86_400_000_000
    wall = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    offset = value.utcoffset()
    return wall if offset is None else wall - offset // _MICROSECOND


def _flatten_plain(payload: Payload) -> dict[str, FlatValue] | None:
    """The flat values when the payload is a dict of plain scalars and lists of them, else None."""
    if type(payload) is not dict:
        return None
    flat: dict[str, FlatValue] = {}
    for key, value in payload.items():
        if type(key) is not str or key[:1] == "$":
            return None
        kind = type(value)
        if kind in PLAIN:
            flat[key] = value
        elif kind is int:
            if not INT_MIN <= value <= INT_MAX:
                return None
            flat[key] = value
        elif kind is list and _PLAIN_ELEMENTS.issuperset(map(type, value)):
            flat[key] = value.copy()
        else:
            return None
    return flat


def _indexed_elements(values: list[Any]) -> Elements:
    elements = Elements(value for value in values if value is not None and not isinstance(value, dict | list))
    elements.length = len(values)
    return elements


def _pack(payload: Payload) -> bytes:
    try:
        data: bytes = msgpack.packb(payload, default=_pack_extension)
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{place(surrogate(payload, ()) or ())} holds a lone surrogate, which is not text; "
            'replace it, for example with text.encode("utf-8", "replace").decode()'
        ) from None
    if len(data) > SIZE_MAX:
        raise InvalidInput(
            f"payload takes {len(data)} bytes packed, the most is {SIZE_MAX}; "
            "keep large texts or files elsewhere and store a reference"
        )
    return data


def _pack_extension(value: Any) -> msgpack.ExtType:
    if not isinstance(value, dt.datetime):
        return msgpack.ExtType(CODE_DATE, struct.pack("<i", value.toordinal()))
    wall = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    offset = value.utcoffset()
    if offset is None:
        return msgpack.ExtType(CODE_DATETIME, struct.pack("<q", wall))
    key = getattr(value.tzinfo, "key", None) or ""
    return msgpack.ExtType(CODE_DATETIME, struct.pack("<qq", wall, offset // _MICROSECOND) + key.encode())


def _unpack_extension(code: int, data: bytes) -> dt.datetime | dt.date:
    if code == CODE_DATE and len(data) == 4:
        return dt.date.fromordinal(struct.unpack("<i", data)[0])
    if code != CODE_DATETIME or not (len(data) == 8 or 16 <= len(data) <= 272):
        raise ValueError(f"extension {code} of {len(data)} bytes is not a type of payloads")
    wall = _EPOCH + dt.timedelta(microseconds=struct.unpack_from("<q", data)[0])
    if len(data) == 8:
        return wall
    offset = dt.timedelta(microseconds=struct.unpack_from("<q", data, 8)[0])
    return _in_zone(wall, offset, data[16:].decode()) if len(data) > 16 else wall.replace(tzinfo=dt.timezone(offset))


def _in_zone(wall: dt.datetime, offset: dt.timedelta, key: str) -> dt.datetime:
    """The wall clock in the zone when the zone's rules still give that offset, else with the fixed offset."""
    try:
        zone = zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # no such zone on this machine
        return wall.replace(tzinfo=dt.timezone(offset))
    for fold in (0, 1):
        value = wall.replace(tzinfo=zone, fold=fold)
        if value.utcoffset() == offset:
            return value
    return wall.replace(tzinfo=dt.timezone(offset))
