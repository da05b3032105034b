"""Checksums of a collection's files when it is first used, within a bound, so that opening stays quick at any size."""

from __future__ import annotations

from pathlib import Path

from vecdb.files.arrays import ArrayEntry, verify_open
from vecdb.types import AnyArray

CHECKED_AT_ONCE = 64 * 1024 * 1024  # bytes of each kind: 20 to 40 ms


class FirstUseCheck:
    """Looks at every byte of the files that it is shown, until they have 64 MiB: vectors and the rest each.

    What is beyond is checked when segments merge, and by verification.
    """

    def __init__(self) -> None:
        self.left = {True: CHECKED_AT_ONCE, False: CHECKED_AT_ONCE}

    def __call__(self, path: Path, array: AnyArray, entry: ArrayEntry) -> None:
        """Corrupted names the first bad block."""
        kind = path.name == "vectors.npy"
        if entry.size <= self.left[kind]:
            self.left[kind] -= entry.size
            verify_open(path, array, entry)
