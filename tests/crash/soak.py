"""Half an hour of everything at once:  python -m tests.crash.soak [--minutes 30]

This process writes, reads, searches, seals, merges, takes snapshots, restores and verifies them, without a pause, on
one database. Beside that it opens and compares another one whose writers it kills. All the while it counts what it
holds of the system: descriptors, maps, threads, anonymous memory. After a warm-up these must stay as they are.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import vecdb
from tests.crash.forking import Forker
from tests.crash.ledger import DIM, State, after, check_consistent, found_state, make_batch, write
from tests.crash.test_kill import POINTS, Story
from tests.crash.writer import LIMITS
from tests.simdisk.results import write_section
from tests.simdisk.session import scene
from vecdb.engine import maintain, policy

WARM_UP = 1 / 3  # of the time; allocators take what threads need at most, and keep it
SAMPLE_SECONDS = 2.0
TOLD_EVERY = 15  # samples
# How far the last third of the samples may lie above the first third after the warm-up.
ALLOWED = {"descriptors": 3.0, "maps": 40.0, "threads": 2.0, "anonymous MiB": 12.0}
LIBC = ctypes.CDLL(None)
Held = dict[str, float]


def held() -> Held:
    """What this process holds of the system now. Allocators give back first what is free: sixteen arenas of glibc keep
    more and more of it when many short threads come and go, and it hides what is in use.
    """
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
    process = Path("/proc/self")
    anonymous = next(line for line in (process / "status").read_text().splitlines() if line.startswith("RssAnon"))
    return {
        "descriptors": float(len(os.listdir(process / "fd"))),
        "maps": float(len((process / "maps").read_text().splitlines())),
        "threads": float(threading.active_count()),
        "anonymous MiB": int(anonymous.split()[1]) / 1024,
    }


@dataclass
class Load:
    """The database that lives all the time. `failure` is what ended it too early."""

    place: Path
    ending: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = error
            raise

    def _run(self) -> None:
        state, number = State(), 0
        while not self.ending.is_set():
            with vecdb.open(self.place / "load") as db:  # again and again: closing must give everything back
                docs = db.get_or_create_collection("docs", dim=DIM)
                for _ in range(400):
                    batch = make_batch(number)
                    write(docs, batch)
                    state, number = after(state, batch), number + 1
                    self._read(docs, number)
                    if number % 40 == 0:
                        assert found_state(docs) == state
                        check_consistent(docs, state)
                        self.done["comparisons of everything"] += 1
                    if number % 100 == 0:
                        self._snapshot(db, state)
                    if self.ending.is_set():
                        break
                assert db.verify(deep=True).ok
                self.done["deep verifications"] += 1
            self.done["openings"] += 1
        self.done["batches written"] = number

    def _read(self, docs: vecdb.Collection, number: int) -> None:
        query = np.random.default_rng(number).standard_normal(DIM)
        docs.search(query, k=10)
        docs.search(query, k=10, where={"group": f"g{number % 5}"})
        docs.count({"nested.number": {"$gt": number % 300}})
        self.done["searches and counts"] += 3

    def _snapshot(self, db: vecdb.Database, state: State) -> None:
        home, back = self.place / "home", self.place / "back"
        taken = db.snapshot_generation(home)
        vecdb.verify_snapshot(taken.path)
        vecdb.restore(taken.path, back)
        with vecdb.open(back, maintenance="manual") as restored:
            assert found_state(restored.get_collection("docs")) == state
        shutil.rmtree(back)
        vecdb.prune_snapshots(home, hourly=1, daily=0)
        self.done["snapshots taken, restored, pruned"] += 1


def soak(minutes: float, seed: int) -> None:
    for name, value in LIMITS.items():
        setattr(policy, name, value)  # so small that segments are sealed and merged all the time
    maintain.TICK_SECONDS = 0.01
    end, samples = time.monotonic() + minutes * 60, list[Held]()
    with Forker() as forker, scene() as place:
        load = Load(place)
        thread = threading.Thread(target=load.run, name="load")
        sampler = threading.Thread(target=_sample, args=(samples, load.ending), name="sampler")
        story = Story(place / "killed", seed, forker)
        thread.start()
        sampler.start()
        try:
            while time.monotonic() < end and load.failure is None:
                kills = load.done["kills"]
                story.kill_once(POINTS[kills // 2 % len(POINTS)] if kills % 2 else None)
                load.done["kills"] += 1
        finally:
            load.ending.set()
            thread.join()
            sampler.join()
    assert load.failure is None, load.failure
    tell(minutes, load.done, samples)


def _sample(samples: list[Held], ending: threading.Event) -> None:
    while not ending.wait(SAMPLE_SECONDS):
        samples.append(held())
        if len(samples) % TOLD_EVERY == 0:
            print({name: round(value) for name, value in samples[-1].items()}, flush=True)


def tell(minutes: float, done: Counter[str], samples: list[Held]) -> None:
    warm = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    lines = [
        f"{minutes:g} minutes: " + ", ".join(f"{count:,} {what}" for what, count in done.most_common()) + ".",
        "",
        "| held by the process | after the warm-up | at the end | most |",
        "|---|---|---|---|",
    ]
    grown = []
    for name, allowed in ALLOWED.items():
        first = statistics.median(sample[name] for sample in warm[:third])
        last = statistics.median(sample[name] for sample in warm[-third:])
        lines.append(f"| {name} | {first:,.0f} | {last:,.0f} | {max(sample[name] for sample in samples):,.0f} |")
        if last > first + allowed:
            grown.append(f"{name} went from {first:.1f} to {last:.1f}")
    verdict = f"Grown: {'; '.join(grown)}." if grown else "Nothing grew."
    lines += ["", f"Medians of the first and the last third of the samples after the warm-up. {verdict}"]
    print("\n".join(lines), flush=True)
    write_section("Soak", lines)
    assert not grown, verdict


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    soak(asked.minutes, asked.seed)
