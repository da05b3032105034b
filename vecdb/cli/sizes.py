"""What takes how many bytes of a database directory, told from the names of its files (FORMAT.md)."""

from __future__ import annotations

from pathlib import Path

from vecdb.cli import terminal

PARTS = ("vectors", "indexes", "payloads and ids", "columns for filters", "order of the rows", "log", "other")


def part_of(file: Path) -> str:
    """The part that a file belongs to; `file` is relative to the database directory."""
    top, *rest = file.parts
    if top.startswith("catalog-"):
        return "payloads and ids"
    if top == "wal":
        return "log"
    if top != "segments":
        return "other"
    if any(name.startswith("index-") for name in rest):
        return "indexes"
    if "columns" in rest:
        return "columns for filters"
    return "vectors" if len(rest) > 2 else "order of the rows"


def sizes(path: Path) -> dict[str, int]:
    """Bytes that the file system holds, by part. Files that vanish meanwhile (a merge) count nothing."""
    found = dict.fromkeys(PARTS, 0)
    for file in path.rglob("*"):
        try:
            if file.is_file():
                found[part_of(file.relative_to(path))] += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


def print_sizes(path: Path) -> None:
    found = {name: count for name, count in sizes(path).items() if count}
    total = sum(found.values())
    rows = [(name, terminal.size(count), f"{count / total:.0%}") for name, count in found.items()]
    terminal.table([("part", "size", "share"), *rows, ("together", terminal.size(total), "")])
