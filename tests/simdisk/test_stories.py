"""Goal: crashes that the sweep found to lose something stay harmless, each as a story of its own.

Method: the process dies at a chosen call, the next one goes on with what the cache shows, and then the power goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.simdisk.catalog import twin_catalogs
from tests.simdisk.crash import death, power_loss
from tests.simdisk.disk import STRICT, SimulatedDisk
from tests.simdisk.session import Moment, Session, abandon, no_turns, open_on, read_model, scene
from tests.simdisk.workloads import some


@pytest.fixture
def place() -> Iterator[Path]:
    with scene() as directory, twin_catalogs(), no_turns():
        yield directory


def moment_of(session: Session, what: str) -> Moment:
    """The last moment at which the call `what` had just been made."""
    return next(moment for moment in reversed(session.moments) if moment.what.startswith(what))


class Life(Session):
    before_close: Moment


def lived(place: Path, act: Callable[[Session], None]) -> Life:
    session = Life(SimulatedDisk(place, STRICT), place)
    session.create("docs")
    session.upsert("docs", some(0, 4))
    act(session)
    session.before_close = session.moments[-1]
    session.close()
    return session


def reborn(place: Path, left: Moment, session: Session) -> Session:
    """The next process, on the cache that a death left."""
    state = death(left.state)
    return Session(SimulatedDisk(place, STRICT, state), place, seed=2, models=[session.model])


def check_every_power_loss(place: Path, session: Session, expected: object) -> None:
    abandon(session.db)
    for left in power_loss(session.disk.state, STRICT, Random(1), 60):
        db = open_on(SimulatedDisk(place, STRICT, left), place, seed=9)
        assert read_model(db) == expected
        db.close()


def test_a_catalog_that_only_the_cache_names_is_made_durable_before_a_commit_to_it(place: Path) -> None:
    first = lived(place, Session.compact)
    second = reborn(place, moment_of(first, "rename catalog-2"), first)
    second.create("more")
    check_every_power_loss(place, second, second.model)


def test_a_new_database_that_only_the_cache_names_is_made_durable_before_a_commit_to_it(place: Path) -> None:
    first = lived(place, lambda session: None)
    left = moment_of(first, "rename VECDB")
    second = Session(SimulatedDisk(place, STRICT, death(left.state)), place, seed=2)
    second.create("more")
    check_every_power_loss(place, second, second.model)


def test_a_log_that_only_the_cache_names_is_made_durable_before_what_it_replaced_goes(place: Path) -> None:
    first = lived(place, lambda session: None)
    second = reborn(place, first.before_close, first)  # killed: the tail is in doubt
    second.upsert("docs", some(1, 2))
    renamed = next(moment for moment in second.moments if moment.what.startswith("rename 0000"))
    abandon(second.db)
    third = Session(SimulatedDisk(place, STRICT, death(renamed.state)), place, seed=3, models=[first.model])
    check_every_power_loss(place, third, first.model)


def test_nothing_counts_on_a_closing_record_that_only_the_cache_has(place: Path) -> None:
    first = lived(place, lambda session: None)
    second = reborn(place, moment_of(first, "write_at 0000"), first)  # the closing record is written, and not synced
    second.upsert("docs", some(2, 3))
    check_every_power_loss(place, second, second.model)


def test_log_files_that_retire_together_go_one_after_the_other(place: Path) -> None:
    """A file system may lose removals in any order; a log with a file missing in between would be refused."""
    session = Session(SimulatedDisk(place, STRICT), place)
    session.create("docs")
    for number in range(4):
        session.upsert("docs", some(number, 2))
        session.reopen()
    session.upsert("docs", some(9, 1))
    before = len(session.moments)
    session.steps()
    abandon(session.db)
    removals = [moment for moment in session.moments[before:] if moment.what.startswith("remove 0000")]
    assert len(removals) > 3
    for moment in removals:
        for left in power_loss(moment.state, STRICT, Random(1), 20):
            db = open_on(SimulatedDisk(place, STRICT, left), place, seed=9)
            assert read_model(db) == session.model
            db.close()
