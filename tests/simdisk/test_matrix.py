"""Goal: whichever call of the disk fails, and however, a user is told by a typed error with its cause and a remedy,
nothing changes that was not asked for, and the same call succeeds when the fault is gone. Only a failed sync, or a
change that happened and could not be taken over, ends writing; reading goes on, and opening again loses nothing.

Method: every site in the sources is made to fail in every way, in stories that reach it (`matrix.py`). A site that no
story reaches fails the test. `make faults` fails every call of every site, in every story.
"""

from __future__ import annotations

import pytest

from tests.simdisk import matrix
from tests.simdisk.inject import WAYS
from tests.simdisk.session import COMPILED, scene
from tests.simdisk.sites import written_sites
from tests.simdisk.workloads import small_codes


def test_every_site_fails_in_every_way() -> None:
    COMPILED.wait("float32")
    with scene() as place, small_codes():
        covered = matrix.run(place, full=False)
    missing = covered.missing()
    assert not missing, "no story reaches these; add one to stories.py: " + ", ".join(map(str, missing))
    short = {str(site): ways for site, ways in covered.ways.items() if ways != set(WAYS[site.method])}
    assert not short, f"not failed in every way: {short}"
    assert covered.told["Poisoned"] > 5
    print("\n".join(covered.lines()))
    print(f"{len(covered.ways)} sites, {covered.runs} runs, told: {dict(covered.told)}")


def test_sites_are_found_in_the_sources() -> None:
    found = {str(site) for site in written_sites()}
    assert {"storage/wal.py Wal.sync: sync", "files/arrays.py write_blocks: create"} <= found


@pytest.mark.parametrize("method", ["write_at", "sync", "open"])
def test_ways_fit_the_method(method: str) -> None:
    assert "EIO" in WAYS[method]
    assert ("short" in WAYS[method]) == (method == "write_at")
