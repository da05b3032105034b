"""`vecdb snapshot create | list | verify | restore | prune`: generations of snapshots in a home, and the way back."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vecdb
from vecdb.cli import terminal


def moment(text: str) -> int | dt.datetime:
    """A batch number, or a time in ISO 8601; UTC unless it says otherwise."""
    if text.isdecimal():
        return int(text)
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be a batch number (lsn), or a time such as 2026-01-31T12:00") from error


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def add_commands(commands: Any) -> None:
    snapshot = commands.add_parser(
        "snapshot",
        help="take, list, check, restore and prune snapshots",
        description="Snapshots of a database, taken beside its writer, in generations that a rule keeps.",
    )
    inner = snapshot.add_subparsers(dest="action", required=True, metavar="ACTION")

    def command(name: str, description: str) -> Any:
        made = inner.add_parser(name, help=description, description=description[0].upper() + description[1:] + ".")
        made.add_argument("--json", action="store_true", help="print JSON instead")
        return made

    home = "a directory, or a URI such as s3://bucket/backups"
    create = command("create", "take the next generation, beside the writer if there is one")
    create.add_argument("database", type=Path, help="the directory of the database")
    create.add_argument("home", help=f"where its generations are: {home}")
    create.add_argument("--file", action="store_true", help="one file instead of a directory")

    listing = command("list", "the snapshots in a home, oldest first")
    listing.add_argument("home", help=home)

    verify = command("verify", "read every byte of a snapshot and compare it with its checksums")
    verify.add_argument("snapshot", help="a directory, a file, or a URI")

    restore = command("restore", "make a database of a snapshot, in a new directory")
    restore.add_argument("snapshot", help="a directory, a file, or a URI")
    restore.add_argument("path", type=Path, help="the directory to be made")
    restore.add_argument("--until", type=moment, help="the last batch (lsn), or a time; default: all there is")
    restore.add_argument(
        "--wal-archive", type=Path, action="append", default=[], help="a directory with the log since; may be repeated"
    )

    prune = command("prune", "remove the generations that the rule does not keep")
    prune.add_argument("home", help=home)
    prune.add_argument("--hourly", type=count, default=24, help="hours of which one is kept (default: 24)")
    prune.add_argument("--daily", type=count, default=30, help="days of which one is kept (default: 30)")


def run_snapshot(given: argparse.Namespace) -> None:
    actions = {"create": create, "list": show_list, "verify": verify, "restore": restore, "prune": prune}
    actions[given.action](given)


def create(given: argparse.Namespace) -> None:
    with vecdb.open(given.database, mode="r") as database:
        made = database.snapshot_generation(given.home, one_file=given.file)
    if given.json:
        print_json(asdict(made))
        return
    terminal.say(made.path)
    told = f"{terminal.size(made.bytes)} in {made.files} files, {terminal.size(made.new_bytes)} of them new"
    terminal.say(f"  batch {made.lsn:,}: {told}")


def show_list(given: argparse.Namespace) -> None:
    found = vecdb.list_snapshots(given.home)
    if given.json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        terminal.say("no snapshots")
        return
    rows = [("snapshot", "taken (UTC)", "batch", "size", "new", "builds on")]
    for one in found:
        sizes = terminal.size(one.bytes), terminal.size(one.new_bytes)
        name = one.path.rstrip("/").rpartition("/")[2]
        rows.append((name, f"{one.time:%Y-%m-%d %H:%M:%S}", f"{one.lsn:,}", *sizes, ", ".join(one.bases)))
    terminal.table(rows)


def verify(given: argparse.Namespace) -> None:
    found = vecdb.verify_snapshot(given.snapshot)
    if given.json:
        print_json(asdict(found))
        return
    terminal.say(f"{found.path} is whole: {found.files} files, {terminal.size(found.bytes)}, up to batch {found.lsn:,}")
    terminal.say(f"  digest {found.digest}")


def restore(given: argparse.Namespace) -> None:
    report = vecdb.restore(given.snapshot, given.path, given.until, wal_archive=given.wal_archive or None)
    if given.json:
        print_json(asdict(report))
        return
    terminal.say(report.path)
    terminal.say(
        f"  {report.records:,} records up to batch {report.lsn:,}, {terminal.size(report.bytes)}, "
        f"{report.replayed:,} batches replayed, {report.queries} queries answered, {terminal.duration(report.seconds)}"
    )


def prune(given: argparse.Namespace) -> None:
    report = vecdb.prune_snapshots(given.home, hourly=given.hourly, daily=given.daily)
    if given.json:
        print_json(asdict(report))
        return
    for name in report.removed:
        terminal.say(f"removed {name}")
    for name in report.needed:
        terminal.say(f"kept {name}, which a later one builds on")
    told = f"{len(report.removed)} removed, {len(report.kept) + len(report.needed)} kept"
    terminal.say(f"{told}, {terminal.size(report.bytes)} given back")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))
