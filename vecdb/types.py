"""The frozen values that rooms hand to each other, and the protocols between rooms that must not meet."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]
AnyArray = NDArray[Any]
Vectors = F32 | F16  # as they are stored

Id = str | int | uuid.UUID
Scalar = bool | int | float | str | bytes | dt.datetime | dt.date
Payload = Mapping[str, Any]
Progress = Callable[[int, int], None]  # (done, total); may raise to interrupt the work


class Metric(enum.IntEnum):
    """How near two vectors are. Smaller distances are nearer for every metric.

    COSINE 1 - cos(a, b), exactly 1 when either vector is zero.  DOT 1 - a.b.  L2 squared euclidean.
    The numbers are stored on disk and are passed to kernels.
    """

    COSINE = 0
    DOT = 1
    L2 = 2


VECTOR_DTYPES = ("float32", "float16")  # names as the user gives them, and as they are stored

METRIC_NAMES = {
    "cosine": Metric.COSINE,
    "cos": Metric.COSINE,
    "dot": Metric.DOT,
    "ip": Metric.DOT,
    "inner_product": Metric.DOT,
    "l2": Metric.L2,
    "euclidean": Metric.L2,
    "squared_euclidean": Metric.L2,
}


class Pages(Protocol):
    """The pages of mapped vectors, which may have to be read from the disk."""

    def faults(self) -> int:
        """How often this thread has waited for a page from the disk so far."""
        ...

    def scatter(self) -> None:
        """From now on single rows are read, here and there: read nothing around them."""
        ...

    def ask(self, rows: I32) -> None:
        """Read these rows from the disk, all at once, and do not wait for it."""
        ...


@dataclass(frozen=True, slots=True)
class Matrix:
    """The vectors of one field in one segment, borrowed by its indexes.

    vectors        float32 or float16 (rows, dim), C-contiguous, read-only, as the user gave them
    inverse_norms  float32 (rows,), 1 / |vector| and 0 for a zero vector; only under COSINE, else None
    pages          of the vectors, if they are mapped
    """

    vectors: Vectors
    inverse_norms: F32 | None
    metric: Metric
    pages: Pages | None = field(default=None, compare=False)

    @property
    def rows(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


ROWS_DENSITY = 16  # below rows / 16 a set is kept as rows, above as bits
SORT_DENSITY = 64  # above rows / 64, marking all rows is faster than sorting the rows of a set


@dataclass(frozen=True, slots=True)
class RowSet:
    """A set of rows of one segment: ascending unique int32 `rows`, or a bitset `bits`; exactly one is given.

    bits  uint64 words, row r is bit r % 64 of word r // 64, little bit order; padding bits are 0
    """

    count: int
    rows: I32 | None = None
    bits: U64 | None = None

    def holds(self, rows: I32) -> NDArray[np.bool_]:
        """For each of some rows, whether the set has it."""
        if self.bits is not None:
            words = self.bits[rows >> 6] >> (rows & 63).astype(np.uint64)
            return np.asarray(words & np.uint64(1), np.bool_)
        assert self.rows is not None
        if not len(self.rows):
            return np.zeros(len(rows), np.bool_)
        places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.asarray(self.rows[places] == rows)


@dataclass(frozen=True, slots=True)
class Equal:
    """Rows where a value at `path` (any element, for a list) equals one of `values`, of the same type.

    int and float are one type; bool, str, bytes and timestamps are types of their own.
    """

    path: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """Rows where a value at `path` (any element) lies between the bounds; None is unbounded on that side.

    Both bounds, where given, are of one comparable type.
    """

    path: str
    low: Scalar | None
    high: Scalar | None
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class Prefix:
    """Rows where a string at `path` (any element) starts with `text`."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Present:
    """Rows whose payload has `path`, with any value, null included."""

    path: str


@dataclass(frozen=True, slots=True)
class Null:
    """Rows whose payload has null at `path`."""

    path: str


@dataclass(frozen=True, slots=True)
class Search:
    """Rows where a string at `path` (any element) holds `pattern`: a text, or an RE2 expression when `regex`."""

    path: str
    pattern: str
    regex: bool


@dataclass(frozen=True, slots=True)
class Sized:
    """Rows where the value at `path` is a list of `low` to `high` elements, of whatever type; None: no bound."""

    path: str
    low: int = 0
    high: int | None = None


Probe = Equal | Within | Prefix | Present | Null | Search | Sized


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bounds on a number of rows. `exact` when low == high."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What is known of one payload path: how many rows have it, and which types were seen."""

    rows: int
    types: tuple[str, ...]


class CountSource(Protocol):
    """What an estimate needs to know of a segment: how many rows it has, and bounds on those that a probe matches."""

    @property
    def rows(self) -> int: ...

    def count(self, probe: Probe) -> Estimate: ...


class FieldSource(CountSource, Protocol):
    """The columns of one segment, as `filter.evaluate` sees them. Deleted rows are included."""

    def select(self, probe: Probe) -> RowSet: ...

    def among(self, probe: Probe, rows: I32) -> NDArray[np.bool_]:
        """For each of some ascending rows, whether the probe matches it."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """What an index can do and what it costs; all that the planner may know of a kind.

    code_bits         bits per dimension of the codes that a search reads
    masked            searches with a bitset at a bounded cost (a scan)
    graph             walks a graph, so that a sparse bitset costs more, not less
    lists             lists of an inverted file, of which a search scans some; 0 for another kind
    gathers           has a code of each row by itself, so that chosen rows can be scored by codes
    """

    kind: str
    rows: int
    dim: int
    code_bits: int
    masked: bool
    graph: bool
    lists: int = 0
    gathers: bool = False


class Arm(enum.StrEnum):
    """The ways to search one segment."""

    EXACT = "exact"  # score every allowed row with float32
    GATHER = "gather"  # score the codes of every allowed row, rescore the best
    EXCERPT = "excerpt"  # the same with copies of these codes side by side, which a filter that repeats has earned
    SCAN = "scan"  # scan compressed codes under a bitset, rescore the best
    GRAPH = "graph"  # walk the graph, collect allowed rows only
    LISTS = "lists"  # scan the nearest lists of an inverted file under a bitset, rescore the best
    NONE = "none"  # no row can match


@dataclass(frozen=True, slots=True)
class Plan:
    """The choice for one segment, with what it was based on."""

    arm: Arm
    reason: str
    rows: int
    matching: Estimate
    costs: Mapping[str, float] = field(default_factory=dict)  # arm -> predicted microseconds
    ef: int | None = None  # of a walk
    nprobe: int | None = None  # lists to scan
    budget: int | None = None  # distances after which a walk gives up
    fallback: Arm | None = None  # answers a query for which a walk, or the nearest lists, found too little
    source: str = ""  # of the costs, in words
    gives_up_us: float | None = None  # predicted for a walk that gives up; None: as long as one that does not
