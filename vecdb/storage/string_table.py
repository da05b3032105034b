"""Many byte strings in two arrays, sorted, and found again by binary search without reading them all.

A table is `data` (uint8, all strings one after the other) and `offsets` (int64, strings + 1). Strings compare as bytes;
for UTF-8 that is the order of code points, which is Python's order of str.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vecdb.files.pacing import give_way
from vecdb.storage.text_search import search_table
from vecdb.types import I64, U8, Search

_BLOCK = 8  # bytes compared at once
_SLICE = 256  # strings handled between two yields of the interpreter lock
_MANY = 32  # texts looked for at once that are worth the first bytes of every string
_SEARCHES = 8  # searches whose answers a table keeps
_SAMPLE = 64  # every so many strings one is kept in memory to narrow the search


class StringTable:
    """A sorted table without duplicates, borrowed from maps. Opening reads nothing."""

    def __init__(self, data: U8, offsets: I64) -> None:
        self._data, self._offsets = data, offsets
        self._view = memoryview(np.ascontiguousarray(data))
        self._heads: tuple[int, NDArray[np.uint64]] | None = None
        self._sample: list[bytes] | None = None
        self._searches: dict[Search, I64] = {}

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> bytes:
        return self._view[self._offsets[position] : self._offsets[position + 1]].tobytes()

    def fits(self) -> bool:
        """Whether every offset points into the data; nothing may be asked of a table that does not fit."""
        offsets = self._offsets
        ends = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(self._data)
        return bool(ends and (np.diff(offsets) >= 0).all())

    def lower(self, text: bytes) -> int:
        """The position of the first string >= text."""
        low, high = self._narrow(text)
        return bisect.bisect_left(self, text, low, high)

    def upper(self, text: bytes) -> int:
        """The position of the first string > text."""
        position = self.lower(text)
        return position + 1 if position < len(self) and self[position] == text else position

    def prefixed(self, prefix: bytes) -> tuple[int, int]:
        """The positions (first, past the last) of strings that start with `prefix`."""
        stem = prefix.rstrip(b"\xff")
        low = self.lower(prefix)
        return (low, self.lower(stem[:-1] + bytes([stem[-1] + 1]))) if stem else (low, len(self))

    def find(self, text: bytes) -> int:
        """The position of `text`, or -1."""
        position = self.lower(text)
        return position if position < len(self) and self[position] == text else -1

    def find_all(self, texts: Sequence[bytes]) -> list[int]:
        """The positions of those of some distinct texts that are here."""
        if len(texts) < _MANY:
            return [position for position in map(self.find, texts) if position >= 0]
        shared, heads = self._narrowed()
        prefix = self[0][:shared] if len(self) else b""
        known = [text for text in texts if text.startswith(prefix)]
        ends = np.cumsum([0, *map(len, known)], dtype=np.int64)
        wanted = _first_words(np.frombuffer(b"".join(known), np.uint8), ends, shared)
        lows, highs = np.searchsorted(heads, wanted).tolist(), np.searchsorted(heads, wanted, "right").tolist()
        found = []
        for text, low, high in zip(known, lows, highs, strict=True):
            position = low if high - low <= 1 else bisect.bisect_left(self, text, low, high)
            if position < high and self[position] == text:
                found.append(position)
        return found

    def _narrowed(self) -> tuple[int, NDArray[np.uint64]]:
        """The length of the prefix that all strings share, and the next eight bytes of each; made once."""
        if self._heads is None:
            shared = _shared(self[0], self[len(self) - 1]) if len(self) else 0
            self._heads = shared, _first_words(self._data, self._offsets, shared)
        return self._heads

    def searched(self, probe: Search) -> I64:
        """The runs of matching positions, int64 (runs, 2): first, past the last. The last answers are kept."""
        runs = self._searches.get(probe)
        if runs is None:
            mask = np.zeros(len(self) + 2, np.int8)
            mask[1:-1] = search_table(self._data, self._offsets, probe)
            runs = np.flatnonzero(np.diff(mask)).reshape(-1, 2)
            if len(self._searches) >= _SEARCHES:
                self._searches = {}
            self._searches[probe] = runs
        return runs

    def _narrow(self, text: bytes) -> tuple[int, int]:
        sample = self._sample
        if sample is None:
            bounds = zip(self._offsets[:-1:_SAMPLE].tolist(), self._offsets[1::_SAMPLE].tolist(), strict=True)
            sample = self._sample = [self._view[start:end].tobytes() for start, end in bounds]
        block = bisect.bisect_left(sample, text)
        return max(0, (block - 1) * _SAMPLE), min(len(self), block * _SAMPLE + 1)


def join(strings: Sequence[bytes]) -> tuple[U8, I64]:
    """(data, offsets) of strings in the given order; yields the interpreter lock between slices."""
    lengths = np.zeros(len(strings) + 1, np.int64)
    pieces: list[bytes] = []
    for first in range(0, len(strings), _SLICE):
        part = strings[first : first + _SLICE]
        lengths[first + 1 : first + len(part) + 1] = [len(text) for text in part]
        pieces.append(b"".join(part))
        give_way()
    offsets = np.cumsum(lengths)
    return _concatenate(pieces, int(offsets[-1])), offsets


def take(data: U8, offsets: I64, order: NDArray[np.integer]) -> tuple[U8, I64]:
    """(data, offsets) of the strings at the positions `order`."""
    starts, ends = offsets[:-1][order], offsets[1:][order]
    result = np.zeros(len(order) + 1, np.int64)
    np.cumsum(ends - starts, out=result[1:])
    source = memoryview(np.ascontiguousarray(data))
    pieces: list[bytes] = []
    for first in range(0, len(order), _SLICE):
        bounds = zip(starts[first : first + _SLICE].tolist(), ends[first : first + _SLICE].tolist(), strict=True)
        pieces.append(b"".join([source[start:end] for start, end in bounds]))
        give_way()
    return _concatenate(pieces, int(result[-1])), result


def sort(data: U8, offsets: I64) -> tuple[I64, I64, int]:
    """(order, rank, distinct): positions in ascending order, and each string's number among the distinct ones.

    A radix sort from the left, eight bytes a pass over the strings that are still tied, all of it in NumPy so that
    searches run meanwhile. Passes = longest common prefix / 8.
    """
    count = len(offsets) - 1
    windows = _windows(data)
    order = np.arange(count)
    group = np.zeros(count, np.int64)  # group[i]: position in `order` where the ties of order[i] begin
    tied = np.arange(count)  # positions in `order` not settled yet
    depth = 0
    while len(tied):
        strings = order[tied]
        left = np.clip(offsets[strings + 1] - offsets[strings] - depth, 0, _BLOCK + 1)
        words = _words(windows, offsets[strings] + depth, left)
        by = np.lexsort((left, words, group[tied]))
        order[tied] = strings[by]
        words, left, groups = words[by], left[by], group[tied]
        new = np.ones(len(tied), np.bool_)
        new[1:] = (words[1:] != words[:-1]) | (left[1:] != left[:-1]) | (groups[1:] != groups[:-1])
        group[tied] = tied[np.maximum.accumulate(np.where(new, np.arange(len(tied)), 0))]
        shared = ~new
        shared[:-1] |= ~new[1:]
        tied = tied[shared & (left > _BLOCK)]
        depth += _BLOCK
    rank = np.empty(count, np.int64)
    first = group == np.arange(count)
    rank[order] = np.cumsum(first) - 1
    return order, rank, int(first.sum())


def _shared(first: bytes, last: bytes) -> int:
    """The length of the prefix that two strings share."""
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return next(differing, min(len(first), len(last)))


def _first_words(data: U8, offsets: I64, skipped: int) -> NDArray[np.uint64]:
    """Eight bytes of each string, after the `skipped` bytes that each has at least, as a big-endian number."""
    windows = _windows(data)
    return _words(windows, offsets[:-1] + skipped, np.minimum(np.diff(offsets) - skipped, _BLOCK))


def _windows(data: U8) -> NDArray[np.uint64]:
    """The eight bytes from each position on, zeros beyond the end: a view of overlapping little-endian words."""
    padded = np.zeros(len(data) + _BLOCK, np.uint8)
    padded[: len(data)] = data
    return np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))


def _words(windows: NDArray[np.uint64], starts: I64, left: I64) -> NDArray[np.uint64]:
    """The next eight bytes of each string as a big-endian number, zeros beyond its end."""
    # Gathered as they are and swapped afterwards: NumPy keeps the interpreter lock while it gathers swapped words.
    words = windows[np.minimum(starts, len(windows) - 1)].byteswap().astype(np.uint64)
    used = np.minimum(left, _BLOCK).astype(np.uint64)
    masks = ~np.append(np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.arange(8, dtype=np.uint64) * np.uint64(8)), np.uint64(0))
    return np.asarray(words & masks[used])


def _concatenate(pieces: Sequence[bytes], size: int) -> U8:
    data = np.empty(size, np.uint8)
    position = 0
    for piece in pieces:
        data[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
        position += len(piece)
    return data
