"""Goal: whatever the machine loses when it stops, at any call of the disk, no acknowledged write is lost, none is half
there, every way of reading agrees, and the database goes on.

Method: `sweep.py`, in a size that fits the default suite: every workload on the strictest file system, the short ones
on all. `make crash` runs the full size.
"""

from __future__ import annotations

import pytest

from tests.simdisk.disk import PERSONALITIES, STRICT
from tests.simdisk.sweep import Size, Sweep, Tally
from tests.simdisk.workloads import WORKLOADS, Workload

REDUCED = Size(states=6, nested=2500, nested_states=1, go_on=16)
LONG = {"merge", "indexes", "schema", "several collections", "compaction of the catalog"}
SEED = 20_240
EXPECTED = {"write_at", "sync", "create", "make_directory", "sync_directory", "rename", "commit", "acknowledged"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_stop_at_every_call(workload: Workload) -> None:
    whole = Tally()
    for personality in (STRICT,) if workload.name in LONG else PERSONALITIES:
        whole.add(Sweep(workload, personality, REDUCED, SEED).run())
    assert set(whole.calls) >= EXPECTED
    assert whole.states > 2 * len(PERSONALITIES) * 30
    print(f"{workload.name}: {whole.states} states, {whole.recovered} distinct, {whole.seconds:.1f} s")
