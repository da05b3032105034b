"""Goal: whatever the machine loses when it stops, at any call of the disk, no acknowledged write is lost, none is half
there, every way of reading agrees, and the database goes on.

Method: `sweep.py`, in a size that fits the default suite: every workload on the strictest file system, the short ones
on all. `make crash` runs the full size.
"""

from __future__ import annotations

import pytest

from tests.simdisk.disk import COPY_ON_WRITE, ORDERED, PERSONALITIES, STRICT, Personality
from tests.simdisk.pages import sweep_pages
from tests.simdisk.sweep import Size, Sweep, Tally
from tests.simdisk.workloads import WORKLOADS, Workload

REDUCED = Size(states=5, nested=5000, nested_states=1, go_on=16)
LONG = {"merge", "indexes", "schema", "several collections", "compaction of the catalog", "snapshots"}
SEED = 20_240
EXPECTED = {"write_at", "sync", "create", "make_directory", "sync_directory", "rename", "commit", "acknowledged"}
BY_NAME = {workload.name: workload for workload in WORKLOADS}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_stop_at_every_call(workload: Workload) -> None:
    whole = Tally()
    for personality in (STRICT,) if workload.name in LONG else PERSONALITIES:
        whole.add(Sweep(workload, personality, REDUCED, SEED).run())
    assert set(whole.calls) >= EXPECTED
    assert whole.states > 500
    print(f"{workload.name}: {whole.states} states, {whole.recovered} distinct, {whole.seconds:.1f} s")


def test_a_crash_in_the_recovery_of_a_recovery() -> None:
    tally = Sweep(BY_NAME["batches"], STRICT, Size(states=3, nested=16, nested_states=1, go_on=64), SEED).run()
    assert tally.nested > 3
    print(f"nested: {tally.nested} recoveries swept, {tally.states} states, {tally.seconds:.1f} s")


@pytest.mark.parametrize("personality", [ORDERED, COPY_ON_WRITE], ids=["bytes stay visible", "bytes go back"])
def test_every_sync_fails_once_and_the_power_goes_later(personality: Personality) -> None:
    size = Size(states=5, nested=10_000, nested_states=1, go_on=50)
    tally = Sweep(BY_NAME["batches"], personality, size, SEED).run_failed_syncs()
    assert tally.nested > 10
    print(f"failed syncs: {tally.states} states, {tally.recovered} distinct, {tally.seconds:.1f} s")


@pytest.mark.parametrize("name", ["checkpoint", "merge"])
def test_a_commit_of_the_catalog_cut_short(name: str) -> None:
    tally = sweep_pages(BY_NAME[name], SEED, 24)
    assert tally.commits > 1
    assert tally.distinct > 20 * tally.commits
    print(f"pages: {tally.states} states, {tally.distinct} distinct, {tally.seconds:.1f} s")
