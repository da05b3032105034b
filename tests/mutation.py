"""Do the tests notice?  python -m tests.mutation [--count 200] [--seed 1]

One small change at a time is made to the code that decides what is durable, in a copy of the sources, and the tests of
that code run. They must fail. A sample of all possible changes is taken, by seed; what survives is listed, because each
one is either a test that is missing or a change that changes nothing. What is done is kept in `.crash/`, by sources.

Changes: comparisons and their bounds, `and` and `or`, `not`, plus and minus, integers and truths, conditions always or
never true, statements left out, `return` of nothing.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rules.source import ROOT
from tests.simdisk.results import write_section
from tests.simdisk.run import progress_file

FILES = (
    "storage/wal.py",
    "storage/wal_scan.py",
    "storage/wal_salvage.py",
    "storage/catalog.py",
    "files/record.py",
    "engine/recover.py",
)
# From the quickest to the slowest; the first failure ends a run.
TESTS = (
    "tests/files/test_record.py",
    "tests/storage/test_wal_scan.py",
    "tests/storage/test_wal_salvage.py",
    "tests/storage/test_wal_writing.py",
    "tests/storage/test_wal_durable.py",
    "tests/storage/test_wal.py",
    "tests/rules/test_format.py",
    "tests/storage/test_lmdb_catalog.py",
    "tests/storage/test_compaction.py",
    "tests/storage/test_catalog.py",
    "tests/engine/test_open.py",
    "tests/crash/test_recovery.py",
    "tests/simdisk/test_stories.py",
    "tests/golden",
    "tests/processes/test_processes.py",
    "tests/engine/test_upgrade.py",
    "tests/engine/test_interval.py",
    "tests/engine/test_repair.py",
    "tests/crash/test_disk_full.py",
    "tests/simdisk/test_sweep.py",
    "tests/simdisk/test_matrix.py",
)
SECONDS = 900  # a run that takes longer has noticed: something waits for ever
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
JUNCTIONS: dict[type[ast.boolop], type[ast.boolop]] = {ast.And: ast.Or, ast.Or: ast.And}
SUMS: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
SILENT = {"reach", "debug", "info", "warning", "error", "exception"}  # leaving these out changes nothing that counts
Change = Callable[[ast.AST], ast.AST]


@dataclass(frozen=True)
class Mutant:
    """The `at`-th change that is possible in `file`."""

    file: str
    at: int
    what: str

    def source(self) -> str:
        tree = _parsed(self.file)
        places = list(_places(tree))
        _, parent, name, index, change = places[self.at]
        held = getattr(parent, name)
        node = held if index is None else held[index]
        changed = change(copy.deepcopy(node))
        if index is None:
            setattr(parent, name, changed)
        else:
            held[index] = changed
        return ast.unparse(ast.fix_missing_locations(tree))


Place = tuple[str, ast.AST, str, int | None, Change]  # what is changed, and where the node hangs


def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / "vecdb" / file).read_text(encoding="utf-8"))


def _places(tree: ast.AST) -> Iterator[Place]:
    """Everything that can be changed, in the order of the source. Annotations and texts stay."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        nodes = (
            [(None, value)] if isinstance(value, ast.AST) else list(enumerate(value)) if isinstance(value, list) else []
        )
        for index, node in nodes:
            if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr):
                for what, change in _changes(node):
                    yield f"line {getattr(node, 'lineno', '?')}: {what}", tree, name, index, change
                yield from _places(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        yield "comparison", _swapped_comparison
    elif isinstance(node, ast.BoolOp):
        yield type(node.op).__name__.lower(), _swapped_junction
    elif isinstance(node, ast.BinOp) and type(node.op) in SUMS:
        yield type(node.op).__name__.lower(), _swapped_sum
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", _operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        yield f"constant {node.value}", _other_constant
    elif isinstance(node, ast.If):
        yield "never true", lambda found: _with_test(found, value=False)
        yield "always true", lambda found: _with_test(found, value=True)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "returns nothing", lambda found: ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and _counts(node.value)):
        yield "left out", lambda found: ast.Pass()


def _counts(call: ast.expr) -> bool:
    if not isinstance(call, ast.Call):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name not in SILENT


def _swapped_comparison(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Compare)
    node.ops[0] = COMPARISONS[type(node.ops[0])]()
    return node


def _swapped_junction(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.BoolOp)
    node.op = JUNCTIONS[type(node.op)]()
    return node


def _swapped_sum(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.BinOp)
    node.op = SUMS[type(node.op)]()
    return node


def _operand(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.UnaryOp)
    return node.operand


def _other_constant(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int)
    return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)


def _with_test(node: ast.AST, *, value: bool) -> ast.AST:
    assert isinstance(node, ast.If)
    node.test = ast.Constant(value)
    return node


def all_mutants() -> list[Mutant]:
    return [Mutant(file, at, place[0]) for file in FILES for at, place in enumerate(_places(_parsed(file)))]


class Copy:
    """The sources beside themselves, to be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("vecdb", "tests", "docs"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]:
            shutil.copy(file, root)

    def notices(self, mutant: Mutant | None) -> bool:
        """Whether the tests fail with this change; None: with none."""
        file = None if mutant is None else self.root / "vecdb" / mutant.file
        before = "" if file is None else file.read_text(encoding="utf-8")
        if file is not None and mutant is not None:
            file.write_text(mutant.source(), encoding="utf-8")
        try:
            return self._run()
        finally:
            if file is not None:
                file.write_text(before, encoding="utf-8")

    def _run(self) -> bool:
        command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        try:
            done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return True
        return done.returncode != 0


def run(count: int, seed: int) -> None:
    mutants = all_mutants()
    chosen = random.Random(seed).sample(mutants, min(count, len(mutants)))
    file = progress_file(ROOT / "tests" / "simdisk", "mutants.json")
    done: dict[str, bool] = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        copied = Copy(Path(place) / "copy")
        assert done or not copied.notices(None), "the tests fail without a change"
        for mutant in chosen:
            name = f"{mutant.file}, {mutant.what} ({mutant.at})"
            if name not in done:
                done[name] = copied.notices(mutant)
                file.write_text(json.dumps(done))
                print(f"{len(done)}: {name}: {'noticed' if done[name] else 'SURVIVED'}", flush=True)
    tell(done, len(mutants), seed)


def tell(done: dict[str, bool], possible: int, seed: int) -> None:
    lines = [
        f"{len(done)} of {possible:,} possible changes, seed {seed}: {sum(done.values())} noticed, "
        f"{sum(done.values()) / len(done):.1%}.",
        "",
        "| file | changes | noticed |",
        "|---|---|---|",
    ]
    for file in FILES:
        found = [noticed for name, noticed in done.items() if name.startswith(f"{file},")]
        lines.append(f"| {file} | {len(found)} | {sum(found)} |")
    lines += ["", "Not noticed:", "", *(f"- {name}" for name, noticed in sorted(done.items()) if not noticed)]
    write_section("Mutation", lines)
    print(lines[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    run(asked.count, asked.seed)
