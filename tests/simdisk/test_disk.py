"""Goal: the simulated disk keeps what its semantics say, and its crashes lose what they may, no more and no less.

Method: small stories on a bare disk; every state that a crash leaves is collected and compared with the set allowed.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.simdisk.crash import death, key_of, power_loss
from tests.simdisk.disk import (
    COPY_ON_WRITE,
    ORDERED,
    PERSONALITIES,
    SECTOR,
    STRICT,
    WRITEBACK,
    Personality,
    SimulatedDisk,
    State,
)
from vecdb.errors import StorageFailed

ROOT = Path("/simulated")
EVERY = pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda personality: personality.name)


def disk_of(personality: Personality, state: State | None = None) -> SimulatedDisk:
    return SimulatedDisk(ROOT, personality, state)


def after_power_loss(disk: SimulatedDisk, count: int = 200) -> list[SimulatedDisk]:
    states = power_loss(disk.state, disk.personality, Random(1), count)
    return [disk_of(disk.personality, state) for state in states]


def contents(disk: SimulatedDisk, name: str) -> bytes | None:
    size = disk.size(ROOT / name)
    return None if size is None else disk.open(ROOT / name).read_at(size, 0)


def synced(disk: SimulatedDisk, name: str, data: bytes) -> None:
    file = disk.create(ROOT / name)
    file.write_at(data, 0)
    file.sync()
    disk.sync_directory(ROOT)


@EVERY
def test_what_was_synced_is_there(personality: Personality) -> None:
    disk = disk_of(personality)
    synced(disk, "a", b"x" * 1500)
    file = disk.create(ROOT / "b")
    file.write_at(b"y" * 1500, 0)
    for found in after_power_loss(disk):
        assert contents(found, "a") == b"x" * 1500


@pytest.mark.parametrize(
    ("personality", "always"), [(STRICT, False), (ORDERED, True), (WRITEBACK, True), (COPY_ON_WRITE, True)]
)
def test_syncing_a_file_is_not_syncing_its_name(personality: Personality, always: bool) -> None:
    disk = disk_of(personality)
    file = disk.create(ROOT / "a")
    file.write_at(b"data", 0)
    file.sync()
    there = {contents(found, "a") for found in after_power_loss(disk)}
    assert there == ({b"data"} if always else {b"data", None})


def test_unsynced_bytes_are_lost_torn_and_out_of_order() -> None:
    disk = disk_of(STRICT)
    synced(disk, "a", b"")
    file = disk.create(ROOT / "b")
    disk.sync_directory(ROOT)
    for number in range(3):
        file.write_at(bytes([65 + number]) * SECTOR, number * SECTOR)
    found = {contents(left, "b") for left in after_power_loss(disk, 400)}
    assert b"" in found
    assert b"A" * SECTOR + b"B" * SECTOR + b"C" * SECTOR in found
    assert bytes(3 * SECTOR) in found, "the size without a byte"
    assert bytes(2 * SECTOR) + b"C" * SECTOR in found, "the last write without those before"
    assert all(len(data) % SECTOR == 0 for data in found if data is not None), "sectors are whole"


def test_a_file_grows_in_order_on_an_ordered_file_system() -> None:
    disk = disk_of(ORDERED)
    file = disk.create(ROOT / "a")
    disk.sync_directory(ROOT)
    whole = b"A" * SECTOR + b"B" * 700 + b"C" * 900
    for start, end in ((0, SECTOR), (SECTOR, SECTOR + 700), (SECTOR + 700, len(whole))):
        file.write_at(whole[start:end], start)
    found = {contents(left, "a") for left in after_power_loss(disk)}
    assert all(data is not None and whole.startswith(data) for data in found)
    assert {b"", whole, whole[:SECTOR], whole[: 3 * SECTOR]} <= found


def test_what_never_reached_the_disk_may_read_as_a_removed_file() -> None:
    disk = disk_of(WRITEBACK)
    synced(disk, "secret", b"S" * 2 * SECTOR)
    disk.remove(ROOT / "secret")
    file = disk.create(ROOT / "a")
    disk.sync_directory(ROOT)
    file.write_at(b"A" * 2 * SECTOR, 0)
    found = {contents(left, "a") for left in after_power_loss(disk)}
    assert any(data is not None and b"S" * SECTOR in data for data in found)


@EVERY
def test_names_are_lost_in_the_order_that_the_file_system_keeps(personality: Personality) -> None:
    disk = disk_of(personality)
    for name in ("a", "b", "c"):
        disk.create(ROOT / name)
    found = {tuple(left.list(ROOT)) for left in after_power_loss(disk)}
    prefixes = {(), ("a",), ("a", "b"), ("a", "b", "c")}
    assert prefixes <= found
    assert (found == prefixes) == (personality.names == "prefix")


@EVERY
def test_a_rename_happens_or_not(personality: Personality) -> None:
    disk = disk_of(personality)
    synced(disk, "a.tmp", b"new")
    disk.rename(ROOT / "a.tmp", ROOT / "a")
    found = {tuple(left.list(ROOT)) for left in after_power_loss(disk)}
    whole = {("a.tmp",), ("a",)}
    assert found == (whole | {("a", "a.tmp")} if personality.torn_rename else whole)


@EVERY
def test_a_removal_may_come_back(personality: Personality) -> None:
    disk = disk_of(personality)
    synced(disk, "a", b"old")
    disk.remove(ROOT / "a")
    assert {contents(left, "a") for left in after_power_loss(disk)} == {b"old", None}
    disk.sync_directory(ROOT)
    assert {contents(left, "a") for left in after_power_loss(disk)} == {None}


@EVERY
def test_a_second_name_means_the_same_file_and_outlives_the_first(personality: Personality) -> None:
    disk = disk_of(personality)
    synced(disk, "a", b"data")
    disk.make_directory(ROOT / "d")
    disk.sync_directory(ROOT)
    disk.link(ROOT / "a", ROOT / "d" / "b")
    assert {contents(left, "d/b") for left in after_power_loss(disk)} == {b"data", None}
    disk.sync_directory(ROOT / "d")
    disk.remove(ROOT / "a")
    assert contents(disk, "d/b") == b"data"
    disk.sync_directory(ROOT)
    for left in after_power_loss(disk):
        assert (contents(left, "a"), contents(left, "d/b")) == (None, b"data")


def test_the_bytes_of_a_file_that_has_a_name_left_are_nobody_elses() -> None:
    disk = disk_of(WRITEBACK)
    synced(disk, "secret", b"S" * 2 * SECTOR)
    disk.link(ROOT / "secret", ROOT / "kept")
    disk.remove(ROOT / "secret")
    file = disk.create(ROOT / "a")
    disk.sync_directory(ROOT)
    file.write_at(b"A" * 2 * SECTOR, 0)
    assert not any(b"S" in (contents(left, "a") or b"") for left in after_power_loss(disk))


@pytest.mark.parametrize(("personality", "seen"), [(ORDERED, b"n" * SECTOR), (COPY_ON_WRITE, b"o" * SECTOR)])
def test_a_failed_sync_forgets_that_bytes_were_dirty(personality: Personality, seen: bytes) -> None:
    left = set()
    for seed in range(20):
        disk = disk_of(personality)
        synced(disk, "a", b"o" * SECTOR)
        file = disk.create(ROOT / "b")
        file.write_at(b"o" * SECTOR, 0)
        file.sync()
        disk.sync_directory(ROOT)
        file.write_at(b"n" * SECTOR, 0)
        disk.lose_dirty(ROOT / "b", Random(seed))
        view = file.read_at(SECTOR, 0)
        file.sync()  # falsely succeeds
        on_disk = {contents(found, "b") for found in after_power_loss(disk)}
        assert len(on_disk) == 1
        left |= on_disk
        if on_disk == {b"o" * SECTOR}:
            assert view == seen
    assert left == {b"o" * SECTOR, b"n" * SECTOR}


def test_a_death_loses_nothing_and_makes_nothing_durable() -> None:
    disk = disk_of(STRICT)
    disk.create(ROOT / "a").write_at(b"data", 0)
    survivor = disk_of(STRICT, death(disk.state))
    assert contents(survivor, "a") == b"data"
    assert None in {contents(found, "a") for found in after_power_loss(survivor)}


def test_a_state_never_changes_once_it_was_taken() -> None:
    disk = disk_of(STRICT)
    synced(disk, "a", b"one")
    before = disk.state.copy()
    key = key_of(before)
    disk.create(ROOT / "b").write_at(b"two", 0)
    disk.remove(ROOT / "a")
    assert key_of(before) == key
    assert disk_of(STRICT, before).list(ROOT) == ["a"]


def test_the_same_seed_gives_the_same_states() -> None:
    disk = disk_of(STRICT)
    for name in "abcdef":
        disk.create(ROOT / name).write_at(name.encode() * 2000, 0)
    first, second = ([key_of(state) for state in power_loss(disk.state, STRICT, Random(7), 50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 40


def test_calls_fail_as_on_a_real_disk() -> None:
    disk = disk_of(STRICT)
    disk.make_directory(ROOT / "d")
    synced(disk, "a", b"data")
    for call in (
        lambda: disk.create(ROOT / "a"),
        lambda: disk.make_directory(ROOT / "d"),
        lambda: disk.open(ROOT / "missing"),
        lambda: disk.open(ROOT / "d"),
        lambda: disk.map(ROOT / "a", 3),
        lambda: disk.size(ROOT / "d"),
        lambda: disk.open(ROOT / "a").write_at(b"x", 0),
        lambda: disk.remove(ROOT / "d"),
        lambda: disk.link(ROOT / "missing", ROOT / "b"),
        lambda: disk.link(ROOT / "d", ROOT / "b"),
        lambda: disk.link(ROOT / "a", ROOT / "d"),
        lambda: disk.list(ROOT / "missing"),
    ):
        with pytest.raises(StorageFailed):
            call()
    disk.create(ROOT / "d" / "inside")
    with pytest.raises(StorageFailed, match="not empty"):
        disk.remove_directory(ROOT / "d")
