"""Every name in a database directory. Names are generated, never made from a user's string, and never reused."""

from __future__ import annotations

import re
from pathlib import Path

SUPERBLOCK = "VECDB"
LOCK = "LOCK"
WAL_DIRECTORY = "wal"
SEGMENT_DIRECTORY = "segments"
COLUMN_DIRECTORY = "columns"
TEMPORARY = ".tmp"
MANIFEST = "SNAPSHOT"  # its presence makes a directory a snapshot, which is only read
CATALOG_STREAM = "catalog.stream"
ONE_FILE = ".vecdb"  # suffix of a snapshot in one file

_CATALOG = re.compile(r"catalog-(\d{1,10})")
_WAL = re.compile(r"(\d{20})-([0-9a-f]{32})\.wal")
_SEGMENT = re.compile(r"(\d{1,10})-(\d{1,10})")
# Parts are lower case, so that no two names differ in case only; and none can be ".." or absolute.
_SNAPSHOT_FILE = re.compile(
    rf"{SUPERBLOCK}|catalog-\d{{1,10}}/data\.mdb|{re.escape(CATALOG_STREAM)}|wal/\d{{20}}-[0-9a-f]{{32}}\.wal"
    r"|segments/\d{1,10}-\d{1,10}/(?:[a-z0-9][a-z0-9_-]{0,62}/){0,4}[a-z][a-z0-9_]{0,62}\.npy"
)
_SCHEMA = re.compile(r"(\d{20})-(\d{20})\.schema")
_INDEX = re.compile(r"index-(\d{1,10})")


def catalog(generation: int) -> str:
    return f"catalog-{generation}"


def catalog_generation(name: str) -> int | None:
    found = _CATALOG.fullmatch(name)
    return int(found[1]) if found else None


def wal(start_lsn: int, unique: bytes) -> str:
    """`unique` is 16 random bytes: a name that was removed never comes back."""
    return f"{start_lsn:020d}-{unique.hex()}.wal"


def wal_start(name: str) -> int | None:
    found = _WAL.fullmatch(name)
    return int(found[1]) if found else None


def schema(lsn: int, time_ns: int) -> str:
    """Of a description of all collections in an archive, as they were from batch `lsn` and this time on."""
    return f"{lsn:020d}-{time_ns:020d}.schema"


def schema_numbers(name: str) -> tuple[int, int] | None:
    """(lsn, time_ns)"""
    found = _SCHEMA.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def segment(collection: int, number: int) -> str:
    return f"{collection}-{number}"


def segment_numbers(name: str) -> tuple[int, int] | None:
    found = _SEGMENT.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def field_directory(number: int) -> str:
    return f"field-{number}"


def column_directory(number: int) -> Path:
    return Path(COLUMN_DIRECTORY) / str(number)


def index_directory(field: int, number: int) -> Path:
    return Path(field_directory(field)) / f"index-{number}"


def index_number(name: str) -> int | None:
    found = _INDEX.fullmatch(name)
    return int(found[1]) if found else None


def is_snapshot_file(name: str) -> bool:
    """Whether a manifest may name such a file: relative, generated, without links to anywhere else."""
    return _SNAPSHOT_FILE.fullmatch(name) is not None


def is_index_file(name: str) -> bool:
    """Files of indexes are derived data: a database opens without them."""
    return any(index_number(part) is not None for part in name.split("/"))
