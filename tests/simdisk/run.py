"""The full size: python -m tests.simdisk.run crash [--states N] [--pages N] [--processes 2] [--seed S]
                  python -m tests.simdisk.run faults

A round is every workload on every file system with one seed. What is done is kept in `.crash/`, by sources;
a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.rules.source import ROOT, SOURCES
from tests.simdisk import matrix
from tests.simdisk.disk import PERSONALITIES
from tests.simdisk.inject import WAYS
from tests.simdisk.pages import paged_workloads, sweep_pages
from tests.simdisk.results import write_section
from tests.simdisk.session import COMPILED, no_turns, scene
from tests.simdisk.sweep import Size, Sweep
from tests.simdisk.workloads import WORKLOADS, small_codes

FULL = Size(states=24, nested=400, nested_states=2, go_on=8)
PAGE_STATES = 400  # of the data pages of one commit, in one round
Unit = tuple[str, str, str, int]  # kind, workload, file system, seed
Done = dict[str, float]


def run_unit(unit: Unit) -> Done:
    """One workload on one file system; or its failed syncs; or its commits page by page."""
    logging.disable(logging.CRITICAL)
    kind, name, personality, seed = unit
    workload = next(workload for workload in WORKLOADS if workload.name == name)
    if kind == "pages":
        pages = sweep_pages(workload, seed, PAGE_STATES)
        return {"states": pages.states, "distinct": pages.distinct, "nested": 0, "seconds": pages.seconds}
    sweep = Sweep(workload, next(p for p in PERSONALITIES if p.name == personality), FULL, seed)
    tally = sweep.run() if kind == "disk" else sweep.run_failed_syncs()
    return {
        "states": tally.states,
        "distinct": tally.recovered,
        "nested": tally.nested,
        "seconds": tally.seconds,
    }


def rounds(kind: str, seed: int) -> Iterator[Unit]:
    """Units without end."""
    while True:
        if kind == "pages":
            yield from (("pages", workload.name, "", seed) for workload in paged_workloads())
        else:
            for workload in WORKLOADS:
                for personality in PERSONALITIES:
                    yield "disk", workload.name, personality.name, seed
                    if workload.name in ("batches", "checkpoint", "openings"):
                        yield "syncs", workload.name, personality.name, seed
        seed += 1


def progress_file(tests: Path, suffix: str) -> Path:
    """Where a long run keeps what is done, for the package and these tests as they are."""
    sources = [*SOURCES, *sorted(tests.glob("*.py")), ROOT / "tests" / "faults.py"]
    state = hashlib.blake2b(b"".join(path.read_bytes() for path in sources), digest_size=8).hexdigest()
    file = ROOT / ".crash" / f"{state}.{suffix}"
    file.parent.mkdir(exist_ok=True)
    return file


class Progress:
    """What is done, a line a unit, for the sources as they are."""

    def __init__(self) -> None:
        self.file = progress_file(ROOT / "tests" / "simdisk", "jsonl")
        self.done: dict[Unit, Done] = {}
        for line in self.file.read_text().splitlines() if self.file.exists() else []:
            unit, done = json.loads(line)
            self.done[tuple(unit)] = done

    def add(self, unit: Unit, done: Done) -> None:
        self.done[unit] = done
        with self.file.open("a") as file:
            file.write(json.dumps([unit, done]) + "\n")

    def total(self, pages: bool) -> Done:
        chosen = [done for unit, done in self.done.items() if (unit[0] == "pages") == pages]
        return {key: sum(done[key] for done in chosen) for key in ("states", "distinct", "nested", "seconds")}


def reach(progress: Progress, kind: str, wanted: int, seed: int, processes: int) -> None:
    """Runs units until as many states were judged. A failure ends the run, with what makes it again."""
    units = (unit for unit in rounds(kind, seed) if unit not in progress.done)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        while progress.total(kind == "pages")["states"] < wanted:
            running = {pool.submit(run_unit, unit): unit for _, unit in zip(range(2 * processes), units, strict=False)}
            for future in as_completed(running):
                progress.add(running[future], future.result())
                print(f"{running[future]}: {future.result()}", flush=True)


def crash(states: int, pages: int, seed: int, processes: int) -> None:
    for title, kind, wanted in (("Crash states", "disk", states), ("Commits of LMDB, page by page", "pages", pages)):
        if not wanted:
            continue
        progress = Progress()
        reach(progress, kind, wanted, seed, processes)
        done = progress.total(kind == "pages")
        rate = done["states"] / max(done["seconds"], 1e-9)
        cells = [*(f"{done[key]:,.0f}" for key in ("states", "distinct", "nested", "seconds")), f"{rate:,.0f}"]
        seeds = [unit[3] for unit in progress.done if (unit[0] == "pages") == (kind == "pages")]
        lines = [
            "| states judged | distinct, recovered | recoveries swept | seconds of one process | states a second |",
            "|---|---|---|---|---|",
            f"| {' | '.join(cells)} |",
            "",
            f"Seeds {min(seeds)} to {max(seeds)}, {processes} processes. No acknowledged write was lost.",
        ]
        write_section(title, lines)
        print("\n".join(lines))


def faults() -> None:
    logging.disable(logging.CRITICAL)
    COMPILED.wait("float32")
    start = time.perf_counter()
    with scene() as place, small_codes(), no_turns():
        covered = matrix.run(place, full=True, tell_line=lambda line: print(line, flush=True))
    assert not covered.missing(), f"no story reaches these sites: {covered.missing()}"
    short = {str(site): ways for site, ways in covered.ways.items() if ways != set(WAYS[site.method])}
    assert not short, f"not failed in every way: {short}"
    seconds = time.perf_counter() - start
    told = ", ".join(f"{count} {name}" for name, count in sorted(covered.told.items()))
    lines = [
        f"{len(covered.ways)} sites, all that the sources have; {covered.runs} runs in {seconds:.0f} s.",
        f"A user met {told}.",
        "",
        *(f"- {line}" for line in covered.lines()),
    ]
    write_section("Faults", lines)
    print("\n".join(lines[:2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["crash", "faults"])
    parser.add_argument("--states", type=int, default=2_000_000)
    parser.add_argument("--pages", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "faults":
        faults()
    else:
        crash(asked.states, asked.pages, asked.seed, asked.processes)


if __name__ == "__main__":
    main()
