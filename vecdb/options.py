"""What a user may choose, as frozen values that are checked when they are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.types import METRIC_NAMES, VECTOR_DTYPES, Metric

DIM_MAX = 65_535
K_MAX = 10_000
EF_MAX = 65_536
LISTS_MAX = 65_536


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int within [low, high], or InvalidInput; bool is not a number here."""
    if type(value) is not int and not isinstance(value, np.integer):
        raise InvalidInput(f"{name} must be an integer from {low} to {high}, not {value!r}")
    number = int(value)
    if not low <= number <= high:
        raise InvalidInput(f"{name} must be from {low} to {high}, not {number}")
    return number


def _set_int(options: Any, name: str, low: int, high: int) -> None:
    """Checks an attribute of a frozen dataclass, and makes a NumPy integer a plain one, which can be stored."""
    number = check_int(f"{type(options).__name__}({name}=)", getattr(options, name), low, high)
    object.__setattr__(options, name, number)


@dataclass(frozen=True, slots=True)
class Flat:
    """Scan compressed codes of every vector and rescore the best with float32. No training, no graph.

    bits      2 (default: four times faster, the best `rescore` rows decide) or 8 bits a dimension
    rescore   rows rescored with float32 per query; 0: with 2 bits those of the best 200 that may be among the k nearest
              (two fifths of them), with 8 bits the best 30
    """

    kind: ClassVar[str] = "flat"
    bits: int = 2
    rescore: int = 0

    def __post_init__(self) -> None:
        _set_int(self, "bits", 2, 8)
        if self.bits not in (2, 8):
            raise InvalidInput(f"Flat(bits=) must be 2 or 8, not {self.bits!r}")
        _set_int(self, "rescore", 0, K_MAX)


@dataclass(frozen=True, slots=True)
class HNSW:
    """A navigable small-world graph: compressed codes for the walk, float32 for the last decision.

    m                 links a new node makes; a row of the graph holds up to 2 * m (4 to 64)
    ef_construction   candidates considered for a new node's links (at least m)
    ef                candidates kept by a search that gives neither `ef` nor `recall`; 0: as many as found 99 % of the
                      k nearest for rows that were held out when the graph was built
    bits              2, 4 or 8 bits a dimension for the walk; 0: the least that serves a sample of the vectors well
    """

    kind: ClassVar[str] = "hnsw"
    m: int = 16
    ef_construction: int = 200
    ef: int = 0
    bits: int = 0

    def __post_init__(self) -> None:
        _set_int(self, "m", 4, 64)
        _set_int(self, "ef_construction", self.m, 4096)
        _set_int(self, "ef", 0, EF_MAX)
        _set_int(self, "bits", 0, 8)
        if self.bits not in (0, 2, 4, 8):
            raise InvalidInput(f"HNSW(bits=) must be 0, 2, 4 or 8, not {self.bits!r}")


@dataclass(frozen=True, slots=True)
class IVF:
    """Lists of near vectors: a search scans compressed codes of the nearest lists and rescores the best with float32.

    nlist     lists; 0: one for 256 vectors, fewer beyond two million. Segments below 4,096 vectors are scanned whole
    bits      1, 2, 4 or 8 bits a dimension for the scan
    nprobe    lists scanned by a search that gives neither `nprobe` nor `recall`; 0: as many as found 99 % of the k
              nearest for stored rows when the index was built
    rescore   rows rescored with float32 per query; 0: as few as lost nothing then
    """

    kind: ClassVar[str] = "ivf"
    nlist: int = 0
    bits: int = 2
    nprobe: int = 0
    rescore: int = 0

    def __post_init__(self) -> None:
        _set_int(self, "nlist", 0, LISTS_MAX)
        _set_int(self, "bits", 1, 8)
        if self.bits not in (1, 2, 4, 8):
            raise InvalidInput(f"IVF(bits=) must be 1, 2, 4 or 8, not {self.bits!r}")
        _set_int(self, "nprobe", 0, LISTS_MAX)
        _set_int(self, "rescore", 0, K_MAX)


@dataclass(frozen=True, slots=True)
class IVFPQ:
    """Lists as of IVF, whose codes are learned from the vectors: product quantisation.

    nlist      lists; 0: one for 256 vectors, fewer beyond two million
    m          parts that a vector is cut into, each of which becomes one code (at most one a dimension); 0: as many as
               make 2 bits a dimension, which is one for 2 dimensions with 4 bits, and for 4 dimensions with 8
    bits       4 (default) or 8 bits a code
    rotation   whether a rotation is learned with the codes (OPQ): nearer codes, for a longer build and dim^2 products a
               query
    nprobe     lists scanned by a search that gives neither `nprobe` nor `recall`; 0: as many as found 99 % of the k
               nearest for stored rows when the index was built
    rescore    rows rescored with float32 per query; 0: as few as lost nothing then
    """

    kind: ClassVar[str] = "ivfpq"
    nlist: int = 0
    m: int = 0
    bits: int = 4
    rotation: bool = False
    nprobe: int = 0
    rescore: int = 0

    def __post_init__(self) -> None:
        _set_int(self, "nlist", 0, LISTS_MAX)
        _set_int(self, "m", 0, DIM_MAX)
        _set_int(self, "bits", 4, 8)
        if self.bits not in (4, 8):
            raise InvalidInput(f"IVFPQ(bits=) must be 4 or 8, not {self.bits!r}")
        if not isinstance(self.rotation, bool):
            raise InvalidInput(f"IVFPQ(rotation=) must be True or False, not {self.rotation!r}")
        _set_int(self, "nprobe", 0, LISTS_MAX)
        _set_int(self, "rescore", 0, K_MAX)


