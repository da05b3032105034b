"""Row sets as bits: uint64 words, row r is bit r % 64 of word r // 64. Plain NumPy: filters need no compiler."""

from __future__ import annotations

import numpy as np

from vecdb.types import I32, U64, RowSet

WORD_BITS = 64


def word_count(rows: int) -> int:
    return -(-rows // WORD_BITS)


def empty(rows: int) -> U64:
    return np.zeros(word_count(rows), np.uint64)


def full(rows: int) -> U64:
    """All of `rows`; the padding bits of the last word are 0."""
    bits = np.full(word_count(rows), np.uint64(0xFFFFFFFFFFFFFFFF))
    if rows % WORD_BITS:
        bits[-1] = np.uint64((1 << (rows % WORD_BITS)) - 1)
    return bits


def from_mask(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> U64:
    packed = np.packbits(mask, bitorder="little")
    bits = np.zeros(word_count(len(mask)) * 8, np.uint8)
    bits[: len(packed)] = packed
    return bits.view(np.uint64)


def from_rows(rows: I32, total: int) -> U64:
    mask = np.zeros(total, np.bool_)
    mask[rows.astype(np.intp)] = True  # NumPy's own conversion of int32 indexes is twice as slow
    return from_mask(mask)


def to_mask(bits: U64, total: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.unpackbits(bits.view(np.uint8), count=total, bitorder="little").view(np.bool_)


def to_rows(bits: U64, total: int) -> I32:
    return np.flatnonzero(to_mask(bits, total)).astype(np.int32)


def count(bits: U64) -> int:
    return int(np.bitwise_count(bits).sum())


def rows_of(selected: RowSet, total: int) -> I32:
    """The ascending rows of a set."""
    if selected.rows is not None:
        return selected.rows
    assert selected.bits is not None
    return to_rows(selected.bits, total)


def bits_of(selected: RowSet, total: int) -> U64:
    """The bits of a set; not a copy, so do not write to them."""
    if selected.bits is not None:
        return selected.bits
    assert selected.rows is not None
    return from_rows(selected.rows, total)


def set_of_bits(bits: U64) -> RowSet:
    return RowSet(count(bits), bits=bits)


def set_of_rows(rows: I32) -> RowSet:
    """`rows` must be ascending and unique."""
    return RowSet(len(rows), rows=rows)
