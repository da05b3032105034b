"""Goal: what the writing end of the log says is durable is durable.

Method: a simulated disk on which everything that was not synced is lost, or is there, in every combination.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.simdisk.crash import power_loss
from tests.simdisk.disk import STRICT, SimulatedDisk
from tests.storage.logs import UUID, Log, lsns
from vecdb.storage.wal_scan import LogScan, scan


def after_power_loss(disk: SimulatedDisk) -> list[LogScan]:
    """What scans find in what the disk may hold, with every subset of what was not synced."""
    states = power_loss(disk.state, STRICT, Random(1), 40)
    return [scan(SimulatedDisk(disk.root, STRICT, state), disk.root, UUID, 0) for state in states]


def simulated(tmp_path: Path) -> tuple[SimulatedDisk, Log]:
    disk = SimulatedDisk(tmp_path, STRICT)
    return disk, Log(tmp_path, disk)


def test_a_started_log_is_durable(tmp_path: Path) -> None:
    disk, _ = simulated(tmp_path)
    assert [len(found.files) for found in after_power_loss(disk)] == [1]


def test_what_was_synced_is_durable_and_no_more(tmp_path: Path) -> None:
    disk, log = simulated(tmp_path)
    log.write(1, 3)
    assert {found.last_lsn for found in after_power_loss(disk)} == {3}
    log.write(4, 4, sync=False)
    assert {found.last_lsn for found in after_power_loss(disk)} == {3, 4}


def test_a_clean_close_is_durable(tmp_path: Path) -> None:
    """The next open has no doubt about the tail, whatever happens after the call."""
    disk, log = simulated(tmp_path)
    log.write(1, 3, sync=False)
    log.wal.close(clean=True)
    assert [(lsns(found), found.clean) for found in after_power_loss(disk)] == [([1, 2, 3], True)]


def test_a_rotation_is_durable(tmp_path: Path) -> None:
    disk, log = simulated(tmp_path)
    log.write(1, 3)
    log.wal.rotate()
    log.write(4, 4)
    assert [(lsns(found), len(found.files)) for found in after_power_loss(disk)] == [([1, 2, 3, 4], 2)]


def test_a_rewriting_is_durable_and_so_is_the_removal_of_what_it_replaced(tmp_path: Path) -> None:
    disk, log = simulated(tmp_path)
    log.write(1, 3)
    log.wal.rotate()
    log.write(4, 5, sync=False)
    log.wal.rewrite(1, ((b.lsn, b.time_ns, [b.payload]) for b in log.scan().batches))
    found = after_power_loss(disk)
    assert all((lsns(one), one.epoch, one.leftovers) == ([1, 2, 3, 4, 5], 2, []) for one in found)


def test_the_removal_of_retired_files_is_durable(tmp_path: Path) -> None:
    disk, log = simulated(tmp_path)
    log.write(1, 3)
    log.wal.rotate()
    log.wal.retire(3)
    for state in power_loss(disk.state, STRICT, Random(1), 10):
        found = scan(SimulatedDisk(tmp_path, STRICT, state), tmp_path, UUID, 3)
        assert [file.path for file in found.files] == [log.path]
