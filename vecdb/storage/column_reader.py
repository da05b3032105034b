"""What growing and sealed columns have in common: how the rows of a probe become one set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import bitset
from vecdb.types import (
    I32,
    ROWS_DENSITY,
    SORT_DENSITY,
    U64,
    AnyArray,
    Equal,
    Estimate,
    Null,
    Prefix,
    Present,
    Probe,
    RowSet,
    Search,
    Sized,
    Within,
)


@dataclass(frozen=True, slots=True)
class Text:
    """Text postings: row `rows[i]` has the value `word(codes[i])`; codes ascend with the words when `sorted`."""

    codes: AnyArray
    rows: I32
    word: Callable[[int], Any]
    sorted: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """The postings among `rows` that `mask` marks; the rows ascend."""

    mask: NDArray[np.bool_]
    rows: I32


Piece = Scan | I32  # rows that match by one array of postings, ascending within one value only


class ColumnReader(ABC):
    """A `FieldSource` over postings, and the values behind it."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    @property
    def rows(self) -> int:
        return self._rows

    def select(self, probe: Probe) -> RowSet:
        """The rows that the probe matches, deleted ones included."""
        match probe:
            case Present():
                present = self._present(probe.path)
                if len(present) == self._rows:
                    return RowSet(self._rows, bits=bitset.full(self._rows))
                return bitset.set_of_rows(present)
            case Null():
                return bitset.set_of_rows(self._nulls(probe.path))
            case Equal():
                pieces = self._equal(probe)
            case Within():
                pieces = self._within(probe)
            case Prefix():
                pieces = self._prefixed(probe)
            case Search():
                pieces = self._searched(probe)
            case _:
                return self._union(self._sized(probe), lists=False)
        return self._union(pieces, len(self._lists(probe.path)) > 0)

    def among(self, probe: Probe, rows: I32) -> NDArray[np.bool_]:
        """For each of some ascending rows, whether the probe matches it."""
        return self.select(probe).holds(rows)

    def count(self, probe: Probe) -> Estimate:
        """Bounds on the rows that the probe matches."""
        found = self.select(probe).count
        return Estimate(found, found)

    def count_without(self, probe: Probe, gone: U64) -> Estimate:
        """Bounds on the rows that the probe matches and that are not in a bitset."""
        found = self.select(probe)
        if found.rows is not None:
            left = found.count - int(np.count_nonzero(RowSet(0, bits=gone).holds(found.rows)))
        else:
            bits = bitset.bits_of(found, self._rows)
            left = bitset.count(bits & ~gone[: len(bits)])
        return Estimate(left, left)

    def _union(self, pieces: Sequence[Piece], lists: bool) -> RowSet:
        """One set of pieces of rows; with lists a row may be in several places."""
        if len(pieces) == 1 and isinstance(pieces[0], Scan) and not lists and len(pieces[0].rows) == self._rows:
            # One value for every row: the mask of the postings is the mask of the rows.
            return bitset.set_of_bits(bitset.from_mask(pieces[0].mask))
        found = [piece.rows[piece.mask] if isinstance(piece, Scan) else piece for piece in pieces]
        found = [piece for piece in found if len(piece)]
        if not found:
            return bitset.set_of_rows(np.empty(0, np.int32))
        if len(found) == 1 and self._ascending(found[0]):
            return bitset.set_of_rows(found[0])
        total = sum(map(len, found))
        if total * SORT_DENSITY > self._rows:
            mask = np.zeros(self._rows, np.bool_)
            for piece in found:
                mask[piece.astype(np.intp)] = True  # NumPy's own conversion of int32 indexes is twice as slow
            if total * ROWS_DENSITY > self._rows:
                return bitset.set_of_bits(bitset.from_mask(mask))
            return bitset.set_of_rows(np.flatnonzero(mask).astype(np.int32))
        rows = np.concatenate(found)
        return bitset.set_of_rows(np.unique(rows) if lists else np.sort(rows))

    @staticmethod
    def _ascending(rows: I32) -> bool:
        return len(rows) < 2 or bool((rows[1:] > rows[:-1]).all())

    @abstractmethod
    def _paths(self) -> Iterable[str]: ...

    @abstractmethod
    def _types(self, path: str) -> Iterable[str]:
        """The stored types that have postings; empty for an unknown path."""

    @abstractmethod
    def _present(self, path: str) -> I32: ...

    @abstractmethod
    def _nulls(self, path: str) -> I32: ...

    @abstractmethod
    def _lists(self, path: str) -> I32: ...

    @abstractmethod
    def _numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]: ...

    @abstractmethod
    def _text(self, path: str, stored: str) -> Text: ...

    @abstractmethod
    def _equal(self, probe: Equal) -> Sequence[Piece]: ...

    @abstractmethod
    def _within(self, probe: Within) -> Sequence[Piece]: ...

    @abstractmethod
    def _prefixed(self, probe: Prefix) -> Sequence[Piece]: ...

    @abstractmethod
    def _searched(self, probe: Search) -> Sequence[Piece]: ...

    @abstractmethod
    def _sized(self, probe: Sized) -> Sequence[Piece]: ...
