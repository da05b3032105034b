"""Any number of kills:  python -m tests.crash.run [--kills 5000] [--seed 1]

Rounds of a fresh database each: writers killed at random and at named points beside a reader, then processes killed
that take and restore snapshots. What is done is kept in `.crash/`, by sources: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from tests.crash.forking import Forker
from tests.crash.test_kill import POINTS, Story, end_reader, start_reader
from tests.crash.test_snapshot_kill import POINTS as SNAPSHOT_POINTS
from tests.crash.test_snapshot_kill import Trial
from tests.simdisk.results import write_section
from tests.simdisk.run import progress_file
from tests.simdisk.session import scene

ROUND = 100  # kills of writers of one database, every second one at a named point
SNAPSHOTS = 10  # kills of processes that take snapshots after that
RANDOM = "at random"
Done = dict[str, int]


def round_of_writers(place: Path, seed: int, forker: Forker, done: Counter[str]) -> None:
    story = Story(place / "db", seed, forker)
    reader = start_reader(story.path)
    try:
        for number in range(ROUND):
            point = POINTS[(seed + number // 2) % len(POINTS)] if number % 2 else None
            story.kill_once(point)
            done[point or RANDOM] += 1
        end_reader(reader, story.number)
    finally:
        reader.kill()
        reader.wait()


def round_of_snapshots(place: Path, seed: int, forker: Forker, done: Counter[str]) -> None:
    trial = Trial(place, seed, forker)
    for number in range(SNAPSHOTS):
        point = SNAPSHOT_POINTS[(seed + number // 2) % len(SNAPSHOT_POINTS)] if number % 2 else None
        trial.check(trial.run(point))
        done[f"{point or RANDOM}, with snapshots"] += 1


def kill(wanted: int, seed: int) -> None:
    file = progress_file(Path(__file__).parent, "kills.json")
    rounds: dict[str, Done] = json.loads(file.read_text()) if file.exists() else {}
    start = time.monotonic()
    while (count := sum(sum(done.values()) for done in rounds.values())) < wanted:
        seed = max(seed, *(int(done) + 1 for done in rounds)) if rounds else seed
        found: Counter[str] = Counter()
        with Forker() as forker:
            for act in (round_of_writers, round_of_snapshots):
                with scene() as place:
                    act(place, seed, forker, found)
        rounds[str(seed)] = dict(found)
        file.write_text(json.dumps(rounds))
        print(f"seed {seed}: {count + found.total()} kills, {time.monotonic() - start:.0f} s", flush=True)
    tell(rounds)


def tell(rounds: dict[str, Done]) -> None:
    total: Counter[str] = Counter()
    for done in rounds.values():
        total.update(done)
    lines = [
        f"{total.total():,} processes killed with SIGKILL, in {len(rounds)} rounds (seeds {min(map(int, rounds))} "
        f"to {max(map(int, rounds))}), beside a process that reads. No acknowledged write was lost, no batch was "
        "halved, no snapshot with its name was anything but whole.",
        "",
        "| killed | times |",
        "|---|---|",
        *(f"| {point} | {count:,} |" for point, count in total.most_common()),
    ]
    write_section("Kills", lines)
    print(lines[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    kill(asked.kills, asked.seed)
