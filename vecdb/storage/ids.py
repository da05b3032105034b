"""The ids of a sealed segment as arrays: one int64 array when all are integers, else keys end to end with offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.files.pacing import give_way
from vecdb.storage.keys import INT, INT_OFFSET, decode_key
from vecdb.types import I32, I64, U8, AnyArray, Id

INT_KEY_SIZE = 9
KEYS_SLICE = 512
KNOWN_MAX, KNOWN_AT_ONCE = 8_192, 256  # ids of a segment kept as objects; those of longer lists are not


class IdColumn:
    """The id of each row. `integers` int64 (rows,), or `offsets` int64 (rows + 1,) into `data` uint8."""

    def __init__(self, integers: I64 | None, offsets: I64 | None = None, data: U8 | None = None) -> None:
        self.integers, self.offsets, self.data = integers, offsets, data
        self._known: dict[int, Id] = {}  # by row: ids that were asked for lately

    @staticmethod
    def from_keys(keys: Sequence[bytes], rows: I32) -> IdColumn:
        """The keys of chosen rows. Taken in slices, so that searches in other threads go on."""
        parts, lengths, integers = [], [], len(rows) > 0
        for start in range(0, len(rows), KEYS_SLICE):
            chosen = [keys[row] for row in rows[start : start + KEYS_SLICE].tolist()]
            integers = integers and all(key[:1] == INT for key in chosen)
            parts.append(b"".join(chosen))
            lengths.append(np.fromiter(map(len, chosen), np.int64, len(chosen)))
            give_way()
        data = np.frombuffer(b"".join(parts), np.uint8)
        if integers:
            big = data.reshape(-1, INT_KEY_SIZE)[:, 1:].copy().view(">u8").reshape(-1)
            return IdColumn((big.astype(np.uint64) - np.uint64(INT_OFFSET)).view(np.int64))
        return IdColumn(None, _offsets(np.concatenate([np.zeros(0, np.int64), *lengths])), data)

    @staticmethod
    def from_arrays(arrays: Mapping[str, AnyArray]) -> IdColumn:
        if "ids" in arrays:
            return IdColumn(arrays["ids"])
        return IdColumn(None, arrays["id_offsets"], arrays["id_bytes"])

    def arrays(self) -> dict[str, AnyArray]:
        if self.integers is not None:
            return {"ids": self.integers}
        assert self.offsets is not None
        assert self.data is not None
        return {"id_offsets": self.offsets, "id_bytes": self.data}

    def key(self, row: int) -> bytes:
        if self.integers is not None:
            return INT + (int(self.integers[row]) + INT_OFFSET).to_bytes(8, "big")
        assert self.offsets is not None
        assert self.data is not None
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def take(self, rows: I32) -> NDArray[Any]:
        """The ids of rows: int64 when the segment has only integers, else an object array."""
        if self.integers is not None:
            return self.integers[rows]
        wanted = rows.tolist()
        values: list[Id | None] = list(map(self._known.get, wanted))
        if None in values:
            values = [*self._decoded(wanted)]
        ids = np.empty(len(rows), object)
        ids[:] = values
        return ids

    def _decoded(self, rows: list[int]) -> list[Id]:
        assert self.offsets is not None
        assert self.data is not None
        offsets, data = memoryview(self.offsets), memoryview(self.data)  # their items are Python's integers
        ids = [decode_key(data[offsets[row] : offsets[row + 1]].tobytes()) for row in rows]
        if len(ids) <= KNOWN_AT_ONCE:
            if len(self._known) + len(ids) > KNOWN_MAX:
                self._known = {}
            self._known.update(zip(rows, ids, strict=True))
        return ids

    def as_bytes(self) -> IdColumn:
        """The same ids in the second form."""
        if self.integers is None:
            return self
        big = self.integers.view(np.uint64) + np.uint64(INT_OFFSET)
        keys = np.empty((len(big), INT_KEY_SIZE), np.uint8)
        keys[:, 0] = INT[0]
        keys[:, 1:] = big.astype(">u8").view(np.uint8).reshape(-1, 8)
        return IdColumn(None, np.arange(len(big) + 1, dtype=np.int64) * INT_KEY_SIZE, keys.reshape(-1))

    @staticmethod
    def gather(parts: Sequence[tuple[IdColumn, I32]]) -> IdColumn:
        """The ids of chosen rows of several segments, one after the other."""
        if all(column.integers is not None for column, _ in parts):
            chosen = [column.integers[rows] for column, rows in parts if column.integers is not None]
            return IdColumn(np.concatenate(chosen) if chosen else np.zeros(0, np.int64))
        lengths, pieces = [], []
        for column, rows in parts:
            wide = column.as_bytes()
            assert wide.offsets is not None
            assert wide.data is not None
            size = (wide.offsets[1:] - wide.offsets[:-1])[rows]
            lengths.append(size)
            pieces.append(wide.data[_spans(wide.offsets[:-1][rows], size)])
        return IdColumn(None, _offsets(np.concatenate(lengths)), np.concatenate(pieces))


def _offsets(lengths: I64) -> I64:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _spans(starts: I64, lengths: I64) -> I64:
    """The positions start, start + 1, ... of every span, one span after the other."""
    total = int(lengths.sum())
    begins = np.cumsum(lengths) - lengths
    spans: I64 = np.arange(total, dtype=np.int64) + np.repeat(starts - begins, lengths)
    return spans
