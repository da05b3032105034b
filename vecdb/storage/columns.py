"""Payload paths as arrays: the columns of growing and sealed segments, and merging them."""

from vecdb.storage.growing_columns import GrowingColumns, GrowingReader
from vecdb.storage.seal_columns import merge_sealed
from vecdb.storage.sealed_columns import SealedColumns

__all__ = ["GrowingColumns", "GrowingReader", "SealedColumns", "merge_sealed"]
