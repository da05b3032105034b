"""An id as bytes, and back. The first byte is its type, so 1, "1" and UUID(int=1) are three ids.

Keys are compared byte by byte; strings are kept exactly, without Unicode normalisation. Integers sort by value.
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.types import Id

INT, STR, UUID = b"i", b"s", b"u"
STR_MAX = 480  # UTF-8 bytes; LMDB keys end at 511
INT_OFFSET = 2**63


def encode_key(value: Any) -> bytes:
    """The key of one id. InvalidInput if it cannot be one."""
    kind = type(value)
    if kind is str:
        return _encode_str(value)
    if kind is int:
        return _encode_int(value)
    if isinstance(value, uuid.UUID):
        return UUID + value.bytes
    if isinstance(value, str):
        return _encode_str(str(value))
    if isinstance(value, np.integer) or (isinstance(value, int) and not isinstance(value, bool)):
        return _encode_int(int(value))
    raise InvalidInput(f"an id must be a str, an int or a uuid.UUID, not {value!r} of type {kind.__name__}")


def _encode_str(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the id {value!r} holds a lone surrogate and cannot be stored as UTF-8") from error
    if not 0 < len(data) <= STR_MAX:
        raise InvalidInput(
            f"a str id must have 1 to {STR_MAX} bytes in UTF-8, this one has {len(data)}: {value[:60]!r}"
        )
    return STR + data


def _encode_int(value: int) -> bytes:
    if not -INT_OFFSET <= value < INT_OFFSET:
        raise InvalidInput(f"an int id must fit in 64 bits with a sign, not {value}")
    return INT + (value + INT_OFFSET).to_bytes(8, "big")


def decode_key(key: bytes) -> Id:
    """The id of a key, in the type it was given."""
    kind = key[:1]
    if kind == STR:
        return key[1:].decode()
    if kind == INT:
        return int.from_bytes(key[1:9], "big") - INT_OFFSET
    if kind == UUID:
        return uuid.UUID(bytes=key[1:17])
    raise ValueError(f"unknown id type {kind!r}")
