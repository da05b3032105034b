"""Goal: wherever the machine stops, the next opening finds every acknowledged write, whole, in order, and goes on.

Method: a workload runs once and leaves a moment for each call that changed the disk and each acknowledgement. Of every
moment the states that a crash may leave are made, for a death of the process and for a power loss; every state is
recovered and judged. Crashes nest: recovering a chosen state is a workload of its own, swept in the same way.

Equal states are recovered once: what an opening finds depends on the disk alone. The judgement is made for each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.faults import OrderingDisk, bad_sync
from tests.simdisk.catalog import twin_catalogs
from tests.simdisk.crash import death, key_of, power_loss
from tests.simdisk.disk import PERSONALITIES, Personality, SimulatedDisk, State
from tests.simdisk.session import (
    COMPILED,
    NUMPY,
    Model,
    Moment,
    Session,
    Taken,
    abandon,
    check_reads,
    key_of_model,
    no_turns,
    open_on,
    read_model,
    scene,
)
from tests.simdisk.workloads import Workload
from vecdb.engine import registry
from vecdb.engine.restore import verify_snapshot
from vecdb.errors import Poisoned, StorageFailed
from vecdb.files import names

SYNCS_MAX = 500
DEPTH_MAX = 3  # a crash, one during its recovery, one during the recovery of that


@dataclass(frozen=True)
class Size:
    """How much of everything: states of a power loss at each moment; one state in `nested` is swept in its turn."""

    states: int
    nested: int
    nested_states: int = 2
    go_on: int = 1  # one distinct state in so many is written to, closed and opened again
    upkeep: int = 4  # and one in so many of these is sealed and merged as well


@dataclass
class Tally:
    """What was done, to be told."""

    states: int = 0
    recovered: int = 0
    moments: int = 0
    nested: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        self.states += other.states
        self.recovered += other.recovered
        self.moments += other.moments
        self.nested += other.nested
        self.calls.update(other.calls)
        self.seconds += other.seconds


class Lost(AssertionError):
    """A state from which recovery did not do what is promised; the message says how to make it again."""


class Sweep:
    """One workload on one file system."""

    def __init__(self, workload: Workload, personality: Personality, size: Size, seed: int) -> None:
        self.workload, self.personality, self.size, self.seed = workload, personality, size, seed
        self.kernels = COMPILED if workload.compiled else NUMPY
        self.found: dict[int, int] = {}  # key of a state -> key of the model that recovery found
        self.models: dict[int, Model] = {}
        self.taken: dict[int, dict[str, int]] = {}  # key of a state -> name of a snapshot -> key of what it holds
        self.keys: dict[int, int] = {}
        self.kept: list[Model] = []
        self.tally = Tally()

    def run(self) -> Tally:
        start = time.perf_counter()
        with scene() as place, twin_catalogs(), no_turns(), self.workload.limits():
            self._settle_in(place)
            disk = SimulatedDisk(self.root, self.personality)
            session = Session(disk, self.place, self.workload.sync, self.kernels)
            self.workload.run(session)
            session.close()
            check_order(session.ordering)
            for moment in session.moments:
                self.tally.calls[moment.what.partition(" ")[0]] += 1
                self._stop_at(moment, session.models, 1)
        self.tally.seconds = time.perf_counter() - start
        return self.tally

    def _settle_in(self, directory: Path) -> None:
        """The database lies in `place`; the simulated disk begins at `root`."""
        self.root = self.place = directory
        if self.workload.beside:
            self.place = directory / "db"
            self.place.mkdir()

    def run_failed_syncs(self) -> Tally:
        """The n-th sync fails, for every n: the cache forgets that the bytes were dirty, and later syncs succeed."""
        start = time.perf_counter()
        with scene() as place, twin_catalogs(), no_turns(), self.workload.limits():
            self._settle_in(place)
            for number in range(1, SYNCS_MAX):
                if not self._fail_sync(number):
                    break
        self.tally.seconds = time.perf_counter() - start
        return self.tally

    def _fail_sync(self, number: int) -> bool:
        random = Random(f"{self.seed}/{self.workload.name}/{self.personality.name}/sync {number}")
        disk, seen = SimulatedDisk(self.root, self.personality), Counter[str]()

        def fail(call: str, path: Path) -> None:
            seen[call] += call == "sync"
            if call == "sync" and seen[call] == number:
                disk.lose_dirty(path, random)
                raise bad_sync(path)

        disk.on_call = fail
        session = Session.closed(disk, self.place, self.workload.sync, self.kernels)
        try:
            session.open()
            self.workload.run(session)
            session.close()
        except (Poisoned, StorageFailed):
            if session.is_open:
                session.db.close()
        check_order(session.ordering)
        numbers = number, "failed sync", session.durable, session.acknowledged, session.high
        moment = Moment(disk.state.copy(), *numbers, session.snapshots)
        disk.on_call = None
        self._stop_at(moment, session.models, 1)
        self._crash_again(moment.state, moment, session.models, random, DEPTH_MAX - 1)
        return seen["sync"] >= number

    def _stop_at(self, moment: Moment, models: list[Model], depth: int) -> None:
        self.tally.moments += 1
        random = Random(f"{self.seed}/{self.workload.name}/{self.personality.name}/{moment.call}/{depth}")
        count = self.size.states if depth == 1 else self.size.nested_states
        for state, first in self._states(moment, random, count):
            self.tally.states += 1
            self._judge(state, models[first : moment.high + 1], moment, depth)
            if depth < DEPTH_MAX and random.randrange(self.size.nested) == 0:
                self._crash_again(state, moment, models, random, depth)

    def _states(self, moment: Moment, random: Random, count: int) -> Iterator[tuple[State, int]]:
        if moment.state.journal or any(content.dirty for content in moment.state.files.values()):
            yield death(moment.state), moment.death
        for state in power_loss(moment.state, self.personality, random, count):
            yield state, moment.power

    # ---- one state --------------------------------------------------------------------------------------------------
    def _judge(self, state: State, allowed: list[Model], moment: Moment, depth: int) -> int:
        key = key_of(state)
        found = self.found.get(key)
        try:
            if found is None:
                found = self.found[key] = self._recover(state, key)
                self.tally.recovered += 1
            if found not in {self._key(model) for model in allowed}:
                raise AssertionError(f"found {self.models[found]}, which is none of the {len(allowed)} allowed states")
            for taken in moment.snapshots:
                self._check_snapshot(taken, self.taken[key].get(taken.name))
        except Exception as error:
            raise Lost(
                f"{self.workload.name} on {self.personality.name}, seed {self.seed}: a stop after call {moment.call} "
                f"({moment.what}), crash {depth}: {error!r}"
            ) from error
        return found

    def _key(self, model: Model) -> int:
        """`key_of_model`, once for each; models never change."""
        known = self.keys.get(id(model))
        if known is None:
            known = self.keys[id(model)] = key_of_model(model)
            self.kept.append(model)  # else another may get its id
        return known

    def _check_snapshot(self, taken: Taken, found: int | None) -> None:
        if found is None:
            assert not taken.done, f"the snapshot {taken.name!r} is gone"
            return
        assert found in {self._key(model) for model in taken.allowed}, f"the snapshot {taken.name!r} holds {found}"

    def _recover(self, state: State, key: int) -> int:
        """Opens, reads everything, writes, opens again. Returns the key of what was found."""
        disk = SimulatedDisk(self.root, self.personality, state.copy())
        ordering = OrderingDisk(disk)  # type: ignore[arg-type]
        db = open_on(ordering, self.place, seed=2_000_000, sync=self.workload.sync, kernels=self.kernels)
        model = read_model(db)
        check_reads(db, model)
        self.taken[key] = self._read_snapshots(ordering) if self.workload.beside else {}
        if key % self.size.go_on == 0:
            self._go_on(db, ordering, model, upkeep=key // self.size.go_on % self.size.upkeep == 0)
        else:
            abandon(db)
        check_order(ordering)
        found = key_of_model(model)
        self.models[found] = model
        return found

    def _read_snapshots(self, ordering: OrderingDisk) -> dict[str, int]:
        """What every snapshot that has its name holds; its bytes are those of its manifest."""
        found = {}
        for name in ordering.list(self.root):
            place = self.root / name
            if place == self.place or name.endswith(names.TEMPORARY):
                continue
            place.mkdir(exist_ok=True)  # the process knows an open database by its directory
            with default_disk(ordering):
                verify_snapshot(place)
            db = open_on(ordering, place, kernels=self.kernels, mode="r")
            found[name] = key_of_model(read_model(db))
            db.close()
        return found

    def _go_on(self, db: object, ordering: OrderingDisk, model: Model, *, upkeep: bool) -> None:
        disk: SimulatedDisk = ordering.inner  # type: ignore[assignment]
        session = _resumed(db, disk, ordering, self, [model])
        if not model:
            session.create("new")
        session.upsert(next(iter(session.model)), [1, "text-3", 77])
        session.reopen()
        assert read_model(session.db) == session.model
        if self.workload.beside:
            self._snapshot_again(session)
        if upkeep:
            session.steps()
            session.reopen()
            assert read_model(session.db) == session.model
        check_leftovers(session)
        session.db.close()

    def _snapshot_again(self, session: Session) -> None:
        """What an attempt left that ended half-way does not hinder the next one of the same name."""
        left = [name for name in session.disk.list(self.root) if name.endswith(names.TEMPORARY)]
        for name in [name.removesuffix(names.TEMPORARY) for name in left] or ["three"]:
            session.snapshot(name)
            found = self._read_snapshots(session.ordering)
            assert found[name] == key_of_model(session.model)

    # ---- crashes in recovery ----------------------------------------------------------------------------------------
    def _crash_again(self, state: State, left: Moment, models: list[Model], random: Random, depth: int) -> None:
        """Recovery of this state, a write, and maintenance, swept. Until the write is acknowledged, what was allowed
        before is allowed still; after it, what it was added to stands."""
        self.tally.nested += 1
        allowed = models[left.power : left.high + 1]
        disk = SimulatedDisk(self.root, self.personality, state.copy())
        session = Session(
            disk,
            self.place,
            self.workload.sync,
            self.kernels,
            seed=random.randrange(1 << 30),
            models=list(allowed),
            snapshots=left.snapshots,
        )
        session.high = len(allowed) - 1
        model = read_model(session.db)
        base = len(session.models)
        session.models.append(model)
        for at, moment in enumerate(session.moments):
            session.moments[at] = _widened(moment, 0, base)
        session.high = base
        session.acknowledged = session.durable = 0
        name = next(iter(model), None)
        if name is None:
            session.create("docs")
        else:
            session.upsert(name, [2, "text-6", 78])
        session.steps()
        session.close()
        check_order(session.ordering)
        for moment in session.moments:
            self._stop_at(moment, session.models, depth + 1)


def _widened(moment: Moment, low: int, high: int) -> Moment:
    return replace(moment, what=f"{moment.what} (recovering)", power=low, death=low, high=high)


@contextmanager
def default_disk(disk: Any) -> Iterator[None]:
    """What works without a handle takes this disk."""
    before = registry.DEFAULT_SEAMS
    registry.DEFAULT_SEAMS = replace(before, disk=disk)
    try:
        yield
    finally:
        registry.DEFAULT_SEAMS = before


def _resumed(db: object, disk: SimulatedDisk, ordering: OrderingDisk, sweep: Sweep, models: list[Model]) -> Session:
    """A session on a database that is open already; it records nothing."""
    session = Session.closed(disk, sweep.place, sweep.workload.sync, sweep.kernels)
    session.seed, session.models, session.recording = 3_000, models, False
    session.ordering, session.db = ordering, db  # type: ignore[assignment]
    return session


def check_order(ordering: OrderingDisk) -> None:
    assert not ordering.violations, ordering.violations


def check_leftovers(session: Session) -> None:
    """Everything that is there is named by the catalog, or is the log, or is of a dropped collection being purged."""
    disk, place = session.disk, session.place
    top = disk.list(place)
    assert not [name for name in top if name.endswith(names.TEMPORARY)], top
    assert len([name for name in top if names.catalog_generation(name) is not None]) == 1, top
    assert not [name for name in disk.list(place / names.WAL_DIRECTORY) if name.endswith(names.TEMPORARY)]
    found = set(disk.list(place / names.SEGMENT_DIRECTORY))
    found = {name for name in found if (names.segment_numbers(name) or (0, 0))[0] not in session.engine.purge}
    stats = session.db.stats()
    named = {segment.name for collection in stats.collections.values() for segment in collection.segments}
    assert found == named, f"{found - named} are left over"


def sweep(
    workloads: tuple[Workload, ...],
    size: Size,
    seed: int,
    personalities: tuple[Personality, ...] = PERSONALITIES,
    tell: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Every workload on every file system."""
    whole = Tally()
    for workload in workloads:
        for personality in personalities:
            tally = Sweep(workload, personality, size, seed).run()
            whole.add(tally)
            tell(
                f"{workload.name} on {personality.name}: {tally.moments} moments, {tally.states} states, "
                f"{tally.recovered} distinct, {tally.nested} recoveries swept, {tally.seconds:.1f} s"
            )
    return whole
