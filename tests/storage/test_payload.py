"""Payloads come back as they went in, and what cannot is refused with its place and a remedy."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import struct
import uuid
import zoneinfo
from types import MappingProxyType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidInput
from vecdb.storage.payload import SIZE_MAX, flatten, microseconds, pack, prepare, unpack, unpack_all
from vecdb.storage.payload_types import normalise

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Colour(enum.StrEnum):
    RED = "red"


class Moment(dt.datetime):
    """A relative of datetime, as pandas.Timestamp is one."""


class Day(dt.date):
    pass


class Level(enum.IntEnum):
    HIGH = 3


EXACT: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    0.1,
    -0.0,
    float("inf"),
    "",
    "é\0\U0001f600",
    b"",
    b"\xff\0",
    [],
    [1, [2.5, None], {"x": [b"y"]}],
    {},
    {"": {"a.b": 1}},
    dt.datetime(2024, 2, 29, 23, 59, 59, 999_999),
    dt.datetime.min,
    dt.datetime.max,
    dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=14))),
    dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-1234, microseconds=5))),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    dt.date(1, 1, 1),
    dt.date(9999, 12, 31),
]


@pytest.mark.parametrize("value", EXACT)
def test_round_trip(value: Any) -> None:
    payload = {"a": value}
    assert repr(unpack(pack(payload))) == repr(payload)
    packed, flat = prepare(payload)
    assert packed == pack(payload)
    assert repr(flat) == repr(flatten(normalise(payload)))


def test_nan_is_kept() -> None:
    assert repr(unpack(pack({"a": [float("nan")]}))) == "{'a': [nan]}"


def test_zones_keep_their_rules_and_offset() -> None:
    for fold in (0, 1):
        value = dt.datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=BERLIN)
        found = unpack(pack({"a": value}))["a"]
        assert found.tzinfo.key == "Europe/Berlin"
        assert (found.fold, found.utcoffset()) == (fold, value.utcoffset())


def test_a_zone_that_is_not_known_here_becomes_its_offset() -> None:
    data = struct.pack("<qq", 0, 3_600_000_000)
    expected = dt.datetime(1970, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    for key in (b"No/Such_Zone", b"../../etc/passwd", b"UTC"):
        found = unpack(msgpack.packb({"a": msgpack.ExtType(1, data + key)}))["a"]
        assert (found, found.utcoffset()) == (expected, expected.utcoffset())


CONVERTED: list[tuple[Any, Any]] = [
    (np.int8(5), 5),
    (np.uint64(5), 5),
    (np.float32(0.5), 0.5),
    (np.float64(0.5), 0.5),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.bytes_(b"x"), b"x"),
    (np.datetime64("2024-01-02T03:04:05.000006789"), dt.datetime(2024, 1, 2, 3, 4, 5, 6)),
    (np.arange(3), [0, 1, 2]),
    (np.array(["a", "b"]), ["a", "b"]),
    (np.array(["2024-01-01"], "datetime64[D]"), [dt.datetime(2024, 1, 1)]),
    (np.array([1, "x", None], object), [1, "x", None]),
    ((1, (2, 3)), [1, [2, 3]]),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (MappingProxyType({"b": 1}), {"b": 1}),
    (Colour.RED, "red"),
    (Moment(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN), dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)),
    (Day(2024, 1, 1), dt.date(2024, 1, 1)),
    (Level.HIGH, 3),
]


@pytest.mark.parametrize(("value", "expected"), CONVERTED)
def test_near_relatives_become_plain(value: Any, expected: Any) -> None:
    packed, flat = prepare({"a": value})
    found = unpack(packed)["a"]
    assert repr(found) == repr(expected)
    assert packed == pack({"a": expected})
    assert repr(flat["a"]) == repr(flatten({"a": expected})["a"])


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (5, "a payload must be a dict, not int"),
    ([("a", 1)], "a payload must be a dict, not list"),
    ({1: 2}, "payload has the key 1 of type int; keys must be strings"),
    ({"a": {None: 2}}, r"payload\['a'\] has the key None"),
    ({"$set": 1}, r"payload has the key '\$set'; keys that start with"),
    ({"a": [{"$x": 1}]}, r"payload\['a'\]\[0\] has the key '\$x'"),
    ({"a": 2**63}, r"payload\['a'\] is the integer 9223372036854775808, beyond int64"),
    ({"a": [1, -(2**63) - 1]}, r"payload\['a'\]\[1\] is the integer"),
    ({"a": np.uint64(2**64 - 1)}, "beyond int64"),
    ({"a": {"b": {1, 2}}}, r"payload\['a'\]\['b'\] has the type set, .* convert it with sorted"),
    ({"a": uuid.uuid4()}, "has the type uuid.UUID, .*str"),
    ({"a": decimal.Decimal(1)}, "has the type decimal.Decimal, .* convert it with float"),
    ({"a": 1j}, "has the type complex"),
    ({"a": object()}, "has the type object"),
    ({"a": np.zeros((2, 2))}, "has the type numpy.ndarray, .* only 1-D arrays"),
    ({"a": dt.timedelta(1)}, "has the type datetime.timedelta"),
    ({"a": dt.time(1)}, "has the type datetime.time"),
    ({"a": ["x", "\udc80"]}, r"payload\['a'\]\[1\] holds a lone surrogate"),
    ({"\ud800": 1}, "holds a lone surrogate"),
    ({"a": deep(32)}, "is nested deeper than 32 levels"),
    ({"a": "x" * SIZE_MAX}, f"payload takes {SIZE_MAX + 8} bytes packed, the most is {SIZE_MAX}"),
]


@pytest.mark.parametrize(("payload", "message"), REFUSED)
def test_refused(payload: Any, message: str) -> None:
    for accept in (pack, prepare):
        with pytest.raises(InvalidInput, match=message):
            accept(payload)


def test_limits_are_reached_exactly() -> None:
    assert unpack(pack({"a": deep(31)})) == {"a": deep(31)}
    assert len(pack({"a": "x" * (SIZE_MAX - 8)})) == SIZE_MAX


def test_the_given_payload_is_not_changed_or_kept() -> None:
    payload = {"a": [1, 2], "b": (1,)}
    _, flat = prepare(payload)
    payload["a"].append(3)  # type: ignore[attr-defined]
    assert flat["a"] == [1, 2]
    assert payload == {"a": [1, 2, 3], "b": (1,)}


FLAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": {"b": {"c": 1}}}, {"a": (), "a.b": (), "a.b.c": 1}),
    ({"a": {"b": 1}, "a.b": 2}, {"a": (), "a.b": 2}),
    ({"a": {"b": {"c": 1}}, "a.b": {"c": 2}}, {"a": (), "a.b": (), "a.b.c": 2}),
    ({"a": {"b": {"c": 1}}, "a.b": 2}, {"a": (), "a.b": 2, "a.b.c": 1}),
    ({"a": []}, {"a": []}),
    ({"a": [1, None, {"b": 2}, [3], "x"]}, {"a": [1, "x"]}),
    ({"a": None, "": 1}, {"a": None, "": 1}),
]


@pytest.mark.parametrize(("payload", "flat"), FLAT)
def test_flat_paths(payload: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(payload) == flat
    assert prepare(payload)[1] == flat


def test_microseconds_are_in_utc() -> None:
    assert microseconds(dt.datetime(1970, 1, 1, 0, 0, 1)) == 1_000_000
    assert microseconds(dt.date(1970, 1, 2)) == 86_400_000_000
    assert microseconds(dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))) == 0
    assert microseconds(dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14)))) < microseconds(
        dt.datetime.min
    )


HOSTILE = [
    b"",
    b"\xc1",
    b"\x81",
    msgpack.packb([1]),
    msgpack.packb({1: 2}),
    msgpack.packb({"a": 1}) + b"\0",
    b"\x81\xa1a\xdd\xff\xff\xff\xff",
    b"\x81\xa1a\xc6\xff\xff\xff\xff",
    b"\x81\xa1a\xa1\xff",
    b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",
    msgpack.packb({"a": msgpack.ExtType(9, b"12345678")}),
    msgpack.packb({"a": msgpack.ExtType(1, b"1234567")}),
    msgpack.packb({"a": msgpack.ExtType(1, struct.pack("<q", 2**63 - 1))}),
    msgpack.packb({"a": msgpack.ExtType(1, struct.pack("<qq", 0, 2**62))}),
    msgpack.packb({"a": msgpack.ExtType(1, struct.pack("<qq", 0, 0) + b"\xff\xff")}),
    msgpack.packb({"a": msgpack.ExtType(2, struct.pack("<i", -5))}),
    msgpack.packb({"a": msgpack.ExtType(2, b"12345")}),
    b"\0" * (SIZE_MAX + 1),
]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_bytes_raise_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 255))
def test_any_bytes_give_a_dict_or_a_value_error(data: bytes, position: int, byte: int) -> None:
    packed = bytearray(pack({"a": dt.datetime(2024, 1, 1, tzinfo=BERLIN), "b": [dt.date(2024, 1, 1), 1.5, "x"]}))
    packed[position % len(packed)] = byte
    for candidate in (data, b"\x81\xa1a" + data, bytes(packed)):
        try:
            found = unpack(candidate)
        except ValueError:
            continue
        assert isinstance(found, dict)


# ---- many at once ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 200])
def test_many_payloads_unpack_as_each_of_them_does(count: int) -> None:
    packed = [
        pack({"n": i, "tags": ["a"] * (i % 3), "at": dt.datetime(2024, 1, 1, tzinfo=BERLIN)}) for i in range(count)
    ]
    assert unpack_all(packed) == [unpack(data) for data in packed]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (pack({"a": 1})[:-1], "incomplete"),  # too short: it would take the next one for its value
        (pack({"a": 1}) * 2, "extra data"),
        (b"", "incomplete"),
        (msgpack.packb([1, 2]), "is an object, not list"),
        (msgpack.packb({1: 2}), "int is not allowed for map key"),
        (msgpack.packb({"text": "x" * SIZE_MAX}), "the most is"),
    ],
)
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_damaged_payload_among_good_ones_is_told(damaged: bytes, reason: str, at: int) -> None:
    packed = [pack({"n": i}) for i in range(10)]
    packed[at] = damaged
    with pytest.raises(ValueError, match=reason):
        unpack_all(packed)