IndexOptions = Flat | HNSW | IVF | IVFPQ
KINDS: dict[str, type[Flat] | type[HNSW] | type[IVF] | type[IVFPQ]] = {
    "flat": Flat,
    "hnsw": HNSW,
    "ivf": IVF,
    "ivfpq": IVFPQ,
}


def index_to_dict(options: IndexOptions) -> dict[str, Any]:
    return {"kind": options.kind, **asdict(options)}


def index_from_dict(values: dict[str, Any]) -> IndexOptions:
    rest = dict(values)
    return KINDS[rest.pop("kind")](**rest)


def parse_index(index: Any) -> IndexOptions | None:
    """The user's `index=`: an option value, a kind's name, or "auto" (None: chosen by size at every seal and merge)."""
    if isinstance(index, Flat | HNSW | IVF | IVFPQ):
        return index
    if index == "auto":
        return None
    if isinstance(index, str) and index.lower() in KINDS:
        return KINDS[index.lower()]()
    names = ", ".join(f'"{name}"' for name in ("auto", *KINDS))
    values = ", ".join(f"vecdb.{kind.__name__}(...)" for kind in KINDS.values())
    raise InvalidInput(f"index must be {names}, {values}; not {index!r}")


def parse_metric(metric: Any) -> Metric:
    if isinstance(metric, str) and metric.lower() in METRIC_NAMES:
        return METRIC_NAMES[metric.lower()]
    raise InvalidInput(f"metric must be one of {', '.join(METRIC_NAMES)}; not {metric!r}")


def parse_dtype(dtype: Any) -> str:
    if isinstance(dtype, str) and dtype in VECTOR_DTYPES:
        return dtype
    raise InvalidInput(f"dtype must be one of {', '.join(VECTOR_DTYPES)}; not {dtype!r}")


@dataclass(frozen=True, slots=True)
class VectorField:
    """One named vector of a record.

    dim      dimensions, or None: the first write decides
    metric   "cosine", "dot" or "l2" (and the usual aliases)
    index    "auto", "flat", "hnsw", "ivf", "ivfpq", or a value: vecdb.Flat(...), HNSW(...), IVF(...), IVFPQ(...)
    dtype    how the vectors are stored: "float32", or "float16" for half the disk: values up to 65,504, 11 bits of
             precision, fewer below 6e-5, 0 below 3e-8. Distances are those of the stored values
    """

    dim: int | None = None
    metric: str = "cosine"
    index: IndexOptions | str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dim is not None:
            _set_int(self, "dim", 1, DIM_MAX)
        parse_metric(self.metric)
        parse_index(self.index)
        parse_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which payload paths can be filtered, counted and ordered by. A path stands for what is below it too.

    only      these paths and no other; None: every path
    exclude   all paths but these, such as long texts: they are stored and returned, and cannot be filtered
    """

    only: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("only", "exclude"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _paths(f"Columns({name}=)", value))
        if self.only is not None and self.exclude:
            raise InvalidInput("Columns takes either only= or exclude=, not both")

    @property
    def all(self) -> bool:
        """Whether every path becomes a column."""
        return self.only is None and not self.exclude

    def covers(self, path: str) -> bool:
        """Whether the values at the path become a column."""
        if self.only is None:
            return not _below(path, self.exclude)
        return _below(path, self.only)


def _paths(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidInput(f'{name} must be a list of payload paths such as ["year", "author.name"], not {value!r}')
    paths = tuple(value)
    for path in paths:
        if not isinstance(path, str) or not path:
            raise InvalidInput(f'{name} holds {path!r}; a payload path is a string such as "year" or "author.name"')
    return tuple(sorted({str(path) for path in paths}))


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + ".") for root in roots)


def parse_columns(columns: Any) -> Columns:
    """The user's `columns=`: "all", a list of paths, or vecdb.Columns(...)."""
    if isinstance(columns, Columns):
        return columns
    if isinstance(columns, str):
        if columns == "all":
            return Columns()
    elif isinstance(columns, Iterable) and not isinstance(columns, Mapping | bytes):
        return Columns(only=tuple(columns))
    raise InvalidInput(
        f'columns must be "all", a list of payload paths, or vecdb.Columns(exclude=[...]); not {columns!r:.100}'
    )


SYNC_MODES = ("full", "interval", "none")
MAINTENANCE_MODES = ("auto", "manual")
PAYLOAD_CACHE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """How one process runs a database, in the words of `vecdb.open`; nothing of it is stored.

    interval_ms     how often sync="interval" syncs
    payload_cache   bytes of payloads that were read lately and are kept in memory; 0 keeps none
    """

    sync: str = "full"
    interval_ms: int = 1000
    maintenance: str = "auto"
    threads: int = 0
    wal_archive: str | None = None
    allow_network_fs: bool = False
    payload_cache: int = PAYLOAD_CACHE

    def __post_init__(self) -> None:
        if not isinstance(self.sync, str) or self.sync not in SYNC_MODES:
            raise InvalidInput(f"sync must be one of {', '.join(SYNC_MODES)}; not {self.sync!r}")
        if not isinstance(self.maintenance, str) or self.maintenance not in MAINTENANCE_MODES:
            raise InvalidInput(f"maintenance must be one of {', '.join(MAINTENANCE_MODES)}; not {self.maintenance!r}")
        _set_int(self, "interval_ms", 1, 3_600_000)
        _set_int(self, "threads", 0, 1024)
        _set_int(self, "payload_cache", 0, 2**40)
        if not isinstance(self.allow_network_fs, bool):
            raise InvalidInput(f"allow_network_fs must be True or False, not {self.allow_network_fs!r}")
