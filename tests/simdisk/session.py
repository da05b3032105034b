"""A database on a simulated disk, the model beside it, and the moments at which the machine may stop.

The model lives outside the disk: what the collections hold after each operation, as plain dictionaries. Every moment
keeps the state of the disk with the operations that must be there (acknowledged) and the one that may be (in flight).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest

import vecdb
from tests.faults import OrderingDisk
from tests.simdisk.disk import SimulatedDisk, State
from vecdb.database import Database
from vecdb.engine import maintain, registry
from vecdb.engine.kernels import Kernels
from vecdb.engine.registry import acquire
from vecdb.files.disk import Disk
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions

DIM = 24
Sync = Literal["full", "interval", "none"]
Ids = list[Any]
Held = dict[Any, tuple[bytes, dict[str, Any]]]  # id -> (vector, payload)
Model = dict[str, Held]


class TickingClock:
    """A millisecond for every look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000

    def time_ns(self) -> int:
        self.now += 1_000_000
        return self.now

    def monotonic(self) -> float:
        return self.time_ns() / 1e9


class SeededRandom:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def bytes(self, count: int) -> bytes:
        return self.random.bytes(count)


class Numpy(Kernels):
    """NumPy answers every query: no thread loads kernels behind a simulated run."""

    def __init__(self) -> None:
        super().__init__(1)
        self.queries = -(1 << 60)


NUMPY = Numpy()
COMPILED = Kernels(1)


