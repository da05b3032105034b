"""What merges: segments, and the rows of them that stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.engine.load import committed_deletions
from vecdb.engine.state import CollectionState, Engine
from vecdb.kernels import bitset
from vecdb.storage.sealed import Sealed
from vecdb.types import I32


@dataclass(frozen=True, slots=True)
class Source:
    """A segment that merges: its storage, and the rows of it that stay, ascending.

    The rows of the new segment, and those of each of its fields, are what the sources keep, one after the other.
    """

    storage: Sealed
    keep: I32

    def renumbered(self, start: int) -> I32:
        """int32 (rows,): the new row of each, of which the first that stays is `start`; -1 for one that goes."""
        rows = np.full(self.storage.rows, -1, np.int32)
        rows[self.keep] = np.arange(start, start + len(self.keep), dtype=np.int32)
        return rows

    def kept_of_field(self, number: int) -> I32:
        """The rows of a field's matrix that stay, ascending."""
        field = self.storage.fields.get(number)
        if field is None:
            return np.zeros(0, np.int32)
        if field.rows_of is None:
            return self.keep
        return np.flatnonzero(self.renumbered(0)[field.rows_of] >= 0).astype(np.int32)


def source_of(engine: Engine, state: CollectionState, storage: Sealed) -> Source:
    """A row goes only for a deletion that the catalog knows."""
    deleted = committed_deletions(state.meta.number, storage, engine.snapshot)
    alive = bitset.full(storage.rows) if deleted is None else bitset.full(storage.rows) & ~deleted
    return Source(storage, bitset.to_rows(alive, storage.rows))
