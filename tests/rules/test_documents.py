"""The documents name only paths and targets that exist, and their programs run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.source import ROOT

DOCUMENTS = sorted(ROOT.glob("*.md"))
REQUIRED = ("README.md", "ARCHITECTURE.md", "FORMAT.md", "DECISIONS.md", "CHANGELOG.md", "CONTRIBUTING.md")

# `vecdb/files/disk.py`, `benchmarks/`, [text](FORMAT.md): what stands in backticks or links and looks like a path of
# this repository. Names with <placeholders>, wildcards and files of a database directory are not ours to check.
TOP = [*sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."), ".ci"]
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z]+(?:-[a-z]+)*)\b")


def named_paths(text: str) -> set[str]:
    prose = FENCE.sub("", text)
    quoted = {part for part in CODE.findall(prose) if part.partition("/")[0] in TOP and "/" in part}
    files = {part for part in CODE.findall(prose) if re.fullmatch(r"[A-Z]{4,}\.md", part)}
    linked = {target for target in LINK.findall(prose) if "://" not in target}
    return {part for part in quoted | files | linked if not re.search(r"[<>*{}\s]", part)}


def programs(name: str) -> list[str]:
    path = ROOT / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [body for language, body in FENCE.findall(text) if language == "python"]


@pytest.mark.parametrize("name", REQUIRED)
def test_document_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_paths_exist(document: Path) -> None:
    missing = sorted(
        part for part in named_paths(document.read_text(encoding="utf-8")) if not (ROOT / part.split(":")[0]).exists()
    )
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_targets_exist(document: Path) -> None:
    """`make x` in code of a document is a target of the Makefile that explains itself."""
    text = document.read_text(encoding="utf-8")
    code = "\n".join([*CODE.findall(FENCE.sub("", text)), *(body for _, body in FENCE.findall(text))])
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(MAKE.findall(code)) <= targets


def test_every_target_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    documented = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[0].split())
    assert targets == documented == phony


def test_readme_programs_run(tmp_path: Path) -> None:
    """The Python blocks of the README, in order, as one program in an empty directory."""
    blocks = programs("README.md")
    assert blocks
    program = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(Path.home())},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
