"""Goal: whichever call of the disk fails, and however, a user is told by a typed error with its cause and a remedy,
nothing changes that was not asked for, and the same call succeeds when the fault is gone. Only a failed sync, or a
change that happened and could not be taken over, ends writing; reading goes on, and opening again loses nothing.

Method: every site in the sources is made to fail in one of its ways, in a story that reaches it (`matrix.py`). A site
that no story reaches fails the test. `make faults` fails every call of every site in every way, in every story.
"""

from __future__ import annotations

import pytest

from tests.simdisk import matrix
from tests.simdisk.inject import WAYS, Fault
from tests.simdisk.session import COMPILED, no_turns, scene
from tests.simdisk.sites import Site, written_sites
from tests.simdisk.stories import STORIES, make_templates, tell
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


def test_a_disk_that_fails_during_a_repair_does_not_pass_for_a_lost_catalog() -> None:
    """`tell` accepts no other error than those of the disk."""
    COMPILED.wait("float32")
    repair = next(story for story in STORIES if story.name == "repair")
    site = Site("storage/catalog.py", "LmdbCatalog._map_size", "size")
    with scene() as place, small_codes(), no_turns():
        (place / "templates").mkdir()
        models = make_templates(place / "templates")
        disk, _ = tell(repair, place, models)
        assert disk.calls[site] > 2
        for number in range(1, disk.calls[site] + 1):
            _, told = tell(repair, place, models, Fault(site, "EIO", number=number))
            assert len(told) <= 1


def test_sites_are_found_in_the_sources() -> None:
    found = {str(site) for site in written_sites()}
    assert {"storage/wal.py Wal.sync: sync", "files/arrays.py write_blocks: create"} <= found


@pytest.mark.parametrize("method", ["write_at", "sync", "open"])
def test_ways_fit_the_method(method: str) -> None:
    assert "EIO" in WAYS[method]
    assert ("short" in WAYS[method]) == (method == "write_at")
