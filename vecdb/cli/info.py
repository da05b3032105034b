"""`vecdb info`: what a database holds, read beside a writer if there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vecdb
from vecdb.cli import terminal
from vecdb.cli.sizes import print_sizes, sizes


def info(path: Path, as_json: bool) -> None:
    with vecdb.open(path, mode="r") as database:
        told = describe(database, path)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        show(told, path)


def describe(database: vecdb.Database, path: Path) -> dict[str, Any]:
    """Everything that is shown, as plain data."""
    stats = database.stats()
    collections = [describe_collection(database.get_collection(name)) for name in database.list_collections()]
    return {
        "path": str(path),
        "uuid": stats.uuid,
        "format": stats.format,
        "last_lsn": stats.last_lsn,
        "applied_lsn": stats.applied_lsn,
        "log_bytes": stats.log_bytes,
        "catalog_free_bytes": stats.catalog_free_bytes,
        "bytes": sizes(path),
        "collections": collections,
    }


def describe_collection(collection: vecdb.Collection) -> dict[str, Any]:
    known, stats = collection.info(), collection.stats()
    fields = [{"name": name, **field} for name, field in known["fields"].items()]
    segments = [
        {"name": one.name, "rows": one.rows, "deleted": one.deleted, "bytes": one.bytes, "indexes": one.indexes}
        for one in stats.segments
    ]
    return {
        "name": known["name"],
        "uuid": known["uuid"],
        "records": stats.records,
        "fields": fields,
        "segments": segments,
        "growing_rows": stats.growing_rows,
        "unindexed_rows": stats.unindexed,
    }


def show(told: dict[str, Any], path: Path) -> None:
    terminal.say(terminal.paint(f"{path}", terminal.BOLD))
    terminal.say(f"  vecdb format {told['format']}, uuid {told['uuid']}")
    behind = told["last_lsn"] - told["applied_lsn"]
    terminal.say(f"  log {terminal.size(told['log_bytes'])}, {behind:,} of {told['last_lsn']:,} batches in it alone")
    if not told["collections"]:
        terminal.heading("No collections")
    for collection in told["collections"]:
        show_collection(collection)
    terminal.heading("On disk")
    print_sizes(path)


def show_collection(collection: dict[str, Any]) -> None:
    terminal.heading(f"{collection['name']}: {collection['records']:,} records")
    for field in collection["fields"]:
        index = field["index"]
        kind = index if isinstance(index, str) else " ".join(f"{name}={value}" for name, value in index.items())
        dim = "dimension not known yet" if field["dim"] is None else f"{field['dim']} dimensions"
        terminal.say(f"  field {field['name']}: {dim}, {field['metric']}, {field['dtype']}, index {kind}")
    rows = [("segment", "rows", "deleted", "size", "indexes")]
    for one in collection["segments"]:
        kinds = "; ".join(f"{name}: {', '.join(found) or 'none yet'}" for name, found in one["indexes"].items())
        rows.append((one["name"], f"{one['rows']:,}", f"{one['deleted']:,}", terminal.size(one["bytes"]), kinds))
    if collection["growing_rows"]:
        rows.append(("growing", f"{collection['growing_rows']:,}", "", "", "scanned, in the log"))
    if len(rows) > 1:
        terminal.table(rows)
    if collection["unindexed_rows"]:
        terminal.say(f"  {collection['unindexed_rows']:,} rows wait for their index and are scanned meanwhile")
