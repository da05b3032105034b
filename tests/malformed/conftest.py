"""One server for the tests of a session; it is started anew should it ever end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Server:
    """Asks the server process of `server.py`."""

    def __init__(self, directory: Path) -> None:
        self.template = directory / "template"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.malformed.server", str(directory)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended"
        return line

    def ask(self, damage: list[Any], mode: str) -> dict[str, str]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"damage": damage, "mode": mode}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, str] = json.loads(self.hear())
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("malformed"))
    yield started
    started.end()
