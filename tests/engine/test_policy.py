"""Goal: the bounds that maintenance promises hold for every history of sizes.

Method: the pure functions of `vecdb.engine.policy`, driven by a simulation of ingest, idling and deleting; no files.
"""

from __future__ import annotations

import pytest

from vecdb.engine import policy
from vecdb.engine.policy import Size, checkpoint_due, choose_merge, compaction_due

ROW_BYTES = 2000


def sizes(*rows: int, dead: float = 0.0) -> list[Size]:
    return [Size(n, int(n * dead), int(n * dead), ROW_BYTES) for n in rows]


def merge_all(segments: list[int], idle: float) -> tuple[list[int], int]:
    """(segments after every merge that is due, rows written by them)"""
    written = 0
    while (run := choose_merge(sizes(*segments), idle)) is not None:
        total = sum(segments[run.start : run.stop])
        segments = [*segments[: run.start], total, *segments[run.stop :]]
        written += total
    return segments, written


@pytest.mark.parametrize("sealed", [10_000, 43_690, 131_072])
def test_few_segments_and_little_rewriting_while_writing(sealed: int) -> None:
    segments: list[int] = []
    written = total = 0
    while total < 4_000_000:
        segments.append(sealed)
        total, written = total + sealed, written + sealed
        segments, rewritten = merge_all(segments, idle=0.0)
        written += rewritten
        assert sum(segments) == total
        assert len(segments) <= policy.SEGMENTS_MAX
        if total <= policy.SMALL_ROWS:
            assert len(segments) == 1
    assert written / total <= (6 if sealed >= 40_000 else 8)


def test_idle_segments_become_one_per_eight_gibibytes() -> None:
    segments, _ = merge_all([1_000_000, 300_000, 200_000, 131_072], idle=policy.IDLE_SECONDS)
    assert len(segments) == 1
    large = policy.SEGMENT_BYTES_MAX // ROW_BYTES
    segments, _ = merge_all([large - 10, 300_000, 20_000, 1_000], idle=policy.IDLE_SECONDS)
    assert segments == [large - 10, 321_000]


@pytest.mark.parametrize(
    ("dead", "force", "expected"),
    [(0.2, False, None), (0.25, False, None), (0.26, False, range(1)), (0.01, True, range(1)), (0.0, True, None)],
)
def test_a_segment_more_than_a_quarter_dead_is_rewritten(dead: float, force: bool, expected: range | None) -> None:
    assert choose_merge(sizes(100_000, dead=dead), 0.0, force=force) == expected


def test_what_replaces_the_dead_comes_along() -> None:
    """A segment whose records were changed is rewritten with the segments that hold them now."""
    old, half = Size(600_000, 200_000, 200_000, ROW_BYTES), Size(100_000, 0, 0, ROW_BYTES)
    assert choose_merge([old, half], 0.0) == range(2)
    assert choose_merge([old, half, half], 0.0) == range(3)
    assert choose_merge([old, half, half, half], 0.0) == range(3)
    assert choose_merge([old, Size(250_000, 0, 0, ROW_BYTES)], 0.0) == range(1)


@pytest.mark.parametrize(
    ("log", "changes", "dirty", "idle", "lost", "due"),
    [
        (0, 0, 1e9, 1e9, 0.0, False),
        (policy.LOG_TRIGGER + 1, 1, 0.0, 0.0, 0.0, True),
        (0, policy.DIRTY_CHANGES, policy.DIRTY_SECONDS, 0.0, 0.0, True),
        (0, policy.DIRTY_CHANGES - 1, 1e6, 0.0, 0.0, False),
        (0, policy.DIRTY_CHANGES, policy.DIRTY_SECONDS - 1, 0.0, 0.0, False),
        (0, 10, 1.0, policy.IDLE_SECONDS, 0.26, True),
        (0, 10, 1.0, policy.IDLE_SECONDS - 1, 0.26, False),
        (0, 10, 1.0, policy.IDLE_SECONDS, 0.25, False),
    ],
)
def test_checkpoints(log: int, changes: int, dirty: float, idle: float, lost: float, due: bool) -> None:
    assert checkpoint_due(log, changes, dirty, idle, lost) is due


def test_the_catalog_is_compacted_when_a_quarter_is_free() -> None:
    mib = 1 << 20
    assert not compaction_due(40 * mib, 15 * mib)
    assert compaction_due(40 * mib, 16 * mib)
    assert not compaction_due(100 * mib, 25 * mib)
    assert compaction_due(100 * mib, 26 * mib)
