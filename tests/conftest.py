"""Every database that a test opens stands on a disk that checks the order of its operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import lmdb
import pytest

from tests.faults import OrderingDisk, checked_lmdb_open
from vecdb.engine import registry


@pytest.fixture(autouse=True)
def ordering(monkeypatch: pytest.MonkeyPatch) -> Iterator[OrderingDisk]:
    """O1 to O9 hold in every test."""
    usual = registry.DEFAULT_SEAMS
    disk = OrderingDisk(usual.disk)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=disk))
    monkeypatch.setattr(lmdb, "open", checked_lmdb_open(lmdb.open))
    yield disk
    assert not disk.violations, disk.violations
