"""vecdb: the vector database that you import. `vecdb.open("./data")` and go."""

from vecdb.collection import Collection
from vecdb.database import Database, open, repair, verify
from vecdb.engine.explanation import Explanation
from vecdb.engine.findings import Finding, IndexCheck, RepairedCollection, RepairReport, VerifyReport
from vecdb.engine.report import CollectionStats, DatabaseStats
from vecdb.engine.resolve import REMOVE
from vecdb.engine.restore import RestoreReport, restore, verify_snapshot
from vecdb.engine.retention import PruneReport, list_snapshots, prune_snapshots
from vecdb.engine.snapshot import SnapshotInfo
from vecdb.errors import (
    AlreadyExists,
    Closed,
    Corrupted,
    FilterError,
    InvalidInput,
    Locked,
    NotFound,
    Poisoned,
    ReadOnly,
    StorageFailed,
    UnsupportedFormat,
    VecdbError,
)
from vecdb.filter.builder import F
from vecdb.index.warm import warm_up
from vecdb.options import HNSW, IVF, IVFPQ, Columns, Flat, VectorField
from vecdb.results import Hit, Hits, Record, Records

__version__ = "0.1.0"

__all__ = [
    "HNSW",
    "IVF",
    "IVFPQ",
    "REMOVE",
    "AlreadyExists",
    "Closed",
    "Collection",
    "CollectionStats",
    "Columns",
    "Corrupted",
    "Database",
    "DatabaseStats",
    "Explanation",
    "F",
    "FilterError",
    "Finding",
    "Flat",
    "Hit",
    "Hits",
    "IndexCheck",
    "InvalidInput",
    "Locked",
    "NotFound",
    "Poisoned",
    "PruneReport",
    "ReadOnly",
    "Record",
    "Records",
    "RepairReport",
    "RepairedCollection",
    "RestoreReport",
    "SnapshotInfo",
    "StorageFailed",
    "UnsupportedFormat",
    "VecdbError",
    "VectorField",
    "VerifyReport",
    "__version__",
    "list_snapshots",
    "open",
    "prune_snapshots",
    "repair",
    "restore",
    "verify",
    "verify_snapshot",
    "warm_up",
]
