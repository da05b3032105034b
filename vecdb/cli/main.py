"""The command line: `vecdb demo`, `vecdb info`, `vecdb snapshot`, `vecdb verify`, `vecdb repair`, `vecdb warmup`.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted. `vecdb verify`
and `vecdb repair` have their own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vecdb import __version__
from vecdb.cli.snapshot import add_commands, run_snapshot
from vecdb.errors import VecdbError
from vecdb.types import VECTOR_DTYPES

RECORDS = 30_000


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="vecdb", description="The vector database that you import: its command line.")
    top.add_argument("--version", action="version", version=f"vecdb {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="write, search, close and reopen a database of real text",
        description="Makes a database of the docstrings on this machine, searches it by text, with filters and "
        "without, closes it, opens it again and checks that everything is there.",
    )
    demo.add_argument("--path", type=Path, help="keep the database in this directory (default: a temporary one)")
    demo.add_argument("--model", help="embed with this sentence-transformers model instead of the built-in embedder")
    demo.add_argument("--records", type=positive, default=RECORDS, help=f"at most this many (default: {RECORDS:,})")

    info = commands.add_parser(
        "info",
        help="what is in a database",
        description="Opens a database read-only, beside a writer if there is one, and shows what it holds.",
    )
    info.add_argument("path", type=Path, help="the directory of the database")
    info.add_argument("--json", action="store_true", help="print one JSON object instead")

    add_commands(commands)

    verify = commands.add_parser(
        "verify",
        help="whether a database is what was written to it",
        description="Looks at every file, id and index of a database, beside a writer if there is one, and changes "
        "nothing. Exit codes: 0 sound, 1 damage was found, 2 the database cannot be opened.",
    )
    verify.add_argument("path", type=Path, help="the directory of the database")
    verify.add_argument("--deep", action="store_true", help="also digests, every payload, and a sample of searches")
    verify.add_argument("--json", action="store_true", help="print one JSON object instead")

    repair = commands.add_parser(
        "repair",
        help="write what can be read of a damaged database to a new one",
        description="Writes everything that can be read to a new directory and says exactly what was lost. The damaged "
        "database is not changed. Exit codes: 0 nothing was lost, 1 something was, 2 it could not be done.",
    )
    repair.add_argument("path", type=Path, help="the directory of the damaged database")
    repair.add_argument("new", type=Path, help="the directory to write, which must not exist")

    warmup = commands.add_parser(
        "warmup",
        help="compile the kernels ahead of time",
        description="Compiles every kernel and keeps the result in the cache, once per machine, so that no program "
        "waits for it later.",
    )
    warmup.add_argument(
        "--dtype", choices=VECTOR_DTYPES, default="float32", help="of the stored vectors (default: float32)"
    )
    return top


def run(given: argparse.Namespace) -> int:
    """The exit code."""
    # Each command is imported when it is asked for: `vecdb info` need not load the demo.
    if given.command == "demo":
        from vecdb.cli.demo import demo

        demo(given.path, given.model, given.records)
    elif given.command == "info":
        from vecdb.cli.info import info

        info(given.path, given.json)
    elif given.command == "snapshot":
        run_snapshot(given)
    elif given.command == "verify":
        from vecdb.cli.verify import verify

        return verify(given.path, given.deep, given.json)
    elif given.command == "repair":
        from vecdb.cli.repair import repair

        return repair(given.path, given.new)
    else:
        from vecdb.cli.warmup import warmup

        warmup(given.dtype)
    return 0


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        return run(given)
    except VecdbError as error:
        print(f"vecdb: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not a failure; nothing more may be written to stdout.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