@contextmanager
def scene() -> Iterator[Path]:
    """A real, empty directory: the lock is a real one, and the process knows an open database by its directory."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="vecdb-sim-", dir=memory) as place:
        yield Path(place)


@contextmanager
def no_turns() -> Iterator[None]:
    """`time.sleep(0)` gives other threads a turn; one simulated process has none, and the system call is slow."""
    real = time.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: real(seconds) if seconds else None)
        yield


def open_on(
    disk: Disk,
    place: Path,
    *,
    seed: int = 1,
    sync: Sync = "full",
    kernels: Kernels = NUMPY,
    mode: str = "rw",
    wal_archive: str | None = None,
) -> Database:
    options = DatabaseOptions(sync, 60_000, "manual", 1, wal_archive)
    engine = acquire(place, mode, options, Seams(disk, TickingClock(), SeededRandom(seed)))
    assert engine.references == 1, "a database of an earlier process is still open"
    engine.kernels = kernels
    return Database(engine)


def abandon(db: Database) -> None:
    """The process dies: nothing more reaches the disk. Frees what the real process holds for a simulated one."""
    engine = db._engine
    assert engine is not None
    db._engine = None
    for key in [key for key, other in registry._open.items() if other is engine]:
        del registry._open[key]
    registry._all.discard(engine)
    engine.closed = True
    if engine.syncer is not None:
        engine.syncer.stop()
    if engine.executor is not None:
        engine.executor.shutdown(wait=True)
    if engine.lock is not None:
        engine.lock.release()


def make_vector(*seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


QUERY = make_vector(7)


def make_payload(number: int, seed: int) -> dict[str, Any]:
    return {"n": number, "even": seed % 2 == 0, "tags": [f"t{number % 3}", f"s{seed % 2}"], "note": "x" * (seed % 90)}


def key_of_model(model: Model) -> int:
    return hash(
        frozenset(
            (
                name,
                frozenset(
                    (key, vector, json.dumps(payload, sort_keys=True)) for key, (vector, payload) in held.items()
                ),
            )
            for name, held in model.items()
        )
    )


@dataclass(frozen=True)
class Taken:
    """A snapshot: it must be there and whole if `done`, else it may be, whole too. It holds one of `allowed`."""

    name: str
    allowed: tuple[Model, ...]
    done: bool


@dataclass(frozen=True)
class Moment:
    """The machine stops here. Models `power` to `high` are allowed after a power loss, `death` to `high` after a kill.

    `call` is the number of calls that changed something so far, `what` the last of them.
    """

    state: State
    call: int
    what: str
    power: int
    death: int
    high: int
    snapshots: tuple[Taken, ...] = ()


@dataclass
class Session:
    """Runs operations on a database, keeps the models, and collects moments."""

    disk: SimulatedDisk
    place: Path
    sync: Sync = "full"
    kernels: Kernels = NUMPY
    seed: int = 1
    models: list[Model] = field(default_factory=lambda: [{}])
    moments: list[Moment] = field(default_factory=list)
    calls: int = 0
    acknowledged: int = 0
    durable: int = 0
    high: int = 0
    openings: int = 0
    recording: bool = True
    wal_archive: str | None = None
    snapshots: tuple[Taken, ...] = ()

    def __post_init__(self) -> None:
        self._attach()
        self.open()

    def _attach(self) -> None:
        self.disk.on_change = self._changed
        self.ordering = OrderingDisk(self.disk)  # type: ignore[arg-type]

    @classmethod
    def closed(cls, disk: SimulatedDisk, place: Path, sync: Sync = "full", kernels: Kernels = NUMPY) -> Self:
        """A session that has opened nothing yet."""
        session = object.__new__(cls)
        session.disk, session.place, session.sync, session.kernels = disk, place, sync, kernels
        session.seed, session.models, session.moments, session.recording = 1, [{}], [], True
        session.calls = session.acknowledged = session.durable = session.high = session.openings = 0
        session.wal_archive, session.snapshots = None, ()
        session._attach()
        return session

    @property
    def is_open(self) -> bool:
        db = getattr(self, "db", None)
        return db is not None and db._engine is not None

    # ---- moments ----------------------------------------------------------------------------------------------------
    def _changed(self, name: str, path: Path) -> None:
        self.calls += 1
        self._record(f"{name} {path.name}")

    def _record(self, what: str) -> None:
        if self.recording:
            numbers = self.calls, what, self.durable, self.acknowledged, self.high
            self.moments.append(Moment(self.disk.state.copy(), *numbers, self.snapshots))

    def _acknowledge(self, count: int, *, durable: bool) -> None:
        self.acknowledged = count
        if durable:
            self.durable = count
        self._record("acknowledged")

    # ---- life -------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        self.openings += 1
        seed = self.seed * 1000 + self.openings
        self.db = self._do(lambda: self._open(seed))

    def _open(self, seed: int) -> Database:
        return open_on(
            self.ordering,
            self.place,
            seed=seed,
            sync=self.sync,
            kernels=self.kernels,
            wal_archive=self.wal_archive,
        )

    def _do(self, act: Callable[[], Any]) -> Any:
        """Everything that a session does with the database goes through here."""
        return act()

    def close(self) -> None:
        self._do(self.db.close)
        self._acknowledge(self.high, durable=True)

    def reopen(self) -> None:
        self.close()
        self.open()

    def _change(self, model: Model, act: Callable[[], object], *, batch: bool = True) -> None:
        self.models.append(model)
        self.high += 1
        self._do(act)
        self._acknowledge(self.high, durable=self.sync == "full" or not batch)

    @property
    def model(self) -> Model:
        return self.models[-1]

    def _with(self, name: str, held: Held) -> Model:
        return {**self.model, name: held}

    # ---- writes -----------------------------------------------------------------------------------------------------
    def upsert(self, name: str, ids: Ids) -> None:
        held, act = self.prepare_upsert(name, ids)
        self._change(self._with(name, held), act)

    def prepare_upsert(self, name: str, ids: Ids) -> tuple[Held, Callable[[], object]]:
        """(what the collection holds after it, the call)."""
        seed = len(self.models) * 100
        held = dict(self.model[name])
        vectors = np.array([make_vector(self.seed, seed, number) for number in range(len(ids))])
        payloads = [make_payload(number, seed + number) for number in range(len(ids))]
        for key, vector, payload in zip(ids, vectors, payloads, strict=True):
            held[key] = (vector.tobytes(), payload)
        return held, lambda: self.db.get_collection(name).upsert(ids, vectors, payloads)

    def patch(self, name: str, ids: Ids) -> None:
        held, seed = dict(self.model[name]), len(self.models)
        patches = [{"note": f"patched {seed}", "n": seed + number} for number in range(len(ids))]
        for key, patch in zip(ids, patches, strict=True):
            if key in held:
                held[key] = (held[key][0], {**held[key][1], **patch})
        self._change(self._with(name, held), lambda: self.db.get_collection(name).update(ids, payloads=patches))

    def move(self, name: str, ids: Ids) -> None:
        """New vectors, same payloads."""
        held, seed = dict(self.model[name]), len(self.models) * 100
        vectors = np.array([make_vector(self.seed, seed, number) for number in range(len(ids))])
        for key, vector in zip(ids, vectors, strict=True):
            if key in held:
                held[key] = (vector.tobytes(), held[key][1])
        self._change(self._with(name, held), lambda: self.db.get_collection(name).update(ids, vectors))

    def delete(self, name: str, ids: Ids) -> None:
        held = {key: value for key, value in self.model[name].items() if key not in ids}
        self._change(self._with(name, held), lambda: self.db.get_collection(name).delete(ids))

    def delete_where(self, name: str, tag: str) -> None:
        held = {key: value for key, value in self.model[name].items() if tag not in value[1]["tags"]}
        self._change(self._with(name, held), lambda: self.db.get_collection(name).delete(where={"tags": tag}))

    # ---- schema -----------------------------------------------------------------------------------------------------
    def create(self, name: str) -> None:
        self._change(self._with(name, {}), lambda: self.db.create_collection(name, dim=DIM, metric="l2"), batch=False)

    def drop(self, name: str) -> None:
        model = {other: held for other, held in self.model.items() if other != name}
        self._change(model, lambda: self.db.delete_collection(name), batch=False)

    def rename(self, name: str, new_name: str) -> None:
        model = {new_name if other == name else other: held for other, held in self.model.items()}
        self._change(model, lambda: self.db.rename_collection(name, new_name), batch=False)

    # ---- upkeep: no model changes -----------------------------------------------------------------------------------
    def set_index(self, name: str, index: Any) -> None:
        self._do(lambda: self.db.get_collection(name).set_index(index))

    def flush(self) -> None:
        self._do(lambda: self.db.flush())
        self._acknowledge(self.high, durable=True)

    def steps(self, count: int = 1_000) -> list[str]:
        """Maintenance as if the database had been idle for long."""
        done: list[str] = []
        while len(done) < count and (step := self._do(self._step)) is not None:
            done.append(step)
            if step == "checkpoint":
                self._acknowledge(self.high, durable=True)
        return done

    def _step(self) -> str | None:
        return maintain.run_step(self.engine, force=True)

    def snapshot(self, name: str, base: str | None = None) -> None:
        """In a directory beside the database, of everything that is acknowledged now."""
        before, model = self.snapshots, (self.models[self.high],)
        self.snapshots = (*before, Taken(name, model, done=False))
        target, earlier = self.place.with_name(name), None if base is None else self.place.with_name(base)
        self._do(lambda: self.db.snapshot(target, base=earlier))
        self.snapshots = (*before, Taken(name, model, done=True))
        self._record("snapshot taken")

    def compact(self) -> None:
        self._do(self._compact)

    def _compact(self) -> None:
        with self.engine.maintenance_lock:
            maintain.compact_catalog(self.engine)

    @property
    def engine(self) -> Any:
        return self.db._engine


def read_model(db: Database) -> Model:
    """Everything that the database holds, byte for byte."""
    found: Model = {}
    for name in db.list_collections():
        held: Held = {}
        for record in db.get_collection(name).get(include=("payloads", "vectors")):
            assert record.id not in held, f"{record.id!r} is there twice"
            held[record.id] = (np.asarray(record.vector).tobytes(), record.payload)
        found[name] = held
    return found


def check_reads(db: Database, model: Model) -> None:
    """Every other way of reading agrees with what `read_model` found."""
    for name, held in model.items():
        collection = db.get_collection(name)
        assert collection.count() == len(held)
        ids = list(held)
        assert [record.id for record in collection.get(ids[::3])] == ids[::3]
        _check_search(collection, held, None, ids)
        _check_search(collection, held, {"even": True}, [key for key in ids if held[key][1]["even"]])


def _check_search(collection: vecdb.Collection, held: Held, where: Any, allowed: Ids) -> None:
    """Brute force over what is there; distances of random vectors have no ties."""
    query = QUERY
    hits = collection.search(query, k=5, where=where, exact=True)
    if not allowed:
        assert len(hits) == 0
        return
    matrix = np.frombuffer(b"".join(held[key][0] for key in allowed), np.float32).reshape(len(allowed), DIM)
    distances = ((matrix.astype(np.float64) - query) ** 2).sum(axis=1)
    order = np.argsort(distances)[:5].tolist()
    assert list(hits.ids) == [allowed[row] for row in order]
    assert (np.abs(hits.distances - distances[order]) <= 1e-4 * distances[order]).all(), (hits.distances, distances)
