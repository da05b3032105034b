"""Which lines and branches of the package do the tests reach?  python -m tests.reached [PATH ...]

Runs the suite (or the given tests) under coverage, in as many processes as `make test` does, those that tests start
included, and writes the shares to tests/RESULTS.md. Kernels are not counted: they are compiled, and a tracer sees no
line of them. A process that is killed tells nothing, so what only it reached counts as not reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.rules.source import ROOT
from tests.simdisk.results import write_section

PARTS = {  # what the table names, and how the paths of its files begin
    "all": ("vecdb/",),
    "storage": ("vecdb/storage/",),
    "files": ("vecdb/files/",),
    "engine/recover.py": ("vecdb/engine/recover.py",),
    "engine": ("vecdb/engine/",),
    "index, planner, filter": ("vecdb/index/", "vecdb/planner/", "vecdb/filter/"),
    "the rest": (),
}
WHOLE = ("storage", "files", "engine/recover.py")  # of which every branch shall be reached
Summary = Mapping[str, int]


def share(done: int, of: int) -> str:
    return f"{done:,} of {of:,}, {100 * done / of:.1f} %" if of else "none"


def row(title: str, files: Iterable[Summary]) -> str:
    sums = dict.fromkeys(("covered_lines", "num_statements", "covered_branches", "num_branches"), 0)
    for summary in files:
        for key in sums:
            sums[key] += summary[key]
    lines = share(sums["covered_lines"], sums["num_statements"])
    return f"| {title} | {lines} | {share(sums['covered_branches'], sums['num_branches'])} |"


def belongs(path: str, title: str) -> bool:
    if title == "the rest":
        return not any(path.startswith(starts) for other, starts in PARTS.items() if other != "all")
    return path.startswith(PARTS[title])


def table(report: Mapping[str, Any]) -> list[str]:
    """The lines of the section: a row for each part, then what is not reached where all of it shall be."""
    files = report["files"]
    lines = ["| | lines | branches |", "|---|---|---|"]
    for title in PARTS:
        lines.append(row(title, (found["summary"] for path, found in files.items() if belongs(path, title))))
    left = [
        f"- {path}: lines {found['missing_lines'] or 'none'}, branches {found['missing_branches'] or 'none'}"
        for path, found in sorted(files.items())
        if any(belongs(path, title) for title in WHOLE) and (found["missing_lines"] or found["missing_branches"])
    ]
    return [*lines, "", *(["Not reached:", "", *left] if left else [f"Every branch of {', '.join(WHOLE)} is reached."])]


def coverage(*given: str) -> None:
    subprocess.run([sys.executable, "-m", "coverage", *given], cwd=ROOT, check=True)


def main(tests: list[str]) -> None:
    coverage("erase")
    coverage("run", "-m", "pytest", "-n", "2", "--dist", "worksteal", "--timeout", "900", *tests)
    coverage("combine", "-q")
    with tempfile.TemporaryDirectory() as folder:
        coverage("json", "-q", "-o", f"{folder}/report.json")
        report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
    lines = table(report)
    write_section("Coverage", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
