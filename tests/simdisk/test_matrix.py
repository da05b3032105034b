"""Goal: whichever call of the disk fails, and however, a user is told by a typed error with its cause and a remedy,
nothing changes that was not asked for, and the same call succeeds when the fault is gone. Only a failed sync, or a
change that happened and could not be taken over, ends writing; reading goes on, and opening again loses nothing.

Method: every site in the sources is made to fail in one of its ways, in a story that reaches it (`matrix.py`). A site
that no story reaches fails the test. `make faults` fails every call of every site in every way, in every story.
"""

from __future__ import annotations

import pytest

from tests.simdisk import matrix
from tests.simdisk.inject import WAYS
from tests.simdisk.session import COMPILED, no_turns, scene
from tests.simdisk.sites import written_sites
from tests.simdisk.workloads import small_codes


def test_every_site_fails() -> None:
    COMPILED.wait("float32")
    with scene() as place, small_codes(), no_turns():
        covered = matrix.run(place, full=False)
    missing = covered.missing()
    assert not missing, "no story reaches these; add one to stories.py: " + ", ".join(map(str, missing))
    assert {way for ways in covered.ways.values() for way in ways} == {way for ways in WAYS.values() for way in ways}
    assert covered.told["Poisoned"] > 2
    print("\n".join(covered.lines()))
    print(f"{len(covered.ways)} sites, {covered.runs} runs, told: {dict(covered.told)}")


def test_sites_are_found_in_the_sources() -> None:
    found = {str(site) for site in written_sites()}
    assert {"storage/wal.py Wal.sync: sync", "files/arrays.py write_blocks: create"} <= found


@pytest.mark.parametrize("method", ["write_at", "sync", "open"])
def test_ways_fit_the_method(method: str) -> None:
    assert "EIO" in WAYS[method]
    assert ("short" in WAYS[method]) == (method == "write_at")
