"""When maintenance has something to do. Pure functions of sizes and times; the bounds that DESIGN promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOG_TRIGGER = 128 * 1024 * 1024  # bytes of log that make a checkpoint due
DIRTY_SECONDS = 30.0
DIRTY_CHANGES = 10_000  # new or deleted records that make a checkpoint due after DIRTY_SECONDS
CLOSE_CHANGES = 4096  # changes that close() seals rather than leaves to the log
IDLE_SECONDS = 5.0
SEGMENTS_MAX = 4  # sealed segments of a collection while it is written
SMALL_ROWS = 131_072  # together, segments up to this merge at once
SEGMENT_BYTES_MAX = 8 << 30
DEAD_SHARE = 0.25
FREE_SHARE = 0.25  # of the catalog
FREE_BYTES_MIN = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Size:
    """A sealed segment in numbers. `dead`: rows whose deletion the catalog knows; `lost`: those of the view."""

    rows: int
    dead: int
    lost: int
    row_bytes: int


def checkpoint_due(log_bytes: int, changes: int, dirty_seconds: float, idle_seconds: float, lost_share: float) -> bool:
    """`changes` in growing segments; `lost_share`: of sealed rows, deleted by batches that only the log holds."""
    if changes == 0:
        return False
    if log_bytes > LOG_TRIGGER or (dirty_seconds >= DIRTY_SECONDS and changes >= DIRTY_CHANGES):
        return True
    return idle_seconds >= IDLE_SECONDS and lost_share > DEAD_SHARE


def choose_merge(sizes: Sequence[Size], idle_seconds: float, *, force: bool = False) -> range | None:
    """Which neighbouring segments to merge now, as positions; None for none.

    Up to 131k rows together are one segment. While writes go on at most 4 segments stand, in steps of size, so that a
    row is rewritten a logarithmic number of times. Idle, they become one per 8 GiB. A segment more than a quarter dead
    is rewritten, with the younger neighbours that fit in the place of the dead: they may hold these again, changed.
    """
    if len(sizes) > 1:
        run = _whole(sizes) if force or idle_seconds >= IDLE_SECONDS else _tier(sizes)
        if run is not None:
            return run
    for i, size in enumerate(sizes):
        if size.dead > DEAD_SHARE * size.rows or (force and size.dead > 0):
            end, held = i + 1, 0
            while end < len(sizes) and held + sizes[end].rows - sizes[end].dead <= size.dead:
                held += sizes[end].rows - sizes[end].dead
                end += 1
            return range(i, end)
    return None


def _whole(sizes: Sequence[Size]) -> range | None:
    """The first longest run that fits one segment."""
    start = 0
    while start < len(sizes) - 1:
        end, held = start, 0
        while end < len(sizes) and (end == start or held + _bytes(sizes[end]) <= SEGMENT_BYTES_MAX):
            held += _bytes(sizes[end])
            end += 1
        if end - start > 1:
            return range(start, end)
        start = end
    return None


def _tier(sizes: Sequence[Size]) -> range | None:
    """Small neighbours at the young end, taken together until the next older one is twice as large."""
    rows = [size.rows - size.dead for size in sizes]
    if sum(rows) <= SMALL_ROWS:
        return range(len(rows))
    if len(rows) <= SEGMENTS_MAX:
        return None
    start, held = len(rows) - 2, rows[-1] + rows[-2]
    while start > 0 and rows[start - 1] <= 2 * held:
        start -= 1
        held += rows[start]
    run = range(start, len(rows))
    return run if held * sizes[-1].row_bytes <= SEGMENT_BYTES_MAX else None


def _bytes(size: Size) -> int:
    return (size.rows - size.dead) * size.row_bytes


def compaction_due(size_bytes: int, free_bytes: int) -> bool:
    return free_bytes >= FREE_BYTES_MIN and free_bytes > FREE_SHARE * size_bytes
