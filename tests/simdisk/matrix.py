"""Every site of the disk fails in every way that it can, once and for ever; what a user then meets is checked.

A site that only runs after another failure is reached by that one: the two fail together.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from tests.simdisk.inject import WAYS, Fault
from tests.simdisk.sites import Site, written_sites
from tests.simdisk.stories import STORIES, Story, make_templates, tell

CALLS_MAX = 12  # calls of one site in one story that fail, in full size


@dataclass
class Covered:
    """What was injected where. `told`: errors that reached a user, by type."""

    runs: int = 0
    ways: dict[Site, set[str]] = field(default_factory=lambda: defaultdict(set))
    led_by: dict[Site, tuple[Story, Fault]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    silent: Counter[Site] = field(default_factory=Counter)  # failures that no user met: it was gone around

    def missing(self) -> list[Site]:
        return sorted(written_sites() - set(self.ways))

    def lines(self) -> Iterator[str]:
        for site in sorted(self.ways):
            after = f" (after {self.led_by[site][1]})" if site in self.led_by else ""
            yield f"{site}: {', '.join(sorted(self.ways[site]))}{after}"


class Unmet(AssertionError):
    """A fault after which something was not as promised."""


def run(place: Path, *, full: bool, tell_line: Callable[[str], None] = lambda line: None) -> Covered:
    """Every site; `full`: in every way, in every story that reaches it, at many of its calls."""
    (place / "templates").mkdir()
    models = make_templates(place / "templates")
    covered, reached = Covered(), defaultdict[Site, list[tuple[int, Story, int]]](list)
    for story in STORIES:
        disk, told = tell(story, place, models)
        assert not told, told
        for site, count in disk.calls.items():
            reached[site].append((sum(disk.calls.values()), story, count))

    def inject(story: Story, *faults: Fault) -> None:
        try:
            disk, told = tell(story, place, models, *faults)
        except Exception as error:
            raise Unmet(f"{story.name}, {' and '.join(map(str, faults))}: {error!r}") from error
        covered.runs += 1
        for fault, _ in disk.failed:
            covered.ways[fault.site].add(fault.way)
        covered.told.update(type(error).__name__ for error in told)
        covered.silent.update([faults[-1].site] if disk.failed and not told else [])
        for site in set(disk.calls) - set(reached) - set(covered.led_by):
            covered.led_by[site] = (story, faults[0])

    known = written_sites()
    for site in sorted(known & set(reached)):
        stories = sorted(reached[site], key=lambda item: item[0])
        everywhere = full or site.method == "link"  # what is done instead of a link differs
        for _, story, count in stories if everywhere else stories[:1]:
            for fault in _faults(site, count, full=full):
                inject(story, fault)
        tell_line(f"{site}: {len(covered.ways[site])} ways")
    done: set[Site] = set()
    while left := sorted((set(covered.led_by) & known) - done):
        for site in left:
            done.add(site)
            story, first = covered.led_by[site]
            for fault in _faults(site, 1, full=full):
                inject(story, first, fault)
    shutil.rmtree(place / "templates")
    return covered


def _faults(site: Site, count: int, *, full: bool) -> Iterator[Fault]:
    """All that the site can do; in the reduced size one of them, always the same, or all where it is a link."""
    if full:
        for way in WAYS[site.method]:
            for number in range(1, count + 1, max(1, count // CALLS_MAX)):
                yield Fault(site, way, False, number)
                yield Fault(site, way, True, number)
        return
    chance, ways = crc32(str(site).encode()), WAYS[site.method]
    for way in ways if site.method == "link" else [ways[chance % len(ways)]]:
        yield Fault(site, way, way == "EXDEV" or chance // len(ways) % 2 == 0)
