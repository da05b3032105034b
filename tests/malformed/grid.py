"""Every damage of every file for a writer and a reader, every file made on purpose, and a grid of cuts and flips.

    python -m tests.malformed.grid --offsets 48

prints what came of it and writes the counts to tests/RESULTS.md. The exit code is 1 if anything was not as it may be.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.malformed import crafted, damage
from tests.malformed.conftest import Server
from tests.malformed.rules import allowed_outcomes, complaint

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
BEGIN, END = "<!-- malformed: begin, written by make malformed -->", "<!-- malformed: end -->"

Asked = tuple[str, list[Any], str, tuple[str, ...], str | None]  # kind, damage, mode, what may follow, role


def everything(root: Path, offsets: int) -> Iterator[Asked]:
    for case in damage.all_cases():
        yield "damaged files", [case.damage, case.role], case.mode, allowed_outcomes(case), case.role
    for name, made in crafted.CASES.items():
        for mode in ("rw", "r"):
            yield "files made on purpose", ["crafted", name], mode, made.outcomes, None
    yield from grid(root, offsets)


def grid(root: Path, offsets: int) -> Iterator[Asked]:
    """Cuts and flipped bits, spread over each file, half of them in its first 256 bytes."""
    random = np.random.default_rng(0)
    for role in damage.ROLES:
        size = damage.place_of(root, role).stat().st_size
        head = random.integers(0, min(size, 256), offsets // 2)
        body = random.integers(0, size, offsets - len(head))
        for number, place in enumerate([*head.tolist(), *body.tolist()]):
            mode = ("rw", "r")[number % 2]
            cut = damage.Case(role, "half", mode)
            yield "cuts", ["cut", role, place], mode, (*allowed_outcomes(cut), "answer"), role
            flipped = damage.Case(role, "last", mode)
            bit = int(random.integers(0, 8))
            allowed = (*allowed_outcomes(flipped), "answer")
            yield "flipped bits", ["flip", role, place, bit], mode, allowed, role


def run(offsets: int) -> int:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    complaints = []
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory))
        for kind, wanted, mode, allowed, role in everything(server.template, offsets):
            answer = server.ask(wanted, mode)
            counts[kind][answer["outcome"]] += 1
            wrong = complaint(answer, allowed, role)
            if wrong is not None:
                complaints.append(f"{kind} {wanted} {mode}: {wrong}")
                print(complaints[-1], flush=True)
        server.end()
    text = table(counts, len(complaints))
    print(text)
    write(text)
    return 1 if complaints else 0


def table(counts: dict[str, collections.Counter[str]], complaints: int) -> str:
    outcomes = ["error", "answer", "prefix"]
    bad = ("untyped", "wrong", "changed", "killed", "hang")
    lines = [
        "## Malformed input",
        "",
        "Each is one opening of a damaged database in a process of its own. A typed error names the file and a remedy; "
        "a true answer is the whole of the data, or all but the end of the log where only that was cut off.",
        "",
        "| what | openings | typed error | true answer | true, log cut | crash, hang, wrong, untyped |",
        "|---|---|---|---|---|---|",
    ]
    for kind, found in [*counts.items(), ("all", sum(counts.values(), collections.Counter[str]()))]:
        cells = [found.total(), *(found[name] for name in outcomes), sum(found[name] for name in bad)]
        lines.append(f"| {kind} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", f"{complaints} of them were not as they may be."]
    return "\n".join(lines)


def write(text: str) -> None:
    """Only the part between the markers is this program's."""
    old = RESULTS.read_text() if RESULTS.exists() else "# Results of the long tests\n\nWritten by `make` targets.\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    RESULTS.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{text}\n{END}\n{after.lstrip()}".rstrip() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offsets", type=int, default=48, help="cuts and flips of each file")
    sys.exit(run(parser.parse_args().offsets))
