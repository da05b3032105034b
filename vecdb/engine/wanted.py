"""Which indexes a field of a segment should have: a function of its options and its size."""

from __future__ import annotations

from vecdb.options import HNSW, IVF, IVFPQ, Flat, IndexOptions
from vecdb.storage.schema import FieldMeta

CODED_ROWS_MIN = 1024  # rows below which float32 is as fast as codes
LISTS_ROWS_MIN = 4096  # rows below which lists are no faster than a scan of all codes
GRAPH_VALUES_MIN = 50_000 * 384  # vector values of a segment from which "auto" takes a graph


def wanted_options(field: FieldMeta, rows: int, dim: int) -> tuple[IndexOptions, ...]:
    """The indexes that a segment of this size should have: codes to scan, and a graph or lists where they pay.

    Lists hold the codes of all rows, so nothing is wanted beside them.
    """
    if rows < CODED_ROWS_MIN:
        return ()
    chosen = field.index
    flat = chosen if isinstance(chosen, Flat) else Flat()
    if isinstance(chosen, IVF | IVFPQ):
        return (flat,) if rows < LISTS_ROWS_MIN else (chosen,)
    if isinstance(chosen, Flat) or (chosen is None and rows * dim < GRAPH_VALUES_MIN):
        return (flat,)
    return (flat, chosen or HNSW())


def sealed_codes(field: FieldMeta, rows: int, dim: int, kinds: tuple[str, ...]) -> Flat | None:
    """The codes to write with a new segment whose field has indexes of these `kinds`; they serve until lists do."""
    wanted = wanted_options(field, rows, dim)
    if any(options.kind in kinds and not isinstance(options, HNSW) for options in wanted):
        return None
    return next((options for options in wanted if isinstance(options, Flat)), Flat()) if wanted else None
