"""Payload paths as arrays: the columns of growing and sealed segments, and merging them."""

from vecdb.storage.column_order import MISSING, Order, joined
from vecdb.storage.growing_columns import GrowingColumns, GrowingReader
from vecdb.storage.seal_columns import merge_sealed
from vecdb.storage.sealed_columns import SealedColumns

__all__ = ["MISSING", "GrowingColumns", "GrowingReader", "Order", "SealedColumns", "joined", "merge_sealed"]
