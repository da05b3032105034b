"""From bounds on matching rows to the numbers that costs need."""

from __future__ import annotations

from vecdb.types import Estimate


def live(estimate: Estimate, rows: int, deleted: int) -> Estimate:
    """Bounds on the matching rows that are not deleted: the deleted ones may all match, or none of them."""
    return Estimate(max(0, estimate.low - deleted), max(0, min(estimate.high, rows - deleted)))


def expected(estimate: Estimate) -> float:
    """The middle of the bounds: nothing more is known."""
    return (estimate.low + estimate.high) / 2


def filled_blocks(share: float, block_rows: int) -> float:
    """The share of blocks with a matching row when matches fall at random; clustered matches fill fewer.

    1 - (1 - share) ** block_rows.
    """
    return 1.0 - (1.0 - min(1.0, share)) ** block_rows
