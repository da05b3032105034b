"""The commands as a user runs them: in a process of their own, with their exit codes and what they print where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from tests.rules.source import ROOT

RECORDS = 600


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vecdb", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=240)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A database that the demo wrote, and what it printed."""
    path = tmp_path_factory.mktemp("cli") / "data"
    return path, run("demo", "--path", str(path), "--records", str(RECORDS))


def test_demo_writes_searches_and_finds_all_again(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, done = demo
    assert done.returncode == 0, done.stderr
    assert f"{RECORDS:,} records in batches" in done.stdout
    assert "searches give the same ids and distances as before" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "a pipe gets no colours"
    assert len(re.findall(r"^    \d\.\d{3}  ", done.stdout, re.MULTILINE)) >= 6, "hits are listed"
    with vecdb.open(path, mode="r") as database:
        assert database.get_collection("docstrings").count() == RECORDS


def test_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "vecdb", "demo", "--records", "100"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("vecdb-demo-*")) == []


def test_demo_spares_a_directory_in_use(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = run("demo", "--path", str(demo[0]), "--records", "10")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not empty" in done.stderr
    with vecdb.open(demo[0], mode="r") as database:
        assert database.get_collection("docstrings").count() == RECORDS


def test_demo_says_how_to_get_a_model(tmp_path: Path) -> None:
    (tmp_path / "sentence_transformers.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "vecdb", "demo", "--model", "some-model", "--records", "10"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 1
    assert "pip install 'vecdb-engine[model]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_info_as_text(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = run("info", str(demo[0]))
    assert done.returncode == 0, done.stderr
    for word in ("docstrings", f"{RECORDS:,}", "384", "cosine", "vectors", "together"):
        assert word in done.stdout


def test_info_as_json(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = run("info", str(demo[0]), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (collection,) = told["collections"]
    assert collection["name"] == "docstrings"
    assert collection["records"] == RECORDS
    (field,) = collection["fields"]
    assert (field["dim"], field["metric"]) == (384, "cosine")
    assert sum(told["bytes"].values()) > 384 * 4 * RECORDS
    assert told["format"] == 1


def test_info_beside_a_writer(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "data") as database:
        database.create_collection("letters", dim=2).upsert(ids=["a"], vectors=[[1.0, 0.0]])
        done = run("info", str(tmp_path / "data"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["collections"][0]["records"] == 1


def test_info_changes_nothing(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = (path for path in demo[0].rglob("*") if path.is_file() and path.name != "lock.mdb")
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    assert run("info", str(demo[0])).returncode == 0
    assert state() == before


@pytest.mark.parametrize("options", [[], ["--dtype", "float16"]])
def test_warmup_says_where_the_cache_is(options: list[str]) -> None:
    done = run("warmup", *options)
    assert done.returncode == 0, done.stderr
    assert "compiled" in done.stdout


@pytest.mark.parametrize("content", [None, "not a database"])
def test_info_of_something_else_fails_clearly(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "other"
    if content is not None:
        path.mkdir()
        (path / "VECDB").write_text(content)
    done = run("info", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vecdb: ")
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["info"], ["demo", "--records", "0"], ["demo", "--records", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage: vecdb" in done.stderr


def test_help_and_version() -> None:
    for command in ([], ["demo"], ["info"], ["warmup"]):
        done = run(*command, "--help")
        assert done.returncode == 0
        assert "usage: vecdb" in done.stdout
    assert run("--version").stdout.strip() == f"vecdb {vecdb.__version__}"
