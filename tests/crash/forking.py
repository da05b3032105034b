"""Processes that cost a fork instead of a start of Python and of everything that it imports.

A parent process imports vecdb once, without a thread or an open database, and forks a child for each request:

    with Forker() as forker:
        child = forker.start("writer", path, "0", kill="log:appended 2")

The child runs `main()` of the named module of this package, with its own descriptors for output and errors, and is
killed like any process. Requests come over a socket, with the descriptors; process ids and exit codes go back.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, BinaryIO, Self

ROOT = Path(__file__).parents[2]
MODULES = ("writer", "snapshotter")
MESSAGE = 1 << 16


class Child:
    """What a test needs of a process: output, errors, killing and the exit code, as `subprocess.Popen` has them."""

    def __init__(self, pid: int, answers: socket.socket, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self.pid, self.answers, self.stdout, self.stderr = pid, answers, stdout, stderr
        self.returncode: int | None = None
        self.signalled = False

    def send_signal(self, number: int) -> None:
        """Once: the parent reaps a child at once, and lines that it wrote before may still be read then."""
        if not self.signalled:
            self.signalled = True
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself, which its exit code will tell
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = json.loads(self.answers.recv(MESSAGE))
        return self.returncode

    def errors(self) -> str:
        """What it wrote to its standard error."""
        self.stderr.seek(0)
        return self.stderr.read().decode()

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()


class Forker:
    """One child at a time: the next one starts when `wait` of the one before returned."""

    def __init__(self) -> None:
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forking", str(other.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[other.fileno()],
        )
        other.close()

    def start(self, module: str, *arguments: str, kill: str = "") -> Child:
        read, write = os.pipe()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  the child's owner closes it
        asked = json.dumps([module, list(arguments), kill or "never 0"]).encode()
        socket.send_fds(self.socket, [asked], [write, stderr.fileno()])
        os.close(write)
        pid = int(json.loads(self.socket.recv(MESSAGE)))
        return Child(pid, self.socket, os.fdopen(read, "rb"), stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.wait()


def serve(requests: socket.socket) -> None:
    mains = {name: importlib.import_module(f"tests.crash.{name}").main for name in MODULES}
    load_kernels()
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, MESSAGE, 2)
        if not data:
            return
        module, arguments, kill = json.loads(data)
        pid = os.fork()
        if pid == 0:
            requests.close()
            run(mains[module], arguments, kill, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps(pid).encode())
        requests.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def load_kernels() -> None:
    """What index points need; on this thread, which is the only one that a fork takes along."""
    from vecdb.index.warm import warm_up

    warm_up(dtype="float32")


def run(main: Any, arguments: list[str], kill: str, descriptors: list[int]) -> None:
    """In the child; never returns."""
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv[1:] = arguments
    os.environ["VECDB_KILL"] = kill
    try:
        main()
    finally:
        traceback.print_exc()  # what main raised, for the owner to show
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
